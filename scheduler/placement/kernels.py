"""The compiled inner loops of placement, over plain arrays: N rows of nodes, D device slots, S shapes, C node classes.

A shape's key on a node is the pair ``(cost, tie)``, lower is better; rows of equal keys go by the rank of their names,
so that the order of rows decides nothing. Where a shape does not fit, its cost is ``NOWHERE``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types
from numba.experimental import structref
from numpy.typing import NDArray

from scheduler.placement.compiled import entry, inlined
from scheduler.placement.fragment import Memo, card_mark, cards_mark, content, known_value, level, levels_mark, value
from scheduler.placement.mix import FIXED, ROLLOUTS, Mix

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

CPU, MEMORY, SCRATCH, CARDS, MILLI, SAME_ISLAND, TENANT = range(7)
"""Columns of ``Asks.ask``; the first three are also those of ``Rows.free``."""
ASK_COLUMNS = 7
WHOLE = 1_000
NEVER = 1_000_000_000
NOWHERE = 2**62
SPLIT = 2**40
"""A rank whose cards are not in one NVLink island costs more than all else together."""
MIB_PER_CPU_MILLI = 4
"""To add cpu and memory: servers carry about 4 GiB per vCPU."""
FRESH, COUNT, LEFT, LEFT_MOST = 2**60, 2**48, 2**20, 2**28 - 1
"""Places in a tie: a fresh card; cards or thousandths left over; cpu and memory left over; then 20 bits of a hash."""
MILLI_CARD = ROLLOUTS * FIXED
"""A thousandth of a card in the unit of costs."""
TURN, LIVE, PICKED = range(3)
"""Places in ``Work.state``: next shape to catch up, number of shapes, number of slots picked."""
BATCH = 1_024
"""Most copies that one call places."""
BLOCK_BITS = 6
BLOCK = 1 << BLOCK_BITS
"""Rows in a block: about the square root of a large farm, so that looking at one block costs as much as at all."""


class Rows(NamedTuple):
    """A cluster."""

    free: Longs
    """``[N, 3]``"""
    milli: Ints
    """``[N, D]``: thousandths nobody holds; 0 where there is no device."""
    holder: Ints
    """``[N, D]``: number of the tenant that holds a part; 0: nobody."""
    klass: Ints
    """``[N]``; -1: no node in this row."""
    slots: Ints
    """``[N]``: device slots in use."""
    rank: Ints
    """``[N]``: position of the name among all names."""
    value: Longs
    """``[N]``: what the node can be expected to serve (``fragment.value``)."""
    cards: NDArray[np.uint64]
    """``[N]``: hash of what is free of its cards (``fragment.cards_mark``)."""
    mark: Longs
    """``[N]``: 20 bits of a hash of what the node is and has free, for ties."""
    last: Longs
    """``[N]``: position of its latest change."""
    log: Ints
    """Rows in order of change, a ring whose length is a power of two."""
    clock: Longs
    """``[1]``: changes so far."""


class Asks(NamedTuple):
    """All shapes, against all classes of nodes."""

    ask: Longs
    """``[S, ASK_COLUMNS]``"""
    group: NDArray[np.int16]
    """``[S, C, D]``: 0 where the device does not suit, else 1 + its NVLink island on the node."""
    cost: Longs
    """``[S, C]``: cost that leases do not change; NOWHERE where the class does not admit the shape."""
    empty: Ints
    """``[S, C]``: copies that fit on an empty node of the class."""


class Ranks(NamedTuple):
    """What each shape finds: keys as of its last refresh, copies as of its last count."""

    key: Longs
    """``[S, N, 2]``: cost and tie."""
    least: Longs
    """``[S, B, 2]``: the least key of each block of ``BLOCK`` rows."""
    best: Ints
    """``[S, B]``: the row that has it. Negative: ``~row``, of a row that had it; no key of the block is less."""
    seen: Longs
    """``[S]``: changes worked into the keys; -1: none."""
    copies: Ints
    """``[S, N]``"""
    total: Longs
    """``[S]``: copies on all rows."""
    counted: Longs
    """``[S]``: changes worked into the copies; -1: none."""


class Frag(NamedTuple):
    """The demand mix and the values it gave to states of nodes."""

    mix: Mix
    memo: Memo


class Work(NamedTuple):
    """Scratch space, so that no kernel allocates."""

    pick: Ints
    """``[D]``: slots chosen last."""
    islands: Ints
    """``[D + 1]``"""
    nodes: Ints
    """``[BATCH]``: rows of the copies placed last."""
    slots: Ints
    """``[BATCH, D]``: their slots."""
    state: Longs


@structref.register
class CoreType(types.StructRef):
    """All arrays as one compiled value: handing over thirty arrays would cost more than a decision."""


class Core(structref.StructRefProxy):
    """What ``core_of`` makes. Its fields exist in compiled code only."""

    rows: Rows
    asks: Asks
    ranks: Ranks
    frag: Frag
    work: Work


_FIELDS = ["rows", "asks", "ranks", "frag", "work"]
structref.define_constructor(Core, CoreType, _FIELDS)  # type: ignore[no-untyped-call]
structref.define_boxing(CoreType, Core)  # type: ignore[no-untyped-call]


@entry
def core_of(rows: Rows, asks: Asks, ranks: Ranks, frag: Frag, work: Work) -> Core:
    """The arrays in one value. Arrays stay shared: what one side writes, the other reads."""
    return Core(rows, asks, ranks, frag, work)  # type: ignore[no-untyped-call]


@inlined
def copies_of(rows: Rows, asks: Asks, work: Work, s: int, r: int) -> int:
    """How many copies of the shape fit on the row together. See ``fit.capacity``, which it must equal."""
    klass = rows.klass[r]
    if klass < 0 or asks.cost[s, klass] == NOWHERE:
        return 0
    for i in range(3):
        if asks.ask[s, i] > 0 and rows.free[r, i] < asks.ask[s, i]:
            return 0
    slots, cards, part = rows.slots[r], asks.ask[s, CARDS], asks.ask[s, MILLI]
    room = NEVER
    if part > 0:
        room = 0
        for d in range(slots):
            is_ours = rows.holder[r, d] == 0 or rows.holder[r, d] == asks.ask[s, TENANT]
            if asks.group[s, klass, d] > 0 and rows.milli[r, d] >= part and is_ours:
                room += rows.milli[r, d] // part
    elif cards > 0:
        room = count_islands(rows, asks, work, s, r)
        if room >= cards and asks.ask[s, SAME_ISLAND] > 0:
            room = 0
            for island in range(1, slots + 1):
                room += work.islands[island] // cards
        elif cards > 1:
            room //= cards
    if room == 0:
        return 0
    for i in range(3):
        if asks.ask[s, i] > 0:
            room = min(room, rows.free[r, i] // asks.ask[s, i])
    return room


@inlined
def count_islands(rows: Rows, asks: Asks, work: Work, s: int, r: int) -> int:
    """Free suitable cards per island into ``work.islands``; their sum."""
    klass, slots = rows.klass[r], rows.slots[r]
    for island in range(slots + 1):
        work.islands[island] = 0
    free = 0
    for d in range(slots):
        group = asks.group[s, klass, d]
        if group > 0 and rows.milli[r, d] == WHOLE:
            work.islands[group] += 1
            free += 1
    return free


@inlined
def appraise(rows: Rows, frag: Frag, r: int) -> None:
    """Work out the value and the content of a row that has changed."""
    mix, klass, cpu, memory = frag.mix, rows.klass[r], rows.free[r, CPU], rows.free[r, MEMORY]
    if klass < 0:
        return
    cards = cards_mark(mix, klass, rows.milli[r])
    rows.cards[r] = cards
    rows.mark[r] = np.int64(content(mix, klass, cpu, memory, cards) >> np.uint64(44))
    rows.value[r] = value(mix, frag.memo, klass, cpu, memory, rows.milli[r]) if mix.amounts.shape[0] > 0 else 0


@inlined
def weigh(rows: Rows, asks: Asks, frag: Frag, work: Work, s: int, r: int) -> tuple[int, int]:
    """``(cost, tie)`` of one copy on a row; the slots it would take are left in ``work.pick``. Nowhere: NOWHERE, 0."""
    klass = rows.klass[r]
    if klass < 0 or asks.cost[s, klass] == NOWHERE:
        return NOWHERE, 0
    for i in range(3):
        if asks.ask[s, i] > 0 and rows.free[r, i] < asks.ask[s, i]:
            return NOWHERE, 0
    work.state[PICKED] = 0
    cpu, memory = rows.free[r, CPU] - asks.ask[s, CPU], rows.free[r, MEMORY] - asks.ask[s, MEMORY]
    if asks.ask[s, MILLI] > 0:
        after, tie = _pick_part(rows, asks, frag, work, s, r, cpu, memory)
        if work.state[PICKED] == 0:
            return NOWHERE, 0
    else:
        tie, after = 0, 0
        if asks.ask[s, CARDS] > 0:
            tie = _pick_cards(rows, asks, work, s, r)
            if work.state[PICKED] == 0:
                return NOWHERE, 0
        if frag.mix.amounts.shape[0] > 0:
            after = _value_without(rows, frag, work, r, cpu, memory)
    cost = asks.cost[s, klass] + rows.value[r] - after
    if tie >= FRESH:
        tie -= FRESH
        cost += SPLIT
    left = min(cpu * MIB_PER_CPU_MILLI + memory, LEFT_MOST)
    return cost, tie + left * LEFT + rows.mark[r]


@inlined
def _value_without(rows: Rows, frag: Frag, work: Work, r: int, cpu: int, memory: int) -> int:
    """The value of a row whose picked cards are taken and that has ``cpu`` and ``memory`` left."""
    mix, klass, cards, picked = frag.mix, rows.klass[r], rows.cards[r], work.state[PICKED]
    cpu, memory = level(mix, klass, CPU, cpu), level(mix, klass, MEMORY, memory)
    for i in range(picked):
        rows.milli[r, work.pick[i]] = 0
        kind = mix.kinds[klass, work.pick[i]]
        cards += card_mark(kind, 0) - card_mark(kind, WHOLE)
    levels = levels_mark(mix, klass, cpu, memory)
    after = known_value(mix, frag.memo, klass, cpu, memory, rows.milli[r], levels, cards)
    for i in range(picked):
        rows.milli[r, work.pick[i]] = WHOLE
    return after


@inlined
def _pick_part(
    rows: Rows, asks: Asks, frag: Frag, work: Work, s: int, r: int, cpu: int, memory: int
) -> tuple[int, int]:
    """The slot on which a fraction costs least; ties go to opened cards, then to the least room, then to the first.

    Returns the value of the node afterwards, and the tie.
    """
    klass, part, mix = rows.klass[r], asks.ask[s, MILLI], frag.mix
    cpu, memory = level(mix, klass, CPU, cpu), level(mix, klass, MEMORY, memory)
    levels = levels_mark(mix, klass, cpu, memory)
    best, best_tie, chosen, fresh = -1, 0, -1, 0
    for d in range(rows.slots[r]):
        milli, holder, kind = rows.milli[r, d], rows.holder[r, d], mix.kinds[klass, d]
        if asks.group[s, klass, d] == 0 or milli < part or (holder != 0 and holder != asks.ask[s, TENANT]):
            continue
        if milli == WHOLE:
            fresh += 1
        is_known = False
        for e in range(d):  # an equal slot before it has the same value
            if rows.milli[r, e] == milli and rows.holder[r, e] == holder and mix.kinds[klass, e] == kind:
                is_known = True
        if is_known:
            continue
        after = 0
        if mix.amounts.shape[0] > 0:
            cards = rows.cards[r] + card_mark(kind, milli - part) - card_mark(kind, milli)
            rows.milli[r, d] = milli - part
            after = known_value(mix, frag.memo, klass, cpu, memory, rows.milli[r], levels, cards)
            rows.milli[r, d] = milli
        tie = FRESH // 2 if milli == WHOLE else milli * COUNT
        if after > best or (after == best and tie < best_tie):
            best, best_tie, chosen = after, tie, d
    if chosen >= 0:
        work.pick[0] = chosen
        work.state[PICKED] = 1
    if best_tie == FRESH // 2:
        best_tie += fresh * COUNT
    return best, best_tie


@inlined
def _pick_cards(rows: Rows, asks: Asks, work: Work, s: int, r: int) -> int:
    """Free cards of the tightest island that holds them all, else of as few islands as possible; slots in order.

    Returns the tie; FRESH is added when the cards are not in one island. Picks none when there are too few.
    """
    klass, slots, cards, count = rows.klass[r], rows.slots[r], asks.ask[s, CARDS], work.islands
    tightest, picked = 0, 0
    more = count_islands(rows, asks, work, s, r) - cards
    if more < 0:
        return 0
    tie = more * COUNT
    for island in range(1, slots + 1):
        if count[island] >= cards and (tightest == 0 or count[island] < count[tightest]):
            tightest = island
    if tightest == 0:
        if asks.ask[s, SAME_ISLAND] > 0:
            return 0
        tie += FRESH
    while picked < cards:
        island = tightest
        if island == 0:
            for i in range(1, slots + 1):
                if count[i] > 0 and (island == 0 or count[i] > count[island]):
                    island = i
        for d in range(slots):
            if picked < cards and asks.group[s, klass, d] == island and rows.milli[r, d] == WHOLE:
                work.pick[picked] = d
                picked += 1
        count[island] = 0
    work.state[PICKED] = picked
    return tie
