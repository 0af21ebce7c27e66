"""What each shape of demand finds on each node, kept up to date as nodes change and leases come and go.

Work per shape and per changed node, never per task. All of it is a cache: dropping it changes no plan.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from scheduler.model.job import Together
from scheduler.model.node import Node
from scheduler.model.plan import Reason
from scheduler.placement import gang
from scheduler.placement.fit import Demand, Features, Refusal, capacity, refusal
from scheduler.placement.gang import NOWHERE
from scheduler.placement.score import Score, score
from scheduler.placement.view import NodeView, healed

SHAPES_KEPT = 256
"""More different demands than a farm has at one time; beyond it everything is worked out anew."""
CHANGES_KEPT = 100_000
"""A shape nobody asked for during this many changes is worked out anew."""


@dataclass(slots=True)
class Ranking:
    """Nodes one demand fits on, best first."""

    heap: list[tuple[Score, str, int]] = field(default_factory=list)
    """``(score, node, stamp)``; entries whose stamp is not the node's last one are stale."""
    fits: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Node to ``(copies that fit, stamp)``."""
    copies: int = 0
    """Sum of the copies over all nodes."""
    seen: int = 0
    """How much of its owner's list of changes is worked in."""

    def weigh(self, view: NodeView, demand: Demand, features: Features) -> None:
        """A node is new or changed."""
        name = view.node.name
        before, stamp = self.fits.get(name, (0, 0))
        copies = capacity(view, demand, features)
        self.fits[name] = (copies, stamp + 1)
        self.copies += copies - before
        if copies > 0:
            heapq.heappush(self.heap, (score(view, demand, features), name, stamp + 1))
        if len(self.heap) > 2 * len(self.fits) + 64:
            self.heap = [entry for entry in self.heap if self.fits[entry[1]][1] == entry[2]]
            heapq.heapify(self.heap)

    def best(self, barred: Collection[str] = NOWHERE) -> str | None:
        """The node with the least score that is not ``barred``; None when it fits nowhere."""
        passed: list[tuple[Score, str, int]] = []
        found: str | None = None
        while self.heap and found is None:
            entry = heapq.heappop(self.heap)
            if entry[2] != self.fits[entry[1]][1]:
                continue
            passed.append(entry)
            if entry[1] not in barred:
                found = entry[1]
        for entry in passed:
            heapq.heappush(self.heap, entry)
        return found

    def copy(self) -> Ranking:
        """An own copy for a trial, with none of the trial's changes worked in."""
        return Ranking(heap=self.heap.copy(), fits=self.fits.copy(), copies=self.copies)


@dataclass(slots=True)
class Potential:
    """What one demand would find if nobody held anything."""

    seen: int = 0
    """How much of the list of replaced nodes is worked in."""
    empty: dict[str, int] = field(default_factory=dict)
    """Node to copies that would fit if it were empty, where that is at least one."""
    healed: dict[str, int] = field(default_factory=dict)
    """Likewise if it were empty, uncordoned, found again and its cards out of quarantine."""


@dataclass(slots=True)
class Shape:
    """One demand against the real views."""

    demand: Demand
    ranking: Ranking = field(default_factory=Ranking)
    potential: Potential = field(default_factory=Potential)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    """Why nodes do not take it now; filled when asked."""
    reasons: dict[int, tuple[Reason, ...]] = field(default_factory=dict)
    """By ranks: why it does not fit now; filled when asked."""


class Shapes:
    """All shapes asked for lately, over the real views of the nodes."""

    def __init__(self, features: Features) -> None:
        self.features = features
        self.nodes: dict[str, NodeView] = {}
        self._bare: dict[str, tuple[NodeView, NodeView]] = {}
        """``(empty, empty and healthy)`` per node."""
        self._changed: list[str] = []
        self._replaced: list[str] = []
        self._shapes: dict[Demand, Shape] = {}

    def set_node(self, view: NodeView) -> None:
        """A node joined or is described anew."""
        node = view.node
        whole = healed(node)
        empty = NodeView.empty(node)
        self._bare[node.name] = (empty, empty if whole == node else NodeView.empty(whole))
        self._replaced.append(node.name)
        self.set_held(view)

    def drop_node(self, name: str) -> None:
        """A node was never there."""
        del self.nodes[name], self._bare[name]
        self._forget()

    def set_held(self, view: NodeView) -> None:
        """What is held on a known node changed."""
        self.nodes[view.node.name] = view
        self._changed.append(view.node.name)
        if len(self._changed) + len(self._replaced) > CHANGES_KEPT + 2 * len(self.nodes):
            self._forget()

    def of(self, demand: Demand) -> Shape:
        """The demand's shape, with every change worked into its ranking."""
        shape = self._shapes.get(demand)
        if shape is None:
            if len(self._shapes) >= SHAPES_KEPT:
                self._forget()
            shape = self._shapes[demand] = Shape(demand=demand)
            self._weigh(shape, self.nodes)
        elif shape.ranking.seen < len(self._changed):
            self._weigh(shape, dict.fromkeys(self._changed[shape.ranking.seen :]))
        shape.ranking.seen = len(self._changed)
        return shape

    def most(self, demand: Demand, together: Together) -> int:
        """How many fit near enough to each other now."""
        ranking = self.of(demand).ranking
        if together is Together.ANYWHERE:
            return ranking.copies
        return gang.most({name: copies for name, (copies, _) in ranking.fits.items()}, self.nodes, together)

    def potential(self, shape: Shape) -> Potential:
        """What the shape would find on empty, and on empty and healthy nodes."""
        found = shape.potential
        names = self._replaced[found.seen :] if found.seen else self._bare
        for name in dict.fromkeys(names):
            empty, whole = self._bare[name]
            now = capacity(empty, shape.demand, self.features)
            most = now if whole is empty else capacity(whole, shape.demand, self.features)
            _put(found.empty, name, now)
            _put(found.healed, name, most)
        found.seen = len(self._replaced)
        return found

    def refusals(self, shape: Shape) -> Mapping[str, Refusal]:
        """Why each node that would take a copy if it were empty takes none now."""
        for name in self.potential(shape).empty:
            if name not in shape.refusals and shape.ranking.fits[name][0] == 0:
                found = refusal(self.nodes[name], shape.demand, self.features)
                assert found is not None, "capacity and refusal disagree"
                shape.refusals[name] = found
        return shape.refusals

    def described(self) -> list[Node]:
        """All nodes, by name."""
        return [self.nodes[name].node for name in sorted(self.nodes)]

    def _weigh(self, shape: Shape, names: Iterable[str]) -> None:
        for name in names:
            shape.ranking.weigh(self.nodes[name], shape.demand, self.features)
            shape.refusals.pop(name, None)
        shape.reasons.clear()

    def _forget(self) -> None:
        self._shapes.clear()
        self._changed.clear()
        self._replaced[:] = self._bare


def _put(amounts: dict[str, int], name: str, amount: int) -> None:
    if amount > 0:
        amounts[name] = amount
    else:
        amounts.pop(name, None)
