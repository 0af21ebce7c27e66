"""The compiled inner loops of placement, over plain arrays: N rows of nodes, D device slots, S shapes, C node classes.

A shape's key on a node is the pair ``(cost, tie)``, lower is better; rows of equal keys go by the rank of their names,
so that the order of rows decides nothing. Where a shape does not fit, its cost is ``NOWHERE``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scheduler.placement.fragment import potential

CPU, MEMORY, SCRATCH, CARDS, MILLI, SAME_ISLAND, TENANT = range(7)
"""Columns of ``Asks.ask``; the first three are also those of ``Rows.free``."""
ASK_COLUMNS = 7
WHOLE = 1_000
NEVER = 1_000_000_000
NOWHERE = 2**62
SPLIT = 10**12
"""A rank whose cards are not in one NVLink island costs as much as a thousand cards: only where nothing else fits."""
MIB_PER_CPU_MILLI = 4
"""To add cpu and memory: servers carry about 4 GiB per vCPU."""
FRESH, COUNT = 2**60, 2**44
"""Places in a tie: a card nobody has opened; then what is left over, cards or thousandths; then cpu and memory."""
TURN, LIVE, PICKED = range(3)
"""Places in ``Work.state``: next shape to catch up, number of shapes, number of slots picked."""


class Rows(NamedTuple):
    """A cluster."""

    free: NDArray[np.int64]
    """``[N, 3]``"""
    milli: NDArray[np.int32]
    """``[N, D]``: thousandths nobody holds; 0 where there is no device."""
    holder: NDArray[np.int32]
    """``[N, D]``: number of the tenant that holds a part; 0: nobody."""
    klass: NDArray[np.int32]
    """``[N]``; -1: no node in this row."""
    slots: NDArray[np.int32]
    """``[N]``: device slots in use."""
    rank: NDArray[np.int32]
    """``[N]``: position of the name among all names."""
    value: NDArray[np.int64]
    """``[N]``: the node's potential."""
    last: NDArray[np.int64]
    """``[N]``: position of its latest change."""
    log: NDArray[np.int32]
    """Rows in order of change, a ring whose length is a power of two."""
    clock: NDArray[np.int64]
    """``[1]``: changes so far."""


class Asks(NamedTuple):
    """All shapes, against all classes of nodes."""

    ask: NDArray[np.int64]
    """``[S, ASK_COLUMNS]``"""
    group: NDArray[np.int16]
    """``[S, C, D]``: 0 where the device does not suit, else 1 + its NVLink island on the node."""
    cost: NDArray[np.int64]
    """``[S, C]``: cost that leases do not change; NOWHERE where the class does not admit the shape."""
    empty: NDArray[np.int32]
    """``[S, C]``: copies that fit on an empty node of the class."""
    kind: NDArray[np.int16]
    """``[C, D]``: devices of equal kind on a node are alike."""


class Ranks(NamedTuple):
    """What each shape finds, as of its last refresh."""

    key: NDArray[np.int64]
    """``[S, N, 2]``: cost and tie."""
    copies: NDArray[np.int32]
    """``[S, N]``"""
    tree: NDArray[np.int32]
    """``[S, N]``: winners of a tournament between the rows; 1 is the root, the children of i are 2i and 2i + 1."""
    total: NDArray[np.int64]
    """``[S]``: copies on all rows."""
    seen: NDArray[np.int64]
    """``[S]``: changes worked in; -1: none."""


class Work(NamedTuple):
    """Scratch space, so that no kernel allocates."""

    pick: NDArray[np.int32]
    """``[D]``: slots chosen last."""
    count: NDArray[np.int32]
    """``[D + 1]``"""
    after: NDArray[np.int32]
    """``[D]``"""
    state: NDArray[np.int64]


