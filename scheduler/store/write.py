"""One cycle's facts in one transaction: the epoch check, journal rows, records, usage and outbox."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.model.errors import StaleEpoch, StoreError
from scheduler.model.event import Event, JobSubmitted, UsageSealed
from scheduler.model.job import JobRecord
from scheduler.model.snapshot import Changes
from scheduler.store import rows, tables
from scheduler.store.chain import JournalRow, rows_of
from scheduler.store.database import Database

_CLAIM = (
    sa.update(tables.meta)
    .where(tables.meta.c.id == 1, tables.meta.c.epoch == sa.bindparam("held"))
    .values({name: sa.bindparam(name) for name in ("at_ms", "next_job", "next_lease")})
    .returning(tables.meta.c.head_seq, tables.meta.c.head_hash)
)
_MOVE_HEAD = sa.update(tables.meta).values({name: sa.bindparam(name) for name in ("head_seq", "head_hash")})


class Writer:
    """Builds each statement once and remembers what it last wrote of every unfinished job.

    A job of many steps changes one of them at a time: rows equal to what this writer wrote before are left alone.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        insert: Any = sqlite.insert if database.is_sqlite else postgresql.insert
        self._queues = _upsert(insert, tables.queues, ["name"], "body")
        self._uses = _upsert(insert, tables.queue_uses, ["name"], "body")
        self._reservations = _upsert(insert, tables.reservations, ["name"], "body")
        self._tenants = _upsert(insert, tables.tenants, ["name"], "body")
        self._nodes = _upsert(insert, tables.nodes, ["name"], "body")
        self._jobs = _upsert(insert, tables.jobs, ["id"], "state", "finished_ms", "body")
        self._steps = _upsert(insert, tables.steps, ["job_id", "position"], "body")
        self._leases = _upsert(insert, tables.leases, ["id"], "closed_ms", "body")
        self._attempts = _upsert(insert, tables.attempts, ["id"], "state", "started_ms", "finished_ms", "body")
        self._written: dict[str, JobRecord] = {}

    def commit(self, epoch: int, events: Sequence[Event], changes: Changes) -> int:
        """All of it or nothing. Returns the journal's last number.

        Raises StaleEpoch when another process holds a larger epoch, StoreError when the database refuses.
        """
        with self._database.write() as connection:
            head_seq, head_hash = _claim(connection, epoch, changes)
            journal = rows_of(events, head_seq, head_hash)
            if journal:
                head_seq = journal[-1].seq
                _append(connection, journal)
            self._write_records(connection, journal, events, changes)
            _seal(connection, journal, events)
        self._remember(changes.jobs)
        return head_seq

    def forget(self) -> None:
        """Another process may have written since: take nothing about the tables for granted."""
        self._written.clear()

    def _write_records(
        self, connection: sa.Connection, journal: Sequence[JournalRow], events: Sequence[Event], changes: Changes
    ) -> None:
        _many(connection, self._queues, [rows.named_values(r) for r in changes.queues])
        _many(connection, self._uses, [rows.named_values(r) for r in changes.uses])
        _many(connection, self._reservations, [rows.named_values(r) for r in changes.reservations])
        _many(connection, self._tenants, [rows.named_values(r) for r in changes.tenants])
        _many(connection, self._nodes, [rows.named_values(r) for r in changes.nodes])
        submitted = {e.job.id: row.seq for e, row in zip(events, journal, strict=True) if isinstance(e, JobSubmitted)}
        self._write_jobs(connection, submitted, changes.jobs)
        _many(connection, self._leases, [rows.lease_values(r) for r in changes.leases])
        _many(connection, self._attempts, [rows.attempt_values(r) for r in changes.attempts])

    def _write_jobs(self, connection: sa.Connection, submitted: dict[str, int], records: Sequence[JobRecord]) -> None:
        heads, steps = [], []
        for record in records:
            before = self._written.get(record.job.id)
            if before is None:
                heads.append(rows.job_values(record, submitted.get(record.job.id)))
            elif rows.job_progress(before) != rows.job_progress(record):
                # The body is not updated, so it need not be encoded: any text does.
                heads.append(rows.job_values(record, -1))
            for at, step in enumerate(record.steps):
                if before is None or before.steps[at] != step:
                    steps.append(rows.step_values(record.job.id, at, step))
        _many(connection, self._jobs, heads)
        _many(connection, self._steps, steps)

    def _remember(self, records: Iterable[JobRecord]) -> None:
        for record in records:
            if record.state.is_final:
                self._written.pop(record.job.id, None)
            else:
                self._written[record.job.id] = record


def _upsert(insert: Any, table: sa.Table, key: list[str], *progress: str) -> Any:
    statement = insert(table)
    return statement.on_conflict_do_update(
        index_elements=key, set_={name: getattr(statement.excluded, name) for name in progress}
    )


def _many(connection: sa.Connection, statement: Any, values: list[rows.Values]) -> None:
    if values:
        connection.execute(statement, values)


def _claim(connection: sa.Connection, epoch: int, changes: Changes) -> tuple[int, bytes]:
    """Check and lock the epoch's row, write the counters; returns the journal's end."""
    values = {
        "held": epoch, "at_ms": changes.at_ms, "next_job": changes.next_job, "next_lease": changes.next_lease,
    }  # fmt: skip
    found = connection.execute(_CLAIM, values).first()
    if found is None:
        raise StaleEpoch(f"another process took the epoch after {epoch}; nothing was written")
    return found.head_seq, found.head_hash


def _append(connection: sa.Connection, journal: Sequence[JournalRow]) -> None:
    connection.execute(tables.journal.insert(), [row._asdict() for row in journal])
    connection.execute(_MOVE_HEAD, {"head_seq": journal[-1].seq, "head_hash": journal[-1].hash})


def _seal(connection: sa.Connection, journal: Sequence[JournalRow], events: Sequence[Event]) -> None:
    """Usage and its outbox rows. A record that is already there, equal, is left out; another content is an error."""
    fresh: dict[str, tuple[rows.Values, JournalRow]] = {}
    for event, row in zip(events, journal, strict=True):
        if isinstance(event, UsageSealed):
            values = rows.usage_values(event.record, row.seq)
            first, _ = fresh.setdefault(event.record.id, (values, row))
            _require_same(event.record.id, first["body"], values["body"])
    if not fresh:
        return
    usage = tables.usage.c
    for known in connection.execute(sa.select(usage.id, usage.body).where(usage.id.in_(list(fresh)))).all():
        values, _ = fresh.pop(known.id)
        _require_same(known.id, known.body, values["body"])
    _many(connection, tables.usage.insert(), [values for values, _ in fresh.values()])
    _many(connection, tables.outbox.insert(), [
        {"seq": row.seq, "kind": row.kind, "version": row.version, "body": row.body} for _, row in fresh.values()
    ])  # fmt: skip


def _require_same(usage_id: str, known: str, given: str) -> None:
    if known != given:
        raise StoreError(f"usage {usage_id} is already sealed with other content; it is never edited")
