"""Guarantees, limits and lending over the queue tree, by resource.

A queue *holds* what the leases in it and below it hold. It *claims* the larger of what it keeps for itself (its
guarantee less what it lends) and what it and its children hold and claim. The two rules are then one: going up from a
queue no claim may grow beyond the limit, and at the top not beyond the farm. What stays free is so exactly the unlent
part of idle guarantees.

A queue within its guarantee may take it back from leases that no guarantee covers. A guarantee that names some
resources only (eight cards) covers leases that hold some of those, with whatever else they need. What was taken back
is covered, so none of those it displaced may take it back again: each reclaim leaves fewer leases uncovered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum

from scheduler.model.queue import UNLIMITED, Amounts, Queue
from scheduler.queueing.order import NONE, minus, plus

RESOURCES = ("cpu", "memory", "card", "mig")
"""Names of the places in Amounts."""
Share = tuple[str, Amounts, str]
"""``(queue, what a lease holds of it, its job)``; no job: it is not counted among those that run."""


class Rule(StrEnum):
    """What keeps a queue from taking more."""

    LIMIT = "limit"
    """It would hold more than its limit."""
    SIBLINGS = "siblings"
    """What queues beside it keep for themselves leaves it no more of the limit above them."""
    KEPT = "kept"
    """What stays free is what other queues keep of their guarantees."""
    JOBS = "jobs"
    """Its jobs at once are as many as it may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Why a queue may not take more now, with the numbers for the sentence."""

    queue: str
    """Whose rule it is: the one that asks or one above it; empty: the whole farm."""
    rule: Rule
    resource: str
    """Of RESOURCES; empty for JOBS."""
    held: int
    """By that queue and those below it."""
    asked: int
    most: int
    """The limit, or all there is; jobs for JOBS."""
    kept: int = 0
    """Of it, what others keep free."""


@dataclass(slots=True)
class _Node:
    """A queue in the tree. ``above``: itself excluded, up to the root."""

    queue: Queue
    parent: _Node | None
    guaranteed: Amounts
    """At least the sum of the children's."""
    keeps: Amounts
    held: Amounts = NONE
    """By it and all below."""
    below: Amounts = NONE
    """What it holds itself and what its children claim."""
    claim: Amounts = NONE
    jobs: Counter[str] = field(default_factory=Counter)


