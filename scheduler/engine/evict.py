"""Whose leases to stop for a step that is entitled to start: the cheapest that make it fit, or none at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

from scheduler.engine.candidates import Candidate, Kind, kind_at
from scheduler.engine.guard import Guard, Promise
from scheduler.engine.kept import Slots
from scheduler.engine.leave import Leavers
from scheduler.engine.room import Room
from scheduler.engine.standing import Standings
from scheduler.engine.state import State
from scheduler.model.job import JobRecord, Step
from scheduler.model.lease import Allocation, LeaseRecord, number_of
from scheduler.model.plan import Preempt
from scheduler.model.policy import Policy, Preemption
from scheduler.model.queue import Amounts
from scheduler.placement.fit import capacity
from scheduler.placement.future import allocate, groups
from scheduler.placement.search import Search
from scheduler.placement.view import NodeView
from scheduler.queueing.calendar import Floors
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.order import NONE, amounts_of
from scheduler.queueing.preempt import Ground, Victim, choose, cost_of, ground
from scheduler.queueing.quota import Quotas, Share
from scheduler.queueing.rank import weight_milli

Mark = tuple[set[str], dict[str, list[tuple[Allocation, str]]], list[Share]]
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
        slots: Slots,
        floors: Floors,
        leavers: Leavers,
        now_ms: int,
        policy: Policy,
    ) -> None:
        self._state = state
        self._search = search
        self._quotas = quotas
        self._slots = slots
        self._floors = floors
        self._leavers = leavers
        self._now_ms = now_ms
        self._policy = policy
        self.kept: set[str] = set()
        """Leases that run on the tracks of a promised film."""
        self._tries = 0
        self.standings = Standings(state, now_ms, policy)
        self._gone = set(state.stopping)
        """Leases that are stopping already, and those this plan stops."""
        self._late: frozenset[str] = frozenset()
        """Leases that are stopping, but will not have ended when the candidate is to start."""
        self._expected: list[Share] = []
        """Of those for whom they stop: it counts as theirs when others ask."""
        self._hopeless: dict[tuple[object, ...], int] = {}
        """By kind of candidate for whom nobody can be stopped in this plan, how far back the first of them was: those
        further back may stop no more than that one."""
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
            fits = self._fits(candidate, self._room(candidate, names), frozenset())
        if fits and self._gone:
            self._claim(candidate, names)
        return fits

    def mark(self) -> Mark:
        """What is stopped and for whom, to come back to."""
        return set(self._gone), {name: list(claims) for name, claims in self._claims.items()}, list(self._expected)

    def back(self, mark: Mark) -> None:
        """What was stopped since then goes on."""
        self._gone, self._claims, self._expected = mark

    @contextmanager
    def beside(self, promises: Iterable[Promise]) -> Iterator[None]:
        """As if these had started already: who is promised a start ahead of them takes no room of theirs."""
        theirs = [(place, promise.tenant) for promise in promises for place in promise.allocations]
        for claim in theirs:
            self._claims.setdefault(claim[0].node, []).append(claim)
        yield
        for claim in theirs:
            self._claims[claim[0].node].remove(claim)

    @contextmanager
    def without(self, late: frozenset[str]) -> Iterator[None]:
        """As if these were not stopping: they will not have ended in time."""
        self._late = late & self._gone
        self._gone -= self._late
        yield
        self._gone |= self._late
        self._late = frozenset()

    def expect(self, ending: frozenset[str]) -> None:
        """These leases will have ended by themselves when what this plan stops is gone."""
        self._gone |= ending

    def victims(
        self, candidate: Candidate, names: Sequence[str], promised_ms: int = 0, presumed: Collection[str] = ()
    ) -> tuple[Preempt, ...]:
        """What to stop so that the candidate starts on ``names``; empty when nobody may be or it would not help.

        ``promised_ms``: its start there is promised, in so long; what leaves for that is stopped, and nobody else, nor
        who needs longer than that to go. If it can be, just those who were ``presumed`` to leave.
        """
        promised = promised_ms > 0
        room = self._room(candidate, names)
        with self._as_expected():
            chosen = self._all_of(candidate, room, promised_ms, presumed) if presumed else ()
            chosen = chosen or self._cheapest(candidate, room, promised_ms)
            if not chosen or self._taken_by_others(candidate, chosen):
                if not promised:
                    self._hopeless[kind_of(candidate)] = self.standings.behind(candidate)
                return ()
        stops = self._stops(candidate, chosen)
        self._claim(candidate, names)
        return stops

    def spare_slots(self, candidate: Candidate, promise: Promise, last_ms: int, guard: Guard) -> tuple[Preempt, ...]:
        """The cheapest of what leaves for the candidate's promised start that is in the way only of a slot which begins
        during it, before ``last_ms``: its place was found with that in mind. Empty: nothing is, or nothing helps.
        """

        def enough(gone: frozenset[str]) -> bool:
            return guard.crowded(promise, last_ms, gone) is None

        slot = guard.crowded(promise, last_ms)
        if slot is None:
            return ()
        found = [victim for victim, _ in self._possible(candidate, promise.nodes, slot.start_ms - self._now_ms)]
        return self._stops(candidate, choose(found, enough, self._stays_above)) if found else ()

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

    def _all_of(self, candidate: Candidate, room: Room, promised_ms: int, presumed: Collection[str]) -> tuple[str, ...]:
        """These, cheap or not, if that is enough and they leave for it."""
        possible = self._possible(candidate, room.names, promised_ms)
        leases = frozenset(victim.lease_id for victim, _ in possible if victim.lease_id in presumed)
        enough = leases and self._fits(candidate, room, leases) and self._stays_above(leases)
        return tuple(sorted(leases, key=number_of)) if enough else ()

    def _cheapest(self, candidate: Candidate, room: Room, promised_ms: int) -> tuple[str, ...]:
        found: list[Victim] = []
        reclaimed: dict[str, tuple[str, Amounts]] = {}
        for victim, why in self._possible(candidate, room.names, promised_ms):
            found.append(victim)
            if why is Ground.GUARANTEE:
                reclaimed[victim.lease_id] = self._share(victim.lease_id)[:2]

        def fits(leases: frozenset[str]) -> bool:
            return self._fits(candidate, room, leases)

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

    def _fits(self, candidate: Candidate, room: Room, leases: frozenset[str]) -> bool:
        """Room and quota for the candidate once ``leases`` and what is stopping have ended."""
        if room.copies(leases) < candidate.step.ranks:
            return False
        last_ms = self._now_ms + candidate.careful_ms if self._slots else 0
        with self._quotas.as_if([self._share(key) for key in leases], ()):
            return self._slots.block(candidate.queue, candidate.amounts, candidate.key, last_ms) is None

    def opens_ms(self, candidate: Candidate, stops: Sequence[tuple[int, str]]) -> int:
        """When enough of what is stopping has ended for the limits to let the candidate start, for whom that is.

        ``stops``: ``(instant, lease)`` in their order.
        """
        last_ms = self._now_ms + candidate.careful_ms if self._slots else 0
        others = self._expected[:-1]  # the last is the candidate's own
        for at, (end_ms, _) in enumerate(stops, start=1):
            with self._quotas.as_if([self._share(key) for _, key in stops[:at]], others):
                if self._slots.block(candidate.queue, candidate.amounts, candidate.key, last_ms) is None:
                    return end_ms
        return stops[-1][0] if stops else self._now_ms

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
        hopeless = self._hopeless.get(kind_of(candidate))
        if hopeless is not None and self.standings.behind(candidate) >= hopeless:
            return False
        return (
            candidate.job.priority - self._lowest_priority >= policy.preempt_gap
            or self.standings.is_ahead(candidate)
            or self._quotas.entitled(candidate.queue, candidate.amounts)
        )

    def has_given_up(self, candidate: Candidate) -> bool:
        """Neither the candidate nor anybody of its kind who comes after it may stop anybody in this plan."""
        by_order = self._policy.preemption is Preemption.ALWAYS and self._tries < TRIES
        return not by_order and not self.may_try(candidate)

    @cached_property
    def _lowest_priority(self) -> int:
        return min((self._state.jobs[job_id].job.priority for job_id in self._state.leases_of_job), default=100)

    def _possible(
        self, candidate: Candidate, nodes: Collection[str], promised_ms: int
    ) -> Iterator[tuple[Victim, Ground]]:
        for lease_id in sorted(
            {key for name in nodes for key in self._state.leases_of_node.get(name, ())}, key=number_of
        ):
            record = self._state.leases[lease_id]
            job = self._state.jobs[record.lease.job_id]
            step, _ = find_step(job, record.lease.step)
            is_kept = job.job.slot is not None or lease_id in self.kept
            is_gone = lease_id in self._gone or lease_id in self._late
            if job.job.id == candidate.job.id or is_gone or is_kept:
                continue
            if promised_ms:
                in_time = self._leavers.notice_ms(record.lease) <= promised_ms
                why = Ground.PROMISE if in_time and self._leavers.leaves_for(record, candidate.job.id) else None
            else:
                why = self._may_stop(candidate, record, job, step)
            if why is not None:
                yield self._victim(record, job, step), why

    def _may_stop(self, candidate: Candidate, record: LeaseRecord, job: JobRecord, step: Step) -> Ground | None:
        queue, holds = candidate.queue, amounts_of(step.resources, len(record.lease.allocations))
        reclaims = self._quotas.may_reclaim(queue, candidate.amounts, job.job.queue, holds)
        why = ground(self._policy, step, job, record, priority=candidate.job.priority, queue=queue, reclaims=reclaims)
        return None if why is Ground.AHEAD and not self.standings.is_ahead_of(candidate, record) else why

    def _victim(self, record: LeaseRecord, job: JobRecord, step: Step) -> Victim:
        entitled = self._quotas.borrowed(record.lease.queue) == NONE
        attempts = self._state.attempts_of(record.lease)
        cost = cost_of(step, record, attempts, self._now_ms, priority=job.job.priority, entitled=entitled)
        allocations = record.lease.allocations
        freed = weight_milli(step.resources) * len(allocations)
        return Victim(
            lease_id=record.lease.id, cost=cost, freed=freed, nodes=tuple(sorted({a.node for a in allocations}))
        )

    def _room(self, candidate: Candidate, names: Iterable[str]) -> Room:
        """Copies that would fit on ``names``, near enough, once leases and what is stopping have ended."""
        demand, features = candidate.demand, self._state.shapes.features
        changed = {a.node for key in self._gone for a in self._state.leases[key].lease.allocations}
        changed |= self._claims.keys()

        def on(name: str, leases: frozenset[str]) -> int:
            if leases or name in changed:
                return capacity(self._after(name, leases), demand, features)
            return self._search.copies_on(demand, name)

        now = {name: on(name, frozenset()) for name in names}
        return Room(self._state.leases, now, groups(now, self._search.nodes, candidate.step.together), on)

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
