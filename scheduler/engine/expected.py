"""What holds the nodes in one plan, and until when: the leases of the state, less what the plan stops, and its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scheduler.engine.candidates import Candidate
from scheduler.engine.ends import CAREFUL_PERMILLE, LIKELY_PERMILLE, estimate_of, left_ms, ran_ms, rate_of
from scheduler.engine.leave import Leavers
from scheduler.engine.state import State
from scheduler.model.lease import Allocation, LeaseRecord
from scheduler.queueing.durations import Estimate
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.rate import FULL_PERMILLE

End = tuple[int, Allocation, str]
"""``(instant, what is given back then, lease)``"""


class Expected:
    """When what is held will be free again."""

    def __init__(self, state: State, now_ms: int, leavers: Leavers) -> None:
        self._state = state
        self._now_ms = now_ms
        self._leavers = leavers
        self.stopped: set[str] = set()
        """Leases this plan preempts."""
        self._started: dict[str, list[End]] = {}
        """By node: what this plan starts, with its expected end."""
        self._begun: dict[str, Candidate] = {}
        """By lease this plan starts, whose it is."""
        self._known: dict[tuple[str, str], list[End]] = {}
        self._kept: dict[str, int] = {}
        """By lease, until when its room is kept for the tasks behind it."""
        self._calls: dict[str, int] = {}
        """By job for which others may be told to leave in this plan, the start that was promised to it before."""

    def start(self, candidate: Candidate, allocations: Iterable[Allocation], lease_id: str) -> None:
        """The plan starts a lease."""
        self._begun[lease_id] = candidate
        for allocation in allocations:
            end = (max(self._now_ms + candidate.likely_ms, candidate.until_ms), allocation, lease_id)
            self._started.setdefault(allocation.node, []).append(end)

    def keep(self, lease_id: str, until_ms: int) -> None:
        """When a running lease ends, the next task of its step follows it in its room, and so on until an instant."""
        self._kept[lease_id] = until_ms
        self._known.clear()

    def call_by(self, job_id: str, start_ms: int) -> None:
        """A job was promised this start before: what leaves for it can be gone by then, if it is just told in time."""
        self._calls[job_id] = min(start_ms, self._calls.get(job_id, start_ms))
        self._known.clear()

    def called(self, job_id: str) -> None:
        """Nobody more is told to leave for a job in this plan: what was not told now is gone a millisecond later."""
        if self._calls.pop(job_id, None) is not None:
            self._known.clear()

    def stop(self, lease_ids: Iterable[str]) -> None:
        """The plan stops leases."""
        before = len(self.stopped)
        self.stopped.update(lease_ids)
        if len(self.stopped) > before:
            self._known.clear()

    def go_on(self, lease_ids: Iterable[str]) -> None:
        """The plan does not stop leases after all."""
        self.stopped.difference_update(lease_ids)
        self._known.clear()

    def stops(self) -> list[tuple[int, str]]:
        """What is being stopped, or this plan stops: ``(instant at which it has ended, lease)``, in that order."""
        keys = self.stopped.union(self._state.stopping)
        return sorted((self.end_ms(self._state.leases[key]), key) for key in keys)

    def starts_on(self, node: str) -> bool:
        """Whether this plan starts something on a node."""
        return node in self._started

    def empty_ms(self, node: str, for_job: str = "") -> int:
        """When a node will hold nothing, if what it holds ends as expected."""
        return max((end_ms for end_ms, _, _ in self.ends(node, for_job)), default=self._now_ms)

    def ends(self, node: str, for_job: str = "") -> list[End]:
        """What is held on a node, by expected end: the state's leases and this plan's.

        ``for_job``: the job that asks, where what was granted on that condition leaves for it: that ends when it is
        told. For everybody else it ends by itself, because nobody stops it for them.
        """
        key = node, for_job
        known = self._known.get(key)
        if known is None:
            known = sorted(self._ends_of(node, for_job), key=lambda end: (end[0], end[2]))
            self._known[key] = known
        started = self._started.get(node)
        return sorted([*known, *started], key=lambda end: (end[0], end[2])) if started else known

    def lasts(self, node: str) -> list[End]:
        """Likewise, by the latest end that is to be expected."""
        return [(self.last_end_ms(lease_id), allocation, lease_id) for _, allocation, lease_id in self.ends(node)]

    def progress(self, lease_id: str) -> tuple[Estimate, int, int]:
        """What a lease's task takes, how much of it is done, and at what rate it works."""
        begun = self._begun.get(lease_id)
        if begun is not None:
            return begun.estimate, begun.kept_ms, FULL_PERMILLE
        record = self._state.leases[lease_id]
        step, _ = find_step(self._state.jobs[record.lease.job_id], record.lease.step)
        estimate = estimate_of(self._state, record.lease.job_id, record.lease.step)
        rate = rate_of(self._state, step, record)
        return estimate, ran_ms(self._state, record, self._now_ms) * rate // FULL_PERMILLE, rate

    def last_end_ms(self, lease_id: str) -> int:
        """When a lease, running or started by this plan, will have ended at the latest."""
        begun = self._begun.get(lease_id)
        if begun is not None:
            return max(self._now_ms + begun.careful_ms, begun.until_ms)
        record = self._state.leases[lease_id]
        left = self._left_ms(record, CAREFUL_PERMILLE)
        return max(self._now_ms + left, self._kept.get(lease_id, 0))

    def end_ms(self, record: LeaseRecord, for_job: str = "") -> int:
        """When a running lease will have ended, as likely as not, or when it is told to leave for a job."""
        left = self._left_ms(record, LIKELY_PERMILLE)
        if for_job and record.lease.id not in self.stopped and self._leavers.leaves(record, for_job):
            notice_ms = self._leavers.notice_ms(record.lease)
            # One more, so that who was stopped already is counted on first.
            left = min(left, notice_ms + (self._calls.get(for_job) != self._now_ms + notice_ms))
        return self._now_ms + left

    def _ends_of(self, node: str, for_job: str) -> Iterator[End]:
        for lease_id in self._state.leases_of_node.get(node, ()):
            record = self._state.leases[lease_id]
            end_ms = max(self.end_ms(record, for_job), self._kept.get(lease_id, 0))
            for allocation in record.lease.allocations:
                if allocation.node == node:
                    yield end_ms, allocation, lease_id

    def _left_ms(self, record: LeaseRecord, permille: int) -> int:
        """A quantile of what is left of a running lease, within its grace if this plan stops it; never nothing."""
        estimate = estimate_of(self._state, record.lease.job_id, record.lease.step)
        left = left_ms(self._state, record, self._now_ms, estimate, permille)
        stopped = record.lease.id in self.stopped
        return min(left, max(self._state.grace_ms(record.lease), 1)) if stopped else left
