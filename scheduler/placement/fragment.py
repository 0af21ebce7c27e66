"""Which node a demand costs least: the fragmentation score, as kernels over plain arrays.

A node in a state has a *value*: how many thousandths of a card it can still be expected to serve. Placing a demand
costs the value it destroys, ``value(before) - value(after)``; the cheapest node and slot win. The value has two parts:

* **Fill.** What is free is filled in thought, ``ROLLOUTS`` times, each with a short fixed series of demands drawn from
  the mix; the value is what they take, on average. FGD (Weng et al., ATC'23, section 4) asks whether one demand of each
  shape would fit; filling also sees that cards without processors, or four gaps without demands, serve nobody.
* **Scarcity.** Each copy of a shape that still fits keeps a price: the shape's share of the demand times (capacity of
  all nodes / capacity for this shape), squared for shapes of several cards. So whole nodes for gangs, and the few nodes
  with much memory or the card model asked for, are opened last, without a rule for any of them.

Demands without cards are scored by the same difference, so they go where processors have no cards to serve. Equal
scores are decided by content (fuller first, then a hash of class and free amounts), never by position or name: nodes
that tie in both are interchangeable, so the order in which nodes are listed cannot matter. All amounts are integers.

How to call it. Nodes are rows of ``cpu_milli``, ``memory_mib``, ``free_milli[D]`` (thousandths free per device slot, 0
in unused slots) and ``klass``, the row of the ``NodeClass`` given to ``mix_of``. A shape is (cpu, memory, cards,
card_milli) with one bitmask per class of the slots it may use, 0 where it may not run (without cards: any other value
where it may). ``score`` needs the node's ``value``, which the caller keeps and renews when the node changes. Both look
values up in a ``Memo`` by content. ``score`` changes the row of free amounts while it works and restores it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.placement.compiled import entry, inlined, kernel
from scheduler.placement.fill import SCRATCH, SLOTS, filled_in_lanes
from scheduler.placement.mix import FIXED, WHOLE_MILLI, Mix

Row = NDArray[np.signedinteger[Any]]
# Compiled kernels take their arguments by position, hence the PLR0917 below.
NONE = 2**62
"""Score of a node on which the shape does not fit."""
SLOTS_MOST = 256
"""Device slots of a node."""


class Memo(NamedTuple):
    """Values by content. Direct-mapped, overwritten when full; never changes a value, only its price."""

    keys: NDArray[np.uint64]
    values: NDArray[np.int64]
    room: Row
    lanes: NDArray[np.int32]
    """Scratch space, like ``room``."""


def memo_of(bits: int) -> Memo:
    """An empty memo of 2**bits entries (16 bytes each)."""
    return Memo(
        np.zeros(1 << bits, np.uint64),
        np.zeros(1 << bits, np.int64),
        np.zeros(SLOTS_MOST, np.int64),
        np.zeros(SCRATCH, np.int32),
    )


@inlined
def _mixed(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@inlined
def card_mark(kind: int, free: int) -> np.uint64:
    """What a card adds to the hash of its node's cards."""
    return _mixed((np.uint64(kind) * np.uint64(1024) + np.uint64(free + 1)) * np.uint64(0xD6E8FEB86659FD93))


@kernel
def cards_mark(mix: Mix, klass: int, free: Row) -> np.uint64:
    """A sum over slots: the order of slots of one kind does not matter, and one slot is cheaply changed."""
    cards = np.uint64(0)
    for d in range(mix.kinds.shape[1]):
        if mix.kinds[klass, d] >= 0:
            cards += card_mark(mix.kinds[klass, d], free[d])
    return cards


@kernel
def content(mix: Mix, klass: int, cpu: int, memory: int, cards: np.uint64) -> np.uint64:
    """A hash of what a node is and has free, never 0."""
    key = _mixed(mix.class_keys[klass] + np.uint64(cpu) * np.uint64(0x9E3779B97F4A7C15))
    key = _mixed(key + np.uint64(memory) * np.uint64(0x9E3779B97F4A7C15))
    return _mixed(key ^ cards) | np.uint64(1)


@kernel
def _best_slot(room: Row, mask: int, milli: int) -> int:
    """The fullest slot of the mask that has room, -1 for none."""
    best, least = -1, 1 << 30
    for d in range(room.shape[0]):
        if milli <= room[d] < least and (mask >> d) & 1:
            best, least = d, room[d]
    return best


@kernel
def _take(room: Row, mask: int, cards: int, milli: int) -> int:
    """Take ``milli`` of each of ``cards`` slots, fullest first; the mask taken, 0 when they do not fit."""
    fitting = 0
    for d in range(room.shape[0]):
        fitting += room[d] >= milli and (mask >> d) & 1
    taken = 0
    if fitting < cards:
        return taken
    for _ in range(cards):
        best = _best_slot(room, mask & ~taken, milli)
        room[best] -= milli
        taken |= 1 << best
    return taken


@kernel
def filled(mix: Mix, room: Row, klass: int, cpu: int, memory: int, free: Row) -> int:
    """Thousandths of cards that all rollouts together take. ``room`` is scratch space."""
    room = room[: free.shape[0]]
    idle, widest = 0, 0
    for d in range(free.shape[0]):
        idle += free[d]
        widest = max(widest, free[d])
    total = 0
    for series in range(mix.draws.shape[1]):
        for d in range(free.shape[0]):
            room[d] = free[d]
        cpu_left, memory_left, left, limit = cpu, memory, idle, widest
        for draw in range(mix.draws.shape[2]):
            s = mix.draws[klass, series, draw]
            if s < 0 or left == 0:
                break
            cards, milli = mix.amounts[s, 2], mix.amounts[s, 3]
            if milli > limit or mix.amounts[s, 0] > cpu_left or mix.amounts[s, 1] > memory_left:
                continue
            mask = mix.slots[s, klass]
            if cards > 1:
                if _take(room, mask, cards, milli) == 0:
                    continue
            else:
                best = _best_slot(room, mask, milli)
                if best < 0:
                    limit = milli - 1 if mask == mix.all_slots[klass] else limit
                    continue
                room[best] -= milli
            cpu_left -= mix.amounts[s, 0]
            memory_left -= mix.amounts[s, 1]
            left -= cards * milli
        total += idle - left
    return total


