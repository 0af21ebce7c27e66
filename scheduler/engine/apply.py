"""One recorded fact changes the state. Facts already known change nothing; impossible ones raise first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from scheduler.engine.faults import lost, seen_again, task_ended
from scheduler.engine.rules import since
from scheduler.engine.state import State
from scheduler.model.errors import Conflict, NotFound
from scheduler.model.event import (
    AttemptFinished,
    AttemptsSeen,
    AttemptStarted,
    ChargeReversed,
    EngineStarted,
    Event,
    JobCancelled,
    JobHeld,
    JobReleased,
    JobRetried,
    JobSubmitted,
    LeaseGranted,
    LeaseStopping,
    NodeLost,
    NodeSeen,
    PolicySet,
    QueueSet,
    RateCardSet,
    ReservationSet,
    SeatKept,
    StartsPromised,
    TenantSet,
    UsageSealed,
    VoucherGranted,
    VoucherRevoked,
)
from scheduler.model.job import JobRecord, KeptStart
from scheduler.model.layout import settled
from scheduler.model.lease import AttemptRecord, AttemptState, Lease, LeaseRecord, number_of, parse_attempt_id
from scheduler.model.node import Node, NodeState
from scheduler.model.units import WHOLE_CARD_MILLI
from scheduler.placement.view import device_millis
from scheduler.queueing import lifecycle, tasks

WHOLE_RUNS_SINCE = 5
"""The engine version from which on a success teaches what its whole task takes at full speed; before, its last try."""


def apply(state: State, event: Event) -> None:
    """Change ``state`` by ``event``. Raises NotFound or Conflict, with the state as it was."""
    HANDLERS[type(event)](state, event)
    if not isinstance(event, UsageSealed):  # it is written beside changes that were taken already
        state.at_ms = max(state.at_ms, event.at_ms)


def verb(state: State, event: JobHeld | JobReleased | JobCancelled | JobRetried) -> JobRecord:
    """The job's record after a user's verb, without changing the state. Raises NotFound or Conflict."""
    record = state.jobs.get(event.job_id)
    if record is None:
        raise NotFound(f"no job {event.job_id!r}")
    if isinstance(event, JobHeld):
        return lifecycle.held(record, event.at_ms)
    if isinstance(event, JobReleased):
        return lifecycle.released(record, event.at_ms)
    if isinstance(event, JobCancelled):
        return lifecycle.cancelled(record, event.at_ms, event.by)
    return lifecycle.retried(record, event.at_ms, event.step, event.indices, redo=event.redo)


def _queue_set(state: State, event: QueueSet) -> None:
    state.put_queue(event.queue)


def _reservation_set(state: State, event: ReservationSet) -> None:
    state.put_reservation(event.reservation)


def _tenant_set(state: State, event: TenantSet) -> None:
    state.put_tenant(event.tenant)


def _node_seen(state: State, event: NodeSeen) -> None:
    view = state.nodes.get(event.node.name)
    if view is None:
        state.put_node(settled(None, event.node, event.at_ms))
        return
    seen = seen_again(state, view.node, _moving(view.node, event.node, event.at_ms), event.at_ms)
    state.put_node(settled(view.node, seen, event.at_ms))


def _moving(before: Node, node: Node, at_ms: int) -> Node:
    """What a node says of itself, with what only the plans know: that it is on its way to another lane."""
    if before.moving_to is None or node.moving_to is not None:
        return replace(node, moved_ms=node.moved_ms or before.moved_ms)
    if node.lane is before.moving_to:
        return replace(node, moved_ms=max(1, at_ms - before.moving_since_ms))
    return replace(
        node,
        state=NodeState.CORDONED if node.state is NodeState.READY else node.state,
        state_reason=before.state_reason,
        moving_to=before.moving_to,
        moving_since_ms=before.moving_since_ms,
        moved_ms=before.moved_ms,
    )


def _node_lost(state: State, event: NodeLost) -> None:
    view = state.nodes.get(event.node)
    if view is None:
        raise NotFound(f"no node {event.node!r}")
    state.put_node(replace(lost(state, view.node, event), state=NodeState.LOST, state_reason=event.reason))


def _job_submitted(state: State, event: JobSubmitted) -> None:
    job = event.job
    known = state.jobs.get(job.id)
    if known is not None and known.job == job:
        return
    try:
        number = number_of(job.id)
    except ValueError as error:
        raise Conflict(str(error)) from None
    if number < state.next_job:
        raise Conflict(f"job id {job.id} was given before; the next is j{state.next_job}")
    state.next_job = number + 1
    state.put_job(lifecycle.submitted(job, held=event.held))


def _verb(state: State, event: JobHeld | JobReleased | JobCancelled | JobRetried) -> None:
    _put_changed(state, verb(state, event))


def _lease_granted(state: State, event: LeaseGranted) -> None:
    lease = event.lease
    number = number_of(lease.id)
    if number < state.next_lease:
        known = state.leases.get(lease.id)
        if known is not None and known.lease != lease:
            raise Conflict(f"lease id {lease.id} was given before; the next is l{state.next_lease}")
        return
    attempts = _check_grant(state, lease)
    nodes = sorted({allocation.node for allocation in lease.allocations})
    state.next_lease = number + 1
    indices = [attempt.index for attempt in attempts]
    state.put_job(lifecycle.granted(state.jobs[lease.job_id], lease.step, indices, nodes, event.at_ms))
    state.open_lease(LeaseRecord(lease=lease))
    for attempt in attempts:
        state.put_attempt(attempt)


def _check_grant(state: State, lease: Lease) -> list[AttemptRecord]:
    """The lease's attempts. Raises Conflict when a task does not wait or a device is not free."""
    record = state.jobs.get(lease.job_id)
    if record is None:
        raise NotFound(f"no job {lease.job_id!r}")
    step, done = lifecycle.find_step(record, lease.step)
    if not (step.ranks_min or step.ranks) <= len(lease.allocations) <= step.ranks:
        raise Conflict(f"lease {lease.id}: {len(lease.allocations)} allocations for {step.ranks} ranks")
    attempts: list[AttemptRecord] = []
    for attempt_id in lease.attempts:
        job_id, name, index, tried = parse_attempt_id(attempt_id)
        if index not in done.waiting or tried != tasks.tries(done, index)[0] + 1:
            raise Conflict(f"lease {lease.id}: {attempt_id} is not the next attempt of a waiting task")
        attempts.append(
            AttemptRecord(id=attempt_id, lease_id=lease.id, job_id=job_id, step=name, index=index, number=tried)
        )
    for allocation in lease.allocations:
        if state.shapes.node(allocation.node) is None:
            raise NotFound(f"lease {lease.id}: no node {allocation.node!r}")
        for device, milli in device_millis(allocation):
            held, tenant = state.shapes.held(allocation.node, device)
            if held + milli > WHOLE_CARD_MILLI or (held and tenant != lease.tenant):
                raise Conflict(f"lease {lease.id}: device {device} is held already")
    return attempts


