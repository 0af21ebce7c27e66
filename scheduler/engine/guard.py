"""What is promised: the expected starts of those ahead, and windows of the calendar, which nothing later may delay.

A promise is a start in the future on named nodes, worked out from the expected ends of what runs there (backfill:
Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995). It is not recorded: each plan makes it anew from the records, so
it moves when expectations do, and what runs as expected never moves it back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from scheduler.model.job import Together
from scheduler.model.lease import Allocation
from scheduler.placement.fit import Demand, Features, capacity
from scheduler.placement.future import allocate, groups, score, spread
from scheduler.placement.view import NodeView

Ends = Callable[[str, str], Sequence[tuple[int, Allocation, str]]]
"""For a node: ``(expected end, allocation, lease)`` of what is held there, in order of the ends. Then the job for whose
start what leaves for it counts as told; empty: everything ends by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """Until when a lease that may start now would be there."""

    end_ms: int
    last_ms: int
    """If it runs as long as anything like it did: for slots."""
    leaves_ms: int = 0
    """Long enough to be worth it if it leaves for the first of the promises; 0: it does not leave."""

    def until_ms(self, promise: Promise) -> int:
        """As far as a promise is concerned."""
        if promise.is_slot:
            return self.last_ms
        return self.leaves_ms if promise.is_first and self.leaves_ms else self.end_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """An expected start of one lease."""

    job_id: str
    step: str
    tenant: str
    demand: Demand
    allocations: tuple[Allocation, ...]
    start_ms: int
    end_ms: int
    is_slot: bool = False
    """Recorded with its job: what comes later must leave room even if it runs as long as anything like it did."""
    is_first: bool = False
    """What leaves for its job is told in time. Only the first in the order calls anybody away: others would start ahead
    of it in the room."""
    is_drain: bool = False
    """Its nodes are to move to another lane for it: they are looked for anew in each plan."""

    @property
    def leave(self) -> str:
        """The job for which others leave; empty: nobody does."""
        return self.job_id if self.is_first else ""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Where, each node once."""
        return tuple(sorted({allocation.node for allocation in self.allocations}))

    def copies(self, name: str) -> int:
        """How many ranks start on a node."""
        return sum(allocation.node == name for allocation in self.allocations)

    def begun(self, name: str, view: NodeView, features: Features) -> NodeView | None:
        """A node once it has started there. A slot takes any cards that are free then; None: there are too few."""
        for allocation in self.allocations:
            if allocation.node == name:
                if self.is_slot and capacity(view, self.demand, features) < 1:
                    return None
                place = allocate(view, self.demand, features) if self.is_slot else allocation
                view = view.take(place, self.tenant)
        return view


class Guard:
    """The promises of one plan, and where they forbid a later start."""

    def __init__(self, views: Mapping[str, NodeView], ends: Ends, features: Features) -> None:
        """``views``: the plan's trial, read again at each question. ``ends``: includes what the plan itself starts."""
        self.views = views
        self._ends = ends
        self._features = features
        self._on: dict[str, list[Promise]] = {}
        self.is_strict = False
        """What starts ahead of its turn ends before, or is on nodes where nobody was promised a start."""
        self._verdicts: dict[tuple[Demand, Stay, int, str], tuple[NodeView, bool]] = {}

    @property
    def nodes(self) -> frozenset[str]:
        """Nodes with promises."""
        return frozenset(self._on)

    def add(self, promise: Promise) -> None:
        """Keep a start; later questions respect it."""
        for name in promise.nodes:
            self._on.setdefault(name, []).append(promise)
        self._verdicts.clear()

    def drop(self, promise: Promise) -> None:
        """Keep a start no longer."""
        for name in promise.nodes:
            self._on[name] = [kept for kept in self._on[name] if kept is not promise]
            if not self._on[name]:
                del self._on[name]
        self._verdicts.clear()

    @contextmanager
    def without(self, promises: Iterable[Promise]) -> Iterator[None]:
        """As if some promises had not been made; those that are not kept here make no difference."""
        mine = [p for p in promises if any(kept is p for kept in self.on(p.allocations[0].node))]
        for promise in mine:
            self.drop(promise)
        yield
        for promise in mine:
            self.add(promise)

    @contextmanager
    def beside(self, promises: Iterable[Promise]) -> Iterator[None]:
        """As if these had been made too."""
        others = tuple(promises)
        for promise in others:
            self.add(promise)
        yield
        for promise in others:
            self.drop(promise)

    def on(self, name: str) -> Sequence[Promise]:
        """Promises on a node."""
        return self._on.get(name, ())

    def barred(self, demand: Demand, stay: Stay, tenant: str, ranks: int) -> frozenset[str]:
        """Nodes where a lease of ``demand`` would delay a promise, with as many of its ranks as fit on the node."""
        return frozenset(name for name in self._on if not self._leaves_room(name, demand, stay, tenant, ranks))

    def crowded(self, promise: Promise, until_ms: int, gone: Collection[str] = ()) -> Promise | None:
        """A slot that begins before ``until_ms`` and has no room beside a promised start that is kept here, the first.

        ``gone``: leases that will have ended by then.
        """
        slots = (
            slot
            for name in promise.nodes
            for slot in self._on[name]
            if slot.is_slot and promise.start_ms < slot.start_ms < until_ms
            if not self._still_fits(name, self.views[name], slot, gone)
        )
        return min(slots, key=lambda slot: slot.start_ms, default=None)

    def delayed(self, names: Iterable[str]) -> list[Promise]:
        """Promises on these nodes, earliest first."""
        found = {id(p): p for name in names for p in self._on.get(name, ())}
        return sorted(found.values(), key=lambda p: (p.start_ms, p.job_id, p.step))

    def earliest(
        self,
        demand: Demand,
        ranks: int,
        tenant: str,
        names: Iterable[str],
        now_ms: int,
        *,
        together: Together,
        leave: str = "",
    ) -> tuple[int, tuple[Allocation, ...]] | None:
        """When and where all ranks will fit, if what runs ends as expected; None when that would never do.

        ``leave``: the job for which others leave.
        """
        best: tuple[int, tuple[Allocation, ...]] | None = None
        for group in groups(names, self.views, together):
            found = self._earliest(demand, ranks, tenant, group, now_ms, leave)
            if found is not None and (best is None or found[0] < best[0]):
                best = found
        return best

    def _earliest(  # noqa: PLR0917 (all of them decide)
        self, demand: Demand, ranks: int, tenant: str, names: Sequence[str], now_ms: int, leave: str
    ) -> tuple[int, tuple[Allocation, ...]] | None:
        changes = sorted(
            ((at, name, view) for name in names for at, view in self._futures(name, now_ms, leave)),
            key=lambda change: change[:2],
        )
        room: dict[str, tuple[int, NodeView]] = {}
        total = 0
        for at, (start_ms, name, view) in enumerate(changes):
            copies = capacity(view, demand, self._features)
            total += copies - room.get(name, (0, view))[0]
            room[name] = (copies, view)
            last = at + 1 == len(changes) or changes[at + 1][0] > start_ms
            if last and total >= ranks:
                return start_ms, seated(room, demand, ranks, tenant, self._features)
        return None

    def _futures(self, name: str, now_ms: int, leave: str) -> Iterator[tuple[int, NodeView]]:
        """The node now and after each expected end, as if every promise on it had begun already.

        What leaves for one of those counts beside it until it ends by itself: which of them are told is not settled.
        """
        view = self.views[name]
        ends = [(end, allocation) for end, allocation, _ in self._ends(name, leave)]
        for promise in self._on.get(name, ()):
            for allocation in promise.allocations:
                if allocation.node == name:
                    view = view.take(allocation, promise.tenant)
                    ends.append((promise.end_ms, allocation))
        yield now_ms, view
        for end_ms, allocation in sorted(ends, key=lambda end: (end[0], end[1].devices, end[1].cpu_milli)):
            view = view.give_back(allocation)
            yield max(end_ms, now_ms), view

    def _leaves_room(self, name: str, demand: Demand, stay: Stay, tenant: str, ranks: int) -> bool:
        view = self.views[name]
        key = (demand, stay, ranks, name)
        known = self._verdicts.get(key)
        if known is not None and known[0] is view:
            return known[1]
        late = [p for p in self._on[name] if p.start_ms < stay.until_ms(p)]
        crowded = self.is_strict and not all(promise.is_slot for promise in late)
        verdict = not crowded and self._check(name, demand, ranks, late, tenant)
        self._verdicts[key] = (view, verdict)
        return verdict

    def _check(self, name: str, demand: Demand, copies: int, late: Sequence[Promise], tenant: str) -> bool:
        """Whether promises still fit beside so many copies, or as many as fit now."""
        view = self.views[name]
        copies = min(copies, capacity(view, demand, self._features)) if late else 0
        for _ in range(copies):
            view = view.take(allocate(view, demand, self._features), tenant)
        return not copies or all(self._still_fits(name, view, promise) for promise in late)

    def _still_fits(self, name: str, view: NodeView, promise: Promise, gone: Collection[str] = ()) -> bool:
        """At the promised start, with what ended by then given back and other promises begun by then taken."""
        at_ms = promise.start_ms
        for end_ms, allocation, lease_id in self._ends(name, promise.leave):
            if end_ms <= at_ms or lease_id in gone:
                view = view.give_back(allocation)
        for other in self._on[name]:
            if other is not promise and other.start_ms <= at_ms < other.end_ms:
                begun = other.begun(name, view, self._features)
                if begun is None:
                    return False
                view = begun
        return capacity(view, promise.demand, self._features) >= promise.copies(name)


def seated(
    room: Mapping[str, tuple[int, NodeView]], demand: Demand, ranks: int, tenant: str, features: Features
) -> tuple[Allocation, ...]:
    """A place for each rank on the fewest nodes. ``room``: by node, copies that fit, and the node as they find it."""
    rooms = [(copies, score(view, demand, features), name) for name, (copies, view) in room.items() if copies > 0]
    chosen: list[Allocation] = []
    for name, copies in spread(rooms, ranks):
        view = room[name][1]
        for _ in range(copies):
            chosen.append(allocate(view, demand, features))
            view = view.take(chosen[-1], tenant)
    return tuple(chosen)
