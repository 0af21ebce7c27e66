"""What Prometheus may ask: few series, no job names in labels."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from scheduler.model.event import AttemptFinished, Event
from scheduler.model.order import Report


class Metrics:
    """Counters of one service. The gauges are read at scrape time (``scheduler/api/metrics.py``)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.cycle_seconds = Histogram(
            "shisuan_cycle_seconds",
            "Time of one scheduling cycle, without the wait for something to do",
            registry=self.registry,
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        )
        self.commit_seconds = Histogram(
            "shisuan_commit_seconds",
            "Time of one database transaction",
            registry=self.registry,
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        )
        self.events = Counter("shisuan_events", "Facts recorded", registry=self.registry)
        self.starts = Counter("shisuan_starts", "Leases ordered from workers", registry=self.registry)
        self.reports = Counter("shisuan_reports", "Messages from workers", ["kind"], registry=self.registry)
        self.ends = Counter("shisuan_attempt_ends", "Attempts that ended", ["state"], registry=self.registry)

    def count_reports(self, reports: Sequence[Report]) -> None:
        """Messages of one cycle; a look-up per kind, not per message."""
        for kind, count in Tally(report.kind for report in reports).items():
            self.reports.labels(kind.value).inc(count)

    def count_events(self, events: Sequence[Event]) -> None:
        """Facts of one transaction."""
        self.events.inc(len(events))
        for state, count in Tally(e.state for e in events if isinstance(e, AttemptFinished)).items():
            self.ends.labels(state.value).inc(count)
