"""What the engine starts from, and what people ask for. Every read is one consistent view and blocks no writer."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import sqlalchemy as sa

from scheduler.model.errors import InvalidInput, NotFound, Problem, StoreError
from scheduler.model.event import Event
from scheduler.model.feed import OutboxRow
from scheduler.model.job import JobRecord, JobState
from scheduler.model.lease import AttemptRecord, LeaseRecord
from scheduler.model.node import Node
from scheduler.model.queue import Queue, QueueUse, Reservation, Tenant
from scheduler.model.snapshot import Snapshot
from scheduler.model.usage import UsageRecord
from scheduler.store import rows, tables
from scheduler.store.chain import GENESIS, link
from scheduler.store.database import Database
from scheduler.store.upcast import read_event

JOURNAL_PAGE = 2_000
"""Rows per statement while the journal is read to its end, so that memory stays small."""
ROWS_PARSED = 1_000
"""Rows whose JSON is parsed together."""
MOST = 10_000
"""No list is longer than this; ask again from its end."""


class Reads:
    """The reading half of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> Snapshot:
        """All jobs, open leases and their attempts, in the engine's order. Raises StoreError on a damaged row."""
        with self._database.read() as connection:
            meta = connection.execute(sa.select(tables.meta)).one()
            return Snapshot(
                at_ms=meta.at_ms,
                next_job=meta.next_job,
                next_lease=meta.next_lease,
                queues=_named(connection, tables.queues, Queue),
                uses=_named(connection, tables.queue_uses, QueueUse),
                reservations=_named(connection, tables.reservations, Reservation),
                tenants=_named(connection, tables.tenants, Tenant),
                nodes=_named(connection, tables.nodes, Node),
                jobs=_job_records(connection, _all_jobs().order_by(tables.jobs.c.number)),
                leases=_leases(connection, tables.leases.c.closed_ms == 0),
                attempts=_open_attempts(connection),
            )

    def job(self, job_id: str) -> JobRecord:
        """One job with its steps. Raises NotFound."""
        with self._database.read() as connection:
            found = _job_records(connection, _all_jobs().where(tables.jobs.c.id == job_id))
        if not found:
            raise NotFound(f"no job {job_id!r}")
        return found[0]

    def jobs(
        self, *, tenant: str = "", states: Sequence[JobState] = (), before: str = "", limit: int = 100
    ) -> tuple[JobRecord, ...]:
        """Newest first, ``limit`` at a time; the page after this one starts ``before`` its last job's id."""
        jobs = tables.jobs.c
        statement = _all_jobs().order_by(jobs.number.desc()).limit(min(limit, MOST))
        if tenant:
            statement = statement.where(jobs.tenant == tenant)
        if states:
            statement = statement.where(jobs.state.in_([s.value for s in states]))
        if before:
            statement = statement.where(jobs.number < _place("before", before))
        with self._database.read() as connection:
            return _job_records(connection, statement)

    def job_of_request(self, tenant: str, request_id: str) -> str:
        """Id of the job that this tenant's request made, or "" when there is none."""
        jobs = tables.jobs.c
        wanted = sa.select(jobs.id).where(jobs.tenant == tenant, jobs.request_id == request_id)
        with self._database.read() as connection:
            found: str | None = connection.scalar(wanted) if request_id else None
        return found or ""

    def leases(
        self, *, job_id: str = "", tenant: str = "", start_ms: int = 0, end_ms: int = 0, after: str = "",
        limit: int = MOST,
    ) -> tuple[LeaseRecord, ...]:  # fmt: skip
        """Open and closed ones, by number, that held something in ``[start_ms, end_ms)`` (0: no bound)."""
        leases = tables.leases.c
        wanted: list[Any] = [leases.job_id == job_id] if job_id else []
        wanted += [leases.tenant == tenant] if tenant else []
        wanted += [sa.or_(leases.closed_ms == 0, leases.closed_ms > start_ms)] if start_ms else []
        wanted += [leases.granted_ms < end_ms] if end_ms else []
        wanted += [leases.number > _place("after", after)] if after else []
        with self._database.read() as connection:
            return _leases(connection, sa.and_(sa.true(), *wanted), limit)

    def attempts(
        self, job_id: str, *, step: str = "", after: tuple[str, int, int] | None = None, limit: int = MOST
    ) -> tuple[AttemptRecord, ...]:
        """A job's attempts by step, index and number; ``after`` is that triple of the page's last one."""
        attempts = tables.attempts.c
        place = (attempts.step, attempts.task_index, attempts.number)
        statement = sa.select(tables.attempts).where(attempts.job_id == job_id).order_by(*place).limit(min(limit, MOST))
        if step:
            statement = statement.where(attempts.step == step)
        if after:
            statement = statement.where(sa.tuple_(*place) > sa.tuple_(*[sa.literal(part) for part in after]))
        with self._database.read() as connection:
            return tuple(rows.attempt_records(connection.execute(statement).all()))

    def latest_attempts(self, job_id: str, limit: int = 20) -> tuple[AttemptRecord, ...]:
        """A job's attempts that ended last, then those that have not ended."""
        attempts = tables.attempts.c
        is_over = sa.case((attempts.finished_ms == 0, 0), else_=1)
        newest = (is_over, attempts.finished_ms.desc(), attempts.started_ms.desc(), attempts.id.desc())
        mine = sa.select(tables.attempts).where(attempts.job_id == job_id)
        statement = mine.order_by(*newest).limit(min(limit, MOST))
        with self._database.read() as connection:
            found = connection.execute(statement).all()
        return tuple(rows.attempt_records(found[::-1]))

    def attempt(self, attempt_id: str) -> AttemptRecord:
        """One attempt. Raises NotFound."""
        wanted = sa.select(tables.attempts).where(tables.attempts.c.id == attempt_id)
        with self._database.read() as connection:
            found = connection.execute(wanted).first()
        if found is None:
            raise NotFound(f"no attempt {attempt_id!r}")
        return rows.attempt_records([found])[0]

    def usage(
        self, *, job_id: str = "", tenant: str = "", start_ms: int = 0, end_ms: int = 0, after: str = "",
        limit: int = MOST,
    ) -> tuple[UsageRecord, ...]:  # fmt: skip
        """Records that touch ``[start_ms, end_ms)`` (0: no bound), in the order they were sealed.

        ``after``: only what was sealed after the record of this id; nothing when there is no such record.
        """
        usage = tables.usage.c
        wanted: list[Any] = [usage.job_id == job_id] if job_id else []
        wanted += [usage.tenant == tenant] if tenant else []
        wanted += [usage.end_ms > start_ms] if start_ms else []
        wanted += [usage.start_ms < end_ms] if end_ms else []
        wanted += [usage.seq > sa.select(usage.seq).where(usage.id == after).scalar_subquery()] if after else []
        statement = sa.select(tables.usage).where(*wanted).order_by(usage.seq).limit(min(limit, MOST))
        with self._database.read() as connection:
            return tuple(rows.record_of(UsageRecord, row) for row in connection.execute(statement))

    def journal(self, after: int = 0) -> Iterator[tuple[int, Event]]:
        """Every event with a number above ``after``, lifted to today's version. Raises StoreError on a damaged row."""
        while True:
            # A view per page: a reader who stops half-way holds nothing open.
            with self._database.read() as connection:
                page = _journal_page(connection, after)
            if not page:
                return
            yield from map(_event, page)
            after = page[-1].seq

    def journal_tail(self, limit: int = 100) -> tuple[tuple[int, Event], ...]:
        """The newest events, oldest of them first."""
        newest = sa.select(tables.journal).order_by(tables.journal.c.seq.desc()).limit(min(limit, MOST))
        with self._database.read() as connection:
            found = connection.execute(newest).all()
        return tuple(map(_event, reversed(found)))

    def verify(self) -> int:
        """Walk the whole chain; returns the number of events.

        Raises StoreError naming the first row that was changed, removed or put in, or an end that is missing.
        """
        seq, last = 0, GENESIS
        with self._database.read() as connection:
            while page := _journal_page(connection, seq):
                for row in page:
                    seq, last = _step(row, seq, last)
            end = connection.execute(sa.select(tables.meta.c.head_seq, tables.meta.c.head_hash)).one()
        if (end.head_seq, end.head_hash) != (seq, last):
            raise StoreError(f"the journal ends at row {seq}; the row written last was {end.head_seq}")
        return seq

    def outbox(self, after: int = 0, limit: int = 1_000) -> tuple[tuple[int, Event], ...]:
        """What the park's ledger has not read yet: ``(number, event)`` above ``after``, in order."""
        return tuple(map(_event, self._outbox(after, limit)))

    def outbox_rows(self, after: int, limit: int) -> tuple[OutboxRow, ...]:
        """At most ``limit`` rows above ``after`` as they were recorded; ``after`` is the number of a row, or 0."""
        found = self._outbox(after, limit)
        before = (after, *(row.seq for row in found))
        return tuple(
            OutboxRow(seq=row.seq, prev=prev, kind=row.kind, version=row.version, body=row.body)
            for row, prev in zip(found, before, strict=False)
        )

    def _outbox(self, after: int, limit: int) -> Sequence[rows.Row]:
        seq = tables.outbox.c.seq
        wanted = sa.select(tables.outbox).where(seq > after).order_by(seq).limit(min(limit, MOST))
        with self._database.read() as connection:
            return connection.execute(wanted).all()

    def outbox_holds(self, seq: int) -> bool:
        """There is an outbox row of this number."""
        wanted = sa.select(tables.usage.c.seq).where(tables.usage.c.seq == seq)
        with self._database.read() as connection:
            return connection.scalar(wanted) is not None

    def outbox_backlog(self, after: int) -> int:
        """How many outbox rows lie above ``after``."""
        wanted = sa.select(sa.func.count()).select_from(tables.usage).where(tables.usage.c.seq > after)
        with self._database.read() as connection:
            found: int = connection.execute(wanted).scalar_one()
        return found


