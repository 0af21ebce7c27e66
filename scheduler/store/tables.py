"""The schema, once, for SQLite and PostgreSQL. ``migrations/`` builds it; a test proves that both agree.

Rules: integers only, no floats (SQLite tables are STRICT, so a float or a text in a number's place is refused);
instants are Unix ms with 0 for "not yet". A table's ``body`` is the record's canonical JSON, so a new field with a
default needs no migration; other columns repeat what is searched for, or hold it alone. Free text from users and
runners stands only in JSON, because it may hold what a database's text may not (NUL, lone surrogates from file names).
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    column,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import TEXT
from sqlalchemy.types import TypeDecorator, TypeEngine

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Whole = BigInteger().with_variant(Integer(), "sqlite")
"""A signed 64-bit integer on both databases."""


def to_json(value: Any) -> str:
    """Canonical JSON that any database's text column takes: only what UTF-8 cannot hold is escaped."""
    return storable(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def storable(text: str) -> str:
    """Canonical JSON, all of it escaped when it holds what UTF-8 cannot."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, as os.fsdecode makes from a file name that is not UTF-8
        return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    return text


def plain(value: str) -> str:
    """Text to search and sort by: what no database's text can hold becomes U+FFFD."""
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


class Json(TypeDecorator[Any]):
    """A JSON value (a string, a list) in a text column; loses nothing of any Python string."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: D102 (SQLAlchemy's hook)
        return None if value is None else to_json(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: D102 (likewise)
        return None if value is None else json.loads(value)


class Plain(TypeDecorator[str]):
    """Text to search and sort by, byte by byte on both databases.

    What no database's text can hold becomes U+FFFD, when written as when looked for.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:  # noqa: D102 (SQLAlchemy's hook)
        return TEXT(collation="C") if dialect.name == "postgresql" else Text()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: D102 (SQLAlchemy's hook)
        return None if value is None else plain(value)


def _table(name: str, *parts: Any) -> Table:
    return Table(name, metadata, *parts, sqlite_strict=True)


def _whole(name: str, **options: Any) -> Column[int]:
    return Column(name, Whole, nullable=False, **options)


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, Plain, nullable=False, **options)


