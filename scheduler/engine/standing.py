"""Where waiting steps and running leases stand in the order, for policies that stop leases because of it alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property

from scheduler.engine.candidates import Candidate
from scheduler.engine.ends import estimate_of, left_ms, outlived_ms, rate_of
from scheduler.engine.state import State
from scheduler.model.job import Job, Step
from scheduler.model.lease import LeaseRecord
from scheduler.model.policy import Policy, Preemption, Sort
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.precedence import Standing, behind, least_behind
from scheduler.queueing.rate import FULL_PERMILLE

CHANGING = frozenset({Sort.EXPECTED, Sort.SERVED})
"""Orders in which what runs may fall behind: it is served more, or runs for longer than it was expected to."""


class Standings:
    """As of one plan. Under other policies than ALWAYS nobody is ahead of anybody, and all are equally far back."""

    def __init__(self, state: State, now_ms: int, policy: Policy) -> None:
        self._state = state
        self._now_ms = now_ms
        self._sort = policy.sort
        self._counts = policy.preemption is Preemption.ALWAYS
        self._back: dict[str, int] = {}
        """By lease, how far back it is."""

    def behind(self, candidate: Candidate) -> int:
        """How far back a candidate is."""
        return behind(self._sort, _waiting(candidate)) if self._counts else 0

    def is_ahead_of(self, candidate: Candidate, record: LeaseRecord) -> bool:
        """A candidate is ahead of a lease by enough."""
        return self._counts and self._back_of(record) > least_behind(self._sort, _waiting(candidate))

    def is_ahead(self, candidate: Candidate) -> bool:
        """Likewise, of any lease of its queue: those that are being stopped too, which may be for the candidate."""
        furthest = self._furthest_back.get(candidate.queue) if self._counts else None
        return furthest is not None and furthest > least_behind(self._sort, _waiting(candidate))

    def change_ms(self, waiting: Iterable[Candidate]) -> int:
        """The next instant at which time alone may bring somebody who waits ahead of a lease; 0: it never will."""
        if not self._counts or self._sort not in CHANGING:
            return 0
        leases = self._state.leases.values()
        if self._sort is Sort.EXPECTED:
            return min((at for record in leases if (at := self._outlived_ms(record))), default=0)
        marks: dict[str, list[int]] = {}
        for candidate in waiting:
            marks.setdefault(candidate.queue, []).append(least_behind(self._sort, _waiting(candidate)))
        for behind_them in marks.values():
            behind_them.sort()
        return min((at for record in leases if (at := self._passes_ms(record, marks))), default=0)

    def _outlived_ms(self, record: LeaseRecord) -> int:
        estimate = estimate_of(self._state, record.lease.job_id, record.lease.step)
        return outlived_ms(self._state, record, self._now_ms, estimate)

    def _passes_ms(self, record: LeaseRecord, marks: Mapping[str, list[int]]) -> int:
        """When a lease, which is served on all its cards, falls behind the next of the ``marks`` of its queue."""
        job = self._state.jobs[record.lease.job_id]
        step, _ = find_step(job, record.lease.step)
        ahead, back = marks.get(job.job.queue, []), self._back_of(record)
        at = bisect_left(ahead, back)
        return (
            self._now_ms + (ahead[at] - back) // (_weight(step) * len(record.lease.allocations)) + 1
            if at < len(ahead)
            else 0
        )

    @cached_property
    def _furthest_back(self) -> dict[str, int]:
        """By queue, how far back the last of its leases is."""
        found: dict[str, int] = {}
        for record in self._state.leases.values():
            queue = self._state.jobs[record.lease.job_id].job.queue
            found[queue] = max(self._back_of(record), found.get(queue, 0))
        return found

    def _back_of(self, record: LeaseRecord) -> int:
        back = self._back.get(record.lease.id)
        if back is None:
            back = self._back[record.lease.id] = behind(self._sort, self._running(record))
        return back

    def _running(self, record: LeaseRecord) -> Standing:
        """As it will wait if it is stopped: on all its ranks and on the fastest cards, wherever it runs now. Else it
        would be ahead of who comes in its place, and stop that one in turn.
        """
        job_id, name = record.lease.job_id, record.lease.step
        job = self._state.jobs[job_id]
        step, done = find_step(job, name)
        served_ms = done.served_ms + (self._now_ms - record.lease.granted_ms) * len(record.lease.allocations)
        going_on = replace(record, stopping=False)  # its rest, not that of its grace
        left = left_ms(self._state, going_on, self._now_ms, estimate_of(self._state, job_id, name))
        remaining_ms = max(left * rate_of(self._state, step, record) // FULL_PERMILLE, 1)
        return _standing(step, job.job, served_ms, remaining_ms)


def _waiting(candidate: Candidate) -> Standing:
    remaining_ms = candidate.estimate.left(candidate.kept_ms)
    return _standing(candidate.step, candidate.job, candidate.record.served_ms, remaining_ms)


def _standing(step: Step, job: Job, served_ms: int, remaining_ms: int) -> Standing:
    """``served_ms``: summed over ranks."""
    return Standing(
        cards=_weight(step) * step.ranks,
        served_ms=served_ms // max(step.ranks, 1),
        remaining_ms=remaining_ms,
        deadline_ms=job.deadline_ms,
    )


def _weight(step: Step) -> int:
    """Card thousandths of a rank; without cards, its processors stand for them."""
    return max(step.resources.card_milli or step.resources.cards * 1_000 or step.resources.cpu_milli // 100, 1)
