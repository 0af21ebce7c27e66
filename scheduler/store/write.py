"""One cycle's facts in one transaction: the epoch check, journal rows, records and usage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from operator import attrgetter

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from scheduler.model.errors import StaleEpoch, StoreError
from scheduler.model.event import Event, JobSubmitted, LeaseGranted, UsageSealed
from scheduler.model.job import JobRecord
from scheduler.model.lease import AttemptRecord, LeaseRecord
from scheduler.model.snapshot import Changes
from scheduler.store import rows, tables
from scheduler.store.bulk import Bulk, Change
from scheduler.store.chain import JournalRow, part, rows_of
from scheduler.store.database import Database

_CLAIM = (
    sa.update(tables.meta)
    .where(tables.meta.c.id == 1, tables.meta.c.epoch == sa.bindparam("held"))
    .values({name: sa.bindparam(name) for name in ("at_ms", "next_job", "next_lease")})
    .returning(tables.meta.c.head_seq, tables.meta.c.head_hash)
)
_MOVE_HEAD = sa.update(tables.meta).values({name: sa.bindparam(name) for name in ("head_seq", "head_hash")})
_HEAD = attrgetter(*(field.name for field in fields(JobRecord) if field.name not in ("job", "steps")))


class Writer:
    """Builds each statement once and remembers what it last wrote of unfinished jobs, and which open leases it wrote.

    A job of many steps changes one of them at a time: rows equal to what this writer wrote before are left alone.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._journal = Bulk(database, tables.journal)
        self._queues = Bulk(database, tables.queues, "body", key=["name"])
        self._uses = Bulk(database, tables.queue_uses, "body", key=["name"])
        self._reservations = Bulk(database, tables.reservations, "body", key=["name"])
        self._tenants = Bulk(database, tables.tenants, "body", key=["name"])
        self._nodes = Bulk(database, tables.nodes, "body", key=["name"])
        self._jobs = Bulk(database, tables.jobs, "state", "finished_ms", "body", key=["id"])
        self._steps = Bulk(database, tables.steps, "body", key=["job_id", "position"])
        self._leases = Bulk(database, tables.leases, "closed_ms", "body", key=["id"])
        self._open_leases = Change(database, tables.leases, "closed_ms", "body", key="id")
        self._attempts = Bulk(database, tables.attempts, "state", "started_ms", "finished_ms", "body", key=["id"])
        self._known_attempts = Change(database, tables.attempts, "state", "started_ms", "finished_ms", "body", key="id")
        self._usage = Bulk(database, tables.usage)
        self._written: dict[str, JobRecord] = {}
        self._leased: set[str] = set()

    def commit(
        self, epoch: int, events: Sequence[Event], changes: Changes, meanwhile: Callable[[], object] | None = None
    ) -> int:
        """All of it or nothing. Returns the journal's last number. ``meanwhile``: see :meth:`Database.write`.

        Raises StaleEpoch when another process holds a larger epoch, StoreError when the database refuses.
        """
        with self._database.write(meanwhile) as connection:
            head_seq, head_hash = _claim(connection, epoch, changes)
            journal = rows_of(events, head_seq, head_hash)
            if journal:
                head_seq = journal[-1].seq
                self._journal.write(connection, journal)
                connection.execute(_MOVE_HEAD, {"head_seq": head_seq, "head_hash": journal[-1].hash})
            self._write_records(connection, journal, events, changes)
            self._seal(connection, journal, events)
        self._remember(changes)
        return head_seq

    def forget(self) -> None:
        """Another process may have written since: take nothing about the tables for granted."""
        self._written.clear()
        self._leased.clear()

    def _write_records(
        self, connection: sa.Connection, journal: Sequence[JournalRow], events: Sequence[Event], changes: Changes
    ) -> None:
        self._queues.write(connection, [rows.named_values(r) for r in changes.queues])
        self._uses.write(connection, [rows.named_values(r) for r in changes.uses])
        self._reservations.write(connection, [rows.named_values(r) for r in changes.reservations])
        self._tenants.write(connection, [rows.named_values(r) for r in changes.tenants])
        self._nodes.write(connection, [rows.named_values(r) for r in changes.nodes])
        submitted = {e.job.id: row.seq for e, row in zip(events, journal, strict=True) if isinstance(e, JobSubmitted)}
        self._write_jobs(connection, submitted, changes.jobs)
        texts = {
            e.lease.id: part(row.body, "lease")
            for e, row in zip(events, journal, strict=True)
            if isinstance(e, LeaseGranted)
        }
        self._write_leases(connection, texts, changes.leases)
        self._write_attempts(connection, changes.attempts)

    def _write_jobs(self, connection: sa.Connection, submitted: dict[str, int], records: Sequence[JobRecord]) -> None:
        heads, steps = [], []
        for record in records:
            before = self._written.get(record.job.id)
            if before is None:
                heads.append(rows.job_values(record, submitted.get(record.job.id)))
            elif _HEAD(before) != _HEAD(record):
                # The body is not updated, so it need not be encoded: any text does.
                heads.append(rows.job_values(record, -1))
            for at, step in enumerate(record.steps):
                if before is None or (before.steps[at] is not step and before.steps[at] != step):
                    steps.append(rows.step_values(record.job.id, at, step))
        self._jobs.write(connection, heads)
        self._steps.write(connection, steps)

    def _write_leases(self, connection: sa.Connection, texts: dict[str, str], records: Sequence[LeaseRecord]) -> None:
        """A lease itself never changes: of one that is there only the progress is written."""
        fresh, known = [], []
        for record in records:
            key = record.lease.id
            if key in self._leased:
                known.append((*rows.lease_progress(record), key))
            else:
                fresh.append(rows.lease_values(record, texts.get(key, "")))
        self._leases.write(connection, fresh)
        self._open_leases.write(connection, known)

    def _write_attempts(self, connection: sa.Connection, records: Sequence[AttemptRecord]) -> None:
        """Those of a lease that is there are there too: they were written when it was granted."""
        fresh, known = [], []
        for record in records:
            if record.lease_id in self._leased:
                known.append((*rows.attempt_progress(record), record.id))
            else:
                fresh.append(rows.attempt_values(record))
        self._attempts.write(connection, fresh)
        self._known_attempts.write(connection, known)

    def _remember(self, changes: Changes) -> None:
        for record in changes.jobs:
            if record.state.is_final:
                self._written.pop(record.job.id, None)
            else:
                self._written[record.job.id] = record
        for lease in changes.leases:
            if lease.closed_ms:
                self._leased.discard(lease.lease.id)
            else:
                self._leased.add(lease.lease.id)

    def _seal(self, connection: sa.Connection, journal: Sequence[JournalRow], events: Sequence[Event]) -> None:
        """A record that is there already is left out; with other content it is an error."""
        sealed = [
            rows.usage_values(event.record, row.seq, part(row.body, "record"))
            for event, row in zip(events, journal, strict=True)
            if isinstance(event, UsageSealed)
        ]
        try:
            with connection.begin_nested():
                self._usage.write(connection, sealed)
        except IntegrityError:
            self._usage.write(connection, _unknown(connection, sealed))