class Quotas:
    """What every queue holds, claims and may take. A trial takes and gives; ``copy`` keeps the original."""

    def __init__(
        self,
        queues: Iterable[Queue],
        held: Mapping[str, Amounts],
        totals: Amounts,
        jobs: Iterable[tuple[str, str]] = (),
    ) -> None:
        """``held`` by queue; ``jobs``: ``(queue, job id)``, once for each open lease (needed for ``jobs_max`` only)."""
        known = {queue.name: queue for queue in queues}
        for name in held:
            known.setdefault(name, Queue(name=name))
        self._totals = totals
        self._nodes = _tree(known)
        self._root = self._nodes[""]
        self._counts_jobs = any(queue.jobs_max for queue in known.values())
        self._free = not self._counts_jobs and all(_is_plain(queue) for queue in known.values())
        for name in sorted(known):
            self._add(self._nodes[name], held.get(name, NONE))
        for name, job_id in jobs:
            self._count(name, job_id, 1)

    def copy(self) -> Quotas:
        """The same again, for a trial."""
        other = object.__new__(Quotas)
        other._totals, other._free, other._counts_jobs = self._totals, self._free, self._counts_jobs
        other._nodes = {}
        for name, node in self._nodes.items():  # parents come first
            parent = other._nodes[node.parent.queue.name] if node.parent else None
            other._nodes[name] = replace(node, parent=parent, jobs=Counter(node.jobs))
        other._root = other._nodes[""]
        return other

    def block(self, queue: str, amounts: Amounts, job_id: str = "") -> Block | None:
        """Why ``queue`` may not take ``amounts`` now, the lowest rule first; None: it may."""
        if self._free:
            return None
        growth = amounts
        node: _Node | None = self._node(queue)
        if self._counts_jobs and (found := self._too_many_jobs(node, job_id)):
            return found
        while node is not None:
            below = plus(node.below, growth)
            claim = _larger(node.keeps, below)
            growth = minus(claim, node.claim)
            if found := self._over(node, amounts, growth, claim):
                return found
            node = node.parent
        return None

    def take(self, queue: str, amounts: Amounts, job_id: str = "") -> None:
        """``queue`` holds ``amounts`` more, by a lease of ``job_id``."""
        self._add(self._node(queue), amounts)
        self._count(queue, job_id, 1)

    def give(self, queue: str, amounts: Amounts, job_id: str = "") -> None:
        """``queue`` holds ``amounts`` less: a lease of ``job_id`` is over."""
        self._add(self._node(queue), minus(NONE, amounts))
        self._count(queue, job_id, -1)

    @contextmanager
    def as_if(self, ended: Iterable[Share], begun: Iterable[Share]) -> Iterator[None]:
        """As they will be when some leases are over and others have begun."""
        ended, begun = tuple(ended), tuple(begun)
        for share in ended:
            self.give(*share)
        for share in begun:
            self.take(*share)
        yield
        for share in begun:
            self.give(*share)
        for share in ended:
            self.take(*share)

    def held(self, queue: str) -> Amounts:
        """What it and the queues below it hold."""
        return self._node(queue).held

    def entitled(self, queue: str, amounts: Amounts) -> bool:
        """With ``amounts`` more it, or a queue above it, stays within its guarantee: it may take that back."""
        return bool(self.covered_by(queue, amounts))

    def borrowed(self, queue: str) -> Amounts:
        """What it and the queues below it hold beyond its guarantee."""
        node = self._node(queue)
        return _larger(NONE, minus(node.held, node.guaranteed))

    def may_reclaim(self, queue: str, amounts: Amounts, holder: str, lease: Amounts) -> bool:
        """``queue`` is entitled to ``amounts`` against a lease of ``holder`` that holds the amounts ``lease``.

        Below the lowest queue that both are in: on the one side a guarantee covers the taking, on the other none covers
        the lease. A queue takes back from leases straight in a queue above it, never from itself or those below it.
        """
        giving = self._up(holder)
        above = {node.queue.name for node in giving}
        if above.issuperset(self.covered_by(queue, amounts)):
            return False
        taking = {node.queue.name for node in self._up(queue)}
        return not any(_covers(node.held, lease, node) for node in giving if node.queue.name not in taking)

    def may_reclaim_all(self, queue: str, amounts: Amounts, leases: Iterable[tuple[str, Amounts]]) -> bool:
        """Likewise for several leases, ``(holder, amounts)`` each: none is covered when its turn comes.

        The smallest first: so, if it is true of some leases, it is true of fewer of them.
        """
        given: list[tuple[str, Amounts]] = []
        try:
            for holder, lease in sorted(leases, key=lambda each: (each[1][::-1], each[0])):
                if not self.may_reclaim(queue, amounts, holder, lease):
                    return False
                self.give(holder, lease)
                given.append((holder, lease))
            return True
        finally:
            for holder, lease in given:
                self.take(holder, lease)

    def covered_by(self, queue: str, amounts: Amounts) -> tuple[str, ...]:
        """Of the queue and those above it the ones whose guarantee covers ``amounts`` more.

        What the children of those above keep for themselves is not theirs to give.
        """
        found: list[str] = []
        growth = amounts
        for node in self._up(queue):
            below = plus(node.below, growth)
            growth = minus(_larger(node.keeps, below), node.claim)
            if _covers(below, amounts, node):
                found.append(node.queue.name)
        return tuple(found)

    def _over(self, node: _Node, amounts: Amounts, growth: Amounts, claim: Amounts) -> Block | None:
        top = node is self._root
        most = self._totals if top else node.queue.limit
        for at, resource in enumerate(RESOURCES):
            if growth[at] <= 0 or most[at] < 0 or claim[at] <= most[at]:
                continue
            held = node.held[at]
            kept = claim[at] - held - amounts[at]
            if top and kept <= 0:  # more is held than there is: nodes were lost. Where it fits, the search says.
                continue
            rule = Rule.KEPT if top else Rule.SIBLINGS if held + amounts[at] <= most[at] else Rule.LIMIT
            return Block(
                queue=node.queue.name,
                rule=rule,
                resource=resource,
                held=held,
                asked=amounts[at],
                most=most[at],
                kept=max(kept, 0),
            )
        return None

    def _too_many_jobs(self, start: _Node | None, job_id: str) -> Block | None:
        node = start
        while node is not None:
            most = node.queue.jobs_max
            if most and not node.jobs[job_id] and len(+node.jobs) >= most:
                jobs = len(+node.jobs)
                return Block(queue=node.queue.name, rule=Rule.JOBS, resource="", held=jobs, asked=1, most=most)
            node = node.parent
        return None

    def _add(self, start: _Node, amounts: Amounts) -> None:
        node: _Node | None = start
        growth = amounts
        while node is not None:
            node.held = plus(node.held, amounts)
            node.below = plus(node.below, growth)
            claim = _larger(node.keeps, node.below)
            growth = minus(claim, node.claim)
            node.claim = claim
            node = node.parent

    def _count(self, queue: str, job_id: str, leases: int) -> None:
        if not (self._counts_jobs and job_id):
            return
        for node in self._up(queue):
            node.jobs[job_id] += leases

    def _node(self, name: str) -> _Node:
        node = self._nodes.get(name)
        if node is None:
            queue = Queue(name=name)
            node = self._nodes[name] = _Node(queue=queue, parent=self._root, guaranteed=NONE, keeps=NONE)
        return node

    def _up(self, name: str) -> list[_Node]:
        """The queue and those above it, without the farm."""
        path: list[_Node] = []
        node: _Node | None = self._node(name)
        while node is not None and node is not self._root:
            path.append(node)
            node = node.parent
        return path


