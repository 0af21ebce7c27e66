"""When and where who is next is expected to start: worked out from what is held and from what was promised before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from scheduler.engine.candidates import Candidate
from scheduler.engine.expected import Expected
from scheduler.engine.gaps import Gaps, Held, Stretch
from scheduler.engine.guard import Guard, Promise
from scheduler.engine.leave import Leavers
from scheduler.engine.state import State
from scheduler.model.lease import Allocation
from scheduler.queueing.calendar import FOREVER_MS, Calendar
from scheduler.queueing.quota import ancestors

Key = tuple[str, str]
"""``(job, step)``"""
Place = tuple[int, tuple[Allocation, ...]]
"""``(instant, a place for each rank)``"""


class Starts:
    """Works on one plan's trial: ``guard`` has the promises so far, and the nodes as the plan leaves them."""

    def __init__(  # noqa: PLR0917 (the parts of one trial)
        self, state: State, guard: Guard, expected: Expected, leavers: Leavers, calendar: Calendar, now_ms: int
    ) -> None:
        self._state = state
        self._guard = guard
        self._expected = expected
        self._leavers = leavers
        self._calendar = calendar
        self._now_ms = now_ms
        self.recorded: dict[Key, Promise] = {}
        """What the last plan promised to steps that this one has not come to yet, where it was recorded."""

    def promise(
        self,
        candidate: Candidate,
        names: Sequence[str],
        leave: str,
        *,
        gaps: bool,
        from_ms: int = 0,
        is_part: bool = False,
    ) -> Promise | None:
        """A start to promise on some of ``names``, not before an instant; None: it would never fit there.

        ``leave``: its job when what leaves for that is told in time, else empty. ``gaps``: it may lie between other
        promised starts. ``is_part``: other nodes are closed to a start now only; what was promised to it,
        perhaps there, then stands if nothing is found that early.

        What was promised to it before is made earlier if it can be without delaying anybody else who was promised a
        start, and never later. If it cannot be kept (something ends later than expected, or somebody went ahead), it
        and all behind it are promised anew. Who goes ahead of them now, without a promise, spares them where that
        costs him nothing.
        """
        own, others = self.recorded.get(candidate.key), self.others(candidate)
        if own is not None or others:
            with self._guard.beside(others):
                found = self._anew(candidate, names, leave, gaps=gaps, from_ms=from_ms)
            if found is not None and found.start_ms <= (self._now_ms if own is None else own.start_ms):
                return found
        if own is not None:
            if is_part:
                return None
            self.recorded.clear()
        return self._anew(candidate, names, leave, gaps=gaps, from_ms=from_ms)

    def expected(self, candidate: Candidate, names: Sequence[str], leave: str, *, gaps: bool) -> Promise | None:
        """When it would start beside what was promised before; nothing is promised by that."""
        with self._guard.beside(self.others(candidate)):
            return self._anew(candidate, names, leave, gaps=gaps)

    def others(self, candidate: Candidate) -> list[Promise]:
        """What was promised before to steps that this plan has not come to yet, and begins before the candidate, if it
        was promised a start too, has ended.
        """
        own = self.recorded.get(candidate.key)
        return [p for p in self.recorded.values() if p is not own and (own is None or p.start_ms < own.end_ms)]

    def beside(self, promise: Promise) -> list[Promise]:
        """What was promised before to steps that this plan has not come to yet, and lies beside a start found now."""
        return [p for p in self.recorded.values() if p.start_ms < promise.end_ms and p.end_ms > promise.start_ms]

    def _anew(
        self, candidate: Candidate, names: Sequence[str], leave: str, *, gaps: bool, from_ms: int = 0
    ) -> Promise | None:
        found = self._find(candidate, names, leave, gaps=gaps, from_ms=from_ms)
        if found is None:
            return None
        if leave and self._leavers.lead_ms({allocation.node for allocation in found[1]}, leave) is not None:
            alone = self._find(candidate, names, "", gaps=gaps, from_ms=from_ms)
            if alone is not None and alone[0] <= found[0]:
                found = alone  # as soon, and nobody has to leave
        start_ms, allocations = found
        # One more, because in the plan that calls others away it is later by that (``Expected.end_ms``).
        return candidate.promise(allocations, start_ms, start_ms + candidate.run_ms + 1, is_first=bool(leave))

    def hold(self, kept: Sequence[tuple[Promise, Candidate, Sequence[str]]]) -> list[Promise]:
        """Promises as they can be kept beside each other and what the plan starts, none later; as far as they can.

        What starts ahead of its turn leaves room on each node, but may take the cards that were meant. ``kept``: each
        with its nodes; all are in the guard, and are replaced there.
        """
        found: list[Promise] = []
        for promise, candidate, names in kept:
            self._guard.drop(promise)
            again = self._anew(candidate, names, promise.leave, gaps=True)
            if again is None or again.start_ms > promise.start_ms:
                break
            found.append(again)
            self._guard.add(again)
        return found

    def stretch(self, candidate: Candidate, ranks: int, length_ms: int, latest_ms: int = FOREVER_MS) -> Stretch:
        """What the candidate needs to run for so long, from now on."""
        return Stretch(
            demand=candidate.demand,
            ranks=ranks,
            together=candidate.step.together,
            tenant=candidate.job.tenant,
            queues=ancestors(self._state.queues, candidate.queue),
            length_ms=length_ms,
            from_ms=self._now_ms,
            latest_ms=latest_ms,
        )

    def gaps(self, ends: Held, *, exact: bool = False) -> Gaps:
        """What is free when, if what is held ends as ``ends`` says."""
        return Gaps(self._guard, ends, self._calendar, self._state.shapes.features, exact=exact)

    def _find(
        self, candidate: Candidate, names: Sequence[str], leave: str, *, gaps: bool, from_ms: int
    ) -> Place | None:
        step, from_ms = candidate.step, max(from_ms, self._now_ms)
        if gaps:
            ends = partial(self._expected.ends, for_job=leave)
            asked = replace(self.stretch(candidate, step.ranks, candidate.run_ms), from_ms=from_ms)
            return self.gaps(ends, exact=True).earliest(asked, names)
        return self._guard.earliest(
            candidate.demand,
            step.ranks,
            candidate.job.tenant,
            names,
            from_ms,
            together=step.together,
            leave=leave,
        )
