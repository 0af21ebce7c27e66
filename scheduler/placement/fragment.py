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

Values are worked out of cpu and memory in whole levels (``mix.LEVELS_PER_CARD``), so that the states a farm goes
through have few values between them and nearly every one is found in the ``Memo``.

How to call it. Nodes are rows of ``cpu_milli``, ``memory_mib``, ``free_milli[D]`` (thousandths free per device slot, 0
in unused slots) and ``klass``, the row of the ``NodeClass`` given to ``mix_of``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.placement.compiled import entry, inlined, kernel
from scheduler.placement.fill import (
    CPU,
    MEMORY,
    SCRATCH,
    SLOTS,
    Lanes,
    filled_in_lanes,
    kept_in_lanes,
    lanes_of,
    used_in_lanes,
)
from scheduler.placement.mix import FIXED, PARTS, WHOLE_MILLI, Mix

Row = NDArray[np.signedinteger[Any]]
# Compiled kernels take their arguments by position, hence the PLR0917 below.
SLOTS_MOST = 256
"""Device slots of a node."""
ANY_LEVEL = 2**15
"""Stands for all levels in the key of what a fill takes when cpu and memory do not bind."""
PART_BITS, PART_MOST = 16, 2**16 - 1
"""Place of parts in its entry: what it took in thousandths, most parts of cpu and of memory."""


class Memo(NamedTuple):
    """Values and fills by content. Direct-mapped, overwritten when full; never changes a value, only its price."""

    entries: NDArray[np.uint64]
    """[entry, 2]: key and value."""
    room: Row
    """Scratch space of ``filled``."""
    lanes: NDArray[np.int16]
    """Likewise of ``filled_in_lanes``."""


def memo_of(bits: int) -> Memo:
    """An empty memo of 2**bits entries (16 bytes each)."""
    return Memo(
        entries=np.zeros((1 << bits, 2), np.uint64),
        room=np.zeros(SLOTS_MOST, np.int64),
        lanes=np.zeros(SCRATCH, np.int16),
    )


@inlined
def mixed(x: np.uint64) -> np.uint64:
    """A good 64-bit mixer (``mix.splitmix64``)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@inlined
def card_mark(kind: int, free: int) -> np.uint64:
    """What a card adds to the hash of its node's cards."""
    return mixed((np.uint64(kind) * np.uint64(1024) + np.uint64(free + 1)) * np.uint64(0xD6E8FEB86659FD93))


@inlined
def cards_mark(mix: Mix, klass: int, free: Row) -> np.uint64:
    """A sum over slots: the order of slots of one kind does not matter, and one slot is cheaply changed."""
    cards = np.uint64(0)
    for d in range(mix.kinds.shape[1]):
        if mix.kinds[klass, d] >= 0:
            cards += card_mark(mix.kinds[klass, d], free[d])
    return cards


@inlined
def content(mix: Mix, klass: int, cpu: int, memory: int, cards: np.uint64) -> np.uint64:
    """A hash of what a node is and has free, never 0."""
    key = mixed(mix.class_keys[klass] + np.uint64(cpu) * np.uint64(0x9E3779B97F4A7C15))
    key = mixed(key + np.uint64(memory) * np.uint64(0x9E3779B97F4A7C15))
    return mixed(key ^ cards) | np.uint64(1)


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
    """Thousandths of cards that all rollouts together take; cpu and memory in levels. ``room`` is scratch space."""
    room = room[: free.shape[0]]
    idle, widest = 0, 0
    for d in range(free.shape[0]):
        idle += free[d]
        widest = max(widest, free[d])
    total = 0
    for series in range(mix.draws.shape[1]):
        for d in range(free.shape[0]):
            room[d] = free[d]
        cpu_left, memory_left, left, limit = cpu * PARTS, memory * PARTS, idle, widest
        for draw in range(mix.draws.shape[2]):
            s = mix.draws[klass, series, draw]
            if s < 0 or left == 0:
                break
            cards, milli = mix.amounts[s, 2], mix.amounts[s, 3]
            cpu_each, memory_each = mix.needs[s, klass, 0], mix.needs[s, klass, 1]
            if milli > limit or cpu_each > cpu_left or memory_each > memory_left:
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
            cpu_left -= cpu_each
            memory_left -= memory_each
            left -= cards * milli
        total += idle - left
    return total