def ancestors(queues: Mapping[str, Queue], name: str) -> tuple[str, ...]:
    """The queue and those above it, nearest first; a circle of parents ends where it closes."""
    path: list[str] = []
    while name and name not in path:
        path.append(name)
        name = queues[name].parent if name in queues else ""
    return tuple(path)


def _tree(known: Mapping[str, Queue]) -> dict[str, _Node]:
    """All queues, parents first, under a root without a name. Unknown parents and circles count as top level."""
    parents = {name: _parent(known, name) for name in known}
    depth = {name: len(_line(parents, name)) for name in known}
    order = sorted(known, key=lambda name: (depth[name], name))
    guaranteed = {name: known[name].guaranteed for name in known}
    below: dict[str, Amounts] = {}
    for name in reversed(order):
        guaranteed[name] = _larger(guaranteed[name], below.get(name, NONE))
        below[parents[name]] = plus(below.get(parents[name], NONE), guaranteed[name])
    root = _Node(queue=Queue(name=""), parent=None, guaranteed=NONE, keeps=NONE)
    nodes = {"": root}
    for name in order:
        keeps = _kept(known[name])
        nodes[name] = _Node(queue=known[name], parent=nodes[parents[name]], guaranteed=guaranteed[name], keeps=keeps)
    for name in reversed(order):  # an empty queue claims what it keeps; parents sum that up
        node = nodes[name]
        node.claim = _larger(node.keeps, node.below)
        above = node.parent or root
        above.below = plus(above.below, node.claim)
    root.claim = root.below
    return nodes


def _parent(known: Mapping[str, Queue], name: str) -> str:
    at = known[name].parent
    if at not in known:
        return ""
    line = ancestors(known, name)
    return "" if known[line[-1]].parent in line else at


def _line(parents: Mapping[str, str], name: str) -> list[str]:
    line: list[str] = []
    while name:
        line.append(name)
        name = parents[name]
    return line


def _kept(queue: Queue) -> Amounts:
    """The part of the guarantee that is never lent."""
    cpu, memory, cards, instances = (
        max(0, guaranteed - lent) if lent >= 0 else 0
        for guaranteed, lent in zip(queue.guaranteed, queue.lends, strict=True)
    )
    return cpu, memory, cards, instances


def _is_plain(queue: Queue) -> bool:
    return queue.limit == UNLIMITED and _kept(queue) == NONE


def _covers(after: Amounts, amounts: Amounts, node: _Node) -> bool:
    """The node's guarantee is for some of ``amounts`` and, where it is, not less than ``after``."""
    rows = [(a, g) for a, asked, g in zip(after, amounts, node.guaranteed, strict=True) if asked > 0 and g > 0]
    return bool(rows) and all(held <= guaranteed for held, guaranteed in rows)


def _larger(a: Amounts, b: Amounts) -> Amounts:
    return max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
