"""One trial of placing many tasks of few shapes. The result is the one of a full scan for each of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from scheduler.model.job import Together
from scheduler.model.lease import Allocation
from scheduler.placement import gang
from scheduler.placement.cluster import Views
from scheduler.placement.fit import Demand
from scheduler.placement.score import CARD
from scheduler.placement.shapes import Shapes
from scheduler.placement.view import NodeView

NOWHERE: Collection[str] = frozenset()
Warm = Iterable[str] | Mapping[str, int]
"""Nodes liked best, the most liked first; or what a place on them saves, in the unit of costs (``score.CARD``)."""


class Search:
    """Starts from the real nodes and takes resources away from its own copy; the real ones stay as they are."""

    def __init__(self, shapes: Shapes) -> None:
        self._placer = shapes.placer.fork()
        self._views = Views(self._placer.cluster)
        self._hopeless: set[tuple[Demand, int, Together]] = set()
        self._barred: dict[frozenset[str], NDArray[np.int32]] = {}
        """Rows of the sets of nodes that were barred."""

    @property
    def nodes(self) -> Mapping[str, NodeView]:
        """The nodes as this trial left them."""
        return self._views

    def copies(self, demand: Demand) -> int:
        """How many copies of ``demand`` fit on all nodes together now."""
        return self._placer.copies(self._placer.shape(demand))

    def is_hopeless(self, demand: Demand, ranks: int, together: Together) -> bool:
        """Whether it was tried and did not fit, so that it will not fit later in this trial either."""
        return (demand, ranks, together) in self._hopeless

    def copies_on(self, demand: Demand, node: str) -> int:
        """How many fit on one node now."""
        return int(self._placer.copies_by_row(self._placer.shape(demand))[self._placer.cluster.row[node]])

    def rooms(self, demand: Demand) -> list[str]:
        """Nodes where one more copy fits now."""
        copies, nodes = self._placer.room(self._placer.shape(demand))[0], self._placer.cluster.nodes
        return [nodes[row].name for row in np.flatnonzero(copies).tolist()]

    def most(self, demand: Demand, together: Together, barred: Collection[str] = NOWHERE) -> int:
        """How many fit near enough to each other now, on nodes that are not ``barred``."""
        if together is Together.ANYWHERE and not barred:
            return self.copies(demand)
        copies, _ = self._room(self._placer.shape(demand), barred)
        return gang.most(copies, self._placer.cluster.racks(), together)

    def place(
        self,
        demand: Demand,
        ranks: int,
        tenant: str,
        warm: Warm = (),
        *,
        barred: Collection[str] = NOWHERE,
        together: Together = Together.ANYWHERE,
    ) -> tuple[Allocation, ...]:
        """Take the best place for all ``ranks``, or nothing: then the result is empty.

        ``barred``: nodes that are not to be used.
        """
        key = (demand, ranks, together)
        if key in self._hopeless:
            return ()
        if ranks > 1:
            chosen = self._gang(demand, ranks, tenant, barred, together)
        else:
            chosen = self._single(demand, tenant, warm, barred)
        if not chosen and not barred:
            self._hopeless.add(key)  # until something is given back: what does not fit now will not fit later
        return chosen

    def place_many(self, demand: Demand, count: int, tenant: str) -> tuple[Allocation, ...]:
        """Allocations of as many tasks as fit, at most ``count``: those that one ``place`` after another gives."""
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

    def _single(self, demand: Demand, tenant: str, warm: Warm, barred: Collection[str]) -> tuple[Allocation, ...]:
        placer = self._placer
        shape, number = placer.shape(demand), placer.cluster.tenant(tenant)
        if not barred and not warm:
            place = placer.place(shape, number)
        else:
            best = placer.best_but(shape, self._rows(barred)) if barred else placer.best(shape)
            row = best if best is None or not warm else self._warm_row(shape, warm, barred, best)
            place = None if row is None else placer.take(shape, row, number)
        return () if place is None else (placer.allocation(shape, *place),)

    def _warm_row(self, shape: int, warm: Warm, barred: Collection[str], best: int) -> int:
        """The row that is best with what it saves; ``best`` when none of the warm ones is."""
        known = self._placer.cluster.row
        copies = self._placer.copies_by_row(shape)
        rows = [(known[name], name) for name in warm if name in known and name not in barred]
        rows = [(row, name) for row, name in rows if copies[row] > 0]
        if not (rows and isinstance(warm, Mapping)):
            return rows[0][0] if rows else best
        _, key = self._placer.room(shape)
        scored = [(int(key[row, 0]) - warm[name], int(key[row, 1]), name, row) for row, name in rows]
        liked = min(scored, default=None)
        return liked[3] if liked is not None and liked[0] <= int(key[best, 0]) else best

    def _gang(
        self, demand: Demand, ranks: int, tenant: str, barred: Collection[str], together: Together
    ) -> tuple[Allocation, ...]:
        placer = self._placer
        shape, number = placer.shape(demand), placer.cluster.tenant(tenant)
        if placer.copies(shape) < ranks:
            return ()
        copies, key = self._room(shape, barred)
        chosen = gang.spread(copies, key, placer.cluster.rows.rank, placer.cluster.racks(), ranks, together)
        return tuple(
            [placer.allocation(shape, *placer.take(shape, row, number)) for row, count in chosen for _ in range(count)]
        )

    def _room(self, shape: int, barred: Collection[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Copies and keys by row, without those that are barred."""
        copies, key = self._placer.room(shape)
        if barred:
            copies = copies.copy()
            copies[self._rows(barred)] = 0
        return copies, key

    def _rows(self, barred: Collection[str]) -> NDArray[np.int32]:
        """The rows of some nodes, each once."""
        names = frozenset(barred)
        rows = self._barred.get(names)
        if rows is None:
            known = self._placer.cluster.row
            rows = self._barred[names] = np.array([known[name] for name in names if name in known], np.int32)
        return rows


def warm_gain(saved_ms: int, run_ms: int, milli: int) -> int:
    """What a warm place saves, as a cost: ``milli`` thousandths of a card for the saved share of the run."""
    return CARD // 1_000 * milli * min(saved_ms, run_ms) // max(run_ms, 1)
