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


class Known(NamedTuple):
    """What is known of scores, and which nodes have changed since each shape was asked for."""

    costs: Ints
    """[shape, node]"""
    masks: Ints
    values: Ints
    ties: Ints
    seen: Ints
    """Per shape, changes by then; -1: never asked."""
    log: Ints
    """Nodes in the order they changed."""
    changed: Ints
    """Per node, its last place in the log."""
    count: Ints
    """[0]: changes so far."""


def nothing_known(shapes: int, nodes: int, changes: int) -> Known:
    """At the beginning; ``changes``: most there will be."""
    return Known(
        costs=np.full((shapes, nodes), NONE, np.int64),
        masks=np.zeros((shapes, nodes), np.int64),
        values=np.zeros(nodes, np.int64),
        ties=np.zeros(nodes, np.int64),
        seen=np.full(shapes, -1, np.int64),
        log=np.zeros(changes, np.int64),
        changed=np.full(nodes, -1, np.int64),
        count=np.zeros(1, np.int64),
    )


def fill(  # noqa: PLR0917
    mix: Mix, memo: Memo, nodes: Nodes, table: Ints, slots: Ints, pods: Ints
) -> tuple[Ints, Ints]:  # fmt: skip
    """Place the pods in order; per arrival the node, -1 for none, and the mask of slots. ``nodes`` is changed."""
    known = nothing_known(len(table), len(nodes.klass), len(pods))
    where, taken = np.full(len(pods), -1, np.int64), np.zeros(len(pods), np.int64)
    value_all(mix, memo, nodes, known)
    advance(mix, memo, nodes, known, table, slots, pods, 0, where, taken, False)
    return where, taken


@njit(cache=True)
def value_all(mix: Mix, memo: Memo, nodes: Nodes, known: Known) -> None:
    """Work out the value of every node."""
    for n in range(nodes.klass.shape[0]):
        known.values[n] = value(mix, memo, nodes.klass[n], nodes.cpu[n], nodes.memory[n], nodes.free[n])
        known.ties[n] = tie(mix, nodes.klass[n], nodes.cpu[n], nodes.memory[n], nodes.free[n])


@njit(cache=True)
def note(mix: Mix, memo: Memo, nodes: Nodes, known: Known, n: int) -> None:
    """Node n has changed."""
    k, c, m, free = nodes.klass[n], nodes.cpu[n], nodes.memory[n], nodes.free[n]
    known.values[n], known.ties[n] = value(mix, memo, k, c, m, free), tie(mix, k, c, m, free)
    known.log[known.count[0]], known.changed[n] = n, known.count[0]
    known.count[0] += 1


@njit(cache=True)
def advance(  # noqa: PLR0917 - compiled
    mix: Mix, memo: Memo, nodes: Nodes, known: Known, table: Ints, slots: Ints, pods: Ints, begin: int, where: Ints,
    taken: Ints, stops: bool
) -> int:  # fmt: skip
    """Place arrivals from ``begin`` on; with ``stops`` up to the first that asks for cards and fits nowhere: which."""
    costs, masks, values, ties = known.costs, known.masks, known.values, known.ties
    seen, log, changed, count = known.seen, known.log, known.changed, nodes.klass.shape[0]
    for p in range(begin, pods.shape[0]):
        placed = known.count[0]
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
            if stops and table[s, 2] > 0:
                return p
            continue
        where[p], taken[p] = best, masks[s, best]
        occupy(nodes, best, table[s], taken[p], 1)
        note(mix, memo, nodes, known, best)
    return pods.shape[0]


@njit(cache=True)
def occupy(nodes: Nodes, n: int, pod: Ints, taken: int, sign: int) -> None:
    """Take a pod's resources from a node, its cards from the slots of the mask; with -1 give them back."""
    nodes.cpu[n] -= sign * pod[0]
    nodes.memory[n] -= sign * pod[1]
    for d in range(SLOTS):
        nodes.free[n, d] -= sign * pod[3] * ((taken >> d) & 1)
