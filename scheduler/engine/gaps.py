"""When and where a stretch of time is free: between what runs, what was promised and the windows of the calendar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, pairwise

from scheduler.engine.guard import Guard, Promise, seated
from scheduler.model.job import Together
from scheduler.model.lease import Allocation
from scheduler.model.units import WHOLE_CARD_MILLI
from scheduler.placement.fit import Demand, Features, capacity
from scheduler.placement.future import allocate, groups
from scheduler.placement.view import NodeView
from scheduler.queueing.calendar import FOREVER_MS, Calendar

Held = Callable[[str], Sequence[tuple[int, Allocation, str]]]
"""For a node: ``(end, allocation, lease)`` of what is held there, in order of the ends."""
LOOKED_AT = 50_000
"""So many looks at a node are worth an answer; behind them there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What is to run, for how long, and between which instants it may start."""

    demand: Demand
    ranks: int
    together: Together
    tenant: str
    queues: Sequence[str]
    """Its queue and those above it: whose windows of the calendar are open to it."""
    length_ms: int
    from_ms: int
    latest_ms: int = FOREVER_MS


class Gaps:
    """The park as it will be if everything goes on as expected."""

    def __init__(
        self, guard: Guard, ends: Held, calendar: Calendar, features: Features, *, exact: bool = False
    ) -> None:
        """``ends``: when what is held on a node is given back at the latest.

        ``exact``: what ends within a stretch is in nobody's way who is promised a start on the node after that. Else
        all that is promised within the stretch counts from its beginning, which is enough for slots, and quicker.
        """
        self._guard = guard
        self._ends = cache(ends)
        self._calendar = calendar
        self._features = features
        self._exact = exact

    def earliest(self, asked: Stretch, names: Iterable[str]) -> tuple[int, tuple[Allocation, ...]] | None:
        """The first start of such a stretch, and a place for each rank; None: none that early."""
        best: tuple[int, tuple[Allocation, ...]] | None = None
        for group in groups(names, self._guard.views, asked.together):
            found = self._earliest(asked, group)
            if found is not None and (best is None or found[0] < best[0]):
                best = found
        return best

    def openings(self, asked: Stretch, name: str, by_ms: int) -> Iterator[tuple[int, int, int]]:
        """``(start, end, copies)`` of stretches on one node that end by an instant, whatever ``asked`` says of its
        length: for each end there may be, the longest, and how many copies fit all the time.
        """
        asked = replace(asked, length_ms=1)
        starts = sorted(set(self._turns(asked, name)))
        ends = {by_ms, *(promise.start_ms for promise in self._guard.on(name))}
        if name in self._calendar.nodes:
            ends |= {self._calendar.open_until_ms(name, asked.queues, start_ms) for start_ms in starts}
        for end_ms in sorted((at for at in ends if asked.from_ms < at <= by_ms), reverse=True):
            for start_ms in (at for at in starts if at < end_ms):
                copies, _ = self._room(replace(asked, length_ms=end_ms - start_ms), name, start_ms)
                if copies > 0:
                    yield start_ms, end_ms, copies
                    break

    def _earliest(self, asked: Stretch, names: Sequence[str]) -> tuple[int, tuple[Allocation, ...]] | None:
        turns = sorted({(at, name) for name in names for at in self._turns(asked, name)})
        room: dict[str, tuple[int, NodeView]] = {}
        total = 0
        for start_ms, changed in groupby(turns[:LOOKED_AT], key=lambda turn: turn[0]):
            if start_ms > asked.latest_ms:
                return None
            for _, name in changed:
                copies, view = self._room(asked, name, start_ms)
                total += copies - room.get(name, (0, view))[0]
                room[name] = (copies, view)
            if total >= asked.ranks:
                return start_ms, seated(room, asked.demand, asked.ranks, asked.tenant, self._features)
        return None

    def _turns(self, asked: Stretch, name: str) -> Iterator[int]:
        """Instants of a start at which it may find more or less room on a node than just before."""
        first_ms = asked.from_ms
        yield first_ms
        yield from (end_ms for end_ms, _, _ in self._ends(name) if end_ms > first_ms)
        for promise in self._guard.on(name):
            yield from (at for at in (promise.start_ms - asked.length_ms + 1, promise.end_ms) if at > first_ms)
        if name in self._calendar.nodes:
            closed_ms = self._calendar.open_until_ms(name, asked.queues, first_ms) - asked.length_ms + 1
            yield from (at for at in (closed_ms,) if first_ms < at < FOREVER_MS - asked.length_ms)
            opens_ms = self._calendar.opens_ms(name, asked.queues, max(closed_ms, first_ms), asked.length_ms)
            yield from (at for at in (opens_ms,) if first_ms < at < FOREVER_MS)

    def _room(self, asked: Stretch, name: str, start_ms: int) -> tuple[int, NodeView]:
        """Copies that fit on a node for the whole stretch, and the node as they find it."""
        end_ms = start_ms + asked.length_ms
        view = self._guard.views[name]
        if name in self._calendar.nodes and self._calendar.closed(name, asked.queues, start_ms, end_ms) is not None:
            return 0, view
        promises = [p for p in self._guard.on(name) if p.start_ms < end_ms and p.end_ms > start_ms]
        promises.sort(key=lambda p: (p.start_ms, p.job_id, p.step))
        over = [*(until_ms for until_ms, _, _ in self._ends(name)), *(p.end_ms for p in promises)]
        first_ms = min((at_ms for at_ms in over if at_ms > start_ms), default=end_ms) if self._exact else end_ms
        slots = [p for p in promises if p.is_slot and p.start_ms >= first_ms]
        others = [p for p in promises if p not in slots]
        views: list[NodeView] = []
        turns = start_ms, *sorted({p.start_ms for p in others if p.start_ms >= first_ms}), end_ms
        for at_ms, next_ms in pairwise(turns):
            there = self._at(name, at_ms, [p for p in others if p.start_ms < next_ms and p.end_ms > at_ms])
            if there is None:
                return 0, view
            views.append(there)
        view = least(views)
        copies = capacity(view, asked.demand, self._features)
        while slots and copies > 0:
            copies = min(copies, asked.ranks)
            if self._leaves_slots(asked, name, copies, view, others, slots):
                break
            copies -= 1
        return copies, view

    def _leaves_slots(  # noqa: PLR0917 (all of them decide)
        self,
        asked: Stretch,
        name: str,
        copies: int,
        view: NodeView,
        others: Sequence[Promise],
        slots: Sequence[Promise],
    ) -> bool:
        """Whether so many copies on a node, as they find it, leave room for slots that begin beside them: those take
        any cards. ``others``: what has begun before.
        """
        mine: list[Allocation] = []
        for _ in range(copies):
            mine.append(allocate(view, asked.demand, self._features))
            view = view.take(mine[-1], asked.tenant)
        for at_ms in (slot.start_ms for slot in slots):
            begun = [p for p in (*others, *slots) if p.start_ms <= at_ms < p.end_ms]
            if self._at(name, at_ms, begun, [(place, asked.tenant) for place in mine]) is None:
                return False
        return True

    def _at(
        self, name: str, at_ms: int, promises: Iterable[Promise], beside: Iterable[tuple[Allocation, str]] = ()
    ) -> NodeView | None:
        """A node at an instant, with these starts begun beside what tenants hold; None: they do not fit there."""
        view: NodeView | None = self._guard.views[name]
        for until_ms, allocation, _ in self._ends(name):
            if view is not None and until_ms <= at_ms:
                view = view.give_back(allocation)
        for allocation, tenant in beside:
            view = view.take(allocation, tenant) if view is not None else None
        for promise in promises:
            view = promise.begun(name, view, self._features) if view is not None else None
        return view


def least(views: Sequence[NodeView]) -> NodeView:
    """What is free on one node in all of these states of it."""
    first, *others = views
    if not others:
        return first
    held: dict[str, tuple[int, str]] = {}
    for device, (milli, tenant) in (item for view in views for item in view.held.items()):
        most, whose = held.get(device, (0, tenant))
        held[device] = (max(most, milli), tenant) if whose == tenant else (WHOLE_CARD_MILLI, "")
    return replace(
        first,
        cpu_milli=min(view.cpu_milli for view in views),
        memory_mib=min(view.memory_mib for view in views),
        scratch_mib=min(view.scratch_mib for view in views),
        held=held,
    )
