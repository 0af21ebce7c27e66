"""One trial of placing many tasks of few shapes. The result is the one of a full scan for each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from scheduler.model.job import Together
from scheduler.model.lease import Allocation
from scheduler.placement import gang
from scheduler.placement.cluster import Views
from scheduler.placement.fit import Demand
from scheduler.placement.score import CARD
from scheduler.placement.shapes import Shapes
from scheduler.placement.view import NodeView

Warm = Iterable[str] | Mapping[str, int]
"""Nodes liked best, the most liked first; or what a place on them saves, in the unit of costs (``score.CARD``)."""


class Search:
    """Starts from the real nodes and takes resources away from its own copy; the real ones stay as they are."""

    def __init__(self, shapes: Shapes) -> None:
        self._placer = shapes.placer.fork()
        self._hopeless: set[tuple[Demand, int, Together]] = set()

    @property
    def nodes(self) -> Mapping[str, NodeView]:
        """The nodes as this trial left them."""
        return Views(self._placer.cluster)

    def copies(self, demand: Demand) -> int:
        """How many copies of ``demand`` fit on all nodes together now."""
        return self._placer.copies(self._placer.shape(demand))

    def place(
        self, demand: Demand, ranks: int, tenant: str, warm: Warm = (), together: Together = Together.ANYWHERE
    ) -> tuple[Allocation, ...]:
        """Take the best place for all ``ranks``, or nothing: then the result is empty."""
        key = (demand, ranks, together)
        if key in self._hopeless:
            return ()
        chosen = self._gang(demand, ranks, tenant, together) if ranks > 1 else self._single(demand, tenant, warm)
        if not chosen:
            self._hopeless.add(key)  # until something is given back: what does not fit now will not fit later
        return chosen

    def place_many(self, demand: Demand, count: int, tenant: str) -> tuple[Allocation, ...]:
        """Allocations of as many single tasks as fit, at most ``count``: those that one ``place`` after another gives."""
        placer = self._placer
        shape = placer.shape(demand)
        places = placer.place_many(shape, count, placer.cluster.tenant(tenant))
        return tuple([placer.allocation(shape, row, slots) for row, slots in places])

    def hold(self, allocation: Allocation, tenant: str) -> None:
        """Take what an allocation names, in this trial."""
        self._placer.hold(allocation, tenant)

    def give_back(self, allocation: Allocation, tenant: str) -> None:
        """Give back what an allocation holds, in this trial: what if it ended?"""
        self._placer.give_back(allocation, tenant)
        self._hopeless.clear()

    def _single(self, demand: Demand, tenant: str, warm: Warm) -> tuple[Allocation, ...]:
        placer = self._placer
        shape, number = placer.shape(demand), placer.cluster.tenant(tenant)
        row = self._warm_row(shape, warm) if warm else None
        place = placer.place(shape, number) if row is None else placer.take(shape, row, number)
        return () if place is None else (placer.allocation(shape, *place),)

    def _warm_row(self, shape: int, warm: Warm) -> int | None:
        """The row that is best because of what it saves; None when none is liked or fits."""
        known, best = self._placer.cluster.row, self._placer.best(shape)
        rows = [(known[name], name) for name in warm if name in known]
        if best is None or not rows:
            return None
        copies, key = self._placer.room(shape)
        rows = [(row, name) for row, name in rows if copies[row] > 0]
        if not isinstance(warm, Mapping):
            return rows[0][0] if rows else None
        scored = [(int(key[row, 0]) - warm[name], int(key[row, 1]), name, row) for row, name in rows]
        liked = min(scored, default=None)
        return liked[3] if liked is not None and liked[0] <= int(key[best, 0]) else None

    def _gang(self, demand: Demand, ranks: int, tenant: str, together: Together) -> tuple[Allocation, ...]:
        placer = self._placer
        shape, number = placer.shape(demand), placer.cluster.tenant(tenant)
        if placer.copies(shape) < ranks:
            return ()
        copies, key = placer.room(shape)
        rank, racks = placer.cluster.rows.rank, placer.cluster.racks()
        chosen = gang.spread(copies, key, rank, racks, ranks, together)
        return tuple(
            [placer.allocation(shape, *placer.take(shape, row, number)) for row, count in chosen for _ in range(count)]
        )


def warm_gain(saved_ms: int, run_ms: int, milli: int) -> int:
    """What a warm place saves, as a cost: ``milli`` thousandths of a card for the saved share of the run."""
    return CARD // 1_000 * milli * min(saved_ms, run_ms) // max(run_ms, 1)
