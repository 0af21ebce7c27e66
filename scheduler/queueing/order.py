"""Who is next: hierarchical fair share over the queue tree, then priority, then age.

At each level of the tree the child whose dominant resource share, divided by its weight, is least goes first
(dominant resource fairness, Ghodsi et al., NSDI 2011); its name breaks ties. Shares are recomputed with every lease
that is handed out, so equal queues alternate within one plan. All arithmetic is on integers.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, TypeVar

from scheduler.model.job import Resources
from scheduler.model.queue import Amounts, Queue
from scheduler.model.units import WHOLE_CARD_MILLI

T = TypeVar("T")

NONE: Amounts = (0, 0, 0, 0)
SHARE_SCALE = 10**12
"""Shares are compared as integers; one part in 10**12 tells a single vCPU apart on any cluster."""
OWN_WEIGHT = 100
"""Jobs submitted straight into a queue that has child queues compete with those like a child of the default weight."""


def amounts_of(resources: Resources, ranks: int) -> Amounts:
    """What one lease of a step holds, as counted for shares."""
    devices = resources.card_milli or resources.cards * WHOLE_CARD_MILLI
    cards, instances = (0, devices) if resources.mig_profile else (devices, 0)
    return resources.cpu_milli * ranks, resources.memory_mib * ranks, cards * ranks, instances * ranks


def plus(a: Amounts, b: Amounts) -> Amounts:
    """Sum by resource."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]


def minus(a: Amounts, b: Amounts) -> Amounts:
    """Difference by resource."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]


def times(amounts: Amounts, factor: int) -> Amounts:
    """Each amount ``factor`` times."""
    return amounts[0] * factor, amounts[1] * factor, amounts[2] * factor, amounts[3] * factor


def dominant_share(held: Amounts, totals: Amounts, weight: int) -> int:
    """The largest part of any resource that is held, per weight, in 1 / (SHARE_SCALE x weight)."""
    share = 0
    for part, total in zip(held, totals, strict=True):
        if part and total > 0:
            share = max(share, part * SHARE_SCALE // total)
    return share // max(weight, 1)


@dataclass(slots=True)
class _Branch(Generic[T]):
    """A queue, or the jobs submitted straight into it (then ``entries`` and no children)."""

    name: str
    weight: int
    held: Amounts = NONE
    children: list[_Branch[T]] = field(default_factory=list)
    entries: Sequence[T] = ()
    at: int = 0
    """Position in ``entries``: what lies before has been dropped."""
    heap: list[tuple[int, str, int]] = field(default_factory=list)
    """``(share per weight, child's name, position in children)`` of children that still have entries."""

    def key(self, totals: Amounts, position: int) -> tuple[int, str, int]:
        return dominant_share(self.held, totals, self.weight), self.name, position

    def settle(self, totals: Amounts) -> bool:
        """Fill the heaps from the leaves up and sum what is held. False: nothing waits below."""
        for child in self.children:
            child.settle(totals)
            self.held = plus(self.held, child.held)
        self.heap = [child.key(totals, at) for at, child in enumerate(self.children) if child.has_entries]
        heapq.heapify(self.heap)
        return self.has_entries

    @property
    def has_entries(self) -> bool:
        return bool(self.heap) or self.at < len(self.entries)


class Order(Generic[T]):
    """Hands out entries one by one: ``peek`` the next, then ``charge`` it (and see who is next) or ``drop`` it."""

    def __init__(
        self,
        queues: Iterable[Queue],
        totals: Amounts,
        held: Mapping[str, Amounts],
        entries: Mapping[str, Sequence[T]],
    ) -> None:
        """``held`` and ``entries`` by queue; entries of a queue are sorted, best first.

        A queue name that no Queue describes counts as a top-level queue of the default weight.
        """
        self._totals = totals
        self._root = _tree(queues, held, entries)
        self._root.settle(totals)
        self._path = self._next()

    def peek(self) -> T | None:
        """The entry that is next; None when all are dropped."""
        path = self._path
        return path[-1].entries[path[-1].at] if path else None

    def charge(self, amounts: Amounts) -> None:
        """The next entry was given ``amounts``; it stays, behind whoever now holds a smaller share."""
        path = self._path
        for branch in path:
            branch.held = plus(branch.held, amounts)
        for parent, child in pairwise(path):
            heapq.heapreplace(parent.heap, child.key(self._totals, parent.heap[0][2]))
        self._path = self._next()

    def drop(self) -> None:
        """The next entry wants or gets nothing more in this cycle."""
        path = self._path
        path[-1].at += 1
        if path[-1].has_entries:
            return
        for parent, child in reversed(list(pairwise(path))):
            if not child.has_entries:
                heapq.heappop(parent.heap)
        self._path = self._next()

    def skip(self, past: Callable[[Sequence[T], int], int]) -> None:
        """Drop entries from the next one on. ``past``: of a line and a place there, the first place that is kept."""
        while self._path:
            leaf = self._path[-1]
            to = past(leaf.entries, leaf.at)
            if to == leaf.at:
                return
            leaf.at = to - 1
            self.drop()

    def _next(self) -> list[_Branch[T]]:
        """Root to the leaf that is next; empty when nothing is left."""
        if not self._root.has_entries:
            return []
        path = [self._root]
        while path[-1].heap:
            path.append(path[-1].children[path[-1].heap[0][2]])
        return path


def _tree(queues: Iterable[Queue], held: Mapping[str, Amounts], entries: Mapping[str, Sequence[T]]) -> _Branch[T]:
    known = {queue.name: queue for queue in queues}
    for name in (*held, *entries):
        known.setdefault(name, Queue(name=name))
    branches: dict[str, _Branch[T]] = {name: _Branch(name=name, weight=known[name].weight) for name in sorted(known)}
    root: _Branch[T] = _Branch(name="", weight=1)
    for name, branch in branches.items():
        parent = branches[known[name].parent] if _has_parent(name, known) else root
        parent.children.append(branch)
        own: _Branch[T] = _Branch(name="", weight=OWN_WEIGHT, held=held.get(name, NONE), entries=entries.get(name, ()))
        branch.children.append(own)
    return root


def _has_parent(name: str, known: Mapping[str, Queue]) -> bool:
    """False for top-level queues, for an unknown parent, and for queues caught in a circle of parents."""
    at, seen = known[name].parent, {name}
    if at not in known:
        return False
    while at in known:
        if at in seen:
            return False
        seen.add(at)
        at = known[at].parent
    return True
