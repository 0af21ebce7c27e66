"""Records as rows and back: the columns that are searched, and the record's canonical JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from scheduler.model.codec import decode, dumps, dumps_without
from scheduler.model.job import JobRecord, StepRecord
from scheduler.model.key import ApiKey, Role
from scheduler.model.lease import AttemptRecord, LeaseRecord
from scheduler.model.node import Node
from scheduler.model.queue import Queue, QueueUse, Reservation, Tenant
from scheduler.model.usage import UsageRecord
from scheduler.store.tables import plain, storable, to_json
from scheduler.store.upcast import lift

Row = Any
"""A SQLAlchemy row: columns as attributes."""
ATTEMPT_COLUMNS = ("id", "lease_id", "job_id", "step", "index", "number", "state", "started_ms", "finished_ms")
"""Fields of an AttemptRecord as the columns of ``attempts`` hold them, in their order; ``body`` holds the others."""
Values = tuple[Any, ...]
"""What is written into a table's columns, in their order, as the database takes it."""


def number_of(record_id: str) -> int:
    """17 for ``j17`` and ``l17``."""
    return int(record_id[1:])


def text_of(record: object) -> str:
    """The record's canonical JSON."""
    return storable(dumps(record))


def named_values(record: Queue | QueueUse | Reservation | Tenant | Node) -> Values:
    """A row of a table whose key is the record's name."""
    return plain(record.name), text_of(record)


def job_progress(record: JobRecord) -> Values:
    """The last columns of ``jobs``: what changes after submission."""
    return record.state.value, record.finished_ms, storable(dumps_without(record, "job", "steps"))


def job_values(record: JobRecord, submitted_seq: int | None) -> Values:
    """A row of ``jobs``; with ``submitted_seq`` the job itself stays in that journal row."""
    job = record.job
    return (
        plain(job.id),
        number_of(job.id),
        plain(job.tenant),
        plain(job.queue),
        job.kind.value,
        to_json(job.request_id),
        job.submitted_ms,
        submitted_seq,
        "" if submitted_seq else text_of(job),
        *job_progress(record),
    )


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
    return plain(job_id), position, text_of(step)


def lease_progress(record: LeaseRecord) -> Values:
    """``closed_ms`` and ``body``."""
    return record.closed_ms, storable(dumps_without(record, "lease"))


def lease_values(record: LeaseRecord, text: str = "") -> Values:
    """A row of ``leases``. ``text``: the lease's canonical JSON, where somebody has it already."""
    lease = record.lease
    closed_ms, body = lease_progress(record)
    return (
        plain(lease.id),
        number_of(lease.id),
        plain(lease.job_id),
        plain(lease.step),
        plain(lease.tenant),
        lease.granted_ms,
        closed_ms,
        text or text_of(lease),
        body,
    )


def lease_records(page: Sequence[Row]) -> list[LeaseRecord]:
    """From ``(lease, body)`` of rows of ``leases``."""
    leases, bodies = _values([row[0] for row in page]), _values([row[1] for row in page])
    return [decode(LeaseRecord, body | {"lease": lease}) for lease, body in zip(leases, bodies, strict=True)]


def attempt_values(record: AttemptRecord) -> Values:
    """A row of ``attempts``."""
    return (
        plain(record.id),
        plain(record.lease_id),
        plain(record.job_id),
        plain(record.step),
        record.index,
        record.number,
        *attempt_progress(record),
    )


def attempt_progress(record: AttemptRecord) -> Values:
    """The last columns of ``attempts``: what changes after its lease was granted.

    The body leaves out what other columns hold, unless they cannot hold it as it is.
    """
    names = record.id + record.lease_id + record.job_id + record.step
    text = storable(dumps_without(record, *ATTEMPT_COLUMNS)) if plain(names) == names else text_of(record)
    return record.state.value, record.started_ms, record.finished_ms, text


def attempt_records(page: Sequence[Row]) -> list[AttemptRecord]:
    """From rows of ``attempts``: see :data:`ATTEMPT_COLUMNS`."""
    return [
        decode(AttemptRecord, dict(zip(ATTEMPT_COLUMNS, row, strict=False)) | body)
        for row, body in zip(page, _values([row.body for row in page]), strict=True)
    ]


def usage_values(record: UsageRecord, seq: int, text: str) -> Values:
    """A row of ``usage``, sealed by journal row ``seq``; ``text``: its canonical JSON."""
    return (
        plain(record.id),
        seq,
        plain(record.lease_id),
        plain(record.job_id),
        plain(record.tenant),
        record.bucket.value,
        record.start_ms,
        record.end_ms,
        text,
    )


def record_of(cls: type[Any], row: Row) -> Any:
    """The record whose whole JSON is the row's ``body``."""
    return decode(cls, json.loads(row.body))


def _values(texts: Sequence[str]) -> list[Any]:
    """JSON values, parsed in one go: the start of a parser costs as much as a small value."""
    values: list[Any] = json.loads(f"[{','.join(texts)}]")
    if len(values) != len(texts):
        raise ValueError(f"{len(texts)} rows hold {len(values)} values")
    return values


def api_key(row: Row) -> ApiKey:
    """From a row of ``api_keys``."""
    values = {field.name: getattr(row, field.name) for field in fields(ApiKey)}
    return ApiKey(**values | {"role": Role(row.role)})