def _lease_stopping(state: State, event: LeaseStopping) -> None:
    record = state.leases.get(event.lease_id)
    if record is None:
        _refuse_unknown_lease(state, event.lease_id)
        return
    after = lifecycle.lease_stopping(record, event)
    if after is not record:
        state.put_lease(after)
        if event.place is not None:
            _put_changed(state, lifecycle.moved(state.jobs[record.lease.job_id], record.lease.step, event.place))
        other = state.active.get(event.for_job)
        if other is not None and not other.is_next:
            state.put_job(replace(other, is_next=True))


def _seat_kept(state: State, event: SeatKept) -> None:
    record = state.jobs.get(event.job_id)
    if record is None:
        raise NotFound(f"no job {event.job_id!r}")
    if event.seat not in lifecycle.find_step(record, event.step)[1].seats:
        state.put_job(lifecycle.seat_kept(record, event))
        seated = {key for key in state.seated if any(step.seats for step in state.jobs[key].steps)}
        state.seated = seated | {event.job_id}


def _starts_promised(state: State, event: StartsPromised) -> None:
    starts: dict[str, dict[str, KeptStart]] = {}
    for job_id, step, start in event.starts:
        record = state.jobs.get(job_id)
        if record is None:
            raise NotFound(f"no job {job_id!r}")
        lifecycle.find_step(record, step)
        starts.setdefault(job_id, {})[step] = start
    for job_id in sorted(state.promised | starts.keys(), key=number_of):
        _put_changed(state, lifecycle.start_promised(state.jobs[job_id], starts.get(job_id, {})))
    state.promised = set(starts)


def _attempt_started(state: State, event: AttemptStarted) -> None:
    attempt = _open_attempt(state, event.attempt_id)
    if attempt is None:
        return
    lease = state.leases[attempt.lease_id].lease
    after = lifecycle.attempt_started(attempt, max(event.at_ms, lease.granted_ms))
    if after is not attempt:
        state.put_attempt(after)
        _put_changed(state, lifecycle.job_started(state.jobs[attempt.job_id], after.started_ms))