@njit(cache=True)
def copies_of(rows, asks, work, s, r):  # type: ignore[no-untyped-def]
    """How many copies of the shape fit on the row together. See ``fit.capacity``, which it must equal."""
    klass = rows.klass[r]
    if klass < 0 or asks.cost[s, klass] == NOWHERE:
        return 0
    ask = asks.ask[s]
    for i in range(3):
        if ask[i] > 0 and rows.free[r, i] < ask[i]:
            return 0
    fits = NEVER
    for i in range(3):
        if ask[i] > 0:
            fits = min(fits, rows.free[r, i] // ask[i])
    group, slots = asks.group[s, klass], rows.slots[r]
    if ask[MILLI] > 0:
        room = 0
        for d in range(slots):
            if group[d] > 0 and (rows.holder[r, d] == 0 or rows.holder[r, d] == ask[TENANT]):
                room += rows.milli[r, d] // ask[MILLI]
        return min(fits, room)
    if ask[CARDS] == 0:
        return fits
    if ask[SAME_ISLAND] == 0:
        free = 0
        for d in range(slots):
            if group[d] > 0 and rows.milli[r, d] == WHOLE:
                free += 1
        return min(fits, free // ask[CARDS])
    count_islands(rows, group, work.count, r, slots)
    room = 0
    for island in range(1, slots + 1):
        room += work.count[island] // ask[CARDS]
    return min(fits, room)


@njit(cache=True)
def count_islands(rows, group, count, r, slots):  # type: ignore[no-untyped-def]
    """Free suitable cards per island into ``count``; their sum."""
    for island in range(slots + 1):
        count[island] = 0
    free = 0
    for d in range(slots):
        if group[d] > 0 and rows.milli[r, d] == WHOLE:
            count[group[d]] += 1
            free += 1
    return free


@njit(cache=True)
def weigh(rows, asks, frag, work, s, r):  # type: ignore[no-untyped-def]
    """``(cost, tie)`` of one copy on a row it fits on; the slots it would take are left in ``work.pick``."""
    ask = asks.ask[s]
    klass = rows.klass[r]
    cpu, memory = rows.free[r, CPU] - ask[CPU], rows.free[r, MEMORY] - ask[MEMORY]
    left = min(cpu * MIB_PER_CPU_MILLI + memory, COUNT - 1)
    cost = asks.cost[s, klass] - rows.value[r]
    slots = rows.slots[r]
    work.state[PICKED] = 0
    if ask[MILLI] > 0:
        gain, tie = _pick_part(rows, asks, frag, work, s, r, cpu, memory)
        return cost + gain, tie + left
    tie = left
    for d in range(slots):
        work.after[d] = rows.milli[r, d]
    if ask[CARDS] > 0:
        spare, is_split = _pick_cards(rows, asks.group[s, klass], work, r, ask[CARDS])
        tie += spare * COUNT
        if is_split:
            cost += SPLIT
        for i in range(work.state[PICKED]):
            work.after[work.pick[i]] = 0
    return cost + potential(frag, klass, slots, cpu, memory, work.after), tie


@njit(cache=True)
def _pick_part(rows, asks, frag, work, s, r, cpu, memory):  # type: ignore[no-untyped-def]
    """The slot on which a fraction costs least; ties go to opened cards, then to the least room, then to the first."""
    ask, klass, slots = asks.ask[s], rows.klass[r], rows.slots[r]
    group = asks.group[s, klass]
    fresh = 0
    for d in range(slots):
        work.after[d] = rows.milli[r, d]
        if group[d] > 0 and rows.milli[r, d] == WHOLE:
            fresh += 1
    best, best_tie, chosen = NOWHERE, NOWHERE, -1
    for d in range(slots):
        milli, holder = rows.milli[r, d], rows.holder[r, d]
        if group[d] == 0 or milli < ask[MILLI] or (holder != 0 and holder != ask[TENANT]):
            continue
        is_known = False
        for e in range(d):  # an equal slot before it has the same cost
            if rows.milli[r, e] == milli and rows.holder[r, e] == holder and asks.group[s, klass, e] > 0:
                is_known = asks.kind[klass, e] == asks.kind[klass, d]
                if is_known:
                    break
        if is_known:
            continue
        work.after[d] = milli - ask[MILLI]
        cost = potential(frag, klass, slots, cpu, memory, work.after)
        work.after[d] = milli
        tie = FRESH + fresh * COUNT if milli == WHOLE else milli * COUNT
        if cost < best or (cost == best and tie < best_tie):
            best, best_tie, chosen = cost, tie, d
    work.pick[0] = chosen
    work.state[PICKED] = 1
    return best, best_tie


@njit(cache=True)
def _pick_cards(rows, group, work, r, cards):  # type: ignore[no-untyped-def]
    """Free cards of the tightest island that holds them all, else of as few islands as possible; slots in order.

    Returns how many suitable cards stay free and whether the islands are more than one.
    """
    slots, count = rows.slots[r], work.count
    free = count_islands(rows, group, count, r, slots)
    tightest = 0
    for island in range(1, slots + 1):
        if count[island] >= cards and (tightest == 0 or count[island] < count[tightest]):
            tightest = island
    picked = 0
    while picked < cards:
        island = tightest
        if island == 0:
            for i in range(1, slots + 1):
                if count[i] > 0 and (island == 0 or count[i] > count[island]):
                    island = i
        for d in range(slots):
            if picked < cards and group[d] == island and rows.milli[r, d] == WHOLE:
                work.pick[picked] = d
                picked += 1
        count[island] = 0
    work.state[PICKED] = picked
    return free - cards, tightest == 0
