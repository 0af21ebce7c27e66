"""Building and migrating the schema: online when a store is opened, or as a script for a database administrator."""

from __future__ import annotations

import io
import secrets
from pathlib import Path

import sqlalchemy as sa

from scheduler.model.errors import StoreError
from scheduler.store.chain import GENESIS
from scheduler.store.database import Database, parse_url, translated
from scheduler.store.tables import meta

HEAD = "0006"
"""The newest revision in ``migrations/versions``; a test keeps it true. Comparing with it saves loading Alembic."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_POSTGRES_LOCK = 0x5348_4953_5541_4E
"""Advisory lock held while one process migrates; others wait."""


def prepare(database: Database) -> None:
    """Bring the schema to :data:`HEAD` and create the one row of ``meta``.

    Raises StoreError when the database was written by a newer shisuan.
    """
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_POSTGRES_LOCK)))
        if _revision(connection) != HEAD:
            _upgrade(connection)
        if connection.execute(sa.select(meta.c.id)).first() is None:
            connection.execute(meta.insert().values(
                id=1, epoch=0, owner="", at_ms=0, next_job=1, next_lease=1, head_seq=0, head_hash=GENESIS,
                token_secret=secrets.token_bytes(32),
            ))  # fmt: skip


def migrate(url: str) -> str:
    """Migrate the database at ``url`` while no service runs on it. Returns the revision it is at now."""
    database = Database(url)
    try:
        prepare(database)
    finally:
        database.close()
    return HEAD


def migration_sql(url: str) -> str:
    """The statements that build the schema from nothing, for ``url``'s kind of database, without touching it."""
    from alembic import command
    from alembic.config import Config

    out = io.StringIO()
    config = Config(output_buffer=out)
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["url"] = parse_url(url)
    command.upgrade(config, "head", sql=True)
    return out.getvalue()


def _revision(connection: sa.Connection) -> str:
    if not sa.inspect(connection).has_table("alembic_version"):
        return ""
    found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found or ""


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        with translated():
            command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(
            f"another shisuan wrote this database: its schema is {_revision(connection)!r}, this one knows {HEAD!r}"
        ) from error