def _attempts_seen(state: State, event: AttemptsSeen) -> None:
    for attempt_id in event.attempt_ids:
        attempt = _open_attempt(state, attempt_id)
        after = lifecycle.attempt_seen(attempt, event.at_ms) if attempt is not None else None
        if after is not None and after is not attempt:
            state.put_attempt(after)


def _attempt_finished(state: State, event: AttemptFinished) -> None:
    attempt = _open_attempt(state, event.attempt_id)
    if attempt is None or attempt.state.is_final:
        return
    record = state.leases[attempt.lease_id]
    at_ms = max(event.at_ms, record.lease.granted_ms, attempt.started_ms)
    after = lifecycle.attempt_finished(attempt, event, at_ms)
    first = record.lease.attempts[0] == attempt.id
    succeeded = after.state is AttemptState.SUCCEEDED
    models = state.models_of(record.lease) if after.checkpoint_ms or succeeded else frozenset[str]()
    ranks, by_park, job = len(record.lease.allocations), not record.stop_charged, state.jobs[attempt.job_id]
    run_ms = _run_ms(state, job, after, ranks, models) if succeeded else 0
    job = lifecycle.work_kept(job, after, ranks, models, by_park=by_park)
    attempts = [after if other is attempt else other for other in state.attempts_of(record.lease)]
    closed = lifecycle.lease_after(record, attempts)
    served_ms = lifecycle.service_ms(closed)
    job = lifecycle.task_finished(job, after, first_in_lease=first, run_ms=run_ms, served_ms=served_ms)
    job = task_ended(state, job, after, record.lease)
    state.put_attempt(after)
    state.put_job(job)
    if closed is not record:
        state.put_lease(closed)


def _run_ms(state: State, job: JobRecord, after: AttemptRecord, ranks: int, models: frozenset[str]) -> int:
    """What a success teaches; 0: nothing, because nobody saw it start."""
    if since(state, WHOLE_RUNS_SINCE):
        return lifecycle.whole_run_ms(job, after, ranks, models)
    return max(1, after.finished_ms - after.started_ms) if after.started_ms else 0


def _engine_started(state: State, event: EngineStarted) -> None:
    state.rules = event.engine


def _no_record(state: State, event: Event) -> None:
    """Usage and money are the ledger's: the engine's records do not change."""


def _open_attempt(state: State, attempt_id: str) -> AttemptRecord | None:
    """The attempt; None when its lease closed long ago. Raises NotFound for one that never was."""
    attempt = state.attempts.get(attempt_id)
    if attempt is not None:
        return attempt
    try:
        job_id, step, index, number = parse_attempt_id(attempt_id)
    except ValueError:
        raise NotFound(f"no attempt {attempt_id!r}") from None
    record = state.jobs.get(job_id)
    if record is None or number < 1 or tasks.tries(lifecycle.find_step(record, step)[1], index)[0] < number:
        raise NotFound(f"no attempt {attempt_id!r}")
    return None


def _refuse_unknown_lease(state: State, lease_id: str) -> None:
    try:
        known = number_of(lease_id) < state.next_lease
    except ValueError:
        known = False
    if not known:
        raise NotFound(f"no lease {lease_id!r}")


def _put_changed(state: State, record: JobRecord) -> None:
    if state.jobs[record.job.id] is not record:
        state.put_job(record)


HANDLERS: dict[type[Event], Callable[[State, Any], None]] = {
    EngineStarted: _engine_started,
    QueueSet: _queue_set,
    ReservationSet: _reservation_set,
    TenantSet: _tenant_set,
    NodeSeen: _node_seen,
    NodeLost: _node_lost,
    JobSubmitted: _job_submitted,
    JobHeld: _verb,
    JobReleased: _verb,
    JobCancelled: _verb,
    JobRetried: _verb,
    LeaseGranted: _lease_granted,
    LeaseStopping: _lease_stopping,
    SeatKept: _seat_kept,
    StartsPromised: _starts_promised,
    AttemptStarted: _attempt_started,
    AttemptsSeen: _attempts_seen,
    AttemptFinished: _attempt_finished,
    UsageSealed: _no_record,
    RateCardSet: _no_record,
    PolicySet: _no_record,
    VoucherGranted: _no_record,
    VoucherRevoked: _no_record,
    ChargeReversed: _no_record,
}
"""One handler per kind of event; a test holds it to the whole alphabet."""
