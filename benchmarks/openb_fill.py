"""Fills the openb farm one pod at a time through the engine's own ``Placer``, and judges a fill.

No departures, no retry, no look-ahead: a pod that fits nowhere is dropped. ``placer_of`` is the policy of both B1 (how
full the farm gets) and B4 (how fast).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks.openb import LOADS_PERCENT, SLOTS, WHOLE_MILLI, Farm, Ints, NodeShape, PodShape, Trace
from scheduler.model.job import Resources
from scheduler.model.node import Device, Node
from scheduler.placement.cluster import Cluster
from scheduler.placement.fit import Demand
from scheduler.placement.placer import Placer
from scheduler.placement.wanted import Wanted


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


def placer_of(trace: Trace, farm: Farm) -> tuple[Placer, list[int]]:
    """An empty farm, and the number of each shape of the list; the mix is how often each is in it, like FGD's."""
    cluster = Cluster()
    for at, klass in enumerate(farm.klass.tolist()):
        cluster.set_node(node_of(at, farm.classes[klass]))
    counts = Counter(trace.pods.tolist())
    wanted = Wanted(shares=tuple((demand_of(trace.shapes[row]), count) for row, count in counts.most_common()))
    placer = Placer(cluster, wanted)
    return placer, [placer.shape(demand_of(shape)) for shape in trace.shapes]


def node_of(number: int, shape: NodeShape) -> Node:
    """One node of the trace, under a name that says only where it is in the order."""
    name = f"n{number}"
    cards = tuple(Device(id=f"{name}-{card}", index=card, model=shape.model) for card in range(shape.cards))
    return Node(name=name, cpu_milli=shape.cpu_milli, memory_mib=shape.memory_mib, devices=cards)


def demand_of(pod: PodShape) -> Demand:
    """What a pod asks for, as the engine says it."""
    is_part = pod.cards == 1 and pod.card_milli < WHOLE_MILLI
    ask = Resources(
        cpu_milli=pod.cpu_milli,
        memory_mib=pod.memory_mib,
        cards=0 if is_part else pod.cards,
        card_milli=pod.card_milli if is_part else 0,
        card_models=pod.models,
    )
    return Demand(resources=ask, lane="pool", tenant="t" if is_part else "")


def fill(trace: Trace, farm: Farm, pods: Ints) -> Fill:
    """One run of our policy on the farm in the order given."""
    placer, numbers = placer_of(trace, farm)
    places = [placer.place(numbers[pod]) or (-1, ()) for pod in pods.tolist()]
    node = np.array([row for row, _ in places], np.int64)
    taken = np.array([sum(1 << slot for slot in slots) for _, slots in places], np.int64)
    return judge(trace, farm, pods, (node, taken))


@njit(cache=True)
def occupy(nodes: Nodes, n: int, pod: Ints, taken: int) -> None:
    """Take a pod's resources from a node, its cards from the slots of the mask."""
    nodes.cpu[n] -= pod[0]
    nodes.memory[n] -= pod[1]
    for d in range(SLOTS):
        nodes.free[n, d] -= pod[3] * ((taken >> d) & 1)
