"""When and where who is next is expected to start: worked out from what is held and from what was promised before."""

from __future__ import annotations

from collections.abc import Sequence
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

    def promise(self, candidate: Candidate, names: Sequence[str], leave: str, *, gaps: bool) -> Promise | None:
        """A start to promise on some of ``names``; None: it would never fit there.

        ``leave``: its job when what leaves for that is told in time, else empty. ``gaps``: it may lie between other
        promised starts.
        """
        found = self._find(candidate, names, leave, gaps=gaps)
        if found is None:
            return None
        if leave and self._leavers.lead_ms({allocation.node for allocation in found[1]}, leave) is not None:
            alone = self._find(candidate, names, "", gaps=gaps)
            if alone is not None and alone[0] <= found[0]:
                found = alone  # as soon, and nobody has to leave
        start_ms, allocations = found
        return Promise(
            job_id=candidate.job.id,
            step=candidate.step.name,
            tenant=candidate.job.tenant,
            demand=candidate.demand,
            allocations=allocations,
            start_ms=start_ms,
            end_ms=start_ms + candidate.run_ms,
            is_first=bool(leave),
        )

    def hold(self, kept: Sequence[tuple[Promise, Candidate, Sequence[str]]]) -> bool:
        """Whether none of several promises would be later if they were all made again, one after the other.

        What starts ahead of its turn may leave room for each start where it is promised, and yet move one to a place
        where it is in the way of the next. ``kept``: each with its nodes, empty or not.
        """
        for promise, _, _ in kept:
            self._guard.drop(promise)
        again: list[Promise] = []
        for promise, candidate, names in kept:
            found = self.promise(candidate, names, promise.leave, gaps=True)
            if found is None or found.start_ms > promise.start_ms:
                break
            again.append(found)
            self._guard.add(found)
        for found in again:
            self._guard.drop(found)
        for promise, _, _ in kept:
            self._guard.add(promise)
        return len(again) == len(kept)

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

    def gaps(self, ends: Held) -> Gaps:
        """What is free when, if what is held ends as ``ends`` says."""
        return Gaps(self._guard, ends, self._calendar, self._state.shapes.features)

    def _find(self, candidate: Candidate, names: Sequence[str], leave: str, *, gaps: bool) -> Place | None:
        step = candidate.step
        if gaps:
            ends = partial(self._expected.ends, for_job=leave)
            return self.gaps(ends).earliest(self.stretch(candidate, step.ranks, candidate.run_ms), names)
        return self._guard.earliest(
            candidate.demand,
            step.ranks,
            candidate.job.tenant,
            names,
            self._now_ms,
            together=step.together,
            leave=leave,
        )
