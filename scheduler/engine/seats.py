"""Seats: room that was made for somebody by moving leases, and the new places of what was moved.

Whoever has a seat sits down before everybody else is served. While a seat is still being vacated it is guarded like a
promised start. A seat that nobody took in time is everybody's again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scheduler.engine.candidates import Candidate
from scheduler.engine.guard import Promise
from scheduler.engine.limits import seat_reason
from scheduler.engine.trial import Trial
from scheduler.model.job import Job, Seat, Step, StepRecord, Together
from scheduler.model.lease import Lease
from scheduler.placement.fit import Demand, demand_of


def sit(trial: Trial, candidate: Candidate, number: int) -> Iterator[Lease]:
    """Leases, from this number on, on those of a candidate's seats that are free; the others are guarded."""
    pending = list[tuple[Seat, Promise]]()
    for seat in candidate.record.seats:
        if seat.until_ms <= trial.now_ms or not candidate.left:
            continue
        lease = trial.start(candidate, f"l{number}", seat)
        if lease is not None:
            number += 1
            yield lease
        elif candidate.blocked is not None:
            break  # a limit holds it back, wherever it could sit
        else:
            promise = _promise(trial, candidate.job, candidate.step, candidate.demand, candidate.run_ms, seat)
            pending += [(seat, promise)] if promise is not None else []
    _keep(trial, pending)
    if pending and len(pending) >= candidate.left:
        candidate.blocked = candidate.blocked or seat_reason(pending[0][1], trial.now_ms)


def guard(trial: Trial, job: Job, step: Step, done: StepRecord) -> None:
    """Keep the seats of tasks that still have to stop where they are."""
    leases = (trial.state.leases[key] for key in trial.state.leases_of_job.get(job.id, ()))
    stopping = sum(record.stopping and record.lease.step == step.name for record in leases)
    run_ms = trial.state.durations.estimate(job, step, done).p90_ms
    kept = [seat for seat in done.seats if seat.until_ms > trial.now_ms][:stopping]
    found = ((seat, _promise(trial, job, step, demand_of(step, job.tenant), run_ms, seat)) for seat in kept)
    _keep(trial, [(seat, promise) for seat, promise in found if promise is not None])


def _keep(trial: Trial, pending: Sequence[tuple[Seat, Promise]]) -> None:
    for seat, promise in pending:
        trial.awaited.append(seat)
        trial.guard.add(promise)


def _promise(  # noqa: PLR0917 (all of them are the start)
    trial: Trial, job: Job, step: Step, demand: Demand, run_ms: int, seat: Seat
) -> Promise | None:
    """The start on the seat, if what runs there ends as expected; None: it will never fit, so nothing is kept."""
    known = [name for name in sorted(set(seat.nodes)) if name in trial.search.nodes]
    ranks = len(seat.nodes)
    found = trial.guard.earliest(demand, ranks, job.tenant, known, trial.now_ms, together=Together.ANYWHERE)
    if found is None:
        return None
    start_ms, allocations = found
    return Promise(
        job_id=job.id,
        step=step.name,
        tenant=job.tenant,
        demand=demand,
        allocations=allocations,
        start_ms=start_ms,
        end_ms=start_ms + max(run_ms, 1),
    )