@kernel
def kept(mix: Mix, klass: int, cpu: int, memory: int, free: Row) -> int:
    """The price of the copies of scarce shapes that still fit; cpu and memory in levels."""
    total = 0
    for lane in range(mix.kept.rows.shape[1]):
        s = mix.kept.rows[klass, lane]
        if s < 0:
            break
        cards, milli, mask = mix.scarce_amounts[s, 2], mix.scarce_amounts[s, 3], mix.scarce_slots[s, klass]
        copies = 0
        for d in range(free.shape[0]):
            if free[d] >= milli and (mask >> d) & 1:
                copies += 1 if cards > 1 or milli == WHOLE_MILLI else free[d] // milli
        caps = mix.kept.caps[klass]
        total += min(copies // cards, caps[0, cpu, lane], caps[1, memory, lane]) * mix.scarce_price[s]
    return total


@inlined
def level(mix: Mix, klass: int, kind: int, amount: int) -> int:
    """Whole levels of cpu (``kind`` 0) or memory (1) in an amount."""
    return min(max(amount, 0) // mix.grains[klass, kind], mix.tops[klass])


@inlined
def known_value(mix: Mix, memo: Memo, klass: int, cpu: int, memory: int, free: Row, cards: np.uint64) -> int:
    """What a node in this state can still be expected to serve, in thousandths of a card times ROLLOUTS times FIXED.

    Cpu and memory in levels; ``cards`` is ``cards_mark`` of ``free``.
    """
    entries, klass_key = memo.entries, mix.class_keys[klass]
    key = _key(klass_key, cpu, memory, cards)
    at = _place(entries, key)
    if entries[at, 0] != key:
        if mix.has_lanes[klass] and free.shape[0] >= SLOTS:
            worth = _value_in_lanes(lanes_of(mix, klass), memo, klass_key, mix.tops[klass], cpu, memory, free, cards)
        else:
            worth = _value(mix, memo.room, klass, cpu, memory, free)
        entries[at, 1] = np.uint64(worth)
        entries[at, 0] = key
    return int(np.int64(entries[at, 1]))


@inlined
def _key(klass_key: np.uint64, cpu: int, memory: int, cards: np.uint64) -> np.uint64:
    """A hash of a state, never 0."""
    levels = klass_key + np.uint64((cpu << 16) + memory) * np.uint64(0x9E3779B97F4A7C15)
    return mixed(mixed(levels) ^ cards) | np.uint64(1)


@inlined
def _place(entries: NDArray[np.uint64], key: np.uint64) -> int:
    return int(np.int64(key >> np.uint64(1)) & (entries.shape[0] - 1))


@kernel
def _value_in_lanes(
    asks: Lanes, memo: Memo, klass_key: np.uint64, top: int, cpu: int, memory: int, free: Row, cards: np.uint64
) -> int:
    """The value of a node of a class that has lanes.

    It is first filled as if all its cpu and memory were free. If no rollout then took more than there is, each went as
    it would have gone, so what they took is known for all states that differ in cpu and memory only and have as much.
    """
    entries, room = memo.entries, memo.lanes
    key = _key(klass_key, ANY_LEVEL, ANY_LEVEL, cards)
    at = _place(entries, key)
    if entries[at, 0] != key:
        fill = filled_in_lanes(asks, room, top, top, free)
        used = (used_in_lanes(room, CPU, top) << PART_BITS) + used_in_lanes(room, MEMORY, top)
        entries[at, 1] = np.uint64((fill << (2 * PART_BITS)) + used)
        entries[at, 0] = key
    known = int(np.int64(entries[at, 1]))
    fill = known >> (2 * PART_BITS)
    if cpu * PARTS < (known >> PART_BITS) & PART_MOST or memory * PARTS < known & PART_MOST:
        fill = filled_in_lanes(asks, room, cpu, memory, free)
    return fill * FIXED + kept_in_lanes(asks, cpu, memory, free)


@kernel
def _value(mix: Mix, room: Row, klass: int, cpu: int, memory: int, free: Row) -> int:
    fill = filled(mix, room, klass, cpu, memory, free)
    return fill * FIXED + kept(mix, klass, cpu, memory, free)


@entry
def value(mix: Mix, memo: Memo, klass: int, cpu_milli: int, memory_mib: int, free: Row) -> int:
    """``known_value`` of amounts."""
    cpu, memory = level(mix, klass, 0, cpu_milli), level(mix, klass, 1, memory_mib)
    return known_value(mix, memo, klass, cpu, memory, free, cards_mark(mix, klass, free))
