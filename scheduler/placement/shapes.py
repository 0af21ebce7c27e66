"""What each shape of demand finds on the real nodes, kept up to date as nodes change and leases come and go.

Work per shape and per changed node, never per task. All of it is a cache: dropping it changes no plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.model.job import Together
from scheduler.model.lease import Allocation
from scheduler.model.node import Lane, Node
from scheduler.model.plan import Reason
from scheduler.placement import gang
from scheduler.placement.cluster import Cluster, Views
from scheduler.placement.fit import Demand, Features
from scheduler.placement.placer import Placer
from scheduler.placement.wanted import Wanted

SHAPES_KEPT = 256
"""More different demands than a farm has at one time; beyond it everything is worked out anew."""


@dataclass(slots=True)
class Ranking:
    """How much of one demand fits now."""

    copies: int = 0


@dataclass(slots=True)
class Shape:
    """One demand against the real nodes."""

    number: int
    ranking: Ranking = field(default_factory=Ranking)
    seen: int = -1
    """Changes of the cluster when it was last looked at."""
    reasons: dict[tuple[int, Together], tuple[Reason, ...]] = field(default_factory=dict)
    """By ranks and how near they must be: why it does not fit now; filled when asked."""
    possible: Sequence[str] | None = None
    """Where it would fit if nobody held anything; filled when asked."""


class Shapes:
    """The real nodes, what is held on them, and all shapes asked for lately."""

    def __init__(self, features: Features) -> None:
        self.features = features
        self.placer = Placer(Cluster(), features=features)
        self.nodes = Views(self.placer.cluster)
        """All nodes and what is free on them now."""
        self._shapes: dict[Demand, Shape] = {}

    @property
    def has_lanes(self) -> bool:
        """Whether any node serves one lane only. Read off the classes of nodes: every plan asks."""
        cluster = self.placer.cluster
        return any(
            count and kind.node.lane is not Lane.ANY
            for kind, count in zip(cluster.classes, cluster.members, strict=True)
        )

    def set_node(self, node: Node) -> None:
        """A node joined or is described anew; what is held on it stays held."""
        self.placer.set_node(node)

    def set_prices(self, prices: Mapping[str, int]) -> None:
        """By node, how much dearer it is, in thousandths of the cards that work on it asks for; absent: not at all."""
        cluster = self.placer.cluster
        for name in sorted({*cluster.prices, *prices}):
            price = prices.get(name, 0)
            if price != cluster.prices.get(name, 0):
                cluster.prices[name] = price
                self.placer.set_node(cluster.nodes[cluster.row[name]])

    def drop_node(self, name: str) -> None:
        """A node was never there."""
        self.placer.drop_node(name)

    def set_mix(self, wanted: Wanted) -> None:
        """The demand to weigh fragmentation against: a function of the records, like everything here."""
        self.placer.set_mix(wanted)

    def node(self, name: str) -> Node | None:
        """The node of this name."""
        cluster = self.placer.cluster
        row = cluster.row.get(name)
        return None if row is None else cluster.nodes[row]

    def held(self, node: str, device: str) -> tuple[int, str]:
        """Thousandths held of a device, and the tenant that holds them; ``(0, "")``: nobody. KeyError: no such node."""
        cluster = self.placer.cluster
        return cluster.held_of(cluster.row[node], device)

    def hold(self, allocation: Allocation, tenant: str) -> None:
        """A lease takes what it names. Nodes that are not known hold nothing."""
        if allocation.node in self.placer.cluster.row:
            self.placer.hold(allocation, tenant)

    def give_back(self, allocation: Allocation, tenant: str) -> None:
        """A lease ended."""
        if allocation.node in self.placer.cluster.row:
            self.placer.give_back(allocation, tenant)

    def of(self, demand: Demand) -> Shape:
        """The demand's shape as of now."""
        shape = self._shapes.get(demand)
        if shape is None:
            if len(self._shapes) >= SHAPES_KEPT:
                self._shapes.clear()
                self.placer.forget()
            shape = self._shapes[demand] = Shape(number=self.placer.shape(demand))
        changes = self.placer.changes
        if shape.seen != changes:
            shape.ranking.copies = self.placer.copies(shape.number)
            shape.reasons.clear()
            shape.possible = None
            shape.seen = changes
        return shape

    def most(self, demand: Demand, together: Together) -> int:
        """How many fit near enough to each other now."""
        shape = self.of(demand)
        if together is Together.ANYWHERE:
            return shape.ranking.copies
        return gang.most(self.placer.copies_by_row(shape.number), self.placer.cluster.racks(), together)

    def possible(self, shape: Shape) -> Sequence[str]:
        """Nodes on which a copy would fit if nobody held anything, by name."""
        if shape.possible is None:
            shape.possible = self.placer.possible(shape.number)
        return shape.possible

    def described(self) -> list[Node]:
        """All nodes, by name."""
        return sorted(self.placer.cluster.nodes, key=lambda node: node.name)
