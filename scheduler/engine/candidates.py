"""The steps that wait: those that may start now, as candidates by queue, and those that may not, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import overload

from scheduler.engine.backoff import backoff_of
from scheduler.engine.ends import CAREFUL_PERMILLE
from scheduler.engine.guard import Promise
from scheduler.engine.queued import Queued
from scheduler.engine.state import State
from scheduler.model.job import Job, JobRecord, JobState, Step, StepRecord, Together
from scheduler.model.lease import Allocation, number_of
from scheduler.model.plan import Reason, ReasonKind, Wait
from scheduler.model.policy import Policy
from scheduler.model.queue import Amounts
from scheduler.placement.fit import Demand
from scheduler.queueing.calendar import Bands
from scheduler.queueing.durations import Estimate
from scheduler.queueing.order import amounts_of
from scheduler.queueing.rank import Rank, rank_key
from scheduler.queueing.tasks import ready

NO_JOBS: Mapping[str, JobRecord] = {}
Kind = tuple[str, Demand, int, int, Together]


@dataclass
class Candidate:
    """A step that may start tasks now, and how far this plan has come with it."""

    job: Job
    step: Step
    record: StepRecord
    rank: Rank
    demand: Demand
    amounts: Amounts
    """Of one lease with all ranks."""
    tasks: Iterator[int]
    left: int
    """Waiting tasks this plan has not leased."""
    parallel_left: int
    """Leases that may still be added under ``max_parallel``."""
    state: State
    chunk: int = 0
    """Most tasks per lease; 0: not worked out yet."""
    is_next: bool = False
    """A gang for which others were stopped."""
    place: tuple[str, int] | None = None
    """``(card model, ranks)`` where the plan steers it to."""
    slot_nodes: tuple[str, ...] = ()
    """The node of each rank, when its slot has begun."""
    until_ms: int = 0
    """Where it starts the room is kept so long for the tasks behind it; 0: it is not."""
    blocked: Reason | None = None
    """Why it was passed over in this plan, where that is known at once."""

    def carry(self, chunk: int) -> None:
        """One lease carries so many tasks, and lasts accordingly: what was said of that before is forgotten."""
        self.chunk = chunk
        self.__dict__.pop("run_ms", None)
        self.__dict__.pop("likely_ms", None)

    def sizes(self, copies: Callable[[Demand], int]) -> Iterator[int]:
        """Numbers of ranks to try, largest first: all of them, or what an elastic gang can do with. ``copies``: of a
        demand that fit now.
        """
        step = self.step
        if self.place is not None:
            yield self.place[1]
            return
        yield step.ranks
        if not step.ranks_min:
            return
        most = min(step.ranks - 1, copies(self.demand))
        sizes = [ranks for ranks, _ in step.scaling if step.ranks_min <= ranks <= most] or [most]
        yield from sorted((ranks for ranks in sizes if ranks >= step.ranks_min), reverse=True)

    def amounts_on(self, ranks: int) -> Amounts:
        """Of one lease with so many ranks."""
        return self.amounts if ranks == self.step.ranks else amounts_of(self.step.resources, ranks)

    @property
    def queue(self) -> str:
        """Its job's."""
        return self.job.queue

    @cached_property
    def estimate(self) -> Estimate:
        """What one of its tasks takes."""
        return self.state.durations.estimate(self.job, self.step, self.record)

    @cached_property
    def run_ms(self) -> int:
        """How long one lease is expected to last, carefully: nine of ten are shorter."""
        return self.restart_ms + max(1, self.estimate.p90_ms - self.kept_ms) * max(self.chunk, 1)

    @property
    def careful_ms(self) -> int:
        """Likewise, at the longest that is to be expected."""
        return self.restart_ms + max(1, self.estimate.left(self.kept_ms, CAREFUL_PERMILLE)) * max(self.chunk, 1)

    @cached_property
    def likely_ms(self) -> int:
        """Likewise, as likely as not."""
        return self.restart_ms + max(1, self.estimate.median_ms - self.kept_ms) * max(self.chunk, 1)

    @property
    def served_ms(self) -> int:
        """How long its ranks have run so far, over all attempts."""
        return self.record.served_ms // self.step.ranks

    @property
    def kept_ms(self) -> int:
        """Work that the next task's checkpoints keep."""
        return self.record.worked[0][1] if self.record.worked and self.step.count == 1 else 0

    @property
    def restart_ms(self) -> int:
        """What it then takes to catch up with them, before anything new is done."""
        return self.step.restart_ms if self.kept_ms else 0

    def promise(
        self,
        allocations: Iterable[Allocation],
        start_ms: int,
        end_ms: int,
        *,
        is_slot: bool = False,
        is_first: bool = False,
        is_drain: bool = False,
    ) -> Promise:
        """Its start there and then, for the guard."""
        return Promise(
            job_id=self.job.id,
            step=self.step.name,
            tenant=self.job.tenant,
            demand=self.demand,
            allocations=tuple(allocations),
            start_ms=start_ms,
            end_ms=end_ms,
            is_slot=is_slot,
            is_first=is_first,
            is_drain=is_drain,
        )

    @property
    def key(self) -> tuple[str, str]:
        """``(job, step)``"""
        return self.job.id, self.step.name


