"""Keys that may read figures only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

ROLES = "role IN ('tenant', 'operator', 'figures')"


def upgrade() -> None:
    """One more role. SQLite cannot change a constraint: the table is made anew and takes the old one's place."""
    if op.get_context().dialect.name != "sqlite":
        op.drop_constraint(op.f("ck_api_keys_role"), "api_keys", type_="check")
        op.create_check_constraint(op.f("ck_api_keys_role"), "api_keys", ROLES)
        return
    texts = [sa.Column(name, sa.Text(), nullable=False) for name in ("id", "tenant", "role", "sha256", "label")]
    times = [sa.Column(name, sa.Integer(), nullable=False) for name in ("created_ms", "expires_ms", "revoked_ms")]
    op.create_table(
        "api_keys_new",
        *texts,
        *times,
        sa.CheckConstraint(ROLES, name=op.f("ck_api_keys_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
        sqlite_strict=True,
    )
    op.execute("INSERT INTO api_keys_new SELECT * FROM api_keys")
    op.drop_table("api_keys")
    op.rename_table("api_keys_new", "api_keys")
