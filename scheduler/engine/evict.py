"""Whose leases to stop for a step that is entitled to start: the cheapest that make it fit, or none at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

from scheduler.engine.candidates import Candidate, Kind, kind_at
from scheduler.engine.leave import Leavers
from scheduler.engine.state import State
from scheduler.model.job import Job, JobRecord, Step, StepRecord
from scheduler.model.lease import Allocation, LeaseRecord, number_of
from scheduler.model.plan import Preempt
from scheduler.model.policy import Policy, Preemption
from scheduler.model.queue import Amounts
from scheduler.placement.fit import capacity
from scheduler.placement.future import allocate
from scheduler.placement.search import Search
from scheduler.placement.view import NodeView
from scheduler.queueing.calendar import FOREVER_MS, Floors
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.order import NONE, amounts_of
from scheduler.queueing.precedence import Standing, ahead
from scheduler.queueing.preempt import Ground, Victim, choose, cost_of, ground
from scheduler.queueing.quota import Quotas, Share
from scheduler.queueing.rank import weight_milli

TRIES = 32
"""Searches for victims per plan: each looks at every lease on the nodes in question."""
AHEAD_MAX = 64
"""Steps ahead that are looked at: behind more of them nobody is stopped, because one of those may take the room."""


class Evictor:
    """Works on one plan's trial: ``search`` has the nodes as the plan leaves them so far."""

    def __init__(  # noqa: PLR0917 (the parts of one trial)
        self,
        state: State,
        search: Search,
        quotas: Quotas,
        floors: Floors,
        leavers: Leavers,
        now_ms: int,
        policy: Policy,
    ) -> None:
        self._state = state
        self._search = search
        self._quotas = quotas
        self._floors = floors
        self._leavers = leavers
        self._now_ms = now_ms
        self._policy = policy
        self.kept: set[str] = set()
        """Leases that run on the tracks of a promised film."""
        self._tries = 0
        self._gone = set(state.stopping)
        """Leases that are stopping already, and those this plan stops."""
        self._expected: list[Share] = []
        """Of those for whom they stop: it counts as theirs when others ask."""
        self._hopeless: set[tuple[object, ...]] = set()
        """Kinds of candidate for whom nobody can be stopped in this plan."""
        self._claims: dict[str, list[tuple[Allocation, str]]] = {}
        """By node, where those will start, each with its tenant."""
        self._passed: list[tuple[Candidate, bool]] = []
        """Those ahead that found no room, and whether a guarantee covers them: they start first when there is some."""

    def leave_now(self, candidate: Candidate, names: Iterable[str]) -> tuple[Preempt, ...]:
        """Stops of what leaves for the candidate on those of ``names`` that hold nothing else."""
        held = ([self._state.leases[key] for key in self._state.leases_of_node.get(name, ())] for name in names)
        found = {
            record.lease.id
            for records in held
            if all(record.stopping or self._leavers.leaves_for(record, candidate.job.id) for record in records)
            for record in records
            if not record.stopping
        }
        return self._stops(candidate, sorted(found, key=number_of)) if self._stays_above(frozenset(found)) else ()

    def _stops(self, candidate: Candidate, chosen: Sequence[str]) -> tuple[Preempt, ...]:
        self._gone.update(chosen)
        reason = f"makes room for job {candidate.job.id}, which goes ahead of it"
        return tuple(Preempt(lease_id=key, for_job=candidate.job.id, reason=reason) for key in chosen)

    def fits_when_stopped(self, candidate: Candidate, names: Sequence[str]) -> bool:
        """Whether what is stopping already makes room on ``names``; that room is then the candidate's."""
        self._tries += 1
        with self._as_expected():
            fits = self._fits(candidate, names, frozenset())
        if fits and self._gone:
            self._claim(candidate, names)
        return fits

    def expect(self, ending: frozenset[str]) -> None:
        """These leases will have ended by themselves when what this plan stops is gone."""
        self._gone |= ending

    def victims(
        self, candidate: Candidate, names: Sequence[str], promised_ms: int = 0, presumed: Collection[str] = ()
    ) -> tuple[Preempt, ...]:
        """What to stop so that the candidate starts on ``names``; empty when nobody may be or it would not help.

        ``promised_ms``: its start there is promised, in so long; what leaves for that is stopped, and nobody else. If
        it can be, just those who were ``presumed`` to leave, and nobody who needs longer than that to go.
        """
        promised = promised_ms > 0
        with self._as_expected():
            chosen = self._all_of(candidate, names, promised_ms, presumed) if presumed else ()
            chosen = chosen or self._cheapest(candidate, names, promised_ms)
            if not chosen and promised:
                chosen = self._cheapest(candidate, names, FOREVER_MS)
            if not chosen or self._taken_by_others(candidate, chosen):
                if not promised:
                    self._hopeless.add(kind_of(candidate))
                return ()
        stops = self._stops(candidate, chosen)
        self._claim(candidate, names)
        return stops

    @property
    def is_full(self) -> bool:
        """So many were passed over that :meth:`passed` notes no more."""
        return len(self._passed) >= AHEAD_MAX

    def passed(self, candidate: Candidate) -> None:
        """The candidate was reached, found no room and stops nobody: what others free may be taken by it."""
        if len(self._passed) < AHEAD_MAX:
            self._passed.append((candidate, self._quotas.entitled(candidate.queue, candidate.amounts)))

    def _taken_by_others(self, candidate: Candidate, chosen: Sequence[str]) -> bool:
        """Whether somebody ahead would start in the room that stopping ``chosen`` makes."""
        if len(self._passed) >= AHEAD_MAX:
            return True
        covered = self._quotas.entitled(candidate.queue, candidate.amounts)
        freed = sorted({a.node for key in chosen for a in self._state.leases[key].lease.allocations})
        for other, is_covered in self._passed:
            if covered and not is_covered:
                continue
            gain = sum(self._gain(other, name, frozenset(chosen)) for name in freed)
            ranks = other.step.ranks_min or other.step.ranks
            if gain and self._search.copies(other.demand) + gain >= ranks:
                return True
        return False

    def _gain(self, other: Candidate, name: str, leases: frozenset[str]) -> int:
        features = self._state.shapes.features
        after = capacity(self._after(name, leases), other.demand, features)
        return max(0, after - capacity(self._after(name, frozenset()), other.demand, features))

    def _claim(self, candidate: Candidate, names: Sequence[str]) -> None:
        """The candidate will start on ``names``, those with room from stops first."""
        self._expected.append((candidate.queue, candidate.amounts, ""))
        freed = {a.node for key in self._gone for a in self._state.leases[key].lease.allocations}
        left, features = candidate.step.ranks, self._state.shapes.features
        for name in sorted(names, key=lambda name: (name not in freed, name)):
            while left and capacity(view := self._after(name, frozenset()), candidate.demand, features):
                place = allocate(view, candidate.demand, features)
                self._claims.setdefault(name, []).append((place, candidate.job.tenant))
                left -= 1
            if not left:
                return

    def _all_of(
        self, candidate: Candidate, names: Sequence[str], promised_ms: int, presumed: Collection[str]
    ) -> tuple[str, ...]:
        """These, cheap or not, if that is enough and they leave for it."""
        possible = self._possible(candidate, frozenset(names), promised_ms)
        leases = frozenset(victim.lease_id for victim, _ in possible if victim.lease_id in presumed)
        enough = leases and self._fits(candidate, names, leases) and self._stays_above(leases)
        return tuple(sorted(leases, key=number_of)) if enough else ()

    def _cheapest(self, candidate: Candidate, names: Sequence[str], promised_ms: int) -> tuple[str, ...]:
        found: list[Victim] = []
        reclaimed: dict[str, tuple[str, Amounts]] = {}
        for victim, why in self._possible(candidate, frozenset(names), promised_ms):
            found.append(victim)
            if why is Ground.GUARANTEE:
                reclaimed[victim.lease_id] = self._share(victim.lease_id)[:2]

        def fits(leases: frozenset[str]) -> bool:
            return self._fits(candidate, names, leases)

        def allowed(leases: frozenset[str]) -> bool:
            if promised_ms:
                return self._stays_above(leases)
            taken = [reclaimed[key] for key in leases if key in reclaimed]
            return self._quotas.may_reclaim_all(candidate.queue, candidate.amounts, taken)

        return choose(found, fits, allowed) if found else ()

    def _stays_above(self, leases: frozenset[str]) -> bool:
        """Without ``leases`` no kind is below its floor and no queue within its guarantee: those would start first."""
        shares = {key: self._share(key) for key in sorted(leases)}
        held = [(self._kind_of(key), queue, amounts) for key, (queue, amounts, _) in shares.items()]
        for kind, _, amounts in held:
            self._floors.give(kind, amounts)
        with self._quotas.as_if(shares.values(), ()):
            above = not any(
                self._floors.is_below(kind, amounts) or self._quotas.entitled(queue, amounts)
                for kind, queue, amounts in held
            )
        for kind, _, amounts in held:
            self._floors.take(kind, amounts)
        return above

    def _kind_of(self, lease_id: str) -> str:
        return self._state.jobs[self._state.leases[lease_id].lease.job_id].job.kind

    def _fits(self, candidate: Candidate, names: Sequence[str], leases: frozenset[str]) -> bool:
        """Room on ``names`` and quota for the candidate once ``leases`` and what is stopping have ended."""
        if self._copies(candidate, names, leases) < candidate.step.ranks:
            return False
        with self._quotas.as_if([self._share(key) for key in leases], ()):
            return self._quotas.block(candidate.queue, candidate.amounts, candidate.job.id) is None

    @contextmanager
    def _as_expected(self) -> Iterator[None]:
        """The quotas as they will be: what is stopping given back, and given to those it stops for."""
        with self._quotas.as_if([self._share(key) for key in sorted(self._gone)], self._expected):
            yield

    def _share(self, lease_id: str) -> Share:
        """Of an open lease; its job is not told, because it counts among those that run until it has ended."""
        queue, amounts, _ = self._state.held_by(self._state.leases[lease_id].lease)
        return queue, amounts, ""

    def may_try(self, candidate: Candidate) -> bool:
        """Whether looking for victims can make sense; cheap."""
        policy = self._policy
        if policy.preemption is Preemption.NEVER or not self._state.leases or self._tries >= TRIES:
            return False
        if policy.preemption is Preemption.ALWAYS:
            return True
        return kind_of(candidate) not in self._hopeless and (
            candidate.job.priority - self._lowest_priority >= policy.preempt_gap
            or self._quotas.entitled(candidate.queue, candidate.amounts)
        )

    @cached_property
    def _lowest_priority(self) -> int:
        return min((self._state.jobs[job_id].job.priority for job_id in self._state.leases_of_job), default=100)

    def _possible(
        self, candidate: Candidate, nodes: frozenset[str], promised_ms: int
    ) -> Iterator[tuple[Victim, Ground]]:
        mine = _standing(candidate.step, candidate.job, candidate.record, candidate.estimate.median_ms, 0)
        for lease_id in sorted(
            {key for name in nodes for key in self._state.leases_of_node.get(name, ())}, key=number_of
        ):
            record = self._state.leases[lease_id]
            job = self._state.jobs[record.lease.job_id]
            step, done = find_step(job, record.lease.step)
            is_kept = job.job.slot is not None or lease_id in self.kept
            if job.job.id == candidate.job.id or lease_id in self._gone or is_kept:
                continue
            if promised_ms:
                in_time = self._leavers.notice_ms(record.lease) <= promised_ms
                why = Ground.PROMISE if in_time and self._leavers.leaves_for(record, candidate.job.id) else None
            else:
                why = self._may_stop(candidate, mine, record, job, step, done)
            if why is not None:
                yield self._victim(record, job, step), why

    def _may_stop(  # noqa: PLR0917 (all of them decide)
        self, candidate: Candidate, mine: Standing, record: LeaseRecord, job: JobRecord, step: Step, done: StepRecord
    ) -> Ground | None:
        queue, holds = candidate.queue, amounts_of(step.resources, len(record.lease.allocations))
        reclaims = self._quotas.may_reclaim(queue, candidate.amounts, job.job.queue, holds)
        why = ground(self._policy, step, job, record, priority=candidate.job.priority, queue=queue, reclaims=reclaims)
        if why is not Ground.AHEAD:
            return why
        ran_ms = self._now_ms - record.lease.granted_ms
        median_ms = self._state.durations.estimate(job.job, step, done).median_ms
        standing = _standing(step, job.job, done, median_ms, ran_ms)
        return Ground.AHEAD if ahead(self._policy.sort, mine, standing) else None

    def _victim(self, record: LeaseRecord, job: JobRecord, step: Step) -> Victim:
        entitled = self._quotas.borrowed(record.lease.queue) == NONE
        attempts = self._state.attempts_of(record.lease)
        cost = cost_of(step, record, attempts, self._now_ms, priority=job.job.priority, entitled=entitled)
        allocations = record.lease.allocations
        freed = weight_milli(step.resources) * len(allocations)
        return Victim(
            lease_id=record.lease.id, cost=cost, freed=freed, nodes=tuple(sorted({a.node for a in allocations}))
        )

    def _copies(self, candidate: Candidate, names: Sequence[str], leases: frozenset[str]) -> int:
        """Copies that would fit on ``names`` once ``leases`` and what is stopping have ended."""
        demand, features = candidate.demand, self._state.shapes.features
        changed = {a.node for key in self._gone | leases for a in self._state.leases[key].lease.allocations}
        changed |= self._claims.keys()
        return sum(
            capacity(self._after(name, leases), demand, features)
            if name in changed
            else self._search.copies_on(demand, name)
            for name in names
        )

    def _after(self, name: str, leases: frozenset[str]) -> NodeView:
        """A node once ``leases`` and what is stopping have ended and those they stop for have started."""
        view = self._search.nodes[name]
        here = self._state.leases_of_node.get(name, ())
        for key in here:
            if key in leases or key in self._gone:
                for allocation in self._state.leases[key].lease.allocations:
                    if allocation.node == name:
                        view = view.give_back(allocation)
        for place, tenant in self._claims.get(name, ()):
            view = view.take(place, tenant)
        return view


def kind_of(candidate: Candidate) -> Kind:
    """See :func:`scheduler.engine.candidates.kind_at`."""
    return kind_at(candidate.job, candidate.rank[-1], candidate.demand)


def _standing(step: Step, job: Job, done: StepRecord, median_ms: int, ran_ms: int) -> Standing:
    cards = step.resources.card_milli or step.resources.cards * 1_000 or step.resources.cpu_milli // 100
    return Standing(
        cards=max(1, cards * step.ranks),
        served_ms=done.served_ms // max(step.ranks, 1) + ran_ms,
        remaining_ms=max(0, median_ms - ran_ms),
        deadline_ms=job.deadline_ms,
    )
