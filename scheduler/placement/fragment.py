"""Which node a demand costs least: the fragmentation score, as kernels over plain arrays.

A node in a state has a *value*: how many thousandths of a card it can still be expected to serve. Placing a demand
costs the value it destroys, ``value(before) - value(after)``; the cheapest node and device win. The value has two parts:

* **Fill.** What is left of the node is filled in thought, ``ROLLOUTS`` times, each with a short fixed series of demands
  drawn from the mix; the value is what they take, on average. FGD (Weng et al., ATC'23, section 4) asks whether *one* demand
  of each shape would fit; filling sees in addition that cards without processors, or four gaps without demands, serve nobody.
* **Scarcity.** Each copy of a shape that the node could take whole keeps a price: the shape's share of the demand times
  (capacity of all nodes / capacity for this shape), squared for shapes of several cards. So whole nodes for gangs and
  the few nodes that a card model or much memory needs are opened last, without a rule for any of them.

Demands without cards are scored by the same difference, so they go where processors have no cards to serve. Equal
scores are decided by content (fuller first, then a hash of class and free amounts), never by position or name: nodes that
tie in both are interchangeable, so the order in which nodes are listed cannot matter. All amounts are integers.

How to call it. Nodes are rows of ``cpu_milli``, ``memory_mib``, ``free_milli[D]`` (thousandths free per device slot, 0 in
unused slots) and ``klass``, the row of ``NodeClass`` given to ``mix_of``. A shape is (cpu, memory, cards, card_milli) with
one bitmask per class of the slots it may use, 0 where it may not run (without cards: any other value where it may).
``score`` needs the node's ``value``, which the caller keeps and renews when the node changes; ``Memo`` makes both cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

WHOLE_MILLI = 1000
NONE = np.int64(2**62)
"""Score of a node on which the shape does not fit."""
ROLLOUTS = 16
DRAWS = 16
"""Demands per rollout. Longer ones believe that every gap is filled some day, shorter ones do not see whole nodes."""
TYPICAL_PERCENT = 95
"""Draws come from the most frequent shapes that make up this share of demands (FGD, section 5.1)."""
SCARCE_RATIO = 2
"""Shapes of one card have a price of their own when less than 1/2 of the capacity can take them."""
FIXED = 1024
"""Fixed point of a value: thousandths of a card times ROLLOUTS times FIXED."""
MASK64 = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClass:
    """What nodes of one kind have when nothing runs on them."""

    cpu_milli: int
    memory_mib: int
    slots: tuple[int, ...]
    """Per device slot the kind of its card: slots of one kind are interchangeable."""
    count: int
    """Nodes of this class in the inventory."""
    key: int
    """Names the class by content (``content_key``), so that ties do not depend on the order of classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A shape and how often it is asked for."""

    cpu_milli: int
    memory_mib: int
    cards: int
    card_milli: int
    slots: tuple[int, ...]
    """Per class the bitmask of device slots it may use."""
    weight: int

    @property
    def order(self) -> tuple[int, ...]:
        """A total order: most frequent first."""
        return (-self.weight, self.cpu_milli, self.memory_mib, self.cards, self.card_milli, *self.slots)


class Mix(NamedTuple):
    """The demand mix and the classes of nodes, as arrays that kernels take. One row per shape, one column per class."""

    amounts: NDArray[np.int64]
    """[shape, 4]: cpu_milli, memory_mib, cards, card_milli of the shapes that draws name."""
    slots: NDArray[np.int64]
    """[shape, class]: device slots the shape may use."""
    draws: NDArray[np.int64]
    """[class, rollout, draw]: rows of ``amounts`` that could run on the class; -1 ends a series."""
    scarce_amounts: NDArray[np.int64]
    scarce_slots: NDArray[np.int64]
    scarce_price: NDArray[np.int64]
    """Price of one copy, in the unit of a value."""
    kinds: NDArray[np.int64]
    """[class, slot]: kind of card."""
    class_keys: NDArray[np.uint64]


class Memo(NamedTuple):
    """Values by content. Direct-mapped, overwritten when full; never changes a value, only its price."""

    keys: NDArray[np.uint64]
    values: NDArray[np.int64]
    room: NDArray[np.int64]
    """Scratch space."""


def memo_of(bits: int) -> Memo:
    """An empty memo of 2**bits entries (16 bytes each)."""
    return Memo(keys=np.zeros(1 << bits, np.uint64), values=np.zeros(1 << bits, np.int64), room=np.zeros(256, np.int64))


def splitmix64(value: int) -> int:
    """A good 64-bit mixer (Steele, Lea, Flood 2014)."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK64
    return value ^ (value >> 31)


