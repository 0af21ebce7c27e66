"""What an agent has to tell: durable reports from the table, and the newest progress of each running attempt."""

from __future__ import annotations

import math
import threading
import time

from scheduler.model.order import Report
from workers.table import Table

PROGRESS_PAUSE_S = 0.2
"""Progress wakes a waiting reader at most this often, whatever a runner prints."""

GATHER_S = 0.05
"""A report nobody waits for is held this long for others to join it: each hand-over costs three processes a round trip,
and a lease of sixty 5 ms tasks would otherwise make a hundred of them.
"""


class Outbox:
    """Thread-safe. The loop puts in; the reader long-polls."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._news = threading.Condition()
        self._progress: dict[tuple[str, int], Report] = {}
        self._progress_due = 0.0
        self._puts = 0
        self._due = math.inf
        """When the reports that were not handed over yet should be; infinite when all were."""
        self._closed = False

    def put(self, *, urgent: bool) -> None:
        """A durable report was appended to the table. ``urgent``: resources wait for it."""
        with self._news:
            self._puts += 1
            self._due = min(self._due, time.monotonic() + (0 if urgent else GATHER_S))
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
                seen, closed, due = self._puts, self._closed, self._due
            now = time.monotonic()
            # A reader that has just come, or comes back for what it was given before, takes what is there.
            gathering = bool(after_cursor) and now < due < math.inf and now < until and not closed
            reports = () if gathering else self._table.after(after_cursor, limit)
            if reports:
                self._table.sync()
            with self._news:
                if not gathering and self._puts == seen and len(reports) < limit:
                    self._due = math.inf  # also when the reader had them all: a past due would keep this loop awake
                if self._progress and (reports or now >= self._progress_due):
                    reports += self._take_progress(now)
                if reports or closed or now >= until:
                    return reports
                if self._puts == seen:
                    progress_due = self._progress_due if self._progress else math.inf
                    self._news.wait(max(0.0, min(until, self._due, progress_due) - now))

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
