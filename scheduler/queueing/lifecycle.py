"""State machines of jobs, leases and attempts: pure functions from a record and a fact to the next record.

::

    attempt   LEASED ──started──► RUNNING ──finished──► SUCCEEDED | FAILED | TIMED_OUT | CANCELLED | PREEMPTED | LOST
              LEASED ──finished──► any of these (its start was never seen)

    task      waiting ──grant──► running ──► succeeded
                 ▲                  ├──► waiting     failed with retries left (back-off); lost; preempted; stopped
                 │                  ├──► failed      retries used up, or lost more than MAX_LOST_ATTEMPTS times
                 └── retry ◄────────┴──► cancelled   its job is being stopped

    job       derived from its tasks and three flags (held, cancelled, failing), see :func:`state_of`

A fact that is already known changes nothing and the same object comes back. A verb that does not fit raises Conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from scheduler.model.changed import replace
from scheduler.model.errors import Conflict, NotFound
from scheduler.model.event import AttemptFinished, LeaseStopping, SeatKept
from scheduler.model.job import Job, JobRecord, JobState, KeptStart, Step, StepRecord
from scheduler.model.lease import AttemptRecord, AttemptState, LeaseRecord
from scheduler.model.policy import MAX_LOST_ATTEMPTS
from scheduler.queueing import tasks
from scheduler.queueing.backoff import backoff_ms
from scheduler.queueing.rate import work_done


def submitted(job: Job, *, held: bool) -> JobRecord:
    """A new job with every task waiting."""
    record = JobRecord(
        job=job, state=JobState.WAITING, steps=tuple(tasks.new_step(step) for step in job.steps), held=held
    )
    return _derived(record, job.submitted_ms)


def held(record: JobRecord, at_ms: int) -> JobRecord:
    """Nothing more starts. Raises Conflict for a finished job and for one that is being stopped."""
    if record.held:
        return record
    _refuse_ended(record, "be held")
    return _derived(replace(record, held=True), at_ms)


def released(record: JobRecord, at_ms: int) -> JobRecord:
    """Tasks may start again. Harmless for a job that is not held. Raises Conflict for a finished job."""
    if not record.held:
        return record
    _refuse_ended(record, "be released")
    return _derived(replace(record, held=False), at_ms)


def cancelled(record: JobRecord, at_ms: int, by: str) -> JobRecord:
    """Waiting tasks are cancelled; running ones are to be stopped. Raises Conflict for a job that already ended."""
    if record.cancelled:
        return record
    if record.state.is_final:
        raise Conflict(f"job {record.job.id} has already {record.state.value} and cannot be cancelled")
    steps = tuple(tasks.cancel_waiting(step) for step in record.steps)
    reason = f"cancelled by {by}" if by else "cancelled"
    return _derived(replace(record, steps=steps, cancelled=True, reason=reason), at_ms)


def retried(
    record: JobRecord, at_ms: int, step_name: str = "", indices: Sequence[int] = (), *, redo: bool = False
) -> JobRecord:
    """Failed and cancelled tasks wait again with a fresh retry budget, and so do those of the steps behind them. Tasks
    that wait because they failed may start at once; their budget stays.

    ``redo``: so do tasks of the step that succeeded, and all of the steps behind it, because what they were made from
    changes. Raises NotFound for an unknown step, Conflict when nothing would run again or sooner, or for a redo without
    a step or while tasks behind it run.
    """
    names = [step.name for step in record.job.steps]
    if step_name and step_name not in names:
        raise NotFound(f"job {record.job.id} has no step {step_name!r} (it has: {', '.join(names)})")
    behind = _behind(record.job, step_name)
    if redo:
        _may_redo(record, step_name, behind)
    steps = [
        tasks.hurry(tasks.reset(done, indices), indices)
        if not step_name or step.name == step_name
        else tasks.reset(done)
        if step.name in behind
        else done
        for step, done in zip(record.job.steps, record.steps, strict=True)
    ]
    if redo:
        steps = [
            tasks.redo(done, indices if done.name == step_name else ())
            if done.name == step_name or done.name in behind
            else done
            for done in steps
        ]
    settled = _cancel_unreachable(record.job, tuple(steps))
    if not any(_goes_on(old, new, at_ms) for old, new in zip(record.steps, settled, strict=True)):
        where = f"step {step_name} of job {record.job.id}" if step_name else f"job {record.job.id}"
        what = "task that has ended" if redo else "failed or cancelled task"
        raise Conflict(f"{where} has no {what} that could run again, and none that failed and waits to run again")
    cleared = replace(record, steps=settled, cancelled=False, failing=False, reason="", finished_ms=0)
    return _derived(cleared, at_ms)


def _goes_on(before: StepRecord, after: StepRecord, at_ms: int) -> bool:
    """Whether more tasks wait, or some need not wait any longer for their time."""
    return len(after.waiting) != len(before.waiting) or tasks.delayed(after, at_ms) != tasks.delayed(before, at_ms)


def _may_redo(record: JobRecord, step_name: str, behind: frozenset[str]) -> None:
    if not step_name:
        raise Conflict("a redo needs the step whose tasks run again")
    running = [done.name for done in record.steps if done.name in behind and done.running.spans]
    if running:
        raise Conflict(f"step {running[0]} runs on what would be made again: wait for it, or cancel the job first")


def granted(record: JobRecord, step_name: str, indices: Sequence[int], nodes: Sequence[str], at_ms: int) -> JobRecord:
    """Tasks got a lease."""
    step, _ = find_step(record, step_name)
    warm = nodes if step.warm_key else ()
    record = replace(record, is_next=False) if record.is_next else record

    def change(done: StepRecord) -> StepRecord:
        if done.goes_on is not None or done.promised is not None:
            done = replace(done, goes_on=None, promised=None)
        after = tasks.grant(done, indices, warm)
        return tasks.sit(after, nodes) if after.seats else after

    return _derived(_with_step(record, step_name, change), at_ms)


def moved(record: JobRecord, step_name: str, place: tuple[str, int]) -> JobRecord:
    """A lease of the step stops, to go on on so many ranks of a card model. Raises NotFound for an unknown step."""
    return _with_step(record, step_name, lambda done: replace(done, goes_on=place))


def seat_kept(record: JobRecord, event: SeatKept) -> JobRecord:
    """A seat for the next lease of a step. Raises NotFound for an unknown step."""
    find_step(record, event.step)
    return _with_step(record, event.step, lambda done: tasks.keep_seat(done, event.seat, event.at_ms))


def start_promised(record: JobRecord, starts: Mapping[str, KeptStart]) -> JobRecord:
    """These starts are promised to its steps, and no others. Raises NotFound for an unknown step."""
    for name in starts:
        find_step(record, name)
    if all(done.promised == starts.get(done.name) for done in record.steps):
        return record
    return replace(record, steps=tuple(replace(done, promised=starts.get(done.name)) for done in record.steps))


def job_started(record: JobRecord, at_ms: int) -> JobRecord:
    """An attempt of the job runs: its first one marks the job's start."""
    return record if record.started_ms else replace(record, started_ms=at_ms)


