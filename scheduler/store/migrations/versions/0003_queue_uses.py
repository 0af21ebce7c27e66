"""What queues have used, and reservations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add two tables; nothing that exists changes."""
    for table in ("queue_uses", "reservations"):
        op.create_table(
            table,
            sa.Column("name", NAME, nullable=False),
            sa.Column("body", sa.Text(), nullable=False),
            sa.PrimaryKeyConstraint("name", name=op.f(f"pk_{table}")),
            sqlite_strict=True,
        )
