"""What one plan works on: the places left, and every limit that what it starts must respect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from scheduler.engine.candidates import Candidate
from scheduler.engine.chunk import chunk_size
from scheduler.engine.ends import estimate_of, left_ms
from scheduler.engine.evict import Evictor
from scheduler.engine.guard import Guard, Promise
from scheduler.engine.leave import LEAST_MS, Leavers
from scheduler.engine.state import State
from scheduler.model.lease import Allocation, Lease, LeaseRecord, attempt_id
from scheduler.model.node import Lane
from scheduler.model.plan import Preempt, Reason, ReasonKind, Reserve
from scheduler.model.policy import Backfill, Policy
from scheduler.model.queue import Reservation
from scheduler.placement.fit import Demand, thousandths
from scheduler.placement.search import Search
from scheduler.queueing.calendar import Calendar, Floors
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.order import amounts_of
from scheduler.queueing.quota import Block, Quotas, Rule, ancestors
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
        self.guard = Guard(self.search.nodes, self._ends, state.shapes.features)
        self.calendar = Calendar(state.reservations.values())
        self.has_lanes = state.shapes.has_lanes
        self.moves: dict[str, Lane] = {}
        """Nodes that are to move to another lane now."""
        self.lanes_kept: set[Lane] = set()
        """Lanes in which gangs wait: no node leaves them for single tasks."""
        self._closed: dict[tuple[str, int], frozenset[str]] = {}
        self.leavers = Leavers(state, now_ms, policy)
        self.evictor = Evictor(state, self.search, quotas, self.floors, self.leavers, now_ms, policy)
        self.promises: list[Promise] = []
        self.calls_ms: list[int] = []
        """When those are to be told that leave for promised starts."""
        self.promises_max = policy.promises_max
        self.shut = ""
        """The job behind which nothing starts, where the policy does not backfill."""
        self._kept: set[str] = set()
        """Nodes with promises that wait for what runs to end by itself."""
        self.stopped: set[str] = set()
        """Leases this plan preempts."""
        self._started: dict[str, list[tuple[int, Allocation, str]]] = {}
        """By node: what this plan starts, with its expected end."""
        self._shapes_started: set[Demand] = set()
        self._known_ends: dict[str, list[tuple[int, Allocation, str]]] = {}

    # ── start ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, candidate: Candidate, lease_id: str) -> Lease | None:
        """A lease for the candidate's next tasks, which are thereby taken from it; None: not now."""
        step = candidate.step
        if self.search.is_hopeless(candidate.demand, step.ranks_min or step.ranks, step.together):
            return None
        candidate.blocked = candidate.blocked or self.limit(candidate)
        if candidate.blocked is not None:
            return None
        allocations = self._place(candidate)
        if not allocations:
            return None
        amounts = amounts_of(candidate.step.resources, len(allocations))
        self.quotas.take(candidate.queue, amounts, candidate.job.id)
        self.floors.take(candidate.job.kind, amounts)
        for name, seats in candidate.step.resources.licences:
            self.seats[name] -= seats * len(allocations)
        self._shapes_started.add(candidate.demand)
        for allocation in allocations:
            end = (self.now_ms + candidate.likely_ms, allocation, lease_id)
            self._started.setdefault(allocation.node, []).append(end)
        return self._lease(candidate, allocations, lease_id)

    def limit(self, candidate: Candidate) -> Reason | None:
        """A limit that holds whatever is free, as a reason."""
        if not candidate.parallel_left:
            message = f"runs at most {candidate.step.max_parallel} tasks at once, as its job file says"
            return Reason(kind=ReasonKind.PARALLEL_LIMIT, message=message)
        for name, seats in candidate.step.resources.licences:
            free, needed = self.seats.get(name, 0), seats * candidate.step.ranks
            if free < needed:
                message = f"needs {needed} seats of licence {name}; {max(free, 0)} are free"
                return Reason(kind=ReasonKind.LICENCE, resource=name, message=message)
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
        block = self.quotas.block(candidate.queue, amounts_of(candidate.step.resources, least), candidate.job.id)
        return quota_reason(block) if block is not None else None

    def _place(self, candidate: Candidate) -> tuple[Allocation, ...]:
        step, job = candidate.step, candidate.job
        if not candidate.chunk:
            leased = self.state.leases_of_step.get(candidate.key, 0)
            slots = min(self.search.copies(candidate.demand), candidate.parallel_left) + leased
            candidate.chunk = chunk_size(step, candidate.record, self.policy, slots)
        barred = self.barred(candidate)
        for ranks in self._sizes(candidate):
            found = self.search.place(
                candidate.demand, ranks, job.tenant, candidate.record.warm_nodes, barred=barred, together=step.together
            )
            if found:
                return found
        return ()

    def _sizes(self, candidate: Candidate) -> Iterator[int]:
        """Numbers of ranks to try, largest first: all of them, or what an elastic gang can do with."""
        step = candidate.step
        if candidate.place is not None:
            yield candidate.place[1]
            return
        yield step.ranks
        if not step.ranks_min:
            return
        most = min(step.ranks - 1, self.search.copies(candidate.demand))
        sizes = [ranks for ranks, _ in step.scaling if step.ranks_min <= ranks <= most] or [most]
        yield from sorted((ranks for ranks in sizes if ranks >= step.ranks_min), reverse=True)

    def barred(self, candidate: Candidate) -> frozenset[str]:
        """Nodes kept for others for as long as the candidate would need them."""
        end_ms = self.now_ms + (self.leavers.term_ms(candidate) or candidate.run_ms)
        promised = self.guard.barred(candidate.demand, end_ms, candidate.job.tenant) if self.promises else frozenset()
        return promised | self.closed(candidate) if self.calendar.nodes else promised

    def closed(self, candidate: Candidate) -> frozenset[str]:
        """Nodes whose reservation the candidate would run into."""
        key = (candidate.queue, self.now_ms + candidate.run_ms)
        if key not in self._closed:
            self._closed[key] = frozenset(node for node in self.calendar.nodes if self.window(candidate, node))
        return self._closed[key]

    def window(self, candidate: Candidate, node: str) -> Reservation | None:
        """The reservation that keeps the candidate off a node."""
        queues = ancestors(self.state.queues, candidate.queue)
        return self.calendar.closed(node, queues, self.now_ms, self.now_ms + candidate.run_ms)

    def _lease(self, candidate: Candidate, allocations: tuple[Allocation, ...], lease_id: str) -> Lease:
        job, step = candidate.job, candidate.step
        leaves_for = self._leaves_for(candidate, allocations)
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

    def _leaves_for(self, candidate: Candidate, allocations: tuple[Allocation, ...]) -> str:
        """The job for whose start the lease is to be stopped: of those ahead, the first on its nodes or on any.

        On any, because where that start is made depends on what ends first.
        """
        if not self.promises or not self.leavers.term_ms(candidate):
            return ""
        here = self.guard.delayed(allocation.node for allocation in allocations)
        first = next(iter((*here, *self.promises)))
        self.calls_ms.append(first.start_ms - candidate.step.grace_ms)
        return first.job_id

    # ── keep ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def pass_over(self, candidate: Candidate) -> tuple[Preempt, ...]:
        """The candidate is next and does not fit: stop others for it if it is entitled, and promise it its start."""
        may_stop = self.evictor.may_try(candidate)
        if not candidate.left or (not may_stop and self.evictor.is_full and len(self.promises) >= self.promises_max):
            return ()
        candidate.blocked = candidate.blocked or self.limit(candidate)
        quota = candidate.blocked is not None and candidate.blocked.kind is ReasonKind.QUOTA
        if candidate.blocked is not None and not quota:
            return ()
        # One task of a shape that others of its shape hold needs no promise: the next of those to end makes room for
        # it, and the order gives it that room.
        held = candidate.demand in self.state.shapes_held or candidate.demand in self._shapes_started
        promised = candidate.step.ranks > 1 or not held or self.policy.backfill is Backfill.CONSERVATIVE
        promised = promised and not quota and len(self.promises) < self.promises_max
        if not (may_stop or promised):
            self.evictor.passed(candidate)
            return ()
        names = self._possible(candidate)
        expected, stops = self._stop_for(candidate, names) if may_stop else (False, ())
        nodes = self._promise(candidate, names) if promised or expected else ()
        if nodes and not expected:
            expected, stops = self._call_in(candidate, nodes)
        if not expected:
            self._kept.update(nodes)
            self.evictor.passed(candidate)
        return stops

    def _call_in(self, candidate: Candidate, nodes: Sequence[str]) -> tuple[bool, tuple[Preempt, ...]]:
        """The same for its promised start: what leaves for it is told in time to be gone with the others."""
        lead_ms = self.leavers.lead_ms(nodes)
        if lead_ms is None:
            return False, ()
        call_ms = next((p.start_ms for p in self.promises if (p.job_id, p.step) == candidate.key), 0) - lead_ms
        if call_ms > self.now_ms + 1:
            self.calls_ms.append(call_ms)
        self.evictor.expect(self.leavers.ending(nodes, lead_ms))
        return self._stop_for(candidate, nodes, promised=True)

    def _stop_for(
        self, candidate: Candidate, names: Sequence[str], *, promised: bool = False
    ) -> tuple[bool, tuple[Preempt, ...]]:
        """Whether stops make room for the candidate, and those that are new. ``promised``: of what leaves for it."""
        free = [name for name in names if name not in self._kept]
        if self.evictor.fits_when_stopped(candidate, free):
            return True, ()
        stops = self.evictor.victims(candidate, free, promised=promised)
        self._note(stops)
        return bool(stops), stops

    def leave_now(self, candidate: Candidate, names: Iterable[str]) -> tuple[Preempt, ...]:
        """What leaves for the candidate on nodes that hold nothing else is stopped."""
        stops = self.evictor.leave_now(candidate, names)
        self._note(stops)
        return stops

    def _note(self, stops: tuple[Preempt, ...]) -> None:
        self.stopped.update(stop.lease_id for stop in stops)
        if stops:
            self._known_ends.clear()

    def _possible(self, candidate: Candidate) -> list[str]:
        """Nodes where a copy would fit if they were empty and nobody had reserved them."""
        shape = self.state.shapes.of(candidate.demand)
        closed = self.closed(candidate)
        return [name for name in self.state.shapes.possible(shape) if name not in closed]

    def _promise(self, candidate: Candidate, names: Sequence[str]) -> tuple[str, ...]:
        """The nodes of the start that is promised; none when there never will be one."""
        step, tenant = candidate.step, candidate.job.tenant
        found = self.guard.earliest(candidate.demand, step.ranks, tenant, names, self.now_ms, together=step.together)
        if found is None:
            return ()
        start_ms, allocations = found
        promise = Promise(
            job_id=candidate.job.id,
            step=step.name,
            tenant=tenant,
            demand=candidate.demand,
            allocations=allocations,
            start_ms=start_ms,
            end_ms=start_ms + candidate.run_ms,
        )
        self.keep(promise)
        return promise.nodes

    def keep(self, promise: Promise, instead_of: Promise | None = None) -> None:
        """A start is promised: what comes later must not delay it."""
        if instead_of is not None:
            self.promises.remove(instead_of)
            self.guard.drop(instead_of)
        self.promises.append(promise)
        self.guard.add(promise)

    def starts_on(self, node: str) -> bool:
        """Whether this plan starts something on a node."""
        return node in self._started

    def empty_ms(self, node: str) -> int:
        """When a node will hold nothing, if what it holds ends as expected."""
        return max((end_ms for end_ms, _, _ in self._ends(node)), default=self.now_ms)

    def reserves(self) -> Iterator[Reserve]:
        """The promises as actions."""
        for p in self.promises:
            yield Reserve(job_id=p.job_id, step=p.step, nodes=p.nodes, start_ms=p.start_ms)

    # ── expect ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _ends(self, node: str) -> list[tuple[int, Allocation, str]]:
        """What is held on a node, by expected end: the state's leases and this plan's."""
        known = self._known_ends.get(node)
        if known is None:
            known = sorted(self._ends_of(node), key=lambda end: (end[0], end[2]))
            self._known_ends[node] = known
        started = self._started.get(node)
        return sorted([*known, *started], key=lambda end: (end[0], end[2])) if started else known

    def _ends_of(self, node: str) -> Iterator[tuple[int, Allocation, str]]:
        for lease_id in self.state.leases_of_node.get(node, ()):
            record = self.state.leases[lease_id]
            end_ms = self.expected_end_ms(record)
            for allocation in record.lease.allocations:
                if allocation.node == node:
                    yield end_ms, allocation, lease_id

    def expected_end_ms(self, record: LeaseRecord) -> int:
        """When a running lease will have ended, as likely as not."""
        job, step_name = record.lease.job_id, record.lease.step
        if record.lease.id in self.stopped:
            return self.now_ms + find_step(self.state.jobs[job], step_name)[0].grace_ms
        left = left_ms(self.state, record, self.now_ms, estimate_of(self.state, job, step_name))
        if self.leavers.leaves(record):
            # One more, so that who was stopped already is counted on first.
            left = min(left, max(find_step(self.state.jobs[job], step_name)[0].grace_ms, LEAST_MS) + 1)
        return self.now_ms + left


def quota_reason(block: Block) -> Reason:
    """A block of the queue tree as a sentence with the numbers."""
    name = f"queue {block.queue}" if block.queue else "the farm"
    show = {"cpu": "vCPU", "memory": "MiB of memory", "card": "cards", "mig": "MIG instances"}.get(block.resource, "")
    if block.rule is Rule.JOBS:
        message = f"{name} runs {block.held} jobs at once, as many as it may"
    else:
        asked, held, most, kept = (
            thousandths(n) if block.resource != "memory" else str(n)
            for n in (block.asked, block.held, block.most, block.kept)
        )
        message = f"asks for {asked} {show} more; {name} holds {held} of at most {most}"
        message += f", and other queues keep {kept} for themselves" if block.kept else ""
    return Reason(kind=ReasonKind.QUOTA, resource=block.queue or block.resource, message=message)
