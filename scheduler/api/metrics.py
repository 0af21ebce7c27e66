"""``/metrics``: the control plane's counters, and gauges read from the engine at scrape time."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.api.doors import Authorization, Doors, Open, known
from scheduler.control.access import Caller, require_figures
from scheduler.control.operations import Operations
from scheduler.model.key import Role

router = APIRouter()
EVERYTHING = Caller(tenant="", role=Role.OPERATOR)


class Gauges(Collector):
    """How much there is of everything, now. Labels have few values: states and buckets, never names."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus-client for each scrape."""
        status = self._operations.status(EVERYTHING)
        up = 1 if status["runtime"]["state"] == "up" else 0
        yield GaugeMetricFamily("shisuan_runtime_up", "1 while workers can be reached", value=up)
        yield _by("shisuan_jobs", "Jobs by state", "state", status["counts"]["jobs"])
        yield _by("shisuan_tasks", "Tasks of unfinished jobs by state", "state", status["counts"]["tasks"])
        yield _by("shisuan_nodes", "Nodes by state", "state", status["counts"]["nodes"])
        if feed := status["feed"]:
            yield GaugeMetricFamily("shisuan_feed_lag_rows", "Outbox rows the receiver lacks", value=feed["lag"])
            up = 1 if feed["state"] in ("current", "sending") else 0
            yield GaugeMetricFamily("shisuan_feed_up", "1 while the receiver takes the feed", value=up)
            yield CounterMetricFamily("shisuan_feed_rows", "Outbox rows delivered", value=feed["delivered"])
            yield CounterMetricFamily("shisuan_feed_failures", "Exchanges that failed", value=feed["failures"])
        yield _by("shisuan_cards", "Cards and MIG instances by time bucket", "bucket", status["counts"]["cards"])


def _by(name: str, text: str, label: str, counts: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def register(open_doors: Doors) -> None:
    """Add the gauges to the service's registry."""
    open_doors.cycle.metrics.registry.register(Gauges(open_doors.operations))


@router.get("/metrics", include_in_schema=False)
@router.get("/v1/metrics", tags=["park"], summary="Prometheus metrics", response_class=Response)
def metrics(request: Request, open_doors: Open, authorization: Authorization = "") -> Response:
    """Needs no key from this machine itself; from elsewhere one for figures, or an operator's."""
    if not _is_loopback(request):
        require_figures(known(open_doors, authorization, figures=True))
    return Response(generate_latest(open_doors.cycle.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _is_loopback(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