def content_key(words: Sequence[int]) -> int:
    """A 64-bit key of a sequence of integers, the same in every process."""
    key = len(words)
    for word in words:
        key = splitmix64((key * GOLDEN + word + 1) & MASK64)
    return key


def mix_of(demands: Sequence[Demand], classes: Sequence[NodeClass]) -> Mix:
    """Prepare the mix for an inventory. Neither the order of demands nor that of classes changes a score."""
    ordered = sorted((d for d in demands if d.weight > 0), key=lambda d: d.order[:5])
    total = sum(d.weight for d in ordered)
    typical = _typical(ordered, total)
    scarce = [(d, p) for d in ordered if (p := _price(d, total, classes)) > 0]
    width = max((len(c.slots) for c in classes), default=1)
    kinds = np.full((len(classes), max(width, 1)), -1, np.int64)
    for row, c in enumerate(classes):
        kinds[row, : len(c.slots)] = c.slots
    return Mix(
        amounts=_amounts(typical),
        slots=_slots(typical, len(classes)),
        draws=_draws(typical, len(classes)),
        scarce_amounts=_amounts([d for d, _ in scarce]),
        scarce_slots=_slots([d for d, _ in scarce], len(classes)),
        scarce_price=np.array([p for _, p in scarce], np.int64),
        kinds=kinds,
        class_keys=np.array([c.key for c in classes], np.uint64),
    )


def _typical(ordered: Sequence[Demand], total: int) -> list[Demand]:
    seen, kept = 0, []
    for demand in ordered:
        kept.append(demand)
        seen += demand.weight
        if seen * 100 >= TYPICAL_PERCENT * total:
            break
    return kept