@kernel
def _kept(mix: Mix, klass: int, cpu: int, memory: int, free: Row) -> int:
    """The price of the copies of scarce shapes that still fit."""
    total, idle = 0, 0
    for d in range(free.shape[0]):
        idle += free[d]
    for s in range(mix.scarce_price.shape[0]):
        cpu_each, memory_each, cards, milli = mix.scarce_amounts[s]
        mask = mix.scarce_slots[s, klass]
        if mask == 0 or cpu_each > cpu or memory_each > memory or cards * milli > idle:
            continue
        copies = 0
        for d in range(free.shape[0]):
            if free[d] >= milli and (mask >> d) & 1:
                copies += 1 if cards > 1 or milli == WHOLE_MILLI else free[d] // milli
        if cards > 1:
            copies //= cards
        if copies > 1 or (copies == 1 and cpu_each == 0):
            copies = min(copies, cpu // cpu_each) if cpu_each > 0 else copies
            copies = min(copies, memory // memory_each) if memory_each > 0 else copies
        total += copies * mix.scarce_price[s]
    return total


@kernel
def known_value(mix: Mix, memo: Memo, klass: int, cpu: int, memory: int, free: Row, cards: np.uint64) -> int:
    """``value`` when the hash of the cards is known."""
    key = content(mix, klass, cpu, memory, cards)
    at = np.int64(key >> np.uint64(1)) & (memo.keys.shape[0] - 1)
    if memo.keys[at] == key:
        return int(memo.values[at])
    if mix.has_lanes[klass] and free.shape[0] >= SLOTS:
        fill = filled_in_lanes(mix, memo.lanes, klass, cpu, memory, free)
    else:
        fill = filled(mix, memo.room, klass, cpu, memory, free)
    worth = fill * FIXED + _kept(mix, klass, cpu, memory, free)
    memo.keys[at], memo.values[at] = key, worth
    return worth


@kernel
def value(mix: Mix, memo: Memo, klass: int, cpu: int, memory: int, free: Row) -> int:
    """What a node in this state can still be expected to serve, in thousandths of a card times ROLLOUTS times FIXED."""
    return known_value(mix, memo, klass, cpu, memory, free, cards_mark(mix, klass, free))


@kernel
def tie(mix: Mix, klass: int, cpu: int, memory: int, free: Row) -> int:
    """Decides between equal scores, lower first: fewer free cards, fewer free processors, then 28 bits of the hash.

    Nodes with equal ties are equal but for their names (and a chance of 2**-28 per pair of equally full nodes).
    """
    idle = 0
    for d in range(free.shape[0]):
        idle += free[d]
    rest = int(content(mix, klass, cpu, memory, cards_mark(mix, klass, free)) >> np.uint64(36))
    return (((idle << 20) | min(cpu, (1 << 20) - 1)) << 28) | rest


@entry
def score(
    mix: Mix,
    memo: Memo,
    before: int,
    klass: int,
    cpu: int,
    memory: int,
    free: Row,
    cpu_each: int,
    memory_each: int,
    cards: int,
    milli: int,
    mask: int,
) -> tuple[int, int]:
    """What placing the shape on the node costs, and the mask of slots it takes; ``(NONE, 0)`` when it does not fit.

    ``before`` is the node's value as it is. Lower is better; costs may be negative. ``mask`` is the slots the shape may
    use on this class. Of several possible slots the cheapest is taken, then the fullest.
    """
    if cpu_each > cpu or memory_each > memory or mask == 0:
        return NONE, 0
    cpu_left, memory_left = cpu - cpu_each, memory - memory_each
    hashed = cards_mark(mix, klass, free)
    if cards == 0:
        return before - known_value(mix, memo, klass, cpu_left, memory_left, free, hashed), 0
    if cards > 1:
        room = free.copy()
        taken = _take(room, mask, cards, milli)
        if taken == 0:
            return NONE, 0
        return before - value(mix, memo, klass, cpu_left, memory_left, room), taken
    best, least = -1, NONE
    for d in range(free.shape[0]):
        if free[d] < milli or not (mask >> d) & 1 or _is_repeated(mix, klass, free, mask, d):
            continue
        kind, had = mix.kinds[klass, d], free[d]
        after = hashed - card_mark(kind, had) + card_mark(kind, had - milli)
        free[d] = had - milli
        cost = before - known_value(mix, memo, klass, cpu_left, memory_left, free, after)
        free[d] = had
        if best < 0 or cost < least or (cost == least and had < free[best]):
            best, least = d, cost
    return (least, 1 << best) if best >= 0 else (NONE, 0)


@kernel
def _is_repeated(mix: Mix, klass: int, free: Row, mask: int, slot: int) -> bool:
    """Whether an earlier slot of the mask is of the same kind and as free."""
    for d in range(slot):
        if free[d] == free[slot] and (mask >> d) & 1 and mix.kinds[klass, d] == mix.kinds[klass, slot]:
            return True
    return False