def task_finished(
    record: JobRecord, attempt: AttemptRecord, *, first_in_lease: bool, run_ms: int = 0, served_ms: int = 0
) -> JobRecord:
    """One attempt ended (``attempt`` is final already); decides what becomes of its task and of the job.

    ``run_ms``: what a success teaches (:func:`whole_run_ms`). ``first_in_lease``: a LOST attempt that never started is
    held against its task only when nothing ran before it. ``served_ms``: service that its lease, which closed with it,
    was to the step (:func:`service_ms`).
    """
    step, done = find_step(record, attempt.step)
    index, state = attempt.index, attempt.state
    if state is AttemptState.SUCCEEDED:
        succeeded = _with_step(record, step.name, lambda s: tasks.succeed(s, index, run_ms, served_ms))
        return _settled(succeeded, attempt.finished_ms)
    if served_ms:
        record = _with_step(record, step.name, lambda s: replace(s, served_ms=s.served_ms + served_ms))
    counted = state.counts_against_retries
    lost = state is AttemptState.LOST and (attempt.started_ms > 0 or first_in_lease)
    exhausted = (counted and tasks.tries(done, index)[1] >= step.retries) or (
        lost and tasks.times_lost(done, index) >= MAX_LOST_ATTEMPTS
    )
    if record.cancelled or (record.failing and not exhausted):
        return _settled(
            _with_step(record, step.name, lambda s: tasks.cancel_running(s, index, counted=counted)),
            attempt.finished_ms,
        )
    if not exhausted:
        from_ms = _from_ms(record.job, step, attempt, tasks.tries(done, index)[1] + 1) if counted else 0
        return _derived(
            _with_step(
                record,
                step.name,
                lambda s: tasks.wait_again(s, index, counted=counted, lost=lost, from_ms=from_ms),
            ),
            attempt.finished_ms,
        )
    failed = _with_step(record, step.name, lambda s: tasks.fail(s, index, counted=counted))
    return _job_failing(failed, attempt)


