"""The outbox becomes a view of the journal; usage is found by when it ended, where rows come one after the other."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Of each usage record the outbox held the journal's row once more. An index by the start of what ends now is
    written all over: leases end in another order than they began in.
    """
    op.drop_table("outbox")
    op.execute(
        "CREATE VIEW outbox AS SELECT usage.seq, journal.kind, journal.version, journal.body"
        " FROM usage JOIN journal ON journal.seq = usage.seq"
    )
    if op.get_context().dialect.name == "postgresql":
        # A service of before goes on until its successor is there: what it writes here is in the journal already.
        op.execute("CREATE RULE outbox_is_read AS ON INSERT TO outbox DO INSTEAD NOTHING")
    for columns in (["job_id", "start_ms"], ["tenant", "start_ms"], ["start_ms"]):
        op.drop_index(f"ix_usage_{'_'.join(columns)}", "usage")
    for columns in (["job_id", "seq"], ["tenant", "end_ms"], ["end_ms"]):
        op.create_index(f"ix_usage_{'_'.join(columns)}", "usage", columns, unique=False)
