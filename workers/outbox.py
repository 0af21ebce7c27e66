"""What an agent has to tell: durable reports from the table, and the newest progress of each running attempt."""

from __future__ import annotations

import threading
import time

from scheduler.model.order import Report
from workers.table import Table

PROGRESS_PAUSE_S = 0.2
"""Progress wakes a waiting reader at most this often, whatever a runner prints."""


class Outbox:
    """Thread-safe. The loop puts in; the reader long-polls."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._news = threading.Condition()
        self._progress: dict[tuple[str, int], Report] = {}
        self._progress_due = 0.0
        self._puts = 0
        self._closed = False

    def put(self) -> None:
        """A durable report was appended to the table."""
        with self._news:
            self._puts += 1
            self._news.notify_all()

    def progress(self, report: Report) -> None:
        """Replace what was not yet told about this attempt."""
        with self._news:
            self._progress[(report.attempt_id, report.rank)] = report
            self._news.notify_all()

    def forget(self, attempt_id: str, rank: int) -> None:
        """The attempt ended: its progress is of no interest any more."""
        with self._news:
            self._progress.pop((attempt_id, rank), None)

    def take(self, after_cursor: str, wait_ms: int, limit: int) -> tuple[Report, ...]:
        """At least one report if there is one within ``wait_ms``: durable ones in order, then progress."""
        until = time.monotonic() + wait_ms / 1_000
        while True:
            with self._news:
                seen, closed = self._puts, self._closed
            reports = self._table.after(after_cursor, limit)
            if reports:
                self._table.sync()
            with self._news:
                now = time.monotonic()
                if self._progress and (reports or now >= self._progress_due):
                    reports += self._take_progress(now)
                if reports or closed or now >= until:
                    return reports
                if self._puts == seen:
                    due = self._progress_due if self._progress else until
                    self._news.wait(max(0.0, min(until, due) - now))

    def close(self) -> None:
        """End every wait."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def _take_progress(self, now: float) -> tuple[Report, ...]:
        taken = tuple(self._progress.values())
        self._progress.clear()
        self._progress_due = now + PROGRESS_PAUSE_S
        return taken
