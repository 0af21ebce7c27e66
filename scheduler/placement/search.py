"""Finding the best node for many tasks of few shapes: work per shape and per changed node, not per task.

Per demand, the nodes it fits on lie in a heap by score. Each placement changes one node; a demand re-scores only the
nodes that changed since it was last asked. The result is the one of a full scan.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scheduler.model.lease import Allocation
from scheduler.placement import gang
from scheduler.placement.fit import Demand, Features, capacity
from scheduler.placement.score import Score, allocate, score
from scheduler.placement.view import NodeView


@dataclass(slots=True)
class _Candidates:
    """Nodes one demand fits on now."""

    heap: list[tuple[Score, str, int]]
    """``(score, node, stamp)``; entries whose stamp is not the node's last one are stale."""
    fits: dict[str, tuple[int, int]]
    """Node to ``(copies that fit, stamp)``."""
    copies: int
    """Sum of the copies over all nodes."""
    seen: int
    """How much of the search's list of changes is worked in."""


class Search:
    """One trial of placing: starts from the real view, takes resources away from its own copy."""

    def __init__(self, nodes: Mapping[str, NodeView], features: Features, cluster: tuple[int, int, int, int]) -> None:
        self._nodes = dict(nodes)
        self._features = features
        self._cluster = cluster
        self._changed: list[str] = []
        self._candidates: dict[Demand, _Candidates] = {}
        self._hopeless: set[tuple[Demand, int]] = set()

    @property
    def nodes(self) -> Mapping[str, NodeView]:
        """The views as this trial left them."""
        return self._nodes

    def copies(self, demand: Demand) -> int:
        """How many copies of ``demand`` fit on all nodes together now."""
        return self._fresh(demand).copies

    def place(self, demand: Demand, ranks: int, tenant: str, warm: Iterable[str] = ()) -> tuple[Allocation, ...]:
        """Take the best place for all ``ranks``, or nothing: then the result is empty. ``warm``: nodes liked best."""
        if (demand, ranks) in self._hopeless:
            return ()
        chosen = self._gang(demand, ranks, tenant) if ranks > 1 else self._single(demand, tenant, warm)
        if not chosen:
            self._hopeless.add((demand, ranks))  # a trial only takes: what does not fit now will not fit later
        return chosen

    def _single(self, demand: Demand, tenant: str, warm: Iterable[str]) -> tuple[Allocation, ...]:
        candidates = self._fresh(demand)
        liked = [name for name in warm if candidates.fits.get(name, (0, 0))[0] > 0]
        name = liked[0] if liked else self._best(candidates)
        if name is None:
            return ()
        allocation = allocate(self._nodes[name], demand, self._features)
        self._take(allocation, tenant)
        return (allocation,)

    def _gang(self, demand: Demand, ranks: int, tenant: str) -> tuple[Allocation, ...]:
        candidates = self._fresh(demand)
        if candidates.copies < ranks:
            return ()
        room = [
            (copies, score(self._nodes[name], demand, self._features, self._cluster), name)
            for name, (copies, _) in candidates.fits.items()
            if copies > 0
        ]
        chosen: list[Allocation] = []
        for name, copies in gang.spread(room, ranks):
            for _ in range(copies):
                chosen.append(allocate(self._nodes[name], demand, self._features))
                self._take(chosen[-1], tenant)
        return tuple(chosen)

    def _take(self, allocation: Allocation, tenant: str) -> None:
        self._nodes[allocation.node] = self._nodes[allocation.node].take(allocation, tenant)
        self._changed.append(allocation.node)

    def _best(self, candidates: _Candidates) -> str | None:
        heap = candidates.heap
        while heap:
            _, name, stamp = heap[0]
            copies, last = candidates.fits[name]
            if stamp == last and copies > 0:
                return name
            heapq.heappop(heap)
        return None

    def _fresh(self, demand: Demand) -> _Candidates:
        """The demand's candidates, with every change since the last question worked in."""
        candidates = self._candidates.get(demand)
        if candidates is None:
            candidates = _Candidates(heap=[], fits={}, copies=0, seen=len(self._changed))
            self._candidates[demand] = candidates
            for name in self._nodes:
                self._weigh(candidates, demand, name)
        elif candidates.seen < len(self._changed):
            for name in dict.fromkeys(self._changed[candidates.seen :]):
                self._weigh(candidates, demand, name)
            candidates.seen = len(self._changed)
        return candidates

    def _weigh(self, candidates: _Candidates, demand: Demand, name: str) -> None:
        view = self._nodes[name]
        before, stamp = candidates.fits.get(name, (0, 0))
        copies = capacity(view, demand, self._features)
        candidates.fits[name] = (copies, stamp + 1)
        candidates.copies += copies - before
        if copies > 0:
            entry = (score(view, demand, self._features, self._cluster), name, stamp + 1)
            heapq.heappush(candidates.heap, entry)
