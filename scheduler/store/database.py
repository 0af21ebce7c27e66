"""Connections: one that writes, a few that read and never block it, on SQLite or PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from scheduler.model.errors import StoreError
from scheduler.store.checkpoint import Checkpoints

BUSY_TIMEOUT_MS = 10_000
"""How long a SQLite statement waits for another process's transaction before it fails."""
READERS = 8
CACHE_KIB = 64 * 1_024
"""Of the writer's pages. A cycle changes some 2,000 all over the indexes; SQLite's own 2 MiB hold 500 of them, and the
others are written to the log and read again within one transaction."""
IDLE_MS = 60_000
"""PostgreSQL ends most transactions whose program has said nothing for so long: a start that sleeps keeps no other one
waiting for ever (loading Alembic within one takes seconds). It does not hold after a statement of many rows."""
PATIENCE_S = 1.0
"""A successor waits so long for a transaction of the writer before it; an honest one takes milliseconds."""
LOG_PAGES = 16_000
"""Pages in SQLite's write-ahead log (64 MB) from which on a commit copies them into the database itself."""


_END_HOLDERS = sa.text(
    "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN ("
    " SELECT unnest(pg_blocking_pids(pid)) FROM pg_locks WHERE relation = CAST(:name AS regclass) AND mode ="
    " 'RowExclusiveLock') AND pid <> pg_backend_pid()"
)
"""Whoever somebody waits for who is about to write the table."""
log = structlog.get_logger("shisuan.database")


class Database:
    """A writing and a reading engine on one database. Raises StoreError when the URL or the database is unusable."""

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            _make_private(Path(str(self.url.database)).absolute())
        # ponytail: one writer connection; keys wait for a running commit, which takes milliseconds.
        self._writer = _engine(self.url, size=1, reads=False)
        self._reader = _engine(self.url, size=READERS, reads=True)
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="meanwhile")
        self._checkpoints = Checkpoints(Path(str(self.url.database))) if self.is_sqlite else None
        self.dialect = self._writer.dialect

    @contextmanager
    def write(self, meanwhile: Callable[[], object] | None = None) -> Iterator[sa.Connection]:
        """One transaction that may write; committed at the end of the block, rolled back on any exception.

        On SQLite it takes the write lock at once, so it cannot fail half-way because somebody else wrote.
        ``meanwhile`` is called in another thread while this one commits, which may still fail then.
        """
        with translated(), self._writer.begin() as connection:
            yield connection
            if meanwhile is not None:
                self._commit_beside(connection, meanwhile)
        if self._checkpoints is not None:
            self._checkpoints.wake()

    def _commit_beside(self, connection: sa.Connection, meanwhile: Callable[[], object]) -> None:
        """The commit is one call into the library, which lets Python go on in other threads."""
        done = self._aside.submit(meanwhile)
        try:
            connection.commit()
        finally:
            done.result()

    @contextmanager
    def seize(self, table: sa.Table) -> Iterator[sa.Connection]:
        """Like :meth:`write`, for a successor that writes ``table``. On PostgreSQL whoever still holds rows of it after
        :data:`PATIENCE_S` is ended: a writer that sleeps in the middle of a transaction would hold them as long as it
        sleeps.
        """
        if self.is_sqlite:
            with self.write() as connection:
                yield connection
            return
        done = threading.Event()
        ending = threading.Thread(target=self._end_holders, args=(table.name, done), name="seize", daemon=True)
        ending.start()
        try:
            with self.write() as connection:
                yield connection
        finally:
            done.set()
            ending.join()

    def _end_holders(self, table: str, done: threading.Event) -> None:
        while not done.wait(PATIENCE_S):
            with translated(), self._reader.begin() as connection:
                ended = connection.execute(_END_HOLDERS, {"name": table}).all()
            log.warning("writer_ended", sessions=[row.pid for row in ended])

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent view of the database; writing in it is refused."""
        with translated(), self._reader.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        if self._checkpoints is not None:
            self._checkpoints.stop()
        self._aside.shutdown()
        self._writer.dispose()
        self._reader.dispose()


@contextmanager
def translated() -> Iterator[None]:
    """Turn the database library's errors into StoreError, with the database's own words."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise StoreError(f"database: {str(cause).strip()}") from error


def parse_url(text: str) -> URL:
    """The URL of a database that can be used. Raises StoreError; touches nothing."""
    try:
        url = make_url(text)
        backend = url.get_backend_name()
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
    except (ArgumentError, NoSuchModuleError) as error:
        # The text may hold a password: it is not repeated.
        raise StoreError(
            "not a database URL: write sqlite:////path/file or postgresql+psycopg://user@host/name"
        ) from error
    if backend not in ("sqlite", "postgresql"):
        raise StoreError(f"unsupported database {backend!r} (sqlite or postgresql)")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise StoreError("SQLite needs a file: readers and the writer are separate connections")
    return url


def _make_private(path: Path) -> None:
    """An empty file that only its owner reads: it will hold the secret that signs tokens. WAL files get its mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        raise StoreError(f"cannot create the database: {error}") from error


def _engine(url: URL, *, size: int, reads: bool) -> sa.Engine:
    options: dict[str, Any] = {
        "pool_size": size,
        "max_overflow": 0,
        "pool_timeout": 60,
        "pool_reset_on_return": "rollback",
    }
    if url.get_backend_name() == "sqlite":
        # isolation_level None: the driver begins no transactions of its own; the "begin" hook below does.
        engine = sa.create_engine(url, connect_args={"isolation_level": None, "check_same_thread": False}, **options)
        sa.event.listen(engine, "connect", _read_pragmas if reads else _write_pragmas)
        sa.event.listen(engine, "begin", _begin if reads else _begin_immediate)
        return engine
    if reads:
        return sa.create_engine(
            url, isolation_level="REPEATABLE READ", execution_options={"postgresql_readonly": True}, **options
        )
    engine = sa.create_engine(url, isolation_level="READ COMMITTED", **options)
    sa.event.listen(engine, "connect", _bound_idleness)
    return engine


def _bound_idleness(connection: Any, _: ConnectionPoolEntry) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_MS}")
    connection.commit()


def _keep_log(connection: sqlite3.Connection) -> None:
    """A new file gets its write-ahead log. While somebody else writes it, SQLite refuses that at once, whatever its
    time-out says: several processes may open a new database together.
    """
    until = time.monotonic() + BUSY_TIMEOUT_MS / 1_000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _write_pragmas(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    _keep_log(connection)
    for pragma in (
        f"wal_autocheckpoint = {LOG_PAGES}",
        f"cache_size = -{CACHE_KIB}",
        "synchronous = FULL",
        "foreign_keys = ON",
        # Without it INSERT OR REPLACE would delete rows past the triggers that protect them.
        "recursive_triggers = ON",
        "trusted_schema = OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _read_pragmas(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA query_only = ON")


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_immediate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