def _claim(connection: sa.Connection, epoch: int, changes: Changes) -> tuple[int, bytes]:
    """Check and lock the epoch's row, write the counters; returns the journal's end."""
    values = {
        "held": epoch, "at_ms": changes.at_ms, "next_job": changes.next_job, "next_lease": changes.next_lease,
    }  # fmt: skip
    found = connection.execute(_CLAIM, values).first()
    if found is None:
        raise StaleEpoch(f"another process took the epoch after {epoch}; nothing was written")
    return found.head_seq, found.head_hash


def _unknown(connection: sa.Connection, sealed: Iterable[rows.Values]) -> list[rows.Values]:
    """Those that are not in the table, each once. Raises StoreError for one known with other content."""
    fresh: dict[str, rows.Values] = {}
    for values in sealed:
        _require_same(values[0], fresh.setdefault(values[0], values)[-1], values[-1])
    usage = tables.usage.c
    for known in connection.execute(sa.select(usage.id, usage.body).where(usage.id.in_(list(fresh)))).all():
        _require_same(known.id, known.body, fresh.pop(known.id)[-1])
    return list(fresh.values())


def _require_same(usage_id: str, known: str, given: str) -> None:
    if known != given:
        raise StoreError(f"usage {usage_id} is already sealed with other content; it is never edited")