def _place(name: str, record_id: str) -> int:
    if not record_id[1:].isdecimal():
        raise InvalidInput([Problem(name, f"not the id of the last one seen: {record_id!r}")])
    return rows.number_of(record_id)


def _journal_page(connection: sa.Connection, after: int) -> Sequence[rows.Row]:
    journal = tables.journal
    page = sa.select(journal).where(journal.c.seq > after).order_by(journal.c.seq).limit(JOURNAL_PAGE)
    return connection.execute(page).all()


def _step(row: rows.Row, seq: int, last: bytes) -> tuple[int, bytes]:
    if row.seq != seq + 1:
        raise StoreError(f"the journal has no row {seq + 1}")
    own = link(seq=row.seq, at_ms=row.at_ms, kind=row.kind, version=row.version, body=row.body, prev_hash=last)
    if (row.prev_hash, row.hash) != (last, own):
        raise StoreError(f"journal row {row.seq} ({row.kind}) was changed after it was written")
    return row.seq, own


def _event(row: rows.Row) -> tuple[int, Event]:
    return row.seq, read_event(row.kind, row.version, json.loads(row.body))


def _all_jobs() -> sa.Select[Any]:
    journal = tables.journal.c
    return sa.select(
        tables.jobs,
        journal.kind.label("event_kind"),
        journal.version.label("event_version"),
        journal.body.label("event_body"),
    ).outerjoin(tables.journal, journal.seq == tables.jobs.c.submitted_seq)


