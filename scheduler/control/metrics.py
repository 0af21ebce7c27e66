"""What Prometheus may ask: few series, no job names in labels."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram


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
