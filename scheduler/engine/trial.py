"""What one plan works on: the places left, and every limit that what it starts must respect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from scheduler.engine.candidates import Candidate
from scheduler.engine.chunk import chunk_size
from scheduler.engine.evict import Evictor
from scheduler.engine.expected import Expected
from scheduler.engine.guard import Guard, Promise, Stay
from scheduler.engine.headroom import Headroom
from scheduler.engine.kept import Slots
from scheduler.engine.laid import Laid
from scheduler.engine.leave import LEAST_MS, Leavers
from scheduler.engine.limits import licence_reason, needed_reason, parallel_reason, quota_reason
from scheduler.engine.starts import Starts
from scheduler.engine.state import State
from scheduler.model.job import Seat
from scheduler.model.lease import Allocation, Lease, attempt_id
from scheduler.model.node import Lane
from scheduler.model.plan import Preempt, Reason, Recut
from scheduler.model.policy import Backfill, Policy
from scheduler.model.queue import Reservation
from scheduler.placement.fit import Demand, capacity
from scheduler.placement.future import allocate
from scheduler.placement.search import Search
from scheduler.queueing.calendar import Calendar, Floors
from scheduler.queueing.quota import Quotas, ancestors
from scheduler.queueing.tasks import tries


class Trial:
    """Takes from copies: the state stays as it is."""

    def __init__(self, state: State, now_ms: int, policy: Policy, quotas: Quotas) -> None:
        self.state = state
        self.now_ms = now_ms
        self.policy = policy
        self.search = Search(state.shapes)
        self.quotas = quotas
        self.floors = Floors(policy.floors, state.kinds_held, state.totals)
        self.seats = {name: seats - state.seats.get(name, 0) for name, seats in policy.licences}
        self.leavers = Leavers(state, now_ms, policy)
        self.expected = Expected(state, now_ms, self.leavers)
        self.guard = Guard(self.search.nodes, self.expected.ends, state.shapes.features)
        self.calendar = Calendar(state.reservations.values())
        self.has_lanes = state.shapes.has_lanes
        self.moves: dict[str, Lane] = {}
        """Nodes that are to move to another lane now."""
        self.recuts: list[Recut] = []
        """Cards that are to be cut now."""
        self.laid = Laid()
        self.lanes_kept: set[Lane] = set()
        """Lanes in which gangs wait: no node leaves them for single tasks."""
        self._closed: dict[tuple[str, int], frozenset[str]] = {}
        self.awaited: list[Seat] = []
        """Seats that are kept and not free yet."""
        self.starts = Starts(state, self.guard, self.expected, self.leavers, self.calendar, now_ms)
        self.headroom = Headroom(quotas, self.seats)
        self.slots = Slots(state, quotas)
        self.evictor = Evictor(state, self.search, quotas, self.slots, self.floors, self.leavers, now_ms, policy)
        self.promises: list[Promise] = []
        self.calls_ms: list[int] = []
        """When those are to be told that leave for promised starts."""
        self.promises_max = policy.promises_max
        self.shut = ""
        """The job behind which nothing starts, where the policy does not backfill."""
        self.in_turn = False
        """Nobody starts ahead of his turn yet: starts are promised first, to as many as the policy says."""
        self._seated = 0
        """Leases that started where they would have been promised a start."""
        self.unhurried: set[str] = set()
        """Nodes with promises that wait for what runs to end by itself."""
        self._shapes_started: set[Demand] = set()

    # ── start ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, candidate: Candidate, lease_id: str, seat: Seat | None = None) -> Lease | None:
        """A lease for the candidate's next tasks, which are thereby taken from it; None: not now (or not there)."""
        step = candidate.step
        if self.search.is_hopeless(candidate.demand, step.ranks_min or step.ranks, step.together):
            return None
        candidate.blocked = candidate.blocked or self.limit(candidate)
        if candidate.blocked is not None:
            return None
        self.set_chunk(candidate)
        candidate.blocked = self._needed_ahead(candidate)
        if candidate.blocked is not None:
            return None
        allocations = self._place(candidate, seat)
        if not allocations:
            return None
        amounts = candidate.amounts_on(len(allocations))
        self.quotas.take(candidate.queue, amounts, candidate.job.id)
        self.floors.take(candidate.job.kind, amounts)
        for name, seats in candidate.step.resources.licences:
            self.seats[name] -= seats * len(allocations)
        self._shapes_started.add(candidate.demand)
        if candidate.key in self.slots:
            self.guard.drop(self.slots.pop(candidate.key))
        self.fulfil(candidate)
        self.expected.start(candidate, allocations, lease_id)
        return self._lease(candidate, allocations, lease_id)

    def limit(self, candidate: Candidate) -> Reason | None:
        """A limit that holds whatever is free, as a reason."""
        if not candidate.parallel_left:
            return parallel_reason(candidate.step)
        for name, seats in candidate.step.resources.licences:
            free, needed = self.seats.get(name, 0), seats * candidate.step.ranks
            if free < needed:
                return licence_reason(name, needed, free)
        return self.quota(candidate)

    def is_below_floor(self, candidate: Candidate) -> bool:
        """Its kind of job holds less than its floor."""
        return self.floors.is_below(candidate.job.kind, candidate.amounts)

    def is_guaranteed(self, candidate: Candidate) -> bool:
        """One more lease of it stays within a guarantee."""
        return self.quotas.entitled(candidate.queue, candidate.amounts)

    def quota(self, candidate: Candidate) -> Reason | None:
        """What the queue tree says against one more lease of the candidate, as a reason."""
        least = candidate.step.ranks_min or candidate.step.ranks
        amounts = candidate.amounts_on(least)
        # Slots that begin later were promised with a slot that has begun in mind.
        last_ms = self.now_ms + candidate.careful_ms if self.slots and not candidate.slot_nodes else 0
        block = self.slots.block(candidate.queue, amounts, candidate.key, last_ms)
        return quota_reason(block) if block is not None else None

    def set_chunk(self, candidate: Candidate) -> None:
        """How many tasks one lease carries, which says how long it lasts: before anybody asks for that."""
        if not candidate.chunk:
            leased = self.state.leases_of_step.get(candidate.key, 0)
            slots = min(self.search.copies(candidate.demand), candidate.parallel_left) + leased
            candidate.carry(chunk_size(candidate.step, candidate.record, self.policy, slots))

    def stay(self, candidate: Candidate) -> Stay:
        """Until when a lease of the candidate would be there."""
        end_ms, term_ms = self.now_ms + candidate.run_ms, self.leavers.term_ms(candidate)
        last_ms = max(end_ms, self.now_ms + candidate.careful_ms) if self.slots else end_ms
        return Stay(end_ms=end_ms, last_ms=last_ms, leaves_ms=min(self.now_ms + term_ms, end_ms) if term_ms else 0)

    def _needed_ahead(self, candidate: Candidate) -> Reason | None:
        """What it would hold of a limit is needed by a start that is promised; as a reason."""
        promise = self.headroom.needed_by(candidate) if self.promises else None
        return needed_reason(promise.job_id, promise.start_ms - self.now_ms) if promise is not None else None

    def _place(self, candidate: Candidate, seat: Seat | None = None) -> tuple[Allocation, ...]:
        step, job = candidate.step, candidate.job
        if candidate.slot_nodes:
            return self._sit(candidate)
        turn = self.in_turn and (self.promises or self._seated < self.promises_max)
        if seat is None and (turn or candidate.key in self.starts.recorded):
            return self._in_turn(candidate)
        barred = self.barred(candidate)
        if seat is not None:
            barred |= frozenset(self.search.nodes).difference(seat.nodes)
        for ranks in candidate.sizes(self.search.copies):
            found = self.search.place(
                candidate.demand, ranks, job.tenant, candidate.record.warm_nodes, barred=barred, together=step.together
            )
            if found:
                return found
        return ()

    def _in_turn(self, candidate: Candidate) -> tuple[Allocation, ...]:
        """The place where its start would be promised, if that is now: so it starts where it was promised before."""
        barred = self.barred(candidate) if self.slots else frozenset[str]()
        names = [name for name in self.possible(candidate) if name not in barred]
        promise = self.starts.promise(candidate, names, self.leave(candidate), gaps=True, is_part=bool(barred))
        if promise is None or promise.start_ms > self.now_ms:
            return ()
        self._seated += 1
        for allocation in promise.allocations:
            self.search.hold(allocation, candidate.job.tenant)
        return promise.allocations

    def _sit(self, candidate: Candidate) -> tuple[Allocation, ...]:
        """The nodes that its slot names; nothing where another slot that was overstayed has taken the room."""
        nodes, features = self.search.nodes, self.state.shapes.features
        if any(
            capacity(nodes[name], candidate.demand, features) < n for name, n in Counter(candidate.slot_nodes).items()
        ):
            return ()
        found: list[Allocation] = []
        for name in candidate.slot_nodes:
            found.append(allocate(nodes[name], candidate.demand, features))
            self.search.hold(found[-1], candidate.job.tenant)
        return tuple(found)

    def barred(self, candidate: Candidate) -> frozenset[str]:
        """Nodes kept for others for as long as the candidate would need them."""
        promised: frozenset[str] = frozenset()
        if self.promises or self.slots or self.awaited:
            stay, ranks = self.stay(candidate), candidate.step.ranks
            with self.guard.without(self.own(candidate)):
                promised = self.guard.barred(candidate.demand, stay, candidate.job.tenant, ranks)
        return promised | self.closed(candidate) if self.calendar.nodes else promised

    def own(self, candidate: Candidate) -> tuple[Promise, ...]:
        """What is kept for the candidate's next lease, and is in its way nowhere. Seats are each for one lease."""
        start = self.slots.get(candidate.key) or self.promise_of(candidate)
        return (*self.slots.films.get(candidate.key, ()), *((start,) if start is not None else ()))

    def closed(self, candidate: Candidate) -> frozenset[str]:
        """Nodes whose reservation the candidate would run into."""
        key = candidate.queue, self.now_ms + candidate.run_ms
        if key not in self._closed:
            self._closed[key] = frozenset(node for node in self.calendar.nodes if self.window(candidate, node))
        return self._closed[key]

    def window(self, candidate: Candidate, node: str) -> Reservation | None:
        """The reservation that keeps the candidate off a node."""
        queues = ancestors(self.state.queues, candidate.queue)
        return self.calendar.closed(node, queues, self.now_ms, self.now_ms + candidate.run_ms)

    def _lease(self, candidate: Candidate, allocations: tuple[Allocation, ...], lease_id: str) -> Lease:
        job, step = candidate.job, candidate.step
        leaves_for = self._leaves_for(candidate)
        indices = tuple(islice(candidate.tasks, candidate.chunk))
        candidate.left -= len(indices)
        candidate.parallel_left -= 1
        return Lease(
            id=lease_id,
            job_id=job.id,
            step=step.name,
            tenant=job.tenant,
            queue=job.queue,
            allocations=allocations,
            attempts=tuple(attempt_id(job.id, step.name, i, tries(candidate.record, i)[0] + 1) for i in indices),
            granted_ms=self.now_ms,
            leaves_for=leaves_for,
        )

    def _leaves_for(self, candidate: Candidate) -> str:
        """The job for whose start the lease is to be stopped: the first of those ahead, wherever it is promised.

        Wherever, because where that start is made depends on what ends first.
        """
        first = self.promises[0] if self.promises else None
        if first is None or not first.is_first or not self.leavers.term_ms(candidate):
            return ""
        self.calls_ms.append(first.start_ms - max(candidate.step.grace_ms, LEAST_MS))
        return first.job_id

    # ── keep ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def needs_promise(self, candidate: Candidate) -> bool:
        """One task of a shape that others of its shape hold needs none: the next of those to end makes room for it, and
        the order gives it that room.
        """
        held = candidate.demand in self.state.shapes_held or candidate.demand in self._shapes_started
        return candidate.step.ranks > 1 or not held or self.policy.backfill is Backfill.CONSERVATIVE

    def leave_now(self, candidate: Candidate, names: Iterable[str]) -> tuple[Preempt, ...]:
        """What leaves for the candidate on nodes that hold nothing else is stopped."""
        stops = self.evictor.leave_now(candidate, names)
        self.expected.stop(stop.lease_id for stop in stops)
        return stops

    def leave(self, candidate: Candidate) -> str:
        """The candidate's job if what leaves for it is told in time: it is the first with a promise, or would be."""
        first = self.promises[0] if self.promises else None
        is_first = first is None or (first.job_id, first.step) == candidate.key
        return candidate.job.id if is_first else ""

    def possible(self, candidate: Candidate) -> list[str]:
        """Nodes where a copy would fit if they were empty."""
        return list(self.state.shapes.possible(self.state.shapes.of(candidate.demand)))

    def promise(self, candidate: Candidate, names: Sequence[str], leave: str, from_ms: int) -> Promise | None:
        """The start that is promised, not before an instant; None: there never will be one, or a limit forbids it."""
        promise = self.starts.promise(candidate, names, leave, gaps=self.has_gaps, from_ms=from_ms)
        if promise is None or not self.headroom.allows(candidate):
            return None
        self.keep(promise)
        self.headroom.keep(promise, candidate)
        return promise

    @property
    def has_gaps(self) -> bool:
        """A promised start may lie between others, or before a window."""
        return bool(self.slots or self.calendar.nodes) or self.promises_max > 1

    def keep(self, promise: Promise, instead_of: Promise | None = None) -> None:
        """A start is promised: what comes later must not delay it."""
        if instead_of is not None:
            self.promises.remove(instead_of)
            self.guard.drop(instead_of)
            self.headroom.replace(instead_of, promise)
        self.promises.append(promise)
        self.guard.add(promise)
        self.starts.recorded.pop((promise.job_id, promise.step), None)
        self.expected.called(promise.job_id)

    def promise_of(self, candidate: Candidate) -> Promise | None:
        """What was promised to the candidate in this plan."""
        return next((p for p in self.promises if (p.job_id, p.step) == candidate.key), None)

    def fulfil(self, candidate: Candidate) -> None:
        """It starts: what was promised to it is kept no longer."""
        self.starts.recorded.pop(candidate.key, None)
        promise = self.promise_of(candidate)
        if promise is not None:
            self.promises.remove(promise)
            self.guard.drop(promise)
            self.headroom.drop(promise)

    def holds(self) -> bool:
        """Whether everybody can start as promised beside what this plan starts; the places are then those found."""
        kept = [(p, candidate, self.possible(candidate)) for p, candidate in self.headroom.owners if not p.is_drain]
        found = self.starts.hold(kept)
        for (promise, _, _), after in zip(kept, found, strict=False):
            self.promises[self.promises.index(promise)] = after
            self.headroom.replace(promise, after)
        return len(found) == len(kept)

    def keep_slot(self, promise: Promise) -> None:
        """A slot is kept before anything else."""
        self.slots[promise.job_id, promise.step] = promise
        self.guard.add(promise)
