"""The compiled inner loops of placement, over plain arrays.

N rows of nodes, Q states of rows, D device slots, S shapes, C node classes. A shape's key is what one copy costs on a
row or in a state: the cost, and below it what decides between equal costs. Where a shape does not fit, it is
``NOWHERE``. Lower is better; rows of one key go by what is left of cpu and memory, then by a hash of what they are and
have free, then by the rank of their names, so that the order of rows decides nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.placement.compiled import inlined
from scheduler.placement.fragment import Memo, card_mark, known_value
from scheduler.placement.mix import FIXED, ROLLOUTS, Mix

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

CPU, MEMORY, SCRATCH, CARDS, MILLI, SAME_ISLAND, TENANT = range(7)
"""Columns of ``Asks.ask``; the first three are also those of ``Rows.free``."""
ASK_COLUMNS = 7
WHOLE = 1_000
NEVER = 1_000_000_000
NOWHERE, EMPTY, UNKNOWN = 2**62, 2**61, -(2**60)
"""Keys where a shape does not fit, what is added where there is no row, and what was not weighed yet. Others are less
than 2**60 from 0."""
SPLIT = 2**40
"""A rank whose cards are not in one NVLink island costs more than all else together."""
MIB_PER_CPU_MILLI = 4
"""To add cpu and memory: servers carry about 4 GiB per vCPU."""
COST_BITS, TIE_MOST, FRESH = 13, 2**13 - 1, 2**12
"""Place of the cost in a key. Below it: cards or thousandths left over; FRESH if a part would open a whole card."""
LEFT, LEFT_MOST = 2**20, 2**28 - 1
"""Place of the cpu and memory left over in a row's order; below it 20 bits of a hash."""
MILLI_CARD = ROLLOUTS * FIXED
"""A thousandth of a card in the unit of costs."""
TURN, LIVE, PICKED = range(3)
"""Places in ``Work.state``: next shape to catch up, number of shapes, number of slots picked."""
BATCH = 1_024
"""Most copies that one call places."""


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
    level: Ints
    """``[N, 2]``: whole levels of cpu and memory that are free (``mix.LEVELS_PER_CARD``)."""
    cards: NDArray[np.uint64]
    """``[N]``: hash of what is free of its cards (``fragment.cards_mark``)."""
    value: Longs
    """``[N]``: what the node can be expected to serve (``fragment.value``)."""
    order: Longs
    """``[N]``: cpu and memory free, then 20 bits of a hash of what the node is and has free."""
    state: Ints
    """``[N]``: the row's state; -1: none."""
    links: Ints
    """``[N, 3]``: two children and the parent in the heap of its state; -1: none."""
    last: Longs
    """``[N]``: position of its latest change."""
    log: Ints
    """Rows in order of change, a ring whose length is a power of two."""
    clock: Longs
    """``[1]``: changes so far."""


class States(NamedTuple):
    """What rows have in common that no shape tells apart but for whether cpu, memory and scratch are enough."""

    klass: Ints
    """``[Q]``"""
    slots: Ints
    """``[Q]``"""
    level: Ints
    """``[Q, 2]``"""
    milli: Ints
    """``[Q, D]``"""
    holder: Ints
    """``[Q, D]``"""
    cards: NDArray[np.uint64]
    """``[Q]``"""
    value: Longs
    """``[Q]``"""
    mark: NDArray[np.uint64]
    """``[Q]``: hash of all of it."""
    top: Ints
    """``[Q]``: the first of its rows, root of a heap; -1: no row."""
    most: Longs
    """``[Q, 2]``: no row of the state has more cpu or more memory than that."""
    empty: Longs
    """``[Q]``: 0, or EMPTY if it has no row; added to a key, so that the least is one that has."""
    chain: Ints
    """``[Q]``: next state in the same bucket; -1: none."""
    buckets: Ints
    """First state by hash; -1: none. The length is a power of two."""
    born: Longs
    """``[Q]``: when it became this state."""
    log: Ints
    """``[Q]``: states in order of birth, a ring."""
    clock: Longs
    """``[4]``: births so far, numbers in use, where the search for one without rows goes on, and states with rows."""


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
    """What each shape finds: keys by state as of when it last learned, copies by row as of its last count."""

    key: Longs
    """``[S, Q]``"""
    seen: Longs
    """``[S]``: births of states that the keys know of; -1: none."""
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
    alike: Ints
    """``[C, D]``: device slots of one number are interchangeable."""


class Work(NamedTuple):
    """Scratch space, so that no kernel allocates."""

    pick: Ints
    """``[D]``: slots chosen last."""
    islands: Ints
    """``[D + 1]``"""
    stack: Ints
    """``[N]``"""
    least: Longs
    """By block of states."""
    unknown: Ints
    """States of a block, and one place more."""
    nodes: Ints
    """``[BATCH]``: rows of the copies placed last."""
    slots: Ints
    """``[BATCH, D]``: their slots."""
    state: Longs


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
def fits(rows: Rows, asks: Asks, s: int, r: int) -> bool:
    """Whether cpu, memory and scratch of a row are enough."""
    for i in range(3):  # noqa: SIM110 - compiled
        if 0 < asks.ask[s, i] > rows.free[r, i]:
            return False
    return True


@inlined
def count_islands(nodes: Rows | States, asks: Asks, work: Work, s: int, i: int) -> int:
    """Free suitable cards per island into ``work.islands``; their sum."""
    klass, slots = nodes.klass[i], nodes.slots[i]
    for island in range(slots + 1):
        work.islands[island] = 0
    free = 0
    for d in range(slots):
        group = asks.group[s, klass, d]
        if group > 0 and nodes.milli[i, d] == WHOLE:
            work.islands[group] += 1
            free += 1
    return free


