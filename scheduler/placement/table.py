"""Every shape of demand against every class of nodes, worked out once: what kernels then read instead of objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.model.job import Resources
from scheduler.model.units import WHOLE_CARD_MILLI
from scheduler.placement import fragment, kernels, mix
from scheduler.placement.cluster import Cluster, NodeClass
from scheduler.placement.fit import Demand, Features, admits, capacity, has_labels, suitable
from scheduler.placement.kernels import NOWHERE, Asks, Frag
from scheduler.placement.score import static_cost
from scheduler.placement.view import NodeView, healed
from scheduler.placement.wanted import Wanted

SHAPES_LEAST, CLASSES_LEAST = 16, 4
MEMO_BITS = 16
"""States of nodes whose value is kept; 1 MiB."""
MASK_SLOTS = 63
"""Fragmentation sees no more device slots of a node than that."""

_Judgement = tuple[int, int, int, list[int]]
"""Copies that fit on an empty node, and on one whose state and cards are well; the cost; per slot its island from 1,
0 where it does not suit.
"""


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
        self._judge(cluster, (number,), 0, self._classes)
        return number

    def follow(self, cluster: Cluster) -> None:
        """Work in the classes of nodes that are new."""
        if self._classes == len(cluster.classes):
            return
        self._reserve(len(self.demands), len(cluster.classes), cluster.rows.milli.shape[1])
        self._judge(cluster, range(len(self.demands)), self._classes, len(cluster.classes))
        self._classes = len(cluster.classes)

    def _judge(self, cluster: Cluster, numbers: Sequence[int], first: int, end: int) -> None:
        """Shapes against classes ``first`` to ``end``. What labels do not tell apart is judged once."""
        for number in numbers:
            demand, known = self.demands[number], dict[tuple[int, bool], _Judgement]()
            for index in range(first, end):
                kind = cluster.classes[index]
                alike = kind.likeness, has_labels(kind.node, demand)
                if alike not in known:
                    known[alike] = _judged(demand, kind, self._features)
                empty, healthy, cost, groups = known[alike]
                self.asks.empty[number, index], self.asks.cost[number, index] = empty, cost
                self.asks.group[number, index, : len(groups)] = groups
                self.healed[number].append(healthy)

    def _reserve(self, shapes: int, classes: int, slots: int) -> None:
        have = self.asks.group.shape
        if shapes <= have[0] and classes <= have[1] and slots <= have[2]:
            return
        more = _asks(_room(shapes, have[0]), _room(classes, have[1]), max(slots, have[2]))
        for name in Asks._fields:
            old, new = getattr(self.asks, name), getattr(more, name)
            new[tuple(slice(0, length) for length in old.shape)] = old
        self.asks = more


def _judged(demand: Demand, kind: NodeClass, features: Features) -> _Judgement:
    whole = healed(kind.node)
    now = capacity(NodeView.empty(kind.node), demand, features)
    most = now if whole == kind.node else capacity(NodeView.empty(whole), demand, features)
    if not admits(kind.node, demand):
        return now, most, NOWHERE, []
    fits = suits(kind, demand.resources, features)
    groups = [1 + island if fit else 0 for island, fit in zip(kind.islands, fits, strict=True)]
    return now, most, static_cost(demand, kind, features), groups


def suits(kind: NodeClass, ask: Resources, features: Features) -> tuple[bool, ...]:
    """Per slot: whether the device may be leased and suits what is asked."""
    if not (ask.cards or ask.card_milli):
        return (False,) * len(kind.slots)
    known: dict[int, bool] = {}
    for device, is_free, number in zip(kind.slots, kind.leasable, kind.kinds, strict=True):
        if number not in known:
            known[number] = is_free and bool(suitable((device,), ask, features))
    return tuple(known[number] for number in kind.kinds)


def frag_of(wanted: Wanted, cluster: Cluster, features: Features, before: Frag | None = None) -> Frag:
    """The mix against every class of nodes. What was worked out ``before`` is kept if it still holds."""
    kinds, members = cluster.classes, cluster.members
    demands = [
        mix.Demand(
            cpu_milli=demand.resources.cpu_milli,
            memory_mib=demand.resources.memory_mib,
            cards=1 if demand.resources.card_milli else demand.resources.cards,
            card_milli=demand.resources.card_milli or WHOLE_CARD_MILLI,
            slots=tuple(_mask(demand, kind, features) for kind in kinds),
            weight=weight,
        )
        for demand, weight in wanted.shares
    ]
    made = mix.mix_of(demands, [_described(kind, count) for kind, count in zip(kinds, members, strict=True)])
    slots = cluster.rows.milli.shape[1]
    made, alike = _padded(made, slots), _alike(kinds, slots)
    if before is not None and _is_kept(before.mix, made):
        return Frag(mix=made, memo=before.memo, alike=alike)
    return Frag(mix=made, memo=fragment.memo_of(MEMO_BITS if demands else 0), alike=alike)


def _padded(made: mix.Mix, slots: int) -> mix.Mix:
    """With a column for each device slot of the cluster's arrays."""
    kinds = np.full((len(made.kinds), slots), -1, np.int64)
    kinds[:, : made.kinds.shape[1]] = made.kinds
    return made._replace(kinds=kinds)


def _alike(kinds: Sequence[NodeClass], slots: int) -> kernels.Ints:
    """Slots are alike if their devices are and they are in one island, or all in one, or each in its own."""
    alike = np.zeros((len(kinds), slots), np.int32)
    for row, kind in enumerate(kinds):
        is_plain = len(set(kind.islands)) in {1, len(kind.islands)}
        islands = (0,) * len(kind.islands) if is_plain else kind.islands
        numbers: dict[tuple[int, int], int] = {}
        for slot, pair in enumerate(zip(kind.kinds, islands, strict=True)):
            alike[row, slot] = numbers.setdefault(pair, len(numbers))
    return alike


def _mask(demand: Demand, kind: NodeClass, features: Features) -> int:
    """Bit per device slot the demand may use; for work without cards, 1 where it may run."""
    if not admits(kind.node, demand):
        return 0
    if not (demand.resources.cards or demand.resources.card_milli):
        return 1
    fits = suits(kind, demand.resources, features)[:MASK_SLOTS]
    return sum(1 << slot for slot, fit in enumerate(fits) if fit)


def _described(kind: NodeClass, count: int) -> mix.NodeClass:
    return mix.NodeClass(
        cpu_milli=kind.node.cpu_milli, memory_mib=kind.node.memory_mib, slots=kind.kinds, count=count, key=kind.key
    )


def _is_kept(old: mix.Mix, new: mix.Mix) -> bool:
    """Whether values worked out under the old mix are right under the new one, which may know more classes."""
    count = len(old.class_keys)
    return (
        all(np.array_equal(a, b) for a, b in ((old.amounts, new.amounts), (old.scarce_amounts, new.scarce_amounts)))
        and np.array_equal(old.scarce_price, new.scarce_price)
        and np.array_equal(old.slots, new.slots[:, :count])
        and np.array_equal(old.scarce_slots, new.scarce_slots[:, :count])
        and np.array_equal(old.draws, new.draws[:count])
    )


def _room(needed: int, have: int) -> int:
    return max(have, 1 << max(needed - 1, 0).bit_length())


def _asks(shapes: int, classes: int, slots: int) -> Asks:
    return Asks(
        ask=np.zeros((shapes, kernels.ASK_COLUMNS), np.int64),
        group=np.zeros((shapes, classes, slots), np.int16),
        cost=np.zeros((shapes, classes), np.int64),
        empty=np.zeros((shapes, classes), np.int32),
    )
