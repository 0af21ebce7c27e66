"""One cycle's decision, as numbered steps. Reads the state, never changes it: equal states give equal plans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from scheduler.engine.chunk import chunk_size
from scheduler.engine.state import State, number_of
from scheduler.model.job import Job, JobRecord, JobState, Step, StepRecord
from scheduler.model.lease import Allocation, Lease, attempt_id
from scheduler.model.plan import Action, Plan, Reason, ReasonKind, Start, Stop, Wait
from scheduler.model.policy import Policy
from scheduler.model.queue import Amounts
from scheduler.placement.fit import Demand, demand_of
from scheduler.placement.search import Search
from scheduler.placement.why import why_not
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.order import Order, amounts_of
from scheduler.queueing.tasks import is_done, tries


@dataclass(slots=True)
class Candidate:
    """A step that may start tasks now, and how far this plan has come with it."""

    job: Job
    step: Step
    record: StepRecord
    rank: tuple[int, int, int]
    """Within its queue: ``(-priority, job number, step number)``."""
    demand: Demand
    amounts: Amounts
    tasks: Iterator[int]
    left: int
    """Waiting tasks this plan has not leased."""
    parallel_left: int
    """Leases that may still be added under ``max_parallel``."""
    chunk: int = 0
    """Most tasks per lease; 0: not worked out yet."""


def make_plan(state: State, now_ms: int, policy: Policy, trial: JobRecord | None = None) -> Plan:
    """What to do now. ``trial``: a job that is not in the state, treated as if it had just been submitted."""
    now_ms = max(now_ms, state.at_ms)
    # 1. Stop what belongs to jobs that are to end.
    stops = _stops(state)
    # 2. Sort the steps that wait: those that may start, by queue, and those that may not, with the reason.
    entries, barred = _sort_steps(state, trial)
    # 3. Order: who is next, by fair share, priority and age.
    order = Order(state.queues.values(), state.totals, state.held, entries)
    # 4. Fit and place, one lease at a time, until nobody ahead fits any more.
    search = Search(state.shapes)
    starts, left_over = _place_all(state, order, search, now_ms, policy)
    # 5. Say why everything else waits.
    waits = _waits(state, search, left_over, policy)
    actions: tuple[Action, ...] = (*stops, *starts)
    return Plan(now_ms=now_ms, actions=actions, waits=(*waits, *barred))


def _stops(state: State) -> Iterator[Stop]:
    for record in state.active.values():
        if not (record.cancelled or record.failing):
            continue
        for lease_id in sorted(state.leases_of_job.get(record.job.id, ()), key=number_of):
            if not state.leases[lease_id].stopping:
                yield Stop(lease_id=lease_id, reason=record.reason)


def _sort_steps(state: State, trial: JobRecord | None) -> tuple[dict[str, list[Candidate]], list[Wait]]:
    entries: dict[str, list[Candidate]] = {}
    barred: list[Wait] = []
    for record in chain(state.active.values(), (trial,) if trial is not None else ()):
        for position, (step, done) in enumerate(zip(record.job.steps, record.steps, strict=True)):
            if not done.waiting.spans:
                continue
            reasons = _barred(state, record, step)
            if reasons:
                barred.append(_wait(record.job, step, len(done.waiting), 0, reasons))
            else:
                candidate = _candidate(state, record.job, step, done, position)
                entries.setdefault(record.job.queue, []).append(candidate)
    for queue in entries.values():
        queue.sort(key=lambda candidate: candidate.rank)
    return entries, barred


def _barred(state: State, record: JobRecord, step: Step) -> tuple[Reason, ...]:
    """Why the step may not start anything yet, whatever is free."""
    reasons: list[Reason] = []
    if record.held:
        reasons.append(Reason(kind=ReasonKind.HELD, message=f"job {record.job.id} is held; release it to let it start"))
    for other_id in record.job.after:
        other = state.jobs.get(other_id)
        if other is None or other.state is not JobState.SUCCEEDED:
            stands = "is not known" if other is None else f"is {other.state.value}"
            message = f"starts after job {other_id} has succeeded, which {stands}"
            reasons.append(Reason(kind=ReasonKind.DEPENDENCY, resource=other_id, message=message))
    for name in step.needs:
        other_step, done = find_step(record, name)
        if not is_done(other_step, done):
            message = f"starts after step {name} has succeeded: {len(done.succeeded)} of {other_step.count} tasks have"
            reasons.append(Reason(kind=ReasonKind.DEPENDENCY, resource=name, message=message))
    return tuple(reasons)


def _candidate(state: State, job: Job, step: Step, done: StepRecord, position: int) -> Candidate:
    waiting = len(done.waiting)
    leased = state.leases_of_step.get((job.id, step.name), 0)
    return Candidate(
        job=job,
        step=step,
        record=done,
        rank=(-job.priority, number_of(job.id), position),
        demand=demand_of(step, job.tenant),
        amounts=amounts_of(step.resources, step.ranks),
        tasks=iter(done.waiting),
        left=waiting,
        parallel_left=max(step.max_parallel - leased, 0) if step.max_parallel else waiting,
    )


def _place_all(
    state: State, order: Order[Candidate], search: Search, now_ms: int, policy: Policy
) -> tuple[list[Start], list[Candidate]]:
    """Leases for everything that fits, and the steps with tasks left over in the order they were reached."""
    starts: list[Start] = []
    left_over: list[Candidate] = []
    while (candidate := order.peek()) is not None:
        allocations: tuple[Allocation, ...] = ()
        if candidate.left and candidate.parallel_left and len(starts) < policy.starts_per_cycle:
            allocations = _place(state, candidate, search, policy)
        if allocations:
            lease_id = f"l{state.next_lease + len(starts)}"
            starts.append(Start(lease=_lease(candidate, allocations, lease_id, now_ms)))
            order.charge(candidate.amounts)
        else:
            order.drop()
            if candidate.left:
                left_over.append(candidate)
    return starts, left_over


def _place(state: State, candidate: Candidate, search: Search, policy: Policy) -> tuple[Allocation, ...]:
    step = candidate.step
    if not candidate.chunk:
        leased = state.leases_of_step.get((candidate.job.id, step.name), 0)
        slots = min(search.copies(candidate.demand), candidate.parallel_left) + leased
        candidate.chunk = chunk_size(step, candidate.record, policy, slots)
    return search.place(candidate.demand, step.ranks, candidate.job.tenant, candidate.record.warm_nodes)


def _lease(candidate: Candidate, allocations: tuple[Allocation, ...], lease_id: str, now_ms: int) -> Lease:
    """The lease of the candidate's next tasks, which are thereby taken from it."""
    job, step = candidate.job, candidate.step
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
        granted_ms=now_ms,
    )