def _job_records(connection: sa.Connection, statement: sa.Select[Any]) -> tuple[JobRecord, ...]:
    heads = connection.execute(statement).all()
    wanted = statement.with_only_columns(tables.jobs.c.id).order_by(None)
    if statement._limit_clause is not None:  # a page: name its jobs instead of ordering twice
        wanted = sa.select(tables.jobs.c.id).where(tables.jobs.c.id.in_([head.id for head in heads]))
    steps: dict[str, list[Any]] = defaultdict(list)
    found = sa.select(tables.steps).where(tables.steps.c.job_id.in_(wanted)).order_by(tables.steps.c.position)
    for row in connection.execute(found):
        steps[row.job_id].append(json.loads(row.body))
    return tuple(rows.job_record(head, steps[head.id]) for head in heads)


def _leases(connection: sa.Connection, wanted: Any, limit: int | None = None) -> tuple[LeaseRecord, ...]:
    leases = tables.leases.c
    statement = sa.select(leases.lease, leases.body).where(wanted).order_by(leases.number).limit(limit)
    pages = connection.execute(statement).partitions(ROWS_PARSED)
    return tuple(chain.from_iterable(map(rows.lease_records, pages)))


def _open_attempts(connection: sa.Connection) -> tuple[AttemptRecord, ...]:
    leases, attempts = tables.leases, tables.attempts
    statement = sa.select(attempts).join(leases, leases.c.id == attempts.c.lease_id).where(leases.c.closed_ms == 0)
    in_order = statement.order_by(leases.c.number, attempts.c.task_index, attempts.c.number)
    pages = connection.execute(in_order).partitions(ROWS_PARSED)
    return tuple(chain.from_iterable(map(rows.attempt_records, pages)))


def _named(connection: sa.Connection, table: sa.Table, cls: type[Any]) -> tuple[Any, ...]:
    found = [rows.record_of(cls, row) for row in connection.execute(sa.select(table))]
    return tuple(sorted(found, key=lambda record: record.name))
