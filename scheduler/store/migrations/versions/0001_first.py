"""The first schema: journal, projections, usage, outbox, keys; triggers keep the append-only tables so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
APPEND_ONLY = ("journal", "usage", "outbox")


def upgrade() -> None:
    """Build everything from nothing."""
    create_truth()
    create_inventory()
    create_jobs()
    create_runs()
    create_usage()
    if op.get_context().dialect.name == "sqlite":
        protect_on_sqlite()
    else:
        protect_on_postgresql()


def protect_on_sqlite() -> None:
    """Refuse UPDATE and DELETE row by row."""
    for table in APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )


def protect_on_postgresql() -> None:
    """Refuse UPDATE, DELETE and TRUNCATE by statement, even where no row matches."""
    op.execute(
        "CREATE FUNCTION shisuan_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION shisuan_append_only()"
        )


def create_truth() -> None:
    """The writer's row, the journal, the outbox."""
    op.create_table(
        "meta",
        sa.Column("id", WHOLE, autoincrement=False, nullable=False),
        sa.Column("epoch", WHOLE, nullable=False),
        sa.Column("owner", NAME, nullable=False),
        sa.Column("at_ms", WHOLE, nullable=False),
        sa.Column("next_job", WHOLE, nullable=False),
        sa.Column("next_lease", WHOLE, nullable=False),
        sa.Column("head_seq", WHOLE, nullable=False),
        sa.Column("head_hash", sa.LargeBinary(), nullable=False),
        sa.Column("token_secret", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_meta_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_meta")),
        sqlite_strict=True,
    )
    op.create_table(
        "journal",
        sa.Column("seq", WHOLE, autoincrement=False, nullable=False),
        sa.Column("at_ms", WHOLE, nullable=False),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("version", WHOLE, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("prev_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_journal")),
        sqlite_strict=True,
    )
    op.create_table(
        "outbox",
        sa.Column("seq", WHOLE, autoincrement=False, nullable=False),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("version", WHOLE, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        sqlite_strict=True,
    )


def create_inventory() -> None:
    """Queues, tenants, nodes and keys."""
    op.create_table(
        "queues",
        sa.Column("name", NAME, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_queues")),
        sqlite_strict=True,
    )
    op.create_table(
        "tenants",
        sa.Column("name", NAME, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tenants")),
        sqlite_strict=True,
    )
    op.create_table(
        "nodes",
        sa.Column("name", NAME, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_nodes")),
        sqlite_strict=True,
    )
    op.create_table(
        "api_keys",
        sa.Column("id", NAME, nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("role", NAME, nullable=False),
        sa.Column("sha256", NAME, nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("created_ms", WHOLE, nullable=False),
        sa.Column("expires_ms", WHOLE, nullable=False),
        sa.Column("revoked_ms", WHOLE, nullable=False),
        sa.CheckConstraint("role IN ('tenant', 'operator')", name=op.f("ck_api_keys_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
        sqlite_strict=True,
    )


def create_jobs() -> None:
    """Jobs and the progress of their steps."""
    op.create_table(
        "jobs",
        sa.Column("id", NAME, nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("queue", NAME, nullable=False),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("submitted_ms", WHOLE, nullable=False),
        sa.Column("submitted_seq", WHOLE, nullable=True),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("state", NAME, nullable=False),
        sa.Column("finished_ms", WHOLE, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("number", name=op.f("uq_jobs_number")),
        sqlite_strict=True,
    )
    op.create_index("ix_jobs_state_number", "jobs", ["state", "number"], unique=False)
    op.create_index("ix_jobs_tenant_state_number", "jobs", ["tenant", "state", "number"], unique=False)
    op.create_index(
        "uq_jobs_tenant_request_id",
        "jobs",
        ["tenant", "request_id"],
        unique=True,
        sqlite_where=sa.text("request_id <> '\"\"'"),
        postgresql_where=sa.text("request_id <> '\"\"'"),
    )
    op.create_table(
        "steps",
        sa.Column("job_id", NAME, nullable=False),
        sa.Column("position", WHOLE, autoincrement=False, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "position", name=op.f("pk_steps")),
        sqlite_strict=True,
    )


def create_runs() -> None:
    """Leases and attempts."""
    op.create_table(
        "leases",
        sa.Column("id", NAME, nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("job_id", NAME, nullable=False),
        sa.Column("step", NAME, nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("granted_ms", WHOLE, nullable=False),
        sa.Column("closed_ms", WHOLE, nullable=False),
        sa.Column("lease", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
        sa.UniqueConstraint("number", name=op.f("uq_leases_number")),
        sqlite_strict=True,
    )
    op.create_index("ix_leases_granted_ms", "leases", ["granted_ms"], unique=False)
    op.create_index("ix_leases_job_id_number", "leases", ["job_id", "number"], unique=False)
    op.create_index(
        "ix_leases_open",
        "leases",
        ["number"],
        unique=False,
        sqlite_where=sa.text("closed_ms = 0"),
        postgresql_where=sa.text("closed_ms = 0"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", NAME, nullable=False),
        sa.Column("lease_id", NAME, nullable=False),
        sa.Column("job_id", NAME, nullable=False),
        sa.Column("step", NAME, nullable=False),
        sa.Column("task_index", WHOLE, nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("state", NAME, nullable=False),
        sa.Column("started_ms", WHOLE, nullable=False),
        sa.Column("finished_ms", WHOLE, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint(
            "job_id", "step", "task_index", "number", name=op.f("uq_attempts_job_id_step_task_index_number")
        ),
        sqlite_strict=True,
    )
    op.create_index("ix_attempts_lease_id", "attempts", ["lease_id"], unique=False)


def create_usage() -> None:
    """Sealed usage."""
    op.create_table(
        "usage",
        sa.Column("id", NAME, nullable=False),
        sa.Column("seq", WHOLE, nullable=False),
        sa.Column("lease_id", NAME, nullable=False),
        sa.Column("job_id", NAME, nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("bucket", NAME, nullable=False),
        sa.Column("start_ms", WHOLE, nullable=False),
        sa.Column("end_ms", WHOLE, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.CheckConstraint("start_ms <= end_ms", name=op.f("ck_usage_interval")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage")),
        sa.UniqueConstraint("seq", name=op.f("uq_usage_seq")),
        sqlite_strict=True,
    )
    op.create_index("ix_usage_job_id_start_ms", "usage", ["job_id", "start_ms"], unique=False)
    op.create_index("ix_usage_start_ms", "usage", ["start_ms"], unique=False)
    op.create_index("ix_usage_tenant_start_ms", "usage", ["tenant", "start_ms"], unique=False)
