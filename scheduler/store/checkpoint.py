"""SQLite's write-ahead log is copied into the database file by a thread of its own, so that no commit waits for it.

Left to itself SQLite does it inside every commit after which the log holds 1,000 pages: under load that is each of
them. A checkpoint needs no lock that a writer wants, and is one call into the library, which lets Python go on.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import structlog

log = structlog.get_logger("shisuan.store")
REST_S = 0.5
"""Between two checkpoints: pages written again and again meanwhile are copied once."""


class Checkpoints:
    """Of one SQLite file. The thread starts with the first commit; should it fail, commits do its work again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Something was committed."""
        self._written.set()
        if self._thread is None and not self._stopping.is_set():
            self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread, after the checkpoint it is in. Harmless twice."""
        self._stopping.set()
        self._written.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                while not self._stopping.wait(REST_S):
                    self._written.wait()
                    self._written.clear()
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            log.warning("checkpoints_end", error=str(error))
