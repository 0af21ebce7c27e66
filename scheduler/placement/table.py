"""Every shape of demand against every class of nodes, worked out once: what kernels then read instead of objects."""

from __future__ import annotations

import numpy as np

from scheduler.model.job import Resources
from scheduler.model.units import WHOLE_CARD_MILLI
from scheduler.placement import kernels
from scheduler.placement.cluster import Cluster, NodeClass
from scheduler.placement.fit import Demand, Features, admits, capacity, suitable
from scheduler.placement.fragment import MEMO_SLOTS, Frag
from scheduler.placement.kernels import NOWHERE, Asks
from scheduler.placement.mix import Mix
from scheduler.placement.score import static_cost
from scheduler.placement.view import NodeView, healed

SHAPES_LEAST, CLASSES_LEAST = 16, 4


class Table:
    """Shapes by number. It only grows, so that a fork of a placer can share it."""

    def __init__(self, features: Features) -> None:
        self.demands: list[Demand] = []
        self.numbers: dict[Demand, int] = {}
        self.asks = _asks(SHAPES_LEAST, CLASSES_LEAST, 1)
        self.healed: list[list[int]] = []
        """By shape and class: copies that fit on an empty node whose state and cards are well again."""
        self._features = features
        self._classes = 0
        """Classes of the cluster that are worked in."""

    def add(self, demand: Demand, cluster: Cluster) -> int:
        """A new shape; its number."""
        number = self.numbers[demand] = len(self.demands)
        self.demands.append(demand)
        self.healed.append([])
        self._reserve(len(self.demands), len(cluster.classes), cluster.rows.milli.shape[1])
        ask = demand.resources
        self.asks.ask[number] = (
            ask.cpu_milli,
            ask.memory_mib,
            ask.scratch_mib,
            ask.cards,
            ask.card_milli,
            ask.same_island,
            cluster.tenant(demand.tenant) if ask.card_milli else 0,
        )
        for index, kind in enumerate(cluster.classes[: self._classes]):
            self._judge(number, index, kind)
        return number

    def follow(self, cluster: Cluster) -> None:
        """Work in the classes of nodes that are new."""
        if self._classes == len(cluster.classes):
            return
        self._reserve(len(self.demands), len(cluster.classes), cluster.rows.milli.shape[1])
        for index in range(self._classes, len(cluster.classes)):
            kind = cluster.classes[index]
            self.asks.kind[index, : len(kind.kinds)] = kind.kinds
            for number in range(len(self.demands)):
                self._judge(number, index, kind)
        self._classes = len(cluster.classes)

    def _judge(self, number: int, index: int, kind: NodeClass) -> None:
        demand = self.demands[number]
        empty, whole = NodeView.empty(kind.node), healed(kind.node)
        now = capacity(empty, demand, self._features)
        self.asks.empty[number, index] = now
        most = now if whole == kind.node else capacity(NodeView.empty(whole), demand, self._features)
        self.healed[number].append(most)
        if not admits(kind.node, demand):
            self.asks.cost[number, index] = NOWHERE
            return
        self.asks.cost[number, index] = static_cost(demand, kind, self._features)
        fits = suits(kind, demand.resources, self._features)
        groups = [1 + island if fit else 0 for island, fit in zip(kind.islands, fits, strict=True)]
        self.asks.group[number, index, : len(groups)] = groups

    def _reserve(self, shapes: int, classes: int, slots: int) -> None:
        have = self.asks.group.shape
        if shapes <= have[0] and classes <= have[1] and slots <= have[2]:
            return
        more = _asks(_room(shapes, have[0]), _room(classes, have[1]), max(slots, have[2]))
        for old, new in zip(self.asks, more, strict=True):
            new[tuple(slice(0, length) for length in old.shape)] = old
        self.asks = more


def suits(kind: NodeClass, ask: Resources, features: Features) -> tuple[bool, ...]:
    """Per slot: whether the device may be leased and suits what is asked."""
    if not (ask.cards or ask.card_milli):
        return (False,) * len(kind.slots)
    known: dict[int, bool] = {}
    for device, is_free, number in zip(kind.slots, kind.leasable, kind.kinds, strict=True):
        if number not in known:
            known[number] = is_free and bool(suitable((device,), ask, features))
    return tuple(known[number] for number in kind.kinds)


def frag_of(mix: Mix, cluster: Cluster, features: Features) -> Frag:
    """The mix against every class. Work without cards cannot use any and says nothing about them, so it is left out."""
    shares = [(demand, weight) for demand, weight in mix.shares if demand.resources.cards or demand.resources.card_milli]
    classes, slots = len(cluster.classes), cluster.rows.milli.shape[1]
    frag = Frag(
        ask=np.zeros((len(shares), 4), np.int64),
        weight=np.array([weight for _, weight in shares], np.int64),
        fit=np.zeros((len(shares), classes, slots), np.uint8),
        memo_state=np.zeros(MEMO_SLOTS, np.uint64),
        memo_value=np.zeros(MEMO_SLOTS, np.int64),
    )
    for t, (demand, _) in enumerate(shares):
        ask = demand.resources
        frag.ask[t] = (ask.cpu_milli, ask.memory_mib, ask.cards or 1, ask.card_milli or WHOLE_CARD_MILLI)
        for index, kind in enumerate(cluster.classes):
            if admits(kind.node, demand):
                frag.fit[t, index, : len(kind.slots)] = suits(kind, ask, features)
    return frag


def _room(needed: int, have: int) -> int:
    return max(have, 1 << max(needed - 1, 0).bit_length())


def _asks(shapes: int, classes: int, slots: int) -> Asks:
    return Asks(
        ask=np.zeros((shapes, kernels.ASK_COLUMNS), np.int64),
        group=np.zeros((shapes, classes, slots), np.int16),
        cost=np.zeros((shapes, classes), np.int64),
        empty=np.zeros((shapes, classes), np.int32),
        kind=np.zeros((classes, slots), np.int16),
    )
