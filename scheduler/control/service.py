"""Every verb a user has on jobs. Verbs change things through the cycle and return what is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scheduler.control import views
from scheduler.control.access import Caller, visible
from scheduler.control.attempt_logs import MOST_DIGITS, AttemptLogs, LogView, nodes_of
from scheduler.control.cycle import Cycle
from scheduler.control.ports import History
from scheduler.control.shapes import (
    AttemptView,
    JobDetail,
    JobView,
    LeaseView,
    SelfView,
    TrialView,
    UsageView,
    WaitView,
)
from scheduler.control.submission import Submission
from scheduler.engine import Engine
from scheduler.model.errors import Conflict, InvalidInput, Problem, Unauthorized, unknown
from scheduler.model.event import Event, JobCancelled, JobHeld, JobReleased, JobRetried, LeaseStopping
from scheduler.model.job import Job, JobRecord, JobState
from scheduler.model.lease import AttemptRecord, AttemptState, number_of, parse_attempt_id

LATEST_ATTEMPTS = 20
MOST_OUTPUTS = 200
MOST_LOOKED_AT = 1_000
MOST_JOBS = 1_000
MOST_LISTED = 10_000
"""The store gives no more rows at once."""
MOST_LEASE_ID = 19


class Service:
    """Jobs, as their owners see them. Every method takes the caller first and raises only ShisuanErrors."""

    def __init__(self, cycle: Cycle, history: History, logs: AttemptLogs) -> None:
        self._cycle = cycle
        self._history = history
        self._attempt_logs = logs
        self._submission = Submission(cycle, history)

    # ── submitting ───────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, caller: Caller, *, file: str, base_dir: str, hold: bool = False, request_id: str = "") -> JobView:
        """Record a job. Raises InvalidInput (nothing is stored) or Conflict (see :class:`Submission`)."""
        job_id = self._submission.submit(caller, file=file, base_dir=base_dir, hold=hold, request_id=request_id)
        return self.get(caller, job_id)

    def plan(self, caller: Caller, *, file: str, base_dir: str) -> TrialView:
        """What would happen if this were submitted now. Stores nothing. Raises InvalidInput."""
        return self._submission.trial(caller, file=file, base_dir=base_dir)

    def draft(self, caller: Caller, *, file: str, base_dir: str) -> Job:
        """The job that this file would be now. Stores nothing. Raises InvalidInput."""
        return self._submission.draft(caller, file=file, base_dir=base_dir)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def cancel(self, caller: Caller, job_id: str) -> JobView:
        """Stop what runs, start nothing more. Raises NotFound, Conflict when it has ended."""
        by = caller.tenant if not caller.is_operator else "an operator"
        by = f"{by} ({caller.key_id})" if caller.is_person else by
        return self._change(caller, job_id, lambda now_ms: JobCancelled(at_ms=now_ms, job_id=job_id, by=by))

    def hold(self, caller: Caller, job_id: str) -> JobView:
        """Start nothing more until it is released. Raises NotFound, Conflict when it has ended."""
        return self._change(caller, job_id, lambda now_ms: JobHeld(at_ms=now_ms, job_id=job_id))

    def release(self, caller: Caller, job_id: str) -> JobView:
        """Undo :meth:`hold`. Raises NotFound, Conflict when it has ended."""
        return self._change(caller, job_id, lambda now_ms: JobReleased(at_ms=now_ms, job_id=job_id))

    def preempt(self, caller: Caller, job_id: str, *, hold: bool = False) -> JobView:
        """Stop what runs, with its grace to save a checkpoint; it waits again, and goes on from there when its turn
        comes (with ``hold``: once it is released). Not counted against retries.

        An operator's preemption is free of charge from the last checkpoint on, the owner's own is not. Raises NotFound,
        Conflict when nothing of the job runs.
        """
        reason = f"preempted by {'an operator' if caller.is_operator else 'its owner'}"

        def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], None]:
            visible(caller, engine.job(job_id), job_id)
            leases = [r for r in engine.leases() if r.lease.job_id == job_id and not r.closed_ms]
            if not leases:
                raise Conflict(f"nothing of job {job_id} runs now")
            first = (JobHeld(at_ms=now_ms, job_id=job_id),) if hold else ()
            return (
                *first,
                *(
                    LeaseStopping(at_ms=now_ms, lease_id=r.lease.id, reason=reason, charged=not caller.is_operator)
                    for r in leases
                    if not r.stopping
                ),
            ), None

        self._cycle.call(decide)
        return self.get(caller, job_id)

    def retry(
        self, caller: Caller, job_id: str, step: str = "", indices: Sequence[int] = (), *, redo: bool = False
    ) -> JobView:
        """Run failed and cancelled tasks again; with ``redo`` also those of ``step`` that succeeded, and what follows.

        Raises NotFound, InvalidInput, Conflict when there are none.
        """
        record = visible(caller, self._record(job_id), job_id)
        self._check_tasks(record, step, indices)
        if redo and not step:
            names = tuple(s.name for s in record.job.steps)
            raise InvalidInput([Problem("step", "is needed to redo tasks that succeeded", names)])
        chosen = tuple(sorted(set(indices)))
        return self._change(
            caller, job_id, lambda now_ms: JobRetried(at_ms=now_ms, job_id=job_id, step=step, indices=chosen, redo=redo)
        )

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, caller: Caller, job_id: str) -> JobView:
        """One job. Raises NotFound."""
        record = visible(caller, self._record(job_id), job_id)
        return views.job(record, views.running_progress(self._cycle.observer.progress))

    def list_jobs(self, caller: Caller, *, state: str = "", limit: int = 100) -> list[JobView]:
        """The caller's jobs (an operator's: all), newest first. Raises InvalidInput for an unknown state."""
        if state and state not in {s.value for s in JobState}:
            raise InvalidInput([unknown("state", "job state", state, (s.value for s in JobState))])
        with self._cycle.state() as engine:
            found = [r for r in engine.jobs() if caller.sees(r.job.tenant) and state in ("", r.state.value)]
        found.sort(key=lambda r: number_of(r.job.id), reverse=True)
        running = views.running_progress(self._cycle.observer.progress)
        return [views.job(r, running) for r in found[: max(0, min(limit, MOST_JOBS))]]

    def describe(self, caller: Caller, job_id: str) -> JobDetail:
        """A job with its latest attempts and published outputs. Raises NotFound."""
        head = self.get(caller, job_id)
        record = visible(caller, self._record(job_id), job_id)
        published = self._history.attempts(job_id, limit=MOST_LOOKED_AT)
        return {
            **head,
            "after": list(record.job.after),
            "source": record.job.source,
            "attempts": self._attempt_views(job_id, self._history.latest_attempts(job_id, LATEST_ATTEMPTS)),
            "outputs": [u for a in published if a.state is AttemptState.SUCCEEDED for u in a.outputs][:MOST_OUTPUTS],
        }

    def explain(self, caller: Caller, job_id: str, *, is_full: bool = False) -> list[WaitView]:
        """Why each waiting step does not start now. Raises NotFound.

        ``is_full``: also when it is expected to, and what would start it now; that takes some dozens of plans.
        """
        visible(caller, self._record(job_id), job_id)
        now_ms, policy = self._cycle.now_ms(), self._cycle.policy
        with self._cycle.state() as engine:
            waits = engine.explain(job_id, now_ms, policy)
            full = [w for w in waits if w.position or w.reasons[0].until_ms] if is_full else []
            questions = {w.step: engine.outlook(job_id, w.step, now_ms, policy) for w in full}
            changes = {w.step: engine.changes(job_id, w.step, now_ms, policy) for w in full}
        down = "" if self._cycle.observer.runtime_up else self._cycle.observer.runtime_message
        shown = [views.wait(w) for w in waits]
        for wait in shown if is_full else ():
            asked = questions.get(wait["step"])
            found = asked.answer() if asked is not None else None
            wait["start_ms"] = list(found.start_ms) if found is not None else []
            wait["changes"] = [change.message for change in changes.get(wait["step"], ())]
        for wait in shown if down else ():
            wait["reasons"].insert(0, {"kind": "runtime", "resource": "", "message": f"the runtime is not up: {down}"})
        return shown

    def attempts(self, caller: Caller, job_id: str, step: str = "", after: str = "") -> list[AttemptView]:
        """Attempts of a job by task and number, :data:`MOST_LISTED` at a time; the next page comes ``after`` the last
        one's id. Raises NotFound, InvalidInput.
        """
        visible(caller, self._record(job_id), job_id)
        place = _place(after) if after else None
        return self._attempt_views(job_id, self._history.attempts(job_id, step=step, after=place))

    def leases(
        self, caller: Caller, job_id: str = "", *, after: str = "", start_ms: int = 0, end_ms: int = 0
    ) -> list[LeaseView]:
        """Who held what in ``[start_ms, end_ms)`` (0: no bound): the caller's leases, of one job or of all,
        :data:`MOST_LISTED` at a time; the next page comes ``after`` the last one's id. Raises NotFound, InvalidInput.
        """
        if job_id:
            visible(caller, self._record(job_id), job_id)
        if len(after) > MOST_LEASE_ID:
            raise InvalidInput([Problem("after", "is not a lease's id, such as l17")])
        found = self._history.leases(job_id=job_id, tenant=caller.scope, after=after, start_ms=start_ms, end_ms=end_ms)
        return [views.lease(r) for r in found]

    def usage(
        self, caller: Caller, job_id: str = "", *, after: str = "", start_ms: int = 0, end_ms: int = 0
    ) -> list[UsageView]:
        """Sealed usage records that touch ``[start_ms, end_ms)`` (0: no bound): the caller's, of one job or of all,
        :data:`MOST_LISTED` at a time; the next page comes ``after`` the last one's id. Raises NotFound.
        """
        if job_id:
            visible(caller, self._record(job_id), job_id)
        found = self._history.usage(job_id=job_id, tenant=caller.scope, after=after, start_ms=start_ms, end_ms=end_ms)
        return [views.usage(r) for r in found]

    def logs(
        self, caller: Caller, job_id: str, *, task: str = "", attempt: int = 0, offset: int = 0, rank: int = 0
    ) -> LogView:
        """See :meth:`scheduler.control.attempt_logs.AttemptLogs.read`. Raises NotFound, InvalidInput."""
        record = visible(caller, self._record(job_id), job_id)
        return self._attempt_logs.read(record, task=task, attempt=attempt, offset=offset, rank=rank)

    def whoami(self, attempt: str) -> SelfView:
        """What an attempt may know about itself. Raises Unauthorized once it is over."""
        with self._cycle.state() as engine:
            found = engine.attempt(attempt)
            record = engine.job(found.job_id) if found is not None else None
        if found is None or record is None or found.state.is_final:
            raise Unauthorized("the attempt of this token is over")
        return {
            "attempt_id": found.id,
            "job_id": found.job_id,
            "job_name": record.job.name,
            "tenant": record.job.tenant,
            "step": found.step,
            "index": found.index,
            "number": found.number,
            "state": found.state.value,
        }

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _record(self, job_id: str) -> JobRecord | None:
        with self._cycle.state() as engine:
            return engine.job(job_id)

    def _change(self, caller: Caller, job_id: str, event: Callable[[int], Event]) -> JobView:
        """Record one event about a job the caller may touch; what does not fit its state, the engine refuses."""

        def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], None]:
            visible(caller, engine.job(job_id), job_id)
            return (event(now_ms),), None

        self._cycle.call(decide)
        return self.get(caller, job_id)

    @staticmethod
    def _check_tasks(record: JobRecord, step: str, indices: Sequence[int]) -> None:
        names = [s.name for s in record.job.steps]
        if step and step not in names:
            raise InvalidInput([unknown("step", "step", step, names)])
        if indices and not step:
            raise InvalidInput([Problem("step", "is needed when indices are given", tuple(names))])
        count = next((s.count for s in record.job.steps if s.name == step), 0)
        wrong = [i for i in indices if not 0 <= i < count]
        if wrong:
            raise InvalidInput([Problem("indices", f"step {step} has tasks 0 to {count - 1}, not {wrong[0]}")])

    def _attempt_views(self, job_id: str, records: Sequence[AttemptRecord]) -> list[AttemptView]:
        nodes = nodes_of(self._history, job_id, {r.lease_id for r in records})
        progress = self._cycle.observer.progress
        return [views.attempt(r, progress.get(r.id), nodes.get(r.lease_id, ("",))[0]) for r in records]


def _place(text: str) -> tuple[str, int, int]:
    """Where in the order of attempts this id stands. Raises InvalidInput."""
    try:
        _, step, index, number = parse_attempt_id(text)
        if max(abs(index), abs(number)) >= 10**MOST_DIGITS:
            raise ValueError(text)
    except ValueError:
        raise InvalidInput([Problem("after", f"{text!r} is not an attempt's id, such as j1.render.0.a1")]) from None
    return step, index, number
