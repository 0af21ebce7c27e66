"""When running leases are expected to end."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from scheduler.engine.state import State
from scheduler.model.job import Step
from scheduler.model.lease import AttemptRecord, LeaseRecord
from scheduler.queueing.durations import Estimate, worked_ms
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.rate import FULL_PERMILLE, work_rate_permille

LIKELY_PERMILLE = 500
CAREFUL_PERMILLE = 975
"""Quantile of a run time at which slots are kept: the longest of the equally likely values of an estimate."""
OVERDUE_MS = 1_000
"""What should have stopped by now is expected to be gone after this."""


def estimate_of(state: State, job_id: str, step_name: str) -> Estimate:
    """What a whole task of a job in the state takes. Raises NotFound for an unknown step."""
    record = state.jobs[job_id]
    step, done = find_step(record, step_name)
    return state.durations.estimate(record.job, step, done)


def left_ms(state: State, record: LeaseRecord, now_ms: int, estimate: Estimate, permille: int = LIKELY_PERMILLE) -> int:
    """A quantile of what is left of an open lease, at least 1. ``estimate``: of its step, at full speed.

    Its attempts run one after the other; those behind the first that has not ended count with the median each. A
    resumed task first catches up with its checkpoint and then has only the rest to run. A lease that is being stopped
    ends within the grace of its step.
    """
    step, done = find_step(state.jobs[record.lease.job_id], record.lease.step)
    rate = rate_of(state, step, record)
    left = 0
    for attempt in _open(state, record):
        run_ms = max(now_ms - (attempt.started_ms or record.lease.granted_ms), 0) if not left else 0
        worked = worked_ms(done, attempt.index)
        restart = step.restart_ms if worked else 0
        quantile = permille if not left else LIKELY_PERMILLE
        did = max(run_ms - restart, 0) * rate // FULL_PERMILLE
        left += max(restart - run_ms, 0) + estimate.left(worked + did, quantile) * FULL_PERMILLE // rate
    return max(min(left, _grace_left(record, step, now_ms)) if record.stopping else left, 1)


def _grace_left(record: LeaseRecord, step: Step, now_ms: int) -> int:
    """What is left of the grace of a lease that is being stopped; what has outlasted it is about to go."""
    left = (record.stopping_ms or now_ms) + step.grace_ms - now_ms
    return left if left >= 0 else OVERDUE_MS


def outlived_ms(state: State, record: LeaseRecord, now_ms: int, estimate: Estimate) -> int:
    """The next instant at which what is left of an open lease grows because it has not ended yet.

    It outlives one of the values of its ``estimate`` then; beyond all of them it does so always: in the next
    millisecond. 0: nothing of it is open.
    """
    attempt = next(_open(state, record), None)
    if attempt is None:
        return 0
    step, done = find_step(state.jobs[record.lease.job_id], record.lease.step)
    run_ms = max(now_ms - (attempt.started_ms or record.lease.granted_ms), 0)
    worked, rate = worked_ms(done, attempt.index), rate_of(state, step, record)
    restart = step.restart_ms if worked else 0
    did = worked + max(run_ms - restart, 0) * rate // FULL_PERMILLE
    longer = bisect_right(estimate.atoms, did)
    if longer == len(estimate.atoms):
        return now_ms + 1
    return now_ms + max(restart - run_ms, 0) - (did - estimate.atoms[longer]) * FULL_PERMILLE // rate


def ran_ms(state: State, record: LeaseRecord, now_ms: int) -> int:
    """How long the first attempt of an open lease that has not ended runs, with the work its checkpoints kept."""
    attempt = next(_open(state, record), None)
    if attempt is None:
        return 0
    _, done = find_step(state.jobs[record.lease.job_id], record.lease.step)
    return max(now_ms - (attempt.started_ms or record.lease.granted_ms), 0) + worked_ms(done, attempt.index)


def rate_of(state: State, step: Step, record: LeaseRecord) -> int:
    """Thousandths of full speed at which a lease works, at least 1: that of its slowest card."""
    if not step.speeds and len(record.lease.allocations) == step.ranks:
        return FULL_PERMILLE
    models = state.models_of(record.lease) or {""}
    return max(min(work_rate_permille(step, len(record.lease.allocations), model) for model in models), 1)


def _open(state: State, record: LeaseRecord) -> Iterator[AttemptRecord]:
    return (attempt for attempt in state.attempts_of(record.lease) if not attempt.state.is_final)
