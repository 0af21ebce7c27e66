"""Why a step that is in the order does not start its next task now."""

from __future__ import annotations

from collections.abc import Collection

from scheduler.engine.candidates import Candidate
from scheduler.engine.trial import Trial
from scheduler.model.job import Together
from scheduler.model.plan import Reason, ReasonKind
from scheduler.placement.why import WHERE, why_not


def reasons_of(trial: Trial, candidate: Candidate) -> tuple[Reason, ...]:
    """At least one; each is true of the state the plan was made from."""
    limit = candidate.blocked or trial.limit(candidate)
    if limit is not None:
        return (limit,)
    demand, together = candidate.demand, candidate.step.together
    ranks = candidate.step.ranks_min or candidate.step.ranks
    if trial.search.most(demand, together) >= ranks:
        barred = trial.barred(candidate)
        free = trial.search.most(demand, together, barred) >= ranks
        return (_turn(trial) if free else _kept(trial, candidate, barred),)
    if trial.state.shapes.most(demand, together) >= ranks:
        message = "would fit, but leases ahead of it in the order take the room in this cycle"
        return (Reason(kind=ReasonKind.ORDER, message=message),)
    found = why_not(trial.state.shapes, demand, ranks, together)
    scattered = trial.state.shapes.most(demand, Together.ANYWHERE) >= ranks
    if scattered and all(reason.kind is ReasonKind.CAPACITY for reason in found):
        message = f"needs {ranks} ranks{WHERE[together]}; enough is free, but not near enough to each other"
        return (Reason(kind=ReasonKind.TOPOLOGY, resource=together.value, message=message),)
    return found


def _turn(trial: Trial) -> Reason:
    if trial.shut:
        message = f"job {trial.shut} is ahead of it, and nothing may start before that (backfill is off)"
    else:
        message = f"this cycle has granted its {trial.policy.starts_per_cycle} leases; the next one goes on"
    return Reason(kind=ReasonKind.ORDER, message=message)


def _kept(trial: Trial, candidate: Candidate, barred: Collection[str]) -> Reason:
    promises = trial.guard.delayed(name for name in barred if trial.search.copies_on(candidate.demand, name) > 0)
    if promises or (trial.is_strict and trial.promises):
        first = next(iter((*promises, *trial.promises)))
        in_s = max(0, first.start_ms - trial.now_ms) // 1000
        message = f"would run into the start of job {first.job_id}, expected in {in_s} s on {first.nodes[0]}"
        return Reason(kind=ReasonKind.RESERVATION, resource=first.job_id, message=message)
    windows = {window.name for node in sorted(barred) if (window := trial.window(candidate, node)) is not None}
    name = min(windows)
    message = f"could not end before reservation {name} takes its nodes"
    return Reason(kind=ReasonKind.RESERVATION, resource=name, message=message)
