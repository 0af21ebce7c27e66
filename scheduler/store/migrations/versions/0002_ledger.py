"""The ledger: chained transactions, balances, how far it has read the journal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TERM_ROWS = sa.text("kind IN ('TenantSet', 'RateCardSet', 'PolicySet', 'VoucherGranted', 'VoucherRevoked')")


def upgrade() -> None:
    """Add three tables and an index; nothing that exists changes."""
    op.create_index(
        "ix_journal_terms", "journal", ["seq"], unique=False, sqlite_where=TERM_ROWS, postgresql_where=TERM_ROWS
    )
    op.create_table(
        "ledger",
        sa.Column("seq", WHOLE, autoincrement=False, nullable=False),
        sa.Column("idem", NAME, nullable=False),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("job_id", NAME, nullable=False),
        sa.Column("start_ms", WHOLE, nullable=False),
        sa.Column("end_ms", WHOLE, nullable=False),
        sa.Column("journal_seq", WHOLE, nullable=False),
        sa.Column("gross_micro_yuan", WHOLE, nullable=False),
        sa.Column("due_micro_yuan", WHOLE, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("prev_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_ledger")),
        sa.UniqueConstraint("idem", name=op.f("uq_ledger_idem")),
        sqlite_strict=True,
    )
    op.create_index("ix_ledger_tenant_start_ms", "ledger", ["tenant", "start_ms"], unique=False)
    op.create_index("ix_ledger_job_id_start_ms", "ledger", ["job_id", "start_ms"], unique=False)
    op.create_table(
        "balances",
        sa.Column("account", NAME, nullable=False),
        sa.Column("micro_yuan", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_balances")),
        sqlite_strict=True,
    )
    head = op.create_table(
        "ledger_head",
        sa.Column("id", WHOLE, autoincrement=False, nullable=False),
        sa.Column("cursor", WHOLE, nullable=False),
        sa.Column("seq", WHOLE, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_ledger_head_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_head")),
        sqlite_strict=True,
    )
    op.bulk_insert(head, [{"id": 1, "cursor": 0, "seq": 0, "hash": bytes(32)}])
    if op.get_context().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER ledger_no_{verb.lower()} BEFORE {verb} ON ledger "
                "BEGIN SELECT RAISE(ABORT, 'ledger is append-only'); END"
            )
    else:
        op.execute(
            "CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger "
            "FOR EACH STATEMENT EXECUTE FUNCTION shisuan_append_only()"
        )
