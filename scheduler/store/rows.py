"""Records as rows and back: the columns that are searched, and the record's canonical JSON."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from scheduler.model.codec import decode, encode
from scheduler.model.job import JobRecord, StepRecord
from scheduler.model.key import ApiKey, Role
from scheduler.model.lease import AttemptRecord, LeaseRecord
from scheduler.model.node import Node
from scheduler.model.queue import Queue, QueueUse, Reservation, Tenant
from scheduler.model.usage import UsageRecord
from scheduler.store.tables import to_json
from scheduler.store.upcast import lift

Row = Any
"""A SQLAlchemy row: columns as attributes."""
Values = dict[str, Any]
"""Column name → value, to be written."""


def number_of(record_id: str) -> int:
    """17 for ``j17`` and ``l17``."""
    return int(record_id[1:])


def named_values(record: Queue | QueueUse | Reservation | Tenant | Node) -> Values:
    """A row of a table whose key is the record's name."""
    return {"name": record.name, "body": to_json(encode(record))}


def job_progress(record: JobRecord) -> Values:
    """The columns of ``jobs`` that change after submission."""
    return {
        "state": record.state.value,
        "finished_ms": record.finished_ms,
        "body": to_json(_without(record, "job", "steps")),
    }


def job_values(record: JobRecord, submitted_seq: int | None) -> Values:
    """A row of ``jobs``; with ``submitted_seq`` the job itself stays in that journal row."""
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


def job_record(row: Row, steps: list[Any]) -> JobRecord:
    """From a row of ``jobs`` joined with its journal row (``event_kind``, ``event_version``, ``event_body``)."""
    if row.job:
        job = json.loads(row.job)
    else:
        job = lift(row.event_kind, row.event_version, json.loads(row.event_body))[1]["job"]
    record: JobRecord = decode(JobRecord, json.loads(row.body) | {"job": job, "steps": steps})
    return record


def step_values(job_id: str, position: int, step: StepRecord) -> Values:
    """A row of ``steps``."""
    return {"job_id": job_id, "position": position, "body": to_json(encode(step))}


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
        "lease": to_json(encode(lease)),
        "body": to_json(_without(record, "lease")),
    }


def lease_record(row: Row) -> LeaseRecord:
    """From a row of ``leases``."""
    record: LeaseRecord = decode(LeaseRecord, json.loads(row.body) | {"lease": json.loads(row.lease)})
    return record


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
        "finished_ms": record.finished_ms,
        "body": to_json(encode(record)),
    }


def usage_values(record: UsageRecord, seq: int) -> Values:
    """A row of ``usage``, sealed by journal row ``seq``."""
    return {
        "id": record.id,
        "seq": seq,
        "lease_id": record.lease_id,
        "job_id": record.job_id,
        "tenant": record.tenant,
        "bucket": record.bucket.value,
        "start_ms": record.start_ms,
        "end_ms": record.end_ms,
        "body": to_json(encode(record)),
    }


def record_of(cls: type[Any], row: Row) -> Any:
    """The record whose whole JSON is the row's ``body``."""
    return decode(cls, json.loads(row.body))


def api_key(row: Row) -> ApiKey:
    """From a row of ``api_keys``."""
    values = {field.name: getattr(row, field.name) for field in fields(ApiKey)}
    return ApiKey(**values | {"role": Role(row.role)})


def _without(record: JobRecord | LeaseRecord, *names: str) -> dict[str, Any]:
    kept = [field for field in fields(record) if field.name not in names]
    values = {field.name: (getattr(record, field.name), field.default) for field in kept}
    return {name: encode(value) for name, (value, default) in values.items() if value != default}
