"""Records as rows and back. Columns exist for what is asked for; the rest of a record is its canonical JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from scheduler.model.codec import decode, encode
from scheduler.model.event import JobSubmitted
from scheduler.model.job import Job, JobRecord, JobState, StepRecord
from scheduler.model.key import ApiKey, Role
from scheduler.model.lease import AttemptRecord, AttemptState, Lease, LeaseRecord
from scheduler.model.node import Node
from scheduler.model.queue import Queue, Tenant
from scheduler.model.ranges import Ranges
from scheduler.model.usage import Bucket, Quantity, UsageRecord
from scheduler.store.tables import to_json
from scheduler.store.upcast import read_event

Row = Any
"""A SQLAlchemy row: columns as attributes."""
Values = dict[str, Any]
"""Column name → value, to be written."""

_SETS = ("waiting", "running", "succeeded", "failed", "cancelled")
_QUANTITIES = tuple[Quantity, ...]


def number_of(record_id: str) -> int:
    """17 for ``j17`` and ``l17``."""
    return int(record_id[1:])


def named_values(record: Queue | Tenant | Node) -> Values:
    """A row of ``queues``, ``tenants`` or ``nodes``."""
    return {"name": record.name, "body": to_json(encode(record))}


def job_values(record: JobRecord, submitted_seq: int | None) -> Values:
    """A row of ``jobs``; with ``submitted_seq`` the body stays in that journal row."""
    job = record.job
    return {
        "id": job.id,
        "number": number_of(job.id),
        "tenant": job.tenant,
        "queue": job.queue,
        "kind": job.kind.value,
        "request_id": job.request_id,
        "submitted_ms": job.submitted_ms,
        "submitted_seq": submitted_seq,
        "job": "" if submitted_seq else to_json(encode(job)),
    } | job_progress(record)


def job_progress(record: JobRecord) -> Values:
    """The columns of ``jobs`` that change after submission."""
    return {
        "id": record.job.id,
        "state": record.state.value,
        "held": int(record.held),
        "cancelled": int(record.cancelled),
        "reason": record.reason,
        "started_ms": record.started_ms,
        "finished_ms": record.finished_ms,
    }


def job_record(row: Row, steps: Sequence[StepRecord]) -> JobRecord:
    """From a row of ``jobs`` joined with its journal row (``event_kind``, ``event_version``, ``event_body``)."""
    return JobRecord(
        job=_job(row),
        state=JobState(row.state),
        steps=tuple(steps),
        held=bool(row.held),
        cancelled=bool(row.cancelled),
        reason=row.reason,
        started_ms=row.started_ms,
        finished_ms=row.finished_ms,
    )


def _job(row: Row) -> Job:
    if row.job:
        job: Job = decode(Job, json.loads(row.job))
        return job
    event = read_event(row.event_kind, row.event_version, json.loads(row.event_body))
    assert isinstance(event, JobSubmitted), f"journal row {row.submitted_seq} submits no job"
    return event.job


def step_values(job_id: str, position: int, step: StepRecord) -> Values:
    """A row of ``steps``."""
    sets = {name: getattr(step, name).spans for name in _SETS}
    return sets | {
        "job_id": job_id,
        "position": position,
        "name": step.name,
        "attempts": step.attempts,
        "run_ms_mean": step.run_ms_mean,
        "run_count": step.run_count,
    }


def step_record(row: Row) -> StepRecord:
    """From a row of ``steps``."""
    return StepRecord(
        name=row.name,
        waiting=Ranges(_pairs(row.waiting)),
        running=Ranges(_pairs(row.running)),
        succeeded=Ranges(_pairs(row.succeeded)),
        failed=Ranges(_pairs(row.failed)),
        cancelled=Ranges(_pairs(row.cancelled)),
        attempts=_pairs(row.attempts),
        run_ms_mean=row.run_ms_mean,
        run_count=row.run_count,
    )


def _pairs(value: list[list[int]]) -> Any:
    return tuple([tuple(item) for item in value])


def lease_values(record: LeaseRecord) -> Values:
    """A row of ``leases``."""
    lease = record.lease
    return {
        "id": lease.id,
        "number": number_of(lease.id),
        "job_id": lease.job_id,
        "step": lease.step,
        "tenant": lease.tenant,
        "granted_ms": lease.granted_ms,
        "closed_ms": record.closed_ms,
        "stopping": int(record.stopping),
        "lease": to_json(encode(lease)),
    }


def lease_record(row: Row) -> LeaseRecord:
    """From a row of ``leases``."""
    return LeaseRecord(lease=decode(Lease, json.loads(row.lease)), closed_ms=row.closed_ms, stopping=bool(row.stopping))


def attempt_values(record: AttemptRecord) -> Values:
    """A row of ``attempts``."""
    return {
        "id": record.id,
        "lease_id": record.lease_id,
        "job_id": record.job_id,
        "step": record.step,
        "task_index": record.index,
        "number": record.number,
        "state": record.state.value,
        "started_ms": record.started_ms,
        "heartbeat_ms": record.heartbeat_ms,
        "finished_ms": record.finished_ms,
        "exit_code": record.exit_code,
        "reason": record.reason,
        "outputs": record.outputs,
        "facts": record.facts,
    }


def attempt_record(row: Row) -> AttemptRecord:
    """From a row of ``attempts``."""
    return AttemptRecord(
        id=row.id,
        lease_id=row.lease_id,
        job_id=row.job_id,
        step=row.step,
        index=row.task_index,
        number=row.number,
        state=AttemptState(row.state),
        started_ms=row.started_ms,
        heartbeat_ms=row.heartbeat_ms,
        finished_ms=row.finished_ms,
        exit_code=row.exit_code,
        reason=row.reason,
        outputs=tuple(row.outputs),
        facts=row.facts,
    )


def usage_values(record: UsageRecord, seq: int) -> Values:
    """A row of ``usage``, sealed by journal row ``seq``."""
    return {
        "id": record.id,
        "seq": seq,
        "lease_id": record.lease_id,
        "job_id": record.job_id,
        "step": record.step,
        "tenant": record.tenant,
        "queue": record.queue,
        "start_ms": record.start_ms,
        "end_ms": record.end_ms,
        "bucket": record.bucket.value,
        "free_reason": record.free_reason,
        "devices": record.devices,
        "quantities": encode(record.quantities),
        "simulated": int(record.simulated),
        "evidence": record.evidence,
    }


def usage_record(row: Row) -> UsageRecord:
    """From a row of ``usage``."""
    return UsageRecord(
        id=row.id,
        lease_id=row.lease_id,
        job_id=row.job_id,
        step=row.step,
        tenant=row.tenant,
        queue=row.queue,
        start_ms=row.start_ms,
        end_ms=row.end_ms,
        bucket=Bucket(row.bucket),
        free_reason=row.free_reason,
        devices=tuple(row.devices),
        quantities=decode(_QUANTITIES, row.quantities),
        simulated=bool(row.simulated),
        evidence=row.evidence,
    )


def api_key(row: Row) -> ApiKey:
    """From a row of ``api_keys``."""
    return ApiKey(
        id=row.id,
        tenant=row.tenant,
        role=Role(row.role),
        label=row.label,
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
        revoked_ms=row.revoked_ms,
    )