def _copies(demand: Demand, row: int, node: NodeClass) -> int:
    """How many of them an empty node takes when nothing else runs there."""
    cards = demand.slots[row].bit_count()
    copies = cards * (WHOLE_MILLI // demand.card_milli) if demand.cards == 1 else cards // demand.cards
    if demand.cpu_milli:
        copies = min(copies, node.cpu_milli // demand.cpu_milli)
    if demand.memory_mib:
        copies = min(copies, node.memory_mib // demand.memory_mib)
    return copies


def _price(demand: Demand, total: int, classes: Sequence[NodeClass]) -> int:
    """Share of demand x (capacity / capacity for this shape) to the power of 1, of 2 for several cards; 0 is not scarce."""
    if demand.cards == 0 or demand.card_milli == 0:
        return 0
    capacity = sum(c.count * len(c.slots) * WHOLE_MILLI for c in classes)
    size = demand.cards * demand.card_milli
    supply = size * sum(c.count * _copies(demand, row, c) for row, c in enumerate(classes))
    if supply == 0 or (demand.cards == 1 and supply * SCARCE_RATIO >= capacity):
        return 0
    power = 1 if demand.cards == 1 else 2
    return int(FIXED * ROLLOUTS * size * demand.weight * capacity**power // (total * supply**power))


def _amounts(demands: Sequence[Demand]) -> NDArray[np.int64]:
    rows = [(d.cpu_milli, d.memory_mib, d.cards, d.card_milli) for d in demands]
    return np.array(rows, np.int64).reshape(len(rows), 4)


def _slots(demands: Sequence[Demand], classes: int) -> NDArray[np.int64]:
    return np.array([d.slots for d in demands], np.int64).reshape(len(demands), classes)


def _draws(typical: Sequence[Demand], classes: int) -> NDArray[np.int64]:
    """Equidistant quantiles of the mix, put into series in an order that is fixed but has no pattern."""
    length = ROLLOUTS * DRAWS
    shuffled = sorted(range(length), key=splitmix64_of)
    bounds = np.cumsum([d.weight for d in typical], dtype=np.int64)
    draws = np.full((classes, ROLLOUTS, DRAWS), -1, np.int64)
    if not typical:
        return draws
    for series in range(ROLLOUTS):
        quantiles = shuffled[series * DRAWS : (series + 1) * DRAWS]
        shapes = [
            int(np.searchsorted(bounds, (2 * q + 1) * int(bounds[-1]) // (2 * length), "right")) for q in quantiles
        ]
        for row in range(classes):
            able = [s for s in shapes if typical[s].cards and typical[s].slots[row]]
            draws[row, series, : len(able)] = able
    return draws


def splitmix64_of(index: int) -> int:
    """The index-th number of the splitmix64 stream that starts at 1."""
    return splitmix64((1 + (index + 1) * GOLDEN) & MASK64)


@njit(cache=True, inline="always", _nrt=False)
def _mixed(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True, _nrt=False)
def content(mix: Mix, klass: int, cpu: int, memory: int, free: NDArray[np.int64]) -> np.uint64:
    """A hash of what a node is and has free. The order of slots of one kind does not matter. Never 0."""
    head = _mixed(mix.class_keys[klass] + np.uint64(cpu) * np.uint64(0x9E3779B97F4A7C15))
    head = _mixed(head + np.uint64(memory) * np.uint64(0x9E3779B97F4A7C15))
    cards = np.uint64(0)
    for d in range(mix.kinds.shape[1]):
        kind = mix.kinds[klass, d]
        if kind >= 0:
            cards += _mixed(
                (np.uint64(kind) * np.uint64(1024) + np.uint64(free[d] + 1)) * np.uint64(0xD6E8FEB86659FD93)
            )
    return _mixed(head ^ cards) | np.uint64(1)


@njit(cache=True, _nrt=False)
def _best_slot(room: NDArray[np.int64], mask: int, milli: int) -> int:
    """The fullest slot of the mask that has room, -1 for none."""
    best = -1
    for d in range(room.shape[0]):
        if room[d] >= milli and (mask >> d) & 1 and (best < 0 or room[d] < room[best]):
            best = d
    return best


@njit(cache=True, _nrt=False)
def _take(room: NDArray[np.int64], mask: int, cards: int, milli: int) -> int:
    """Take ``milli`` of each of ``cards`` slots, fullest first; the mask taken, 0 (and nothing taken) when they do not fit."""
    fitting = 0
    for d in range(room.shape[0]):
        if room[d] >= milli and (mask >> d) & 1:
            fitting += 1
    taken = 0
    if fitting < cards:
        return taken
    for _ in range(cards):
        best = _best_slot(room, mask & ~taken, milli)
        room[best] -= milli
        taken |= 1 << best
    return taken


@njit(cache=True, _nrt=False)
def _filled(mix: Mix, room: NDArray[np.int64], klass: int, cpu: int, memory: int, free: NDArray[np.int64], idle: int) -> int:
    """Thousandths of cards that all rollouts together take. ``room`` is scratch space."""
    room = room[: free.shape[0]]
    total = 0
    for series in range(mix.draws.shape[1]):
        for d in range(free.shape[0]):
            room[d] = free[d]
        cpu_left, memory_left, left = cpu, memory, idle
        for draw in range(mix.draws.shape[2]):
            s = mix.draws[klass, series, draw]
            if s < 0 or left == 0:
                break
            if mix.amounts[s, 0] > cpu_left or mix.amounts[s, 1] > memory_left:
                continue
            cards, milli = mix.amounts[s, 2], mix.amounts[s, 3]
            if cards == 1:
                best = _best_slot(room, mix.slots[s, klass], milli)
                if best < 0:
                    continue
                room[best] -= milli
            elif _take(room, mix.slots[s, klass], cards, milli) == 0:
                continue
            cpu_left -= mix.amounts[s, 0]
            memory_left -= mix.amounts[s, 1]
            left -= cards * milli
        total += idle - left
    return total


@njit(cache=True, _nrt=False)
def kept(mix: Mix, klass: int, cpu: int, memory: int, free: NDArray[np.int64]) -> int:
    """The price of the copies of scarce shapes that still fit."""
    total = np.int64(0)
    for s in range(mix.scarce_price.shape[0]):
        cpu_each, memory_each = mix.scarce_amounts[s, 0], mix.scarce_amounts[s, 1]
        mask = mix.scarce_slots[s, klass]
        if mask == 0 or cpu_each > cpu or memory_each > memory:
            continue
        cards, milli = mix.scarce_amounts[s, 2], mix.scarce_amounts[s, 3]
        copies = 0
        for d in range(free.shape[0]):
            if free[d] >= milli and (mask >> d) & 1:
                copies += free[d] // milli if cards == 1 else 1
        copies //= cards
        if cpu_each > 0:
            copies = min(copies, cpu // cpu_each)
        if memory_each > 0:
            copies = min(copies, memory // memory_each)
        total += copies * mix.scarce_price[s]
    return total


@njit(cache=True, _nrt=False)
def value(mix: Mix, memo: Memo, klass: int, cpu: int, memory: int, free: NDArray[np.int64]) -> np.int64:
    """What a node in this state can still be expected to serve, in thousandths of a card times ROLLOUTS times FIXED."""
    idle = 0
    for d in range(free.shape[0]):
        idle += free[d]
    if idle == 0:
        return np.int64(0)
    key = content(mix, klass, cpu, memory, free)
    at = np.int64(key >> np.uint64(1)) & (memo.keys.shape[0] - 1)
    if memo.keys[at] != key:
        filled = _filled(mix, memo.room, klass, cpu, memory, free, idle)
        memo.values[at] = filled * FIXED + kept(mix, klass, cpu, memory, free)
        memo.keys[at] = key
    return memo.values[at]


@njit(cache=True, _nrt=False)
def tie(mix: Mix, klass: int, cpu: int, memory: int, free: NDArray[np.int64]) -> np.int64:
    """Decides between equal scores, lower first: fewer free cards, fewer free processors, then 28 bits of the hash.

    Nodes with equal ties are equal but for their names (and a chance of 2**-28 per pair of equally full nodes).
    """
    idle = np.int64(0)
    for d in range(free.shape[0]):
        idle += free[d]
    fullness = (idle << np.int64(20)) | np.int64(min(cpu, (1 << 20) - 1))
    return (fullness << np.int64(28)) | np.int64(content(mix, klass, cpu, memory, free) >> np.uint64(36))


@njit(cache=True)
def score(
    mix: Mix, memo: Memo, before: int, klass: int, cpu: int, memory: int, free: NDArray[np.int64],
    cpu_each: int, memory_each: int, cards: int, milli: int, mask: int,
) -> tuple[np.int64, np.int64]:  # fmt: skip
    """What placing the shape on the node costs, and the mask of slots it takes; ``(NONE, 0)`` when it does not fit.

    ``before`` is the node's value as it is. Lower is better; costs may be negative. ``mask`` is the slots the shape may
    use on this class. Of several possible slots the cheapest is taken, then the fullest.
    """
    none = (NONE, np.int64(0))
    if cpu_each > cpu or memory_each > memory or mask == 0:
        return none
    cpu_left, memory_left = cpu - cpu_each, memory - memory_each
    if cards == 0:
        return before - value(mix, memo, klass, cpu_left, memory_left, free), np.int64(0)
    room = free.copy()
    if cards > 1:
        taken = _take(room, mask, cards, milli)
        if taken == 0:
            return none
        return before - value(mix, memo, klass, cpu_left, memory_left, room), np.int64(taken)
    best, best_cost = -1, NONE
    for d in range(free.shape[0]):
        if free[d] < milli or not (mask >> d) & 1 or _is_repeated(mix, klass, free, mask, d):
            continue
        room[d] -= milli
        cost = before - value(mix, memo, klass, cpu_left, memory_left, room)
        room[d] += milli
        if best < 0 or cost < best_cost or (cost == best_cost and free[d] < free[best]):
            best, best_cost = d, cost
    return (best_cost, np.int64(1) << best) if best >= 0 else none


@njit(cache=True, _nrt=False)
def _is_repeated(mix: Mix, klass: int, free: NDArray[np.int64], mask: int, slot: int) -> bool:
    """Whether an earlier slot of the mask is of the same kind and as free."""
    for d in range(slot):
        if free[d] == free[slot] and (mask >> d) & 1 and mix.kinds[klass, d] == mix.kinds[klass, slot]:
            return True
    return False