@inlined
def weigh(nodes: Rows | States, asks: Asks, frag: Frag, work: Work, s: int, i: int) -> int:
    """The shape's key on a row or state if cpu, memory and scratch are enough; slots it takes go to ``work.pick``.

    NOWHERE for a state in which they never are.
    """
    klass, mix = nodes.klass[i], frag.mix
    work.state[PICKED] = 0
    if klass < 0 or asks.cost[s, klass] == NOWHERE:
        return NOWHERE
    cpu = _levels_left(mix, klass, CPU, nodes.level[i, CPU], asks.ask[s, CPU])
    memory = _levels_left(mix, klass, MEMORY, nodes.level[i, MEMORY], asks.ask[s, MEMORY])
    if cpu < 0 or memory < 0:
        return NOWHERE
    if asks.ask[s, MILLI] > 0:
        after, tie = _pick_part(nodes, asks, frag, work, s, i, cpu, memory)
    else:
        after, tie = 0, 0
        if asks.ask[s, CARDS] > 0:
            tie = _pick_cards(nodes, asks, work, s, i)
        if mix.amounts.shape[0] > 0 and tie >= 0:
            after = _value_without(nodes, frag, work, i, cpu, memory)
    if tie < 0:
        return NOWHERE
    return ((asks.cost[s, klass] + nodes.value[i] - after) << COST_BITS) + tie


@inlined
def _levels_left(mix: Mix, klass: int, kind: int, level: int, amount: int) -> int:
    """Levels left without an amount, which is rounded up as what is free is rounded down.

    -1 if it is more than the most that rounds down to the level, so that no row has enough.
    """
    grain = mix.grains[klass, kind]
    whole = amount // grain
    if whole > level and level < mix.tops[klass]:
        return -1
    return max(level - whole - (whole * grain < amount), 0)


@inlined
def _value_without(nodes: Rows | States, frag: Frag, work: Work, i: int, cpu: int, memory: int) -> int:
    """The value once the picked cards are taken and so many levels of ``cpu`` and ``memory`` are left."""
    mix, klass, cards, picked = frag.mix, nodes.klass[i], nodes.cards[i], work.state[PICKED]
    for at in range(picked):
        nodes.milli[i, work.pick[at]] = 0
        kind = mix.kinds[klass, work.pick[at]]
        cards += card_mark(kind, 0) - card_mark(kind, WHOLE)
    after = known_value(mix, frag.memo, klass, cpu, memory, nodes.milli[i], cards)
    for at in range(picked):
        nodes.milli[i, work.pick[at]] = WHOLE
    return after


@inlined
def _pick_part(
    nodes: Rows | States, asks: Asks, frag: Frag, work: Work, s: int, i: int, cpu: int, memory: int
) -> tuple[int, int]:
    """The slot on which a fraction costs least; ties go to opened cards, then to the least room, then to the first.

    Returns the value of the node afterwards, and what decides between equal costs; -1 when no slot has room.
    """
    klass, part, mix = nodes.klass[i], asks.ask[s, MILLI], frag.mix
    best, best_tie, chosen, fresh = -1, -1, -1, 0
    for d in range(nodes.slots[i]):
        milli, holder, kind = nodes.milli[i, d], nodes.holder[i, d], mix.kinds[klass, d]
        if asks.group[s, klass, d] == 0 or milli < part or (holder != 0 and holder != asks.ask[s, TENANT]):
            continue
        if milli == WHOLE:
            fresh += 1
        is_known = False
        for e in range(d):  # an equal slot before it has the same value
            if nodes.milli[i, e] == milli and nodes.holder[i, e] == holder and mix.kinds[klass, e] == kind:
                is_known = True
        if is_known:
            continue
        after = 0
        if mix.amounts.shape[0] > 0:
            cards = nodes.cards[i] + card_mark(kind, milli - part) - card_mark(kind, milli)
            nodes.milli[i, d] = milli - part
            after = known_value(mix, frag.memo, klass, cpu, memory, nodes.milli[i], cards)
            nodes.milli[i, d] = milli
        tie = FRESH if milli == WHOLE else milli
        if chosen < 0 or after > best or (after == best and tie < best_tie):
            best, best_tie, chosen = after, tie, d
    if chosen >= 0:
        work.pick[0] = chosen
        work.state[PICKED] = 1
    if best_tie == FRESH:
        best_tie += fresh
    return best, best_tie


@inlined
def _pick_cards(nodes: Rows | States, asks: Asks, work: Work, s: int, i: int) -> int:
    """Free cards of the tightest island that holds them all, else of as few islands as possible; slots in order.

    Returns the cards left over, with SPLIT as a cost when they are not in one island; -1 when there are too few.
    """
    klass, slots, cards, count = nodes.klass[i], nodes.slots[i], asks.ask[s, CARDS], work.islands
    tightest, picked = 0, 0
    tie = count_islands(nodes, asks, work, s, i) - cards
    if tie < 0:
        return -1
    for island in range(1, slots + 1):
        if count[island] >= cards and (tightest == 0 or count[island] < count[tightest]):
            tightest = island
    if tightest == 0:
        if asks.ask[s, SAME_ISLAND] > 0:
            return -1
        tie += SPLIT << COST_BITS
    while picked < cards:
        island = tightest
        if island == 0:
            for other in range(1, slots + 1):
                if count[other] > 0 and (island == 0 or count[other] > count[island]):
                    island = other
        for d in range(slots):
            if picked < cards and asks.group[s, klass, d] == island and nodes.milli[i, d] == WHOLE:
                work.pick[picked] = d
                picked += 1
        count[island] = 0
    work.state[PICKED] = picked
    return tie
