"""What makes way for a promised start: leases granted on that condition, and sliced ones that overstay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scheduler.engine.candidates import Candidate
from scheduler.engine.ends import estimate_of, left_ms
from scheduler.engine.guard import Promise
from scheduler.engine.state import State
from scheduler.model.lease import Lease, LeaseRecord
from scheduler.model.policy import Policy, Preemption
from scheduler.queueing.durations import Estimate, worked_ms
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.preempt import spared, unit_ms

LEAST_MS = 1_000
"""Nobody is told later than this before a start: where a floor keeps him, the start is looked at again after it."""
SURE_PERMILLE = 900
"""What will have ended by itself when those told to leave are gone: nine times of ten."""


class Leavers:
    """Of the open leases those that leave, and of the candidates those that may start on that condition.

    A drain is filled with work that a stop leaves most of: tasks of a lease that runs several one after the other
    (sample slices), and what commits checkpoints. It is told its grace before the start that it makes way for.
    """

    def __init__(self, state: State, now_ms: int, policy: Policy) -> None:
        self._state = state
        self._now_ms = now_ms
        self._policy = policy
        self._overdue: dict[str, bool] = {}

    def term_ms(self, candidate: Candidate) -> int:
        """What a lease of the candidate needs before a start it leaves for, to be worth it; 0: it cannot leave.

        A slice (or a checkpoint), and its grace, in which nothing is sure to be kept.
        """
        step = candidate.step
        is_kept = candidate.job.is_promised or not step.preemptible
        if is_kept or step.ranks > 1 or self._policy.preemption is Preemption.NEVER:
            return 0
        job = self._state.jobs.get(candidate.job.id)
        if job is not None and spared(job, self._policy):
            return 0
        unit = unit_ms(step, min(candidate.chunk, candidate.left), candidate.estimate.median_ms)
        return unit and unit + max(step.grace_ms, LEAST_MS)

    def leaves(self, record: LeaseRecord, job_id: str) -> bool:
        """Whether an open lease is stopped once the promised start of this job needs no more than that."""
        if self._policy.preemption is Preemption.NEVER or record.stopping:
            return False
        return self.leaves_for(record, job_id)

    def leaves_for(self, record: LeaseRecord, job_id: str) -> bool:
        """Whether it was granted on the condition that it leaves for this job, or overstays."""
        return record.lease.leaves_for == job_id or self._overstays(record)

    def presumed(self, promise: Promise) -> frozenset[str]:
        """Leases on the very devices that were promised: others were promised theirs with the rest in mind."""
        devices = {device for allocation in promise.allocations for device in allocation.devices}
        held = (key for name in promise.nodes for key in self._state.leases_of_node.get(name, ()))
        return frozenset(
            key
            for key in held
            if any(devices.intersection(a.devices) for a in self._state.leases[key].lease.allocations)
        )

    def lead_ms(self, nodes: Iterable[str], job_id: str) -> int | None:
        """How long before this job's start on these nodes those that leave must be told; None: nobody leaves there."""
        told = (r for r in self._on(nodes) if self.leaves(r, job_id) or (r.stopping and r.lease.leaves_for == job_id))
        return max((self.notice_ms(record.lease) for record in told), default=None)

    def notice_ms(self, lease: Lease) -> int:
        """How long before it must be gone a lease is told."""
        return max(self._state.grace_ms(lease), LEAST_MS)

    def ending(self, nodes: Iterable[str], lead_ms: int) -> frozenset[str]:
        """Leases on these nodes that will have ended by themselves when those told now are gone."""
        return frozenset(
            record.lease.id
            for record in self._on(nodes)
            if left_ms(self._state, record, self._now_ms, self._estimate(record), SURE_PERMILLE) <= lead_ms
        )

    def _overstays(self, record: LeaseRecord) -> bool:
        """It runs for longer than was expected at its start, and a stop leaves most of its work."""
        known = self._overdue.get(record.lease.id)
        if known is None:
            known = self._overdue[record.lease.id] = self._is_overdue(record)
        return known

    def _is_overdue(self, record: LeaseRecord) -> bool:
        lease, job = record.lease, self._state.jobs[record.lease.job_id]
        step, done = find_step(job, lease.step)
        tasks = len(lease.attempts)
        can_leave = len(lease.allocations) == 1 and step.preemptible and unit_ms(step, tasks, 1) > 0
        if not can_leave or job.job.is_promised or spared(job, self._policy):
            return False
        first = next(self._state.attempts_of(lease))
        expected_ms = self._estimate(record).median_ms * tasks - worked_ms(done, first.index)
        return self._now_ms - lease.granted_ms > expected_ms

    def _on(self, nodes: Iterable[str]) -> Iterator[LeaseRecord]:
        keys = dict.fromkeys(key for node in nodes for key in self._state.leases_of_node.get(node, ()))
        return (self._state.leases[key] for key in keys)

    def _estimate(self, record: LeaseRecord) -> Estimate:
        return estimate_of(self._state, record.lease.job_id, record.lease.step)