def _from_ms(job: Job, step: Step, attempt: AttemptRecord, failures: int) -> int:
    """When a task that has failed so often may start again; 0: at once.

    With a promised deadline that is at once: its cards are kept for it, and every minute of waiting is one it lacks.
    """
    wait_ms = backoff_ms(step, f"{job.id}.{step.name}.{attempt.index}", failures) if not job.is_promised else 0
    return attempt.finished_ms + wait_ms if wait_ms else 0


def work_kept(
    record: JobRecord, attempt: AttemptRecord, ranks: int, models: frozenset[str], *, by_park: bool
) -> JobRecord:
    """What an attempt that ended leaves to its step beside its task's state: committed work, and that it was preempted.

    ``ranks`` on cards of ``models`` made it; ``by_park``: a preemption was not its owner's wish.
    """
    if attempt.state is AttemptState.SUCCEEDED:
        return record
    step, done = find_step(record, attempt.step)
    resumed = tasks.worked_ms(done, attempt.index) > 0
    ms = work_done(step, ranks, models, attempt.started_ms, attempt.checkpoint_ms, resumed=resumed)
    preempted = by_park and attempt.state is AttemptState.PREEMPTED
    if ms:
        record = _with_step(record, step.name, lambda s: tasks.keep_work(s, attempt.index, ms))
    if preempted:
        record = _with_step(record, step.name, lambda s: replace(s, preempted=s.preempted + 1))
    return record


def suspected(record: JobRecord, attempt: AttemptRecord, node: str) -> JobRecord:
    """An attempt failed on a node, and its task is tried again."""
    return _with_step(record, attempt.step, lambda s: tasks.suspect(s, attempt.index, node))


def whole_run_ms(record: JobRecord, attempt: AttemptRecord, ranks: int, models: frozenset[str]) -> int:
    """What the whole task of an attempt that succeeded takes at full speed, with the work of earlier attempts that its
    checkpoints kept: estimates are of that. ``ranks`` on cards of ``models`` ran it; 0: nobody saw it start.
    """
    if not attempt.started_ms:
        return 0
    step, done = find_step(record, attempt.step)
    kept_ms = tasks.worked_ms(done, attempt.index)
    own_ms = work_done(step, ranks, models, attempt.started_ms, attempt.finished_ms, resumed=kept_ms > 0)
    return max(1, kept_ms + own_ms)


def service_ms(record: LeaseRecord) -> int:
    """What a lease was to its step, once it is closed: its length times its ranks."""
    lease = record.lease
    return (record.closed_ms - lease.granted_ms) * len(lease.allocations) if record.closed_ms else 0


def _job_failing(record: JobRecord, attempt: AttemptRecord) -> JobRecord:
    """One task cannot succeed any more, so the job cannot: what waits is cancelled, what runs will be stopped."""
    _, done = find_step(record, attempt.step)
    made, _ = tasks.tries(done, attempt.index)
    why = f": {attempt.reason}" if attempt.reason else ""
    verb = "was lost too often" if attempt.state is AttemptState.LOST else attempt.state.value.replace("_", " ")
    reason = record.reason or f"task {attempt.step}.{attempt.index} {verb} (attempt {made}){why}"
    steps = tuple(tasks.cancel_waiting(step) for step in record.steps)
    return _derived(replace(record, steps=steps, failing=True, reason=reason), attempt.finished_ms)


def state_of(record: JobRecord) -> JobState:
    """The job's state, from its tasks and flags."""
    for step in record.steps:  # every fact about a task passes here
        if step.running.spans:
            return JobState.CANCELLING if record.cancelled else JobState.RUNNING
    if any(step.waiting.spans for step in record.steps):
        return JobState.HELD if record.held else JobState.WAITING
    if all(tasks.is_done(step, done) for step, done in zip(record.job.steps, record.steps, strict=True)):
        return JobState.SUCCEEDED
    failed = any(step.failed.spans for step in record.steps)
    return JobState.FAILED if failed and not record.cancelled else JobState.CANCELLED


def find_step(record: JobRecord, name: str) -> tuple[Step, StepRecord]:
    """A step and where it stands. Raises NotFound."""
    for step, done in zip(record.job.steps, record.steps, strict=True):
        if step.name == name:
            return step, done
    raise NotFound(f"job {record.job.id} has no step {name!r}")


