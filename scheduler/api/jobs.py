"""Addresses under ``/v1`` about jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from scheduler.api.doors import Open, Who
from scheduler.api.schemas import LAST_INSTANT_MS, EmptyBody, PlanBody, PreemptBody, RetryBody, SubmitBody
from scheduler.control.money_shapes import PricedJob, PricedTrial
from scheduler.control.shapes import (
    AttemptList,
    JobList,
    JobView,
    LeaseList,
    UsageList,
    WaitList,
)

router = APIRouter(prefix="/v1", tags=["jobs"])
Limit = Annotated[int, Query(ge=1, le=1000)]
Instant = Annotated[int, Query(ge=0, le=LAST_INSTANT_MS, description="Unix ms; 0: no bound")]
After = Annotated[str, Query(description="Id of the last one seen: what comes after it, 10,000 at a time")]


@router.post("/jobs", status_code=201, summary="Submit a job file")
def submit(open_doors: Open, who: Who, body: SubmitBody) -> JobView:
    """Record a job. Nothing is stored unless the whole file is right."""
    return open_doors.service.submit(
        who, file=body.file, base_dir=body.base_dir, hold=body.hold, request_id=body.request_id
    )


@router.post("/plan", summary="Try a job file out")
def plan(open_doors: Open, who: Who, body: PlanBody) -> PricedTrial:
    """What would start now, what would wait and why, and what it would cost. Nothing is stored."""
    view = open_doors.service.plan(who, file=body.file, base_dir=body.base_dir)
    job = open_doors.service.draft(who, file=body.file, base_dir=body.base_dir)
    prices, is_example = open_doors.pricing.prices(who, job)
    return {**view, "prices": prices, "example_prices": is_example}


@router.get("/jobs", summary="List jobs, newest first")
def list_jobs(open_doors: Open, who: Who, state: str = "", limit: Limit = 100) -> JobList:
    """Your jobs; an operator's key sees everyone's."""
    return {"jobs": open_doors.service.list_jobs(who, state=state, limit=limit)}


@router.get("/jobs/{job_id}", summary="Describe a job")
def describe(open_doors: Open, who: Who, job_id: str) -> PricedJob:
    """Steps with counts and progress, the latest attempts, published outputs, what it has cost so far."""
    return {**open_doors.service.describe(who, job_id), "cost": open_doors.pricing.cost(who, job_id)}


@router.get("/jobs/{job_id}/explain", summary="Why does it wait?")
def explain(open_doors: Open, who: Who, job_id: str) -> WaitList:
    """For each waiting step: its place in the order, the reasons, when it is expected to start, what would start it."""
    return {"waits": open_doors.service.explain(who, job_id, is_full=True)}


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job")
def cancel(open_doors: Open, who: Who, job_id: str, body: EmptyBody | None = None) -> JobView:
    """Stop what runs, start nothing more."""
    return open_doors.service.cancel(who, job_id)


@router.post("/jobs/{job_id}/hold", summary="Hold a job")
def hold(open_doors: Open, who: Who, job_id: str, body: EmptyBody | None = None) -> JobView:
    """Start nothing more; what runs goes on."""
    return open_doors.service.hold(who, job_id)


@router.post("/jobs/{job_id}/release", summary="Release a held job")
def release(open_doors: Open, who: Who, job_id: str, body: EmptyBody | None = None) -> JobView:
    """Undo hold."""
    return open_doors.service.release(who, job_id)


@router.post("/jobs/{job_id}/preempt", summary="Stop what runs and let it wait again")
def preempt(open_doors: Open, who: Who, job_id: str, body: PreemptBody | None = None) -> JobView:
    """It gets its grace to save a checkpoint. With ``hold`` it goes on only after a release."""
    return open_doors.service.preempt(who, job_id, hold=body.hold if body else False)


@router.post("/jobs/{job_id}/retry", summary="Run failed and cancelled tasks again")
def retry(open_doors: Open, who: Who, job_id: str, body: RetryBody | None = None) -> JobView:
    """All of them, those of one step, or chosen indices of one step."""
    chosen = body or RetryBody()
    return open_doors.service.retry(who, job_id, chosen.step, chosen.indices, redo=chosen.redo)


@router.get("/jobs/{job_id}/attempts", summary="List attempts")
def attempts(open_doors: Open, who: Who, job_id: str, step: str = "", after: After = "") -> AttemptList:
    """Every try of every task, in order."""
    return {"attempts": open_doors.service.attempts(who, job_id, step, after)}


@router.get("/leases", summary="Who held what, from when to when")
def leases(  # noqa: PLR0917 (each is a named query parameter)
    open_doors: Open, who: Who, job: str = "", after: After = "", start_ms: Instant = 0, end_ms: Instant = 0
) -> LeaseList:
    """Of one job, or all of yours."""
    found = open_doors.service.leases(who, job, after=after, start_ms=start_ms, end_ms=end_ms)
    return {"leases": found}


@router.get("/usage", summary="Sealed usage records")
def usage(  # noqa: PLR0917 (each is a named query parameter)
    open_doors: Open, who: Who, job: str = "", after: After = "", start_ms: Instant = 0, end_ms: Instant = 0
) -> UsageList:
    """Of one job, or all of yours, 10,000 at a time; the next page comes ``after`` the last one's id."""
    return {"records": open_doors.service.usage(who, job, after=after, start_ms=start_ms, end_ms=end_ms)}
