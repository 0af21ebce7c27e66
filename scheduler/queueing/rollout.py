"""One possible future of a pool, played through until a task starts: list scheduling with or without backfill.

Only cards (or, for work without cards, vCPUs) are counted, node by node. Run times are known here: the caller draws
them, once per future. Times are milliseconds from now.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]

NEVER = 2**42
"""Milliseconds; more than a century."""
SLOTS = 2**20
"""An end is one number, so that a heap of them is quick: its instant times SLOTS, and who ends."""
NONE, ANY, EASY = 0, 1, 2


class Board(NamedTuple):
    """What runs and what waits. Tasks come behind the leases that run now, in the order in which they may start.

    Member ``i`` takes ``amounts[j]`` of ``nodes[j]`` for ``j`` in ``[first[i], first[i + 1])``; where a task goes is
    written when it starts.
    """

    free: Ints
    spare: Ints
    """Free when the blocked head of the queue is to start, less what it takes."""
    first: Ints
    nodes: Ints
    amounts: Ints
    leases: int


class Moves(NamedTuple):
    """Tasks, and the instants of one future: when leases end, when tasks come, how long tasks run."""

    asks: Ints
    """Amount at each place."""
    ends: Ints
    at: Ints
    arriving: Ints
    """Tasks by ``at``."""
    runs: Ints


@njit(cache=True)
def start_of(board: Board, moves: Moves, target: int, backfill: int) -> int:
    """When task ``target`` starts; NEVER: not at all. ``board`` is used up."""
    free, at, runs, asks = board.free, moves.at, moves.runs, moves.asks
    leases, tasks = board.leases, len(moves.asks)
    heap = np.empty(leases + tasks + 1, np.int64)
    size = _push(heap, 0, NEVER * SLOTS)
    for i in range(leases):
        size = _push(heap, size, moves.ends[i] * SLOTS + i)
    waiting = np.arange(tasks)
    arrived, least, last_ahead = 0, asks.min(), at[:target].max() if target else 0
    head, shadow, now, waits = -1, 0, 0, tasks
    refused = np.empty(2, np.int64)
    # Least amount that found no place in this pass: within it, and within it and what the head leaves.
    while True:
        while arrived < tasks and at[moves.arriving[arrived]] <= now:
            arrived += 1
        kept, widest, blocked = 0, free.max(), False
        refused[:] = NEVER
        for r in range(waits):
            i = waiting[r]
            if blocked and (widest < least or backfill == NONE):
                waiting[kept] = i
                kept += 1
                continue
            late = int(blocked and now + runs[i] > shadow)
            worth = at[i] <= now and asks[i] <= widest and asks[i] < refused[late]
            if worth and _place(board, leases + i, asks[i], late):
                if i == target:
                    return now
                size = _push(heap, size, (now + runs[i]) * SLOTS + leases + i)
                widest = free.max()
                head = head if blocked else -1
                continue
            waiting[kept] = i
            kept += 1
            if worth and board.first[leases + i + 1] - board.first[leases + i] == 1:
                refused[late] = asks[i]
                refused[1] = min(refused)
            if at[i] > now or blocked or backfill == ANY:
                continue
            blocked = True
            if backfill == EASY and (head != i or now >= shadow):
                head, shadow = i, _shadow(board, heap, size, leases + i, asks[i])
            if backfill == EASY and i == target and last_ahead <= now:
                return shadow
        waits = kept
        now = min(heap[0] // SLOTS, at[moves.arriving[arrived]] if arrived < tasks else NEVER)
        if now >= NEVER:
            return NEVER
        size = _release(board, heap, size, now)


@njit(cache=True)
def _release(board: Board, heap: Ints, size: int, now: int) -> int:
    """Give back what ends until ``now``; the new size of the heap."""
    while heap[0] < (now + 1) * SLOTS:
        gone = heap[0] % SLOTS
        size = _pop(heap, size)
        for j in range(board.first[gone], board.first[gone + 1]):
            board.free[board.nodes[j]] += board.amounts[j]
    return size


@njit(cache=True)
def _place(board: Board, member: int, amount: int, late: int) -> bool:
    """Take ``amount`` at every place, from the fullest nodes it fits on: all places or none.

    ``late``: it would still run when the head of the queue is to start, so it takes from ``spare`` as well.
    """
    free, spare = board.free, board.spare
    first = board.first[member]
    for at in range(first, board.first[member + 1]):
        best, least = -1, NEVER
        for node in range(len(free)):
            if amount <= free[node] < least and (not late or amount <= spare[node]):
                best, least = node, free[node]
        if best < 0:
            for done in range(first, at):
                free[board.nodes[done]] += amount
                spare[board.nodes[done]] += amount * late
            return False
        free[best] -= amount
        spare[best] -= amount * late
        board.nodes[at] = best
        board.amounts[at] = amount
    return True


@njit(cache=True)
def _shadow(board: Board, heap: Ints, size: int, member: int, amount: int) -> int:
    """When a task can start if nothing else does (NEVER: not at all); ``spare``: what it then leaves."""
    spare, first, nodes = board.spare, board.first, board.nodes
    spare[:] = board.free
    ends = heap.copy()
    shadow, places = 0, (spare // amount).sum()
    while places < first[member + 1] - first[member]:
        shadow, gone = ends[0] // SLOTS, ends[0] % SLOTS
        if shadow >= NEVER:
            return NEVER
        size = _pop(ends, size)
        for j in range(first[gone], first[gone + 1]):
            places -= spare[nodes[j]] // amount
            spare[nodes[j]] += board.amounts[j]
            places += spare[nodes[j]] // amount
    _place(Board(spare, spare.copy(), first, nodes, board.amounts, board.leases), member, amount, 0)
    return shadow


@njit(cache=True)
def _push(heap: Ints, size: int, value: int) -> int:
    """Put a value into a binary heap, least first; its new size."""
    at = size
    while at and heap[(at - 1) // 2] > value:
        heap[at] = heap[(at - 1) // 2]
        at = (at - 1) // 2
    heap[at] = value
    return size + 1


@njit(cache=True)
def _pop(heap: Ints, size: int) -> int:
    """Take the least value away; the new size."""
    size -= 1
    value, at = heap[size], 0
    while True:
        child = 2 * at + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if child >= size or heap[child] >= value:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = value
    return size
