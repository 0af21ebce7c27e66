"""The index of the ledger's terms, with a condition that costs a row nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TERM_ROWS = sa.text(
    "(kind = 'TenantSet' OR kind = 'RateCardSet' OR kind = 'PolicySet'"
    " OR kind = 'VoucherGranted' OR kind = 'VoucherRevoked')"
)


def upgrade() -> None:
    """For ``kind IN (…)`` SQLite makes a table of the five kinds for each row that comes: as long as the row itself."""
    op.drop_index("ix_journal_terms", "journal")
    op.create_index(
        "ix_journal_terms", "journal", ["seq"], unique=False, sqlite_where=TERM_ROWS, postgresql_where=TERM_ROWS
    )