def attempt_started(attempt: AttemptRecord, at_ms: int) -> AttemptRecord:
    """The runner runs. Known already, or even over: nothing changes."""
    if attempt.state is not AttemptState.LEASED:
        return attempt
    return replace(attempt, state=AttemptState.RUNNING, started_ms=at_ms, heartbeat_ms=at_ms)


def attempt_seen(attempt: AttemptRecord, at_ms: int) -> AttemptRecord:
    """A sign of life. Older ones, and those of attempts that do not run, change nothing."""
    if attempt.state is not AttemptState.RUNNING or at_ms <= attempt.heartbeat_ms:
        return attempt
    return replace(attempt, heartbeat_ms=at_ms)


def attempt_finished(attempt: AttemptRecord, event: AttemptFinished, at_ms: int) -> AttemptRecord:
    """The attempt ended at ``at_ms``. The first recorded end stays. Raises Conflict for a state that is not an end."""
    if attempt.state.is_final:
        return attempt
    if not event.state.is_final:
        raise Conflict(f"attempt {attempt.id} cannot finish as {event.state.value!r}")
    alive = event.state is not AttemptState.LOST and attempt.started_ms > 0
    return replace(
        attempt,
        state=event.state,
        finished_ms=at_ms,
        heartbeat_ms=at_ms if alive else attempt.heartbeat_ms,
        exit_code=event.exit_code,
        reason=event.reason,
        outputs=event.outputs,
        facts=event.facts,
        checkpoint_ms=event.checkpoint_ms,
        measured=event.measured,
    )


def lease_stopping(record: LeaseRecord, event: LeaseStopping) -> LeaseRecord:
    """A stop was decided. The first one stays."""
    if record.stopping or record.closed_ms:
        return record
    return replace(record, stopping=True, stopping_ms=event.at_ms, stop_reason=event.reason, stop_charged=event.charged)


def lease_after(record: LeaseRecord, attempts: Sequence[AttemptRecord]) -> LeaseRecord:
    """The lease closed at its last attempt's end, or unchanged while one of its attempts can still run."""
    if record.closed_ms or not all(attempt.state.is_final for attempt in attempts):
        return record
    return replace(record, closed_ms=max(attempt.finished_ms for attempt in attempts), stopping_ms=0)


def _refuse_ended(record: JobRecord, verb: str) -> None:
    if record.state.is_final or record.cancelled or record.failing:
        ended = record.state.value if record.state.is_final else "being stopped"
        raise Conflict(f"job {record.job.id} is {ended} and cannot {verb}")


def _with_step(record: JobRecord, name: str, change: Callable[[StepRecord], StepRecord]) -> JobRecord:
    steps = record.steps
    if len(steps) == 1 and steps[0].name == name:
        return replace(record, steps=(change(steps[0]),))
    return replace(record, steps=tuple([change(step) if step.name == name else step for step in steps]))


def _settled(record: JobRecord, at_ms: int) -> JobRecord:
    steps = _cancel_unreachable(record.job, record.steps)
    return _derived(record if steps is record.steps else replace(record, steps=steps), at_ms)


def _derived(record: JobRecord, at_ms: int) -> JobRecord:
    """``record`` with its state worked out; the instant it became final is kept."""
    state = state_of(record)
    finished_ms = (record.finished_ms or at_ms) if state.is_final else 0
    if state is record.state and finished_ms == record.finished_ms:
        return record
    return replace(record, state=state, finished_ms=finished_ms)


def _cancel_unreachable(job: Job, steps: tuple[StepRecord, ...]) -> tuple[StepRecord, ...]:
    """Cancel what waits behind a step that can no longer succeed, transitively; steps may be listed in any order."""
    if not any(step.failed.spans or step.cancelled.spans for step in steps):
        return steps
    while True:
        broken = {step.name for step in steps if tasks.is_broken(step)}
        if not broken:
            return steps
        after = tuple(
            tasks.cancel_waiting(done) if broken.intersection(step.needs) else done
            for step, done in zip(job.steps, steps, strict=True)
        )
        if after == steps:
            return steps
        steps = after


def _behind(job: Job, name: str) -> frozenset[str]:
    """Steps that need ``name``, directly or through others."""
    found: set[str] = set()
    grown = {name}
    while grown:
        grown = {step.name for step in job.steps if grown.intersection(step.needs)} - found
        found |= grown
    return frozenset(found)
