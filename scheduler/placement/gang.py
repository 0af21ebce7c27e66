"""All ranks or none: as near to each other as they fit, on as few nodes as possible."""

from __future__ import annotations

import numpy as np

from scheduler.model.job import Together
from scheduler.placement.compiled import entry
from scheduler.placement.kernels import Ints, Longs


def spread(
    copies: Ints,
    key: Longs,
    rank: Ints,
    racks: Ints,
    ranks: int,
    together: Together = Together.ANYWHERE,
) -> tuple[tuple[int, int], ...]:
    """``(row, ranks on it)`` from what fits by row; empty when not all ranks fit as near as ``together`` asks.

    One node that holds all ranks is nearer than one rack, and one rack than anywhere. Among racks, the one that takes
    the fewest nodes, then the one with the least room. ``racks`` by row.
    """
    left = copies.copy()
    roomy = bool((copies >= ranks).any())
    if not roomy and together is Together.NODE:
        return ()
    if not roomy:
        rack = int(_best_rack(copies, key, rank, racks, ranks))
        if rack < 0 and together is Together.RACK:
            return ()
        if rack >= 0:
            left[racks != rack] = 0
    rows, counts = np.empty(ranks, np.int32), np.empty(ranks, np.int32)
    used = _pack(left, key, rank, ranks, rows, counts)
    return tuple(zip(rows[:used].tolist(), counts[:used].tolist(), strict=True))


def most(copies: Ints, racks: Ints, together: Together) -> int:
    """The most ranks that fit as near to each other as ``together`` asks."""
    if together is Together.ANYWHERE or not len(copies):
        return int(copies.sum(dtype=np.int64))
    if together is Together.NODE:
        return int(copies.max())
    return int(np.bincount(racks, copies).max())


@entry
def _pack(left: Ints, key: Longs, rank: Ints, ranks: int, rows: Ints, counts: Ints) -> int:
    """Largest rooms first gives the fewest nodes; the last node is the smallest room that still holds the rest.

    Uses up ``left``. Returns the nodes used, 0 when not all ranks fit.
    """
    used = 0
    while ranks > 0:
        largest, enough = -1, -1
        for r in range(left.shape[0]):
            if left[r] <= 0:
                continue
            if largest < 0 or left[r] > left[largest] or (left[r] == left[largest] and _before(key, rank, r, largest)):
                largest = r
            if left[r] >= ranks and (
                enough < 0 or left[r] < left[enough] or (left[r] == left[enough] and _before(key, rank, r, enough))
            ):
                enough = r
        pick = largest if enough < 0 else enough
        if pick < 0:
            return 0
        rows[used], counts[used] = pick, min(left[pick], ranks)
        ranks -= counts[used]
        left[pick] = 0
        used += 1
    return used


@entry
def _before(key: Longs, rank: Ints, a: int, b: int) -> bool:
    if key[a, 0] != key[b, 0]:
        return key[a, 0] < key[b, 0]
    if key[a, 1] != key[b, 1]:
        return key[a, 1] < key[b, 1]
    return rank[a] < rank[b]


@entry
def _best_rack(copies: Ints, key: Longs, rank: Ints, racks: Ints, ranks: int) -> int:
    """The rack with all ranks on the fewest nodes, then with the least room, then with the first name; -1: none."""
    count = 0
    for r in range(racks.shape[0]):
        count = max(count, racks[r] + 1)
    room = np.zeros(count, np.int64)
    for r in range(racks.shape[0]):
        room[racks[r]] += copies[r]
    best, best_used = -1, 0
    rows, counts = np.empty(ranks, np.int32), np.empty(ranks, np.int32)
    left = np.empty_like(copies)
    for rack in range(count):
        if room[rack] < ranks:
            continue
        for r in range(racks.shape[0]):
            left[r] = copies[r] if racks[r] == rack else 0
        used = _pack(left, key, rank, ranks, rows, counts)
        if best < 0 or used < best_used or (used == best_used and room[rack] < room[best]):
            best, best_used = rack, used
    return best
