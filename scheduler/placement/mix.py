"""The demand mix that placement prepares for: typical shapes to draw from, and the price of scarce ones.

``mix_of`` works from an inventory of node classes and a list of demands with weights; the kernels of
``scheduler.placement.fragment`` take its arrays. The order of either list changes no score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.placement.compiled import called

WHOLE_MILLI = 1000
ROLLOUTS = 16
DRAWS = 16
"""Demands per rollout. Longer ones believe that every gap is filled some day, shorter ones do not see whole nodes."""
TYPICAL_PERCENT = 95
"""Draws come from the most frequent shapes that make up this share of demands (FGD, section 5.1)."""
SCARCE_RATIO = 2
"""Shapes of one card have a price of their own when less than 1/2 of the capacity can take them."""
GANG_PERCENT = 125
"""Price of shapes of several cards, in percent of what their share says: a safety margin for whole nodes."""
FIXED = 1024
"""Fixed point of a value: thousandths of a card times ROLLOUTS times FIXED."""
LEVELS_PER_CARD = 3
"""Cpu and memory are weighed in levels: so many to each card's share of its node. What is free is rounded down and what
is asked up, so that a farm goes through few states; work that asks for its cards' share of the node meets whole levels.
Whether a demand fits is never rounded. On openb 2 levels lose 0.3 points on one list, 4 gain nothing."""
LANE_NEVER, LANE_SLOTS = 30_000, 8
"""More parts than a node and more thousandths than a card has; most device slots of a node filled side by side."""
PARTS = 2**14 // (LANE_SLOTS * LEVELS_PER_CARD)
"""Parts of a level, in which demands are counted: as fine as 16 bits allow for the widest node filled side by side."""
KEPT_LANES, CAP_NEVER = 8, 2**30
"""Scarce shapes are weighed by so many; more copies than any node has."""
RECIPROCAL_BITS, FEW_BITS = 20, 10
"""``(n * -(-2**bits // d)) >> bits`` is ``n // d`` for n and d up to 1,000 (20 bits), and up to 16 (10 bits)."""
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

    def order(self, keys: Sequence[int]) -> tuple[int, ...]:
        """A total order, most frequent first; ``keys`` name the classes, whatever order they are in."""
        places = [word for pair in sorted(zip(keys, self.slots, strict=True)) for word in pair]
        return (-self.weight, self.cpu_milli, self.memory_mib, self.cards, self.card_milli, *places)


class Kept(NamedTuple):
    """The scarce shapes that may run on each class, as ``fill.kept_in_lanes`` reads them: a lane per shape."""

    rows: NDArray[np.int64]
    """[class, lane]: row of ``Mix.scarce_amounts``; -1: none."""
    price: NDArray[np.int64]
    """[class, lane]: 0 in lanes without a shape."""
    reciprocals: NDArray[np.int32]
    """[class, 2, lane]: of thousandths per card and of cards per copy."""
    caps: NDArray[np.int32]
    """[class, 2, level, lane]: copies that so much cpu, or memory, is enough for."""


class Mix(NamedTuple):
    """The demand mix and the classes of nodes, as arrays that kernels take. A row per shape, a column per class."""

    amounts: NDArray[np.int64]
    """[shape, 4]: cpu_milli, memory_mib, cards, card_milli of the shapes that draws name."""
    slots: NDArray[np.int64]
    """[shape, class]: device slots the shape may use."""
    draws: NDArray[np.int64]
    """[class, rollout, draw]: rows of ``amounts`` that could run on the class; -1 ends a series."""
    needs: NDArray[np.int64]
    """[shape, class, 2]: cpu and memory of the shape in parts of the class's levels."""
    scarce_amounts: NDArray[np.int64]
    scarce_slots: NDArray[np.int64]
    scarce_price: NDArray[np.int64]
    """Price of one copy, in the unit of a value."""
    grains: NDArray[np.int64]
    """[class, 2]: cpu_milli and memory_mib of one level."""
    tops: NDArray[np.int64]
    """[class]: levels of an empty node."""
    kept: Kept
    kinds: NDArray[np.int64]
    """[class, slot]: kind of card, -1 for no card."""
    all_slots: NDArray[np.int64]
    """[class]: the mask of all its slots."""
    class_keys: NDArray[np.uint64]
    lanes: NDArray[np.int16]
    """[class, draw, 3 x ROLLOUTS]: parts of cpu and memory, thousandths of draws of one card, a lane per rollout."""
    gang_lanes: NDArray[np.int16]
    """[class, draw, 4 x ROLLOUTS]: likewise of draws of several cards, and how many."""
    gangs: NDArray[np.bool_]
    """[class, draw]: whether some rollout draws several cards there."""
    has_lanes: NDArray[np.bool_]
    """[class]: whether ``scheduler.placement.fill`` can fill it."""


def splitmix64(value: int) -> int:
    """A good 64-bit mixer (Steele, Lea, Flood 2014)."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK64
    return value ^ (value >> 31)


def content_key(content: bytes) -> int:
    """A 64-bit key, the same in every process: ``splitmix64`` over byte after byte, of hundreds per node of a park."""
    return int(_content_key(np.frombuffer(content, np.uint8)))


@called
def _content_key(content: NDArray[np.uint8]) -> np.uint64:
    key = np.uint64(len(content))
    for byte in content:
        key = key * np.uint64(GOLDEN) + np.uint64(byte) + np.uint64(1)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        key ^= key >> np.uint64(31)
    return key


def mix_of(demands: Sequence[Demand], classes: Sequence[NodeClass]) -> Mix:
    """Prepare the mix for an inventory. Neither the order of demands nor that of classes changes a score."""
    keys = [c.key for c in classes]
    ordered = sorted((d for d in demands if d.weight > 0), key=lambda d: d.order(keys))
    total = sum(d.weight for d in ordered)
    typical = _typical(ordered, total)
    scarce = [(d, p) for d in ordered if (p := _price(d, total, classes)) > 0]
    width = max((len(c.slots) for c in classes), default=1)
    kinds = np.full((len(classes), max(width, 1)), -1, np.int64)
    for row, c in enumerate(classes):
        kinds[row, : len(c.slots)] = c.slots
    amounts, slots, draws = _amounts(typical), _slots(typical, len(classes)), _draws(typical, len(classes))
    scarce_amounts, scarce_slots = _amounts([d for d, _ in scarce]), _slots([d for d, _ in scarce], len(classes))
    scarce_price = np.array([p for _, p in scarce], np.int64)
    all_slots = np.array([(1 << len(c.slots)) - 1 for c in classes], np.int64)
    widths = np.array([len(c.slots) for c in classes], np.int64)
    tops = LEVELS_PER_CARD * np.maximum(widths, 1)
    have = np.array([(c.cpu_milli, c.memory_mib) for c in classes], np.int64).reshape(len(classes), 2)
    grains = np.maximum(have // tops[:, None], 1)
    needs = _needs(amounts, grains)
    masks = np.concatenate([slots[amounts[:, 2] > 0], scarce_slots])
    return Mix(
        amounts=amounts,
        slots=slots,
        draws=draws,
        needs=needs,
        scarce_amounts=scarce_amounts,
        scarce_slots=scarce_slots,
        scarce_price=scarce_price,
        grains=grains,
        tops=tops,
        kept=_kept(scarce_amounts, scarce_slots, scarce_price, _needs(scarce_amounts, grains), tops),
        kinds=kinds,
        all_slots=all_slots,
        class_keys=np.array([c.key for c in classes], np.uint64),
        lanes=_lanes(amounts, draws, needs, is_gang=False),
        gang_lanes=_lanes(amounts, draws, needs, is_gang=True),
        gangs=((draws >= 0) & (amounts[draws, 2] > 1)).any(axis=1) if len(amounts) else draws[:, 0] >= 0,
        has_lanes=((masks == all_slots) | (masks == 0)).all(axis=0) & (widths <= LANE_SLOTS),
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
    """Share of demand x (capacity / capacity for the shape) to the power of 1, of 2 for gangs; 0: not scarce."""
    if demand.cards == 0 or demand.card_milli == 0:
        return 0
    capacity = sum(c.count * len(c.slots) * WHOLE_MILLI for c in classes)
    size = demand.cards * demand.card_milli
    supply = size * sum(c.count * _copies(demand, row, c) for row, c in enumerate(classes))
    if supply == 0 or (demand.cards == 1 and supply * SCARCE_RATIO >= capacity):
        return 0
    power, percent = (1, 100) if demand.cards == 1 else (2, GANG_PERCENT)
    worth = FIXED * ROLLOUTS * size * demand.weight * capacity**power
    return _rounded(int(percent * worth // (100 * total * supply**power)))


def _rounded(price: int) -> int:
    """To four binary digits, so that one node more or less seldom changes a price and with it every score."""
    drop = max(price.bit_length() - 4, 0)
    return price >> drop << drop


def _amounts(demands: Sequence[Demand]) -> NDArray[np.int64]:
    rows = [(d.cpu_milli, d.memory_mib, d.cards, d.card_milli) for d in demands]
    return np.array(rows, np.int64).reshape(len(rows), 4)


def _slots(demands: Sequence[Demand], classes: int) -> NDArray[np.int64]:
    return np.array([d.slots for d in demands], np.int64).reshape(len(demands), classes)


def _draws(typical: Sequence[Demand], classes: int) -> NDArray[np.int64]:
    """Equidistant quantiles of the mix, put into series in an order that is fixed but has no pattern."""
    draws = np.full((classes, ROLLOUTS, DRAWS), -1, np.int64)
    if not typical:
        return draws
    shuffled, length = _shuffled(), ROLLOUTS * DRAWS
    bounds = np.cumsum([d.weight for d in typical], dtype=np.int64)
    for series in range(ROLLOUTS):
        quantiles = shuffled[series * DRAWS : (series + 1) * DRAWS]
        at = [(2 * q + 1) * int(bounds[-1]) // (2 * length) for q in quantiles]
        shapes = [int(s) for s in np.searchsorted(bounds, at, "right")]
        for row in range(classes):
            able = [s for s in shapes if typical[s].cards and typical[s].slots[row]]
            draws[row, series, : len(able)] = able
    return draws


def _needs(amounts: NDArray[np.int64], grains: NDArray[np.int64]) -> NDArray[np.int64]:
    """[shape, class, 2]. Rounded down, so that what fills a node exactly still does."""
    return amounts[:, None, :2] * PARTS // grains[None, :, :]


def _lanes(
    amounts: NDArray[np.int64], draws: NDArray[np.int64], needs: NDArray[np.int64], *, is_gang: bool
) -> NDArray[np.int16]:
    classes, rollouts, length = draws.shape
    columns = (3, 2) if is_gang else (3,)
    rows = 2 + len(columns)
    lanes = np.full((classes, length, rows, rollouts), LANE_NEVER, np.int64)
    klass, rollout, draw = np.nonzero(draws >= 0)
    shape = draws[klass, rollout, draw]
    ours = (amounts[shape, 2] > 1) == is_gang
    klass, rollout, draw, shape = klass[ours], rollout[ours], draw[ours], shape[ours]
    lanes[klass, draw, :, rollout] = np.hstack([needs[shape, klass], amounts[shape][:, columns]])
    return np.minimum(lanes, LANE_NEVER).astype(np.int16).reshape(classes, length, rows * rollouts)


def _kept(
    amounts: NDArray[np.int64],
    slots: NDArray[np.int64],
    price: NDArray[np.int64],
    needs: NDArray[np.int64],
    tops: NDArray[np.int64],
) -> Kept:
    classes, most = len(tops), int(max(tops, default=0)) + 1
    able = [np.flatnonzero(slots[:, klass]) for klass in range(classes)]
    width = -(-max(map(len, able), default=0) // KEPT_LANES) * KEPT_LANES
    kept = Kept(
        rows=np.full((classes, width), -1, np.int64),
        price=np.zeros((classes, width), np.int64),
        reciprocals=np.zeros((classes, 2, width), np.int32),
        caps=np.zeros((classes, 2, most, width), np.int32),
    )
    parts = PARTS * np.arange(most)[:, None]
    for klass, rows in enumerate(able):
        count = len(rows)
        kept.rows[klass, :count], kept.price[klass, :count] = rows, price[rows]
        kept.reciprocals[klass, 0, :count] = -(-(1 << RECIPROCAL_BITS) // amounts[rows, 3])
        kept.reciprocals[klass, 1, :count] = -(-(1 << FEW_BITS) // amounts[rows, 2])
        for i in range(2):
            each = needs[rows, klass, i]
            kept.caps[klass, i, :, :count] = np.where(each > 0, parts // np.maximum(each, 1), CAP_NEVER)
    return kept


@cache
def _shuffled() -> tuple[int, ...]:
    """The quantiles of all series, in an order that is fixed but has no pattern."""
    return tuple(sorted(range(ROLLOUTS * DRAWS), key=_stream))


def _stream(index: int) -> int:
    """The index-th number of the splitmix64 stream that starts at 1."""
    return splitmix64((1 + (index + 1) * GOLDEN) & MASK64)
