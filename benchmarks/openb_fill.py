"""Fills the openb farm one pod at a time with the product's placement policy, as one compiled loop.

No departures, no retry, no look-ahead: a pod that fits nowhere is dropped. Scores are kept per shape and node and
renewed where a node has changed since the shape was last asked for; the decision is the full scan's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks.openb import LOADS_PERCENT, SLOTS, WHOLE_MILLI, Farm, Ints, Trace
from scheduler.placement.fragment import NONE, Memo, score, tie, value
from scheduler.placement.mix import Mix


@dataclass(frozen=True, kw_only=True)
class Fill:
    """What came of one run."""

    node: Ints
    """Per arrival the node, -1 when rejected."""
    taken: Ints
    """Per arrival the mask of device slots."""
    percent: NDArray[np.float64]
    """Per load column: cards allocated when that much of the farm has been asked for."""
    gang_arrived: int
    """8-card pods among those arrived by 100 % load."""
    gang_rejected: int
    rejected: int
    """Pods with cards rejected by 100 % load."""


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


def judge(trace: Trace, farm: Farm, pods: Ints, placed: tuple[Ints, Ints]) -> Fill:
    """Measure a run by where its pods went."""
    node, taken = placed
    cards = trace.table[pods, 2]
    size, inside = cards * trace.table[pods, 3], node >= 0
    asked, allocated = np.cumsum(size), np.cumsum(size * inside)
    at = np.searchsorted(asked * 100, np.array(LOADS_PERCENT) * farm.total_milli)
    early = asked <= farm.total_milli
    gang = early & (cards == SLOTS)
    return Fill(
        node=node,
        taken=taken,
        percent=100.0 * allocated[np.minimum(at, len(pods) - 1)] / farm.total_milli,
        gang_arrived=int(gang.sum()),
        gang_rejected=int((gang & ~inside).sum()),
        rejected=int((early & (cards > 0) & ~inside).sum()),
    )


@njit(cache=True)
def fill(  # noqa: PLR0917 - compiled
    mix: Mix, memo: Memo, nodes: Nodes, table: Ints, slots: Ints, pods: Ints
) -> tuple[Ints, Ints]:  # fmt: skip
    """Place the pods in order; per arrival the node, -1 for none, and the mask of slots. ``nodes`` is changed."""
    shapes, count, arrivals = table.shape[0], nodes.klass.shape[0], pods.shape[0]
    costs, masks = np.full((shapes, count), NONE, np.int64), np.zeros((shapes, count), np.int64)
    values, ties = np.zeros(count, np.int64), np.zeros(count, np.int64)
    seen, log, placed = np.full(shapes, -1, np.int64), np.zeros(arrivals, np.int64), 0
    changed = np.full(count, -1, np.int64)
    where, taken = np.full(arrivals, -1, np.int64), np.zeros(arrivals, np.int64)
    for n in range(count):
        values[n] = value(mix, memo, nodes.klass[n], nodes.cpu[n], nodes.memory[n], nodes.free[n])
        ties[n] = tie(mix, nodes.klass[n], nodes.cpu[n], nodes.memory[n], nodes.free[n])
    for p in range(arrivals):
        s = pods[p]
        for i in range(max(seen[s], 0), count if seen[s] < 0 else placed):
            n = i if seen[s] < 0 else log[i]
            if seen[s] >= 0 and changed[n] != i:
                continue
            k, c, m, free = nodes.klass[n], nodes.cpu[n], nodes.memory[n], nodes.free[n]
            cost = score(
                mix, memo, values[n], k, c, m, free, table[s, 0], table[s, 1], table[s, 2], table[s, 3], slots[s, k]
            )
            costs[s, n], masks[s, n] = cost
        seen[s] = placed
        best, least = -1, NONE
        for n in range(count):
            if costs[s, n] < least or (best >= 0 and costs[s, n] == least and ties[n] < ties[best]):
                best, least = n, costs[s, n]
        if best < 0:
            continue
        where[p], taken[p] = best, masks[s, best]
        occupy(nodes, best, table[s], taken[p])
        k, c, m, free = nodes.klass[best], nodes.cpu[best], nodes.memory[best], nodes.free[best]
        values[best], ties[best] = value(mix, memo, k, c, m, free), tie(mix, k, c, m, free)
        log[placed], changed[best] = best, placed
        placed += 1
    return where, taken


@njit(cache=True)
def occupy(nodes: Nodes, n: int, pod: Ints, taken: int) -> None:
    """Take a pod's resources from a node, its cards from the slots of the mask."""
    nodes.cpu[n] -= pod[0]
    nodes.memory[n] -= pod[1]
    for d in range(SLOTS):
        nodes.free[n, d] -= pod[3] * ((taken >> d) & 1)