def _body(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _json(name: str, **options: Any) -> Column[Any]:
    return Column(name, Json, nullable=False, **options)


meta = _table(
    "meta",
    _whole("id", primary_key=True, autoincrement=False),
    _whole("epoch"),
    _text("owner"),
    _whole("at_ms"),
    _whole("next_job"),
    _whole("next_lease"),
    _whole("head_seq"),
    Column("head_hash", LargeBinary, nullable=False),
    Column("token_secret", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)
"""One row: the writer's epoch, the engine's counters, the journal's end, the secret that signs attempt tokens."""

journal = _table(
    "journal",
    _whole("seq", primary_key=True, autoincrement=False),
    _whole("at_ms"),
    _text("kind"),
    _whole("version"),
    _body("body"),
    Column("prev_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)
"""Append-only. ``seq`` has no gaps; ``hash`` covers the row and ``prev_hash``, so that any change shows."""

queues = _table("queues", _text("name", primary_key=True), _body("body"))
queue_uses = _table("queue_uses", _text("name", primary_key=True), _body("body"))
reservations = _table("reservations", _text("name", primary_key=True), _body("body"))
tenants = _table("tenants", _text("name", primary_key=True), _body("body"))
nodes = _table("nodes", _text("name", primary_key=True), _body("body"))

jobs = _table(
    "jobs",
    _text("id", primary_key=True),
    _whole("number"),
    _text("tenant"),
    _text("queue"),
    _text("kind"),
    _json("request_id"),
    _whole("submitted_ms"),
    Column("submitted_seq", Whole, nullable=True),
    _body("job"),
    _text("state"),
    _whole("finished_ms"),
    _body("body"),
    UniqueConstraint("number"),
    Index("uq_jobs_tenant_request_id", "tenant", "request_id", unique=True,
          sqlite_where=text("request_id <> '\"\"'"), postgresql_where=text("request_id <> '\"\"'")),
    Index("ix_jobs_tenant_state_number", "tenant", "state", "number"),
    Index("ix_jobs_state_number", "state", "number"),
)  # fmt: skip
"""``job`` is the job as submitted; it is empty where journal row ``submitted_seq`` (JobSubmitted) carries it, so that a
job file of megabytes is kept once. ``body`` is the JobRecord without its job and steps: it is small."""

steps = _table(
    "steps",
    _text("job_id", primary_key=True),
    _whole("position", primary_key=True, autoincrement=False),
    _body("body"),
)
"""Progress of one step. Index sets are ranges, so 100,000 waiting tasks cost a few bytes."""

leases = _table(
    "leases",
    _text("id", primary_key=True),
    _whole("number"),
    _text("job_id"),
    _text("step"),
    _text("tenant"),
    _whole("granted_ms"),
    _whole("closed_ms"),
    _body("lease"),
    _body("body"),
    UniqueConstraint("number"),
    Index("ix_leases_job_id_number", "job_id", "number"),
    Index("ix_leases_granted_ms", "granted_ms"),
    Index("ix_leases_open", "number", sqlite_where=text("closed_ms = 0"), postgresql_where=text("closed_ms = 0")),
)
"""Who holds what from when to when; ``closed_ms`` is 0 while open. ``body`` is the LeaseRecord without ``lease``."""

attempts = _table(
    "attempts",
    _text("id", primary_key=True),
    _text("lease_id"),
    _text("job_id"),
    _text("step"),
    _whole("task_index"),
    _whole("number"),
    _text("state"),
    _whole("started_ms"),
    _whole("finished_ms"),
    _body("body"),
    UniqueConstraint("job_id", "step", "task_index", "number"),
    Index("ix_attempts_lease_id", "lease_id"),
)
"""``body`` is the AttemptRecord without what the other columns hold; until 2026-11-28 it was written whole."""

usage = _table(
    "usage",
    _text("id", primary_key=True),
    _whole("seq"),
    _text("lease_id"),
    _text("job_id"),
    _text("tenant"),
    _text("bucket"),
    _whole("start_ms"),
    _whole("end_ms"),
    _body("body"),
    CheckConstraint("start_ms <= end_ms", name="interval"),
    UniqueConstraint("seq"),
    Index("ix_usage_job_id_seq", "job_id", "seq"),
    Index("ix_usage_tenant_end_ms", "tenant", "end_ms"),
    Index("ix_usage_end_ms", "end_ms"),
)
"""Append-only. ``seq`` is the journal row that sealed it."""

outbox = table("outbox", column("seq"), column("kind"), column("version"), column("body"))
"""A view: what the park's ledger is told, in order. ``seq`` is the journal row that sealed a usage record."""

api_keys = _table(
    "api_keys",
    _text("id", primary_key=True),
    _text("tenant"),
    _text("role"),
    _text("sha256"),
    _json("label"),
    _whole("created_ms"),
    _whole("expires_ms"),
    _whole("revoked_ms"),
    UniqueConstraint("sha256"),
    CheckConstraint("role IN ('tenant', 'operator', 'figures')", name="role"),
)
"""Never journaled: a key is a credential, not a fact of the park."""

TERMS = ("TenantSet", "RateCardSet", "PolicySet", "VoucherGranted", "VoucherRevoked")
"""Kinds of journal rows that the ledger's terms come from. They are few, so an index of their own finds them."""
TERM_ROWS = text("(" + " OR ".join(f"kind = '{kind}'" for kind in TERMS) + ")")
"""Spelled with its values, because only then a database sees that the partial index fits; and not with IN, for which
SQLite makes a table of the values with every row of the journal."""
Index("ix_journal_terms", journal.c.seq, sqlite_where=TERM_ROWS, postgresql_where=TERM_ROWS)

ledger = _table(
    "ledger",
    _whole("seq", primary_key=True, autoincrement=False),
    _text("idem"),
    _text("kind"),
    _text("tenant"),
    _text("job_id"),
    _whole("start_ms"),
    _whole("end_ms"),
    _whole("journal_seq"),
    _whole("gross_micro_yuan"),
    _whole("due_micro_yuan"),
    _body("body"),
    Column("prev_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    UniqueConstraint("idem"),
    Index("ix_ledger_tenant_start_ms", "tenant", "start_ms"),
    Index("ix_ledger_job_id_start_ms", "job_id", "start_ms"),
)
"""Append-only. ``seq`` has no gaps; ``hash`` is SHA-256 over ``prev_hash`` and ``body``: entries, lines and all."""

balances = _table("balances", _text("account", primary_key=True), _whole("micro_yuan"))
"""Sum of each account's entries."""

ledger_head = _table(
    "ledger_head",
    _whole("id", primary_key=True, autoincrement=False),
    _whole("cursor"),
    _whole("seq"),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)
"""One row: the last journal row that was read, and where the ledger ends."""

APPEND_ONLY = ("journal", "usage", "ledger")
"""Tables whose rows triggers protect from UPDATE and DELETE on both databases."""