def kind_at(job: Job, position: int, demand: Demand) -> Kind:
    """Candidates of one kind may stop the same leases for the same room (but under policy ALWAYS)."""
    step = job.steps[position]
    return job.queue, demand, step.ranks, job.priority, step.together


class Line(Sequence[Candidate]):
    """A queue's steps that may start, best first. Most are not reached in a plan: each becomes a Candidate when it is
    first looked at, and stays the same one.
    """

    def __init__(self, state: State, now_ms: int) -> None:
        self._state = state
        self._now_ms = now_ms
        self._steps: list[tuple[Rank, JobRecord]] = []
        self._made: list[Candidate | None] = []
        self.has_special = False
        """The deadlines of some of its jobs were promised, or others were stopped for them."""

    def add(self, rank: Rank, queued: Queued) -> None:
        """One more step; :meth:`sort` puts it in its place."""
        self._steps.append((rank, queued.record))
        if queued.is_special:
            self.has_special = True

    def sort(self) -> None:
        """Best first; called once, before anything is looked at. No two ranks are equal."""
        self._steps.sort()
        self._made = [None] * len(self._steps)

    def past(self, at: int, over: Collection[Kind]) -> int:
        """The first place from ``at`` on of a candidate that is of none of these kinds; none is made for that."""
        asks_of = self._state.asks_of
        for rank, record in islice(self._steps, at, None):
            if kind_at(record.job, rank[-1], asks_of(record.job)[rank[-1]][0]) not in over:
                break
            at += 1
        return at

    def find(self, key: tuple[str, str]) -> Candidate | None:
        """The candidate of ``(job, step)``; none other is made for that. None: it is not here."""
        for at, (rank, record) in enumerate(self._steps):
            if (record.job.id, record.job.steps[rank[-1]].name) == key:
                return self[at]
        return None

    def __len__(self) -> int:
        return len(self._steps)

    @overload
    def __getitem__(self, at: int) -> Candidate: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, at: int | slice) -> Candidate | Sequence[Candidate]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        made = self._made[at]
        if made is None:
            rank, record = self._steps[at]
            made = self._made[at] = _candidate(self._state, record, rank, self._now_ms)
        return made


