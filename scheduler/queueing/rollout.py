"""One possible future of a pool, played through until a task starts: list scheduling with or without backfill.

Only cards (or, for work without cards, vCPUs) are counted, node by node. Run times are known here: the caller draws
them, once per future. Times are milliseconds from now.
"""

from __future__ import annotations

import heapq

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]

NEVER = 2**42
"""Milliseconds; more than a century."""
SLOTS = 2**20
"""An end is one number, so that a heap of them is quick: its instant times SLOTS, and who ends."""
NONE, ANY, EASY = 0, 1, 2


@njit(cache=True)
def futures(
    free: Ints,
    parts: Ints,
    part_nodes: Ints,
    part_amounts: Ints,
    ends: Ints,
    ranks: Ints,
    amounts: Ints,
    runs: Ints,
    at: Ints,
    target: int,
    backfill: int,
) -> Ints:
    """When task ``target`` starts in each future; NEVER: not at all.

    ``free``: amount free per node. Lease ``i`` holds ``part_amounts[j]`` of ``part_nodes[j]`` for ``j`` in
    ``[parts[i], parts[i + 1])`` and ends at ``ends[k, i]`` in future ``k``. Task ``i``, the ``i``-th in the order, takes
    ``amounts[i]`` on each of ``ranks[i]`` places from ``at[k, i]`` on, for ``runs[k, i]``.
    """
    starts = np.empty(ends.shape[0], np.int64)
    for k in range(ends.shape[0]):
        starts[k] = _future(
            free, parts, part_nodes, part_amounts, ends[k], ranks, amounts, runs[k], at[k], target, backfill
        )
    return starts


@njit(cache=True)
def _future(
    free: Ints,
    parts: Ints,
    part_nodes: Ints,
    part_amounts: Ints,
    ends: Ints,
    ranks: Ints,
    amounts: Ints,
    runs: Ints,
    at: Ints,
    target: int,
    backfill: int,
) -> int:
    free = free.copy()
    leases, tasks = ends.shape[0], ranks.shape[0]
    # Leases of tasks that start in this future come behind those that run now.
    first = np.zeros(leases + tasks + 1, np.int64)
    first[: leases + 1] = parts
    for i in range(tasks):
        first[leases + i + 1] = first[leases + i] + ranks[i]
    nodes = np.zeros(first[-1], np.int64)
    taken = np.zeros(first[-1], np.int64)
    nodes[: parts[-1]] = part_nodes
    taken[: parts[-1]] = part_amounts
    running = [NEVER * SLOTS]
    for i in range(leases):
        running.append(ends[i] * SLOTS + i)
    heapq.heapify(running)
    arriving = np.argsort(at)
    arrived = np.searchsorted(at[arriving], 0, side="right")
    waiting, waits = np.arange(tasks), tasks
    arriving_ahead = False
    for i in range(target):
        arriving_ahead |= at[i] > 0
    head, shadow, spare = -1, 0, free.copy()
    now = 0
    while True:
        kept, widest, closed, blocked = 0, free.max(), False, False
        for r in range(waits):
            i = waiting[r]
            started = False
            if at[i] <= now and not closed and amounts[i] <= widest:
                late = blocked and now + runs[i] > shadow
                started = _place(free, spare, late, amounts[i], nodes[first[leases + i] : first[leases + i + 1]])
            if started:
                if i == target:
                    return now
                taken[first[leases + i] : first[leases + i + 1]] = amounts[i]
                heapq.heappush(running, (now + runs[i]) * SLOTS + leases + i)
                widest = free.max()
                head = head if blocked else -1
                continue
            waiting[kept] = i
            kept += 1
            if at[i] > now or closed or blocked:
                continue
            closed = backfill == NONE
            if backfill == EASY:
                blocked = True
                if head != i or now >= shadow:
                    head, shadow = i, _shadow(free, running, first, nodes, taken, ranks[i], amounts[i], spare)
                if i == target and not arriving_ahead:
                    return shadow
        waits = kept
        next_at = at[arriving[arrived]] if arrived < tasks else NEVER
        now = min(running[0] // SLOTS, next_at)
        if now >= NEVER:
            return NEVER
        while arrived < tasks and at[arriving[arrived]] <= now:
            arrived += 1
        while running[0] < (now + 1) * SLOTS:
            slot = heapq.heappop(running) % SLOTS
            for j in range(first[slot], first[slot + 1]):
                free[nodes[j]] += taken[j]


@njit(cache=True)
def _place(free: Ints, spare: Ints, late: bool, amount: int, places: Ints) -> bool:
    """Take ``amount`` at every place, from the fullest nodes it fits on: all places or none.

    ``late``: it would still run when the head of the queue is to start, so it takes from ``spare`` as well.
    """
    for rank in range(places.shape[0]):
        best, least = -1, NEVER
        for node in range(free.shape[0]):
            if amount <= free[node] < least and (not late or amount <= spare[node]):
                best, least = node, free[node]
        if best < 0:
            for done in range(rank):
                free[places[done]] += amount
                spare[places[done]] += amount * late
            return False
        free[best] -= amount
        spare[best] -= amount * late
        places[rank] = best
    return True


@njit(cache=True)
def _shadow(
    free: Ints,
    running: list[int],
    first: Ints,
    nodes: Ints,
    taken: Ints,
    ranks: int,
    amount: int,
    spare: Ints,
) -> int:
    """When the head of the queue can start if nothing else does (NEVER: not at all); ``spare``: what it leaves then."""
    spare[:] = free
    places = 0
    for node in range(spare.shape[0]):
        places += spare[node] // amount
    shadow = 0
    for end in np.sort(np.array(running)):
        if places >= ranks or end >= NEVER * SLOTS:
            break
        shadow, slot = end // SLOTS, end % SLOTS
        for j in range(first[slot], first[slot + 1]):
            places -= spare[nodes[j]] // amount
            spare[nodes[j]] += taken[j]
            places += spare[nodes[j]] // amount
    if places < ranks:
        return NEVER
    _place(spare, spare, False, amount, np.empty(ranks, np.int64))
    return shadow
