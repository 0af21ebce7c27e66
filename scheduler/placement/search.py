"""One trial of placing many tasks of few shapes. The result is the one of a full scan for each of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from scheduler.model.job import Together
from scheduler.model.lease import Allocation
from scheduler.placement import gang
from scheduler.placement.fit import Demand
from scheduler.placement.gang import NOWHERE
from scheduler.placement.score import allocate, score
from scheduler.placement.shapes import Ranking, Shapes
from scheduler.placement.view import NodeView


class Search:
    """Starts from the real views and takes resources away from its own copy; the real ones stay as they are.

    Each placement changes one node; a demand weighs again only the nodes that changed since it was last asked.
    """

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._features = shapes.features
        self._nodes = dict(shapes.nodes)
        self._changed: list[str] = []
        self._rankings: dict[Demand, Ranking] = {}
        self._hopeless: set[tuple[Demand, int, Together]] = set()

    @property
    def nodes(self) -> Mapping[str, NodeView]:
        """The views as this trial left them."""
        return self._nodes

    def copies(self, demand: Demand) -> int:
        """How many copies of ``demand`` fit on all nodes together now."""
        return self._fresh(demand).copies

    def copies_on(self, demand: Demand, node: str) -> int:
        """How many fit on one node now."""
        return self._fresh(demand).fits[node][0]

    def most(self, demand: Demand, together: Together, barred: Collection[str] = NOWHERE) -> int:
        """How many fit near enough to each other now, on nodes that are not ``barred``."""
        ranking = self._fresh(demand)
        if together is Together.ANYWHERE and not barred:
            return ranking.copies
        return gang.most({name: copies for name, (copies, _) in ranking.fits.items()}, self._nodes, together, barred)

    def place(
        self,
        demand: Demand,
        ranks: int,
        tenant: str,
        warm: Iterable[str] = (),
        *,
        barred: Collection[str] = NOWHERE,
        together: Together = Together.ANYWHERE,
    ) -> tuple[Allocation, ...]:
        """Take the best place for all ``ranks``, or nothing: then the result is empty.

        ``warm``: nodes liked best. ``barred``: nodes that are not to be used.
        """
        key = (demand, ranks, together)
        if key in self._hopeless:
            return ()
        if ranks > 1:
            chosen = self._gang(demand, ranks, tenant, barred, together)
        else:
            chosen = self._single(demand, tenant, warm, barred)
        if not chosen and not barred:
            self._hopeless.add(key)  # a trial only takes: what does not fit now will not fit later
        return chosen

    def _single(
        self, demand: Demand, tenant: str, warm: Iterable[str], barred: Collection[str]
    ) -> tuple[Allocation, ...]:
        ranking = self._fresh(demand)
        liked = [name for name in warm if name not in barred and ranking.fits.get(name, (0, 0))[0] > 0]
        name = liked[0] if liked else ranking.best(barred)
        if name is None:
            return ()
        allocation = allocate(self._nodes[name], demand, self._features)
        self._take(allocation, tenant)
        return (allocation,)

    def _gang(
        self, demand: Demand, ranks: int, tenant: str, barred: Collection[str], together: Together
    ) -> tuple[Allocation, ...]:
        ranking = self._fresh(demand)
        if ranking.copies < ranks:
            return ()
        fits = {name: copies for name, (copies, _) in ranking.fits.items() if copies > 0 and name not in barred}
        enough = (g for g in gang.groups(fits, self._nodes, together) if sum(fits[name] for name in g) >= ranks)
        # The tightest group that holds them all leaves the larger ones whole.
        group = min(enough, key=lambda g: (sum(fits[name] for name in g), g), default=[])
        room = [(fits[name], score(self._nodes[name], demand, self._features), name) for name in group]
        chosen: list[Allocation] = []
        for name, copies in gang.spread(room, ranks):
            for _ in range(copies):
                chosen.append(allocate(self._nodes[name], demand, self._features))
                self._take(chosen[-1], tenant)
        return tuple(chosen)

    def _take(self, allocation: Allocation, tenant: str) -> None:
        self._nodes[allocation.node] = self._nodes[allocation.node].take(allocation, tenant)
        self._changed.append(allocation.node)

    def _fresh(self, demand: Demand) -> Ranking:
        """The demand's ranking, with every change of this trial worked in."""
        ranking = self._rankings.get(demand)
        if ranking is None:
            ranking = self._rankings[demand] = self._shapes.of(demand).ranking.copy()
        if ranking.seen < len(self._changed):
            for name in dict.fromkeys(self._changed[ranking.seen :]):
                ranking.weigh(self._nodes[name], demand, self._features)
            ranking.seen = len(self._changed)
        return ranking