def sort_steps(
    state: State, now_ms: int, policy: Policy, changed: Mapping[str, JobRecord] = NO_JOBS
) -> tuple[dict[str, Line], list[Wait], dict[tuple[str, str], Wait]]:
    """Candidates by queue, best first; Waits for the steps that may start nothing; and, by step, Waits for those tasks
    of candidates that may not start yet. ``changed``: jobs as they are here, or in addition.
    """
    lines: dict[str, Line] = {}
    barred: list[Wait] = []
    delayed: dict[tuple[str, str], Wait] = {}
    bands = Bands(policy.bands)
    for queued in _queued(state, changed):
        record, job = queued.record, queued.record.job
        reasons: tuple[Reason, ...] = ()
        if queued.is_conditional or job.tenant in policy.unfunded:
            reasons = _job_barred(state, record, now_ms, policy, bands)
        ranks = queued.ranks(now_ms, policy)
        for rank, (position, needs) in zip(ranks, queued.steps, strict=True):
            count, backoff = backoff_of(record.steps[position], now_ms) if queued.is_delayed else (0, ())
            if reasons or needs or count:
                step, tasks = job.steps[position], len(record.steps[position].waiting)
                if reasons or needs or count == tasks:
                    barred.append(waiting(job, step, tasks, 0, (*reasons, *needs, *backoff)))
                    continue
                delayed[job.id, step.name] = waiting(job, step, count, 0, backoff)
            line = lines.get(job.queue)
            if line is None:
                line = lines[job.queue] = Line(state, now_ms)
            line.add(rank, queued)
    for line in lines.values():
        line.sort()
    return lines, barred, delayed


def _queued(state: State, changed: Mapping[str, JobRecord]) -> Iterator[Queued]:
    """What waits of each job, in order of submission; looked at again where the record is another than last time."""
    known = state.queued
    for job_id, record in state.active.items():
        queued = known.get(job_id)
        if queued is None or queued.record is not record:
            queued = known[job_id] = Queued.of(record)
        if changed and job_id in changed:
            queued = Queued.of(changed[job_id])
        if queued.steps:
            yield queued
    yield from (Queued.of(record) for job_id, record in changed.items() if job_id not in state.active)


def waiting(job: Job, step: Step, tasks: int, position: int, reasons: tuple[Reason, ...]) -> Wait:
    """The Wait of one step."""
    return Wait(job_id=job.id, step=step.name, tasks=tasks, position=position, reasons=reasons)


def _job_barred(state: State, record: JobRecord, now_ms: int, policy: Policy, bands: Bands) -> tuple[Reason, ...]:
    """Why nothing of the job may start yet, whatever is free."""
    job, reasons = record.job, list[Reason]()
    if record.held:
        reasons.append(Reason(kind=ReasonKind.HELD, message=f"job {job.id} is held; release it to let it start"))
    for other_id in job.after:
        other = state.jobs.get(other_id)
        if other is None or other.state is not JobState.SUCCEEDED:
            stands = "is not known" if other is None else f"is {other.state.value}"
            message = f"starts after job {other_id} has succeeded, which {stands}"
            reasons.append(Reason(kind=ReasonKind.DEPENDENCY, resource=other_id, message=message))
    if job.tenant in policy.unfunded:
        message = f"the budget of tenant {job.tenant} is used up"
        reasons.append(Reason(kind=ReasonKind.BUDGET, resource=job.tenant, message=message))
    if job.band and not bands.is_open(job.band, now_ms):
        message = f"starts in price band {job.band} only, which is closed now"
        reasons.append(Reason(kind=ReasonKind.CALENDAR, resource=job.band, message=message))
    return tuple(reasons)


def candidate_of(state: State, record: JobRecord, position: int, now_ms: int, policy: Policy) -> Candidate:
    """One step of a job, whether or not it may start now."""
    rank = rank_key(record, number_of(record.job.id), position, now_ms, policy)
    return _candidate(state, record, rank, now_ms)


def _candidate(state: State, record: JobRecord, rank: Rank, now_ms: int) -> Candidate:
    job, position = record.job, rank[-1]
    step, done = job.steps[position], record.steps[position]
    may_start = ready(done, now_ms)
    left = len(may_start)
    leased = state.leases_of_step.get((job.id, step.name), 0) if step.max_parallel else 0
    demand, amounts = state.asks_of(job)[position]
    return Candidate(
        job=job,
        step=step,
        record=done,
        rank=rank,
        demand=demand,
        amounts=amounts,
        tasks=iter(may_start),
        left=left,
        parallel_left=max(step.max_parallel - leased, 0) if step.max_parallel else left,
        state=state,
        is_next=record.is_next and step.ranks > 1,
    )
