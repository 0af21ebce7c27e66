"""From a job file to a recorded job, or to every mistake in it at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scheduler import jobfile
from scheduler.control import views
from scheduler.control.access import Caller
from scheduler.control.cycle import Cycle
from scheduler.control.deadline_shapes import DeadlineView
from scheduler.control.ports import History
from scheduler.control.shapes import PlannedStart, TrialView
from scheduler.engine import Engine
from scheduler.engine.admission import Admission
from scheduler.engine.outlook import Outlook
from scheduler.jobfile import Draft
from scheduler.model.errors import Conflict, InvalidInput, NotFound, Problem
from scheduler.model.event import Event, JobSubmitted
from scheduler.model.job import Job
from scheduler.model.plan import Plan, Start

MOST_REQUEST_ID = 200
FRESH_REQUESTS = 10_000


class Submission:
    """The two verbs that read job files."""

    def __init__(self, cycle: Cycle, history: History) -> None:
        self._cycle = cycle
        self._history = history
        self._fresh: dict[tuple[str, str], str] = {}

    def submit(self, caller: Caller, *, file: str, base_dir: str, hold: bool = False, request_id: str = "") -> str:
        """Record a job; its id. The same ``request_id`` with the same content gives the same job again.

        Raises InvalidInput with every problem found (nothing is stored then), or Conflict when ``request_id`` was
        used for something else.
        """
        if len(request_id) > MOST_REQUEST_ID:
            raise InvalidInput([Problem("request_id", f"is longer than {MOST_REQUEST_ID} characters")])
        draft = self._read(caller, file, base_dir)
        forecast = None if hold else self._expected(draft)

        def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], str]:
            known = self._history.job_of_request(caller.tenant, request_id) if request_id else ""
            known = known or self._fresh.get((caller.tenant, request_id), "")
            if known:
                _require_same(engine, known, draft.job(known, request_id))
                return (), known
            job = replace(draft.job(engine.next_job_id(), request_id), submitted_ms=now_ms)
            _check(engine, job, draft, caller, recut=self._cycle.policy.recut_every_ms > 0)
            job = _expected(job, forecast)
            job = job if hold else engine.promised(job, now_ms, self._cycle.policy)
            self._remember(caller.tenant, request_id, job.id)
            return (JobSubmitted(at_ms=now_ms, job=job, held=hold),), job.id

        return self._cycle.call(decide)

    def trial(self, caller: Caller, *, file: str, base_dir: str) -> TrialView:
        """What would start now and what would wait, and why. Stores nothing. Raises InvalidInput."""
        draft = self._read(caller, file, base_dir)
        with self._cycle.state() as engine:
            job = draft.job(engine.next_job_id(), "")
            _check(engine, job, draft, caller, recut=self._cycle.policy.recut_every_ms > 0)
            now_ms, policy = self._cycle.now_ms(), self._cycle.policy
            plan = engine.trial(job, now_ms, policy)
            admission = engine.admit(job, now_ms, policy, changes=True) if job.deadline_ms else None
        forecast = self._expected(draft)
        return {
            "tasks": sum(step.count for step in job.steps),
            "steps": [
                {"name": s.name, "kind": s.kind.value, "count": s.count, "ranks": s.ranks, "needs": list(s.needs)}
                for s in job.steps
            ],
            "starts": _starts(plan),
            "waits": [views.wait(w) for w in plan.waits],
            "start_ms": list(forecast.start_ms) if forecast is not None else [],
            "deadline": None if admission is None else _deadline(job, admission, forecast),
        }

    def _expected(self, draft: Draft) -> Outlook | None:
        """When it would start. Worked out beside the cycle, because the first one of a process takes seconds."""
        with self._cycle.state() as engine:
            job = draft.job(engine.next_job_id(), "")
            question = engine.expected(job, self._cycle.now_ms(), self._cycle.policy)
        return None if question is None else question.answer()

    def draft(self, caller: Caller, *, file: str, base_dir: str) -> Job:
        """The job that this file would be now. Stores nothing. Raises InvalidInput."""
        draft = self._read(caller, file, base_dir)
        with self._cycle.state() as engine:
            return draft.job(engine.next_job_id(), "")

    def _remember(self, tenant: str, request_id: str, job_id: str) -> None:
        """Two equal requests may meet in one cycle, before the database knows of the first."""
        if len(self._fresh) >= FRESH_REQUESTS:
            self._fresh.clear()  # the ones before this cycle are in the database
        if request_id:
            self._fresh[tenant, request_id] = job_id

    def _read(self, caller: Caller, file: str, base_dir: str) -> Draft:
        if base_dir and not _is_folder_name(base_dir):
            raise InvalidInput([Problem("base_dir", f"{base_dir!r} is not an absolute path")])
        with self._cycle.state() as engine:
            tenant = next((t for t in engine.tenants() if t.name == caller.tenant), None)
            queues = tuple(engine.queues())
            has_cards = any(node.devices for node in engine.nodes())
        if tenant is None:
            raise NotFound(f"no tenant {caller.tenant!r}")
        now_ms = self._cycle.now_ms()
        policy = self._cycle.policy
        return jobfile.read(
            file,
            tenant=tenant,
            queues=queues,
            base_dir=base_dir,
            now_ms=now_ms,
            has_cards=has_cards,
            licences=dict(policy.licences),
            bands=[band.name for band in policy.bands],
        )


def _is_folder_name(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return text.startswith("/") and "\0" not in text


def _check(engine: Engine, job: Job, draft: Draft, caller: Caller, *, recut: bool) -> None:
    """What only the present state can refuse. Raises InvalidInput."""
    problems: list[Problem] = []
    for position, before in enumerate(job.after):
        record = engine.job(before)
        if record is None or not caller.sees(record.job.tenant):
            problems.append(Problem(f"after[{position}]", f"no job {before!r}"))
    for step, reason in engine.impossible(job, recut=recut):
        problems.append(Problem(draft.pointer(step, reason.resource), reason.message))
    if problems:
        raise InvalidInput(problems)


def _expected(job: Job, forecast: Outlook | None) -> Job:
    """The job with what was expected of it."""
    if forecast is None:
        return job
    chance = max(forecast.permille, 0)
    return replace(job, forecast_ms=forecast.start_ms, forecast_raw_ms=forecast.raw_ms, promise_permille=chance)


def _deadline(job: Job, admission: Admission, forecast: Outlook | None) -> DeadlineView:
    expected = forecast is not None and forecast.permille >= 0
    likely, sure_ms = (forecast.permille, forecast.sure_ms) if forecast is not None and expected else (-1, 0)
    return {
        "deadline_ms": job.deadline_ms,
        "promised": admission.is_yes,
        "slot": views.slot(admission.slot),
        "kept": views.kept(admission.tracks),
        "permille": admission.permille if admission.is_yes else likely,
        "sure_ms": sure_ms,
        "reason": admission.reason,
        "changes": [change.message for change in admission.changes],
    }


def _require_same(engine: Engine, known: str, again: Job) -> None:
    record = engine.job(known)
    # Instants may differ: a deadline of "in two hours" is another one a second later.
    same = record is not None and (record.job.source, record.job.queue, record.job.steps, record.job.name) == (
        again.source,
        again.queue,
        again.steps,
        again.name,
    )
    if not same:
        raise Conflict(f"request_id {again.request_id!r} was already used for job {known}, which is not the same")


def _starts(plan: Plan) -> list[PlannedStart]:
    by_step: dict[str, PlannedStart] = {}
    for action in plan.actions:
        if not isinstance(action, Start):
            continue
        lease = action.lease
        entry = by_step.setdefault(lease.step, {"step": lease.step, "tasks": 0, "nodes": [], "devices": []})
        entry["tasks"] += len(lease.attempts)
        entry["nodes"] = sorted({*entry["nodes"], *(a.node for a in lease.allocations)})
        entry["devices"] = sorted({*entry["devices"], *(d for a in lease.allocations for d in a.devices)})
    return list(by_step.values())
