"""Fills the openb farm one pod at a time with the product's placement policy, as one compiled loop.

No departures, no retry, no look-ahead: a pod that fits nowhere is dropped. Scores are kept per shape and node and
renewed where a node has changed since the shape was last asked for; the decision is the full scan's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from benchmarks.openb import LOADS_PERCENT, SLOTS, WHOLE_MILLI, Farm, Ints
from scheduler.placement.fragment import NONE, Memo, score, tie, value
from scheduler.placement.mix import Mix

LOADS = np.array(LOADS_PERCENT, np.int64)


class Fill(NamedTuple):
    """What came of one run."""

    allocated_percent: Ints
    """Per load column: cards allocated when that much of the farm has been asked for."""
    gang_arrived: int
    """8-card pods among those arrived by 100 % load."""
    gang_rejected: int
    rejected: int
    """Pods with cards rejected by 100 % load."""
    node: Ints
    """Per arrival the node, -1 when rejected."""
    taken: Ints
    """Per arrival the mask of device slots."""


class Nodes(NamedTuple):
    """The farm's state as arrays."""

    klass: Ints
    cpu: Ints
    memory: Ints
    free: Ints


def empty(farm: Farm) -> Nodes:
    """Nothing runs."""
    have = farm.table[farm.klass]
    free = np.where(np.arange(SLOTS)[None, :] < have[:, 2:3], WHOLE_MILLI, 0).astype(np.int64)
    return Nodes(klass=farm.klass, cpu=have[:, 0].copy(), memory=have[:, 1].copy(), free=free)


@njit(cache=True)
def fill(  # noqa: PLR0917 - compiled
    mix: Mix,
    memo: Memo,
    nodes: Nodes,
    table: Ints,
    slots: Ints,
    pods: Ints,
    total_milli: int,
) -> Fill:
    """Place the pods in order. ``nodes`` is changed."""
    shapes, count, arrivals = table.shape[0], nodes.klass.shape[0], pods.shape[0]
    costs = np.full((shapes, count), NONE, np.int64)
    masks = np.zeros((shapes, count), np.int64)
    values, ties = np.zeros(count, np.int64), np.zeros(count, np.int64)
    seen, log, placed = np.full(shapes, -1, np.int64), np.zeros(arrivals, np.int64), 0
    changed = np.full(count, -1, np.int64)
    where, taken = np.full(arrivals, -1, np.int64), np.zeros(arrivals, np.int64)
    percent, column = np.zeros(LOADS.shape[0]), 0
    asked, allocated, gangs, gangs_lost, lost = 0, 0, 0, 0, 0
    for n in range(count):
        values[n] = value(mix, memo, nodes.klass[n], nodes.cpu[n], nodes.memory[n], nodes.free[n])
        ties[n] = tie(mix, nodes.klass[n], nodes.cpu[n], nodes.memory[n], nodes.free[n])
    for p in range(arrivals):
        s = pods[p]
        cards, milli = table[s, 2], table[s, 3]
        for i in range(max(seen[s], 0), count if seen[s] < 0 else placed):
            n = i if seen[s] < 0 else log[i]
            if seen[s] >= 0 and changed[n] != i:
                continue
            costs[s, n], masks[s, n] = score(
                mix, memo, values[n], nodes.klass[n], nodes.cpu[n], nodes.memory[n], nodes.free[n],
                table[s, 0], table[s, 1], cards, milli, slots[s, nodes.klass[n]],
            )  # fmt: skip
        seen[s] = placed
        best, least = -1, NONE
        for n in range(count):
            if costs[s, n] < least or (best >= 0 and costs[s, n] == least and ties[n] < ties[best]):
                best, least = n, costs[s, n]
        asked += cards * milli
        if asked <= total_milli:
            gangs += cards == 8
            gangs_lost += best < 0 and cards == 8
            lost += best < 0 and cards > 0
        if best >= 0:
            where[p], taken[p] = best, masks[s, best]
            nodes.cpu[best] -= table[s, 0]
            nodes.memory[best] -= table[s, 1]
            for d in range(SLOTS):
                if (taken[p] >> d) & 1:
                    nodes.free[best, d] -= milli
            k, c, m, f = nodes.klass[best], nodes.cpu[best], nodes.memory[best], nodes.free[best]
            values[best], ties[best] = value(mix, memo, k, c, m, f), tie(mix, k, c, m, f)
            log[placed], changed[best] = best, placed
            placed += 1
            allocated += cards * milli
        while column < LOADS.shape[0] and asked * 100 >= LOADS[column] * total_milli:
            percent[column] = 100.0 * allocated / total_milli
            column += 1
    percent[column:] = 100.0 * allocated / total_milli
    return Fill(percent, gangs, gangs_lost, lost, where, taken)
