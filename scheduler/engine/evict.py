"""Whose leases to stop for a step that is entitled to start: the cheapest that make it fit, or none at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from scheduler.engine.candidates import Candidate
from scheduler.engine.state import State, number_of
from scheduler.model.job import Job, JobRecord, Step, StepRecord
from scheduler.model.lease import LeaseRecord
from scheduler.model.plan import Preempt
from scheduler.model.policy import Policy, Preemption
from scheduler.placement.fit import capacity
from scheduler.placement.view import NodeView
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.order import NONE, amounts_of
from scheduler.queueing.precedence import Standing, ahead
from scheduler.queueing.preempt import Ground, Victim, choose, cost_of, ground
from scheduler.queueing.quota import Quotas
from scheduler.queueing.rank import weight_milli

TRIES = 32
"""Searches for victims per plan: each looks at every lease on the nodes in question."""


class Evictor:
    """Works on one plan's trial: ``views`` are the nodes as the plan leaves them so far."""

    def __init__(
        self, state: State, views: Mapping[str, NodeView], quotas: Quotas, now_ms: int, policy: Policy
    ) -> None:
        self._state = state
        self._views = views
        self._quotas = quotas
        self._now_ms = now_ms
        self._policy = policy
        self._tries = 0
        self._gone = {record.lease.id for record in state.leases.values() if record.stopping}
        """Leases that are stopping already, and those this plan stops."""

    def fits_when_stopped(self, candidate: Candidate, copies: int) -> bool:
        """Whether what is stopping already makes room, given ``copies`` that fit now."""
        return bool(self._gone) and self._copies(candidate, copies, self._gone) >= candidate.step.ranks

    def victims(self, candidate: Candidate, copies: int, names: Iterable[str]) -> tuple[Preempt, ...]:
        """What to stop so that the candidate fits on ``names``; empty when nobody may be or nothing would help."""
        self._tries += 1
        nodes = frozenset(names)
        found = sorted(self._possible(candidate, nodes), key=lambda v: (v.cost, v.lease_id))
        if not found:
            return ()

        def fits(leases: frozenset[str]) -> bool:
            return self._copies(candidate, copies, self._gone | leases) >= candidate.step.ranks

        if not fits(frozenset(v.lease_id for v in found)):
            return ()
        chosen = choose(found, fits)
        self._gone.update(chosen)
        reason = f"makes room for job {candidate.job.id}, which goes ahead of it"
        return tuple(Preempt(lease_id=key, for_job=candidate.job.id, reason=reason) for key in chosen)

    def may_try(self, candidate: Candidate) -> bool:
        """Whether looking for victims can make sense; cheap."""
        policy = self._policy
        if policy.preemption is Preemption.NEVER or not self._state.leases or self._tries >= TRIES:
            return False
        return (
            policy.preemption is Preemption.ALWAYS
            or candidate.job.priority - self._lowest_priority >= policy.preempt_gap
            or self._quotas.entitled(candidate.queue, candidate.amounts)
        )

    @cached_property
    def _lowest_priority(self) -> int:
        return min((self._state.jobs[job_id].job.priority for job_id in self._state.leases_of_job), default=100)

    def _possible(self, candidate: Candidate, nodes: frozenset[str]) -> Iterator[Victim]:
        mine = _standing(candidate.step, candidate.job, candidate.record, candidate.estimate.median_ms, 0)
        for lease_id in sorted(
            {key for name in nodes for key in self._state.leases_of_node.get(name, ())}, key=number_of
        ):
            record = self._state.leases[lease_id]
            job = self._state.jobs[record.lease.job_id]
            step, done = find_step(job, record.lease.step)
            own = job.job.id == candidate.job.id
            if not own and lease_id not in self._gone and self._may_stop(candidate, mine, record, job, step, done):
                yield self._victim(record, job, step)

    def _may_stop(  # noqa: PLR0917 (all of them decide)
        self, candidate: Candidate, mine: Standing, record: LeaseRecord, job: JobRecord, step: Step, done: StepRecord
    ) -> bool:
        queue, holds = candidate.queue, amounts_of(step.resources, len(record.lease.allocations))
        reclaims = self._quotas.may_reclaim(queue, candidate.amounts, job.job.queue, holds)
        why = ground(self._policy, step, job, record, priority=candidate.job.priority, queue=queue, reclaims=reclaims)
        if why is not Ground.AHEAD:
            return why is not None
        ran_ms = self._now_ms - record.lease.granted_ms
        median_ms = self._state.durations.estimate(job.job, step, done).median_ms
        return ahead(self._policy.sort, mine, _standing(step, job.job, done, median_ms, ran_ms))

    def _victim(self, record: LeaseRecord, job: JobRecord, step: Step) -> Victim:
        entitled = self._quotas.borrowed(record.lease.queue) == NONE
        attempts = self._state.attempts_of(record.lease)
        cost = cost_of(step, record, attempts, self._now_ms, priority=job.job.priority, entitled=entitled)
        allocations = record.lease.allocations
        freed = weight_milli(step.resources) * len(allocations)
        return Victim(
            lease_id=record.lease.id, cost=cost, freed=freed, nodes=tuple(sorted({a.node for a in allocations}))
        )

    def _copies(self, candidate: Candidate, copies: int, gone: Iterable[str]) -> int:
        """Copies that would fit if the leases ``gone`` had ended."""
        changed: dict[str, NodeView] = {}
        for lease_id in gone:
            record = self._state.leases.get(lease_id)
            for allocation in record.lease.allocations if record is not None else ():
                view = changed.get(allocation.node, self._views[allocation.node])
                changed[allocation.node] = view.give_back(allocation)
        features = self._state.shapes.features
        for name, view in changed.items():
            copies += capacity(view, candidate.demand, features)
            copies -= capacity(self._views[name], candidate.demand, features)
        return copies


def _standing(step: Step, job: Job, done: StepRecord, median_ms: int, ran_ms: int) -> Standing:
    cards = step.resources.card_milli or step.resources.cards * 1_000 or step.resources.cpu_milli // 100
    return Standing(
        cards=max(1, cards * step.ranks),
        served_ms=done.served_ms // max(step.ranks, 1) + ran_ms,
        remaining_ms=max(0, median_ms - ran_ms),
        deadline_ms=job.deadline_ms,
    )
