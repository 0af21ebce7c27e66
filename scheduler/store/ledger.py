"""The ledger's rows: read by the keeper and the faces, written by the keeper, one transaction per batch."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.model.codec import decode
from scheduler.model.errors import StaleEpoch
from scheduler.model.event import MoneyEvent
from scheduler.model.money import COLUMNS, LedgerHead, Posted, StoredTxn, Txn, columns_of
from scheduler.store import tables
from scheduler.store.database import Database
from scheduler.store.upcast import read_event

MOST = 10_000
MONEY_ROWS = sa.text(
    "kind IN (" + ", ".join(f"'{kind}'" for kind in (*tables.TERMS, "UsageSealed", "ChargeReversed")) + ")"
)


class Ledger:
    """The store's ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database
        insert: Any = sqlite.insert if database.is_sqlite else postgresql.insert
        statement = insert(tables.balances)
        self._set_balance = statement.on_conflict_do_update(
            index_elements=["account"], set_={"micro_yuan": statement.excluded.micro_yuan}
        )

    # ── the keeper ───────────────────────────────────────────────────────────────────────────────────────────────

    def ledger_state(self) -> tuple[LedgerHead, dict[str, int], list[tuple[int, MoneyEvent]]]:
        """Where the ledger ends, its balances, and the terms it had read by then: one consistent view."""
        journal, balances = tables.journal, tables.balances
        with self._database.read() as connection:
            head = _head(connection)
            found = connection.execute(sa.select(balances.c.account, balances.c.micro_yuan)).all()
            terms = sa.select(journal).where(tables.TERM_ROWS, journal.c.seq <= head.cursor).order_by(journal.c.seq)
            events = [_event(row) for row in connection.execute(terms)]
        return head, {row.account: row.micro_yuan for row in found}, events

    def money_events(self, after: int, limit: int) -> tuple[list[tuple[int, MoneyEvent]], int]:
        """At most ``limit`` of the ledger's events above journal row ``after``, and up to which row these are all."""
        journal = tables.journal
        wanted = sa.select(journal).where(journal.c.seq > after, MONEY_ROWS).order_by(journal.c.seq).limit(limit)
        with self._database.read() as connection:
            end = connection.execute(sa.select(tables.meta.c.head_seq)).scalar_one()
            found = connection.execute(wanted).all()
        return [_event(row) for row in found], found[-1].seq if len(found) == limit else end

    def booked(self, idems: Collection[str]) -> set[str]:
        """Which of these are in the ledger already."""
        ledger = tables.ledger.c
        with self._database.read() as connection:
            return set(connection.scalars(sa.select(ledger.idem).where(ledger.idem.in_(list(idems)))))

    def post(
        self, epoch: int, before: LedgerHead, after: LedgerHead, posted: Sequence[Posted], balances: Mapping[str, int]
    ) -> None:
        """All of it or nothing. Raises StaleEpoch when another process is the writer, or has written the ledger."""
        meta, head = tables.meta, tables.ledger_head
        with self._database.write() as connection:
            # The lock is shared with nobody who takes the epoch: on PostgreSQL a successor waits for this commit.
            held = connection.scalar(sa.select(meta.c.epoch).where(meta.c.id == 1).with_for_update(read=True))
            if held != epoch:
                raise StaleEpoch(f"another process took the epoch after {epoch}; nothing was written")
            moved = connection.execute(
                sa.update(head)
                .where(head.c.cursor == before.cursor, head.c.seq == before.seq, head.c.hash == before.hash)
                .values(cursor=after.cursor, seq=after.seq, hash=after.hash)
            )
            if moved.rowcount != 1:
                raise StaleEpoch("another process has written the ledger; nothing was written")
            if posted:
                connection.execute(tables.ledger.insert(), [_values(one) for one in posted])
            if balances:
                changed = [{"account": name, "micro_yuan": amount} for name, amount in balances.items()]
                connection.execute(self._set_balance, changed)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def ledger_head(self) -> LedgerHead:
        """Where the ledger ends."""
        with self._database.read() as connection:
            return _head(connection)

    def ledger_balances(self) -> dict[str, int]:
        """Every account's balance, in micro-yuan."""
        with self._database.read() as connection:
            found = connection.execute(sa.select(tables.balances.c.account, tables.balances.c.micro_yuan)).all()
        return {row.account: row.micro_yuan for row in found}

    def txn(self, idem: str) -> Txn | None:
        """The transaction booked for this."""
        ledger = tables.ledger.c
        with self._database.read() as connection:
            body = connection.scalar(sa.select(ledger.body).where(ledger.idem == idem))
        return None if body is None else decode(Txn, json.loads(body))

    def txns(
        self, *, tenant: str = "", job_id: str = "", start_ms: int = 0, end_ms: int = 0, after: int = 0,
        limit: int = MOST,
    ) -> tuple[Txn, ...]:  # fmt: skip
        """Transactions of service in ``[start_ms, end_ms)`` (0: no bound), in the ledger's order; the next page comes
        ``after`` the last one's number.
        """
        ledger = tables.ledger.c
        wanted: list[Any] = [ledger.seq > after]
        wanted += [ledger.tenant == tenant] if tenant else []
        wanted += [ledger.job_id == job_id] if job_id else []
        wanted += [ledger.end_ms > start_ms] if start_ms else []
        wanted += [ledger.start_ms < end_ms] if end_ms else []
        statement = sa.select(ledger.body).where(*wanted).order_by(ledger.seq).limit(min(limit, MOST))
        with self._database.read() as connection:
            return tuple(decode(Txn, json.loads(body)) for body in connection.scalars(statement))

    def charged(self, job_id: str) -> tuple[int, int]:
        """What is booked for a job, in micro-yuan: at list prices, and what its tenant pays of it."""
        ledger = tables.ledger.c
        sums = (sa.func.sum(ledger.gross_micro_yuan), sa.func.sum(ledger.due_micro_yuan))
        with self._database.read() as connection:
            gross, due = connection.execute(sa.select(*sums).where(ledger.job_id == job_id)).one()
        return int(gross or 0), int(due or 0)

    def ledger_rows(self, after: int = 0, limit: int = 2_000) -> list[StoredTxn]:
        """Rows as they stand in the database, for whoever checks them."""
        ledger = tables.ledger
        wanted = sa.select(ledger).where(ledger.c.seq > after).order_by(ledger.c.seq).limit(limit)
        with self._database.read() as connection:
            return [
                StoredTxn(row.seq, row.body, row.prev_hash, row.hash, tuple(getattr(row, name) for name in COLUMNS))
                for row in connection.execute(wanted)
            ]


def _head(connection: sa.Connection) -> LedgerHead:
    row = connection.execute(sa.select(tables.ledger_head)).one()
    return LedgerHead(cursor=row.cursor, seq=row.seq, hash=row.hash)


def _event(row: Any) -> tuple[int, MoneyEvent]:
    event: Any = read_event(row.kind, row.version, json.loads(row.body))
    return row.seq, event


def _values(one: Posted) -> dict[str, Any]:
    row = {"seq": one.txn.seq, "body": one.body, "prev_hash": one.prev_hash, "hash": one.hash}
    return row | dict(zip(COLUMNS, columns_of(one.txn), strict=True))