def _waits(state: State, search: Search, left_over: Sequence[Candidate], policy: Policy) -> Iterable[Wait]:
    for position, candidate in enumerate(left_over, start=1):
        reasons = _limited(candidate) or _no_place(state, search, candidate, policy)
        yield _wait(candidate.job, candidate.step, candidate.left, position, reasons)


def _limited(candidate: Candidate) -> tuple[Reason, ...]:
    if candidate.parallel_left:
        return ()
    message = f"runs at most {candidate.step.max_parallel} tasks at once, as its job file says"
    return (Reason(kind=ReasonKind.PARALLEL_LIMIT, message=message),)


def _no_place(state: State, search: Search, candidate: Candidate, policy: Policy) -> tuple[Reason, ...]:
    demand, ranks = candidate.demand, candidate.step.ranks
    if search.copies(demand) >= ranks:
        message = f"this cycle has granted its {policy.starts_per_cycle} leases; the next one goes on"
        return (Reason(kind=ReasonKind.ORDER, message=message),)
    if state.shapes.of(demand).ranking.copies >= ranks:
        message = "would fit, but leases ahead of it in the order take the room in this cycle"
        return (Reason(kind=ReasonKind.ORDER, message=message),)
    return why_not(state.shapes, demand, ranks)


def _wait(job: Job, step: Step, tasks: int, position: int, reasons: tuple[Reason, ...]) -> Wait:
    return Wait(job_id=job.id, step=step.name, tasks=tasks, position=position, reasons=reasons)
