"""The dashboard asks only for what the service and the agents really tell."""

import json
import re
from types import SimpleNamespace

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from scheduler.api.metrics import Gauges
from scheduler.control.metrics import Metrics
from scheduler.model.node import Device
from scheduler.model.sample import DeviceProcess, Sample
from scheduler.model.usage import Bucket
from tests.unit.chart.conftest import CHART
from workers.meter import Meter

DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text("utf-8"))
STATUS = {
    "runtime": {"state": "up"},
    "counts": {"jobs": {"running": 1}, "tasks": {"waiting": 1}, "nodes": {"ready": 1}, "cards": {"free": 1}},
    "feed": {"lag": 0, "state": "current", "delivered": 0, "failures": 0},
}
SAMPLE = Sample(
    device="GPU-1", at_ms=0, gpu_percent=1, memory_used_mib=1, encoder_percent=1, decoder_percent=1, power_mw=1,
    energy_mj=1, temperature_c=1, processes=(DeviceProcess(pid=1, memory_mib=1),),
)  # fmt: skip


def told():
    """Names of samples, and labels of each."""
    service = Metrics()
    service.registry.register(Gauges(SimpleNamespace(status=lambda _: STATUS)))
    service.reports.labels("started")
    service.ends.labels("succeeded")
    agent = Meter(lambda: [Device(id="GPU-1", model="T4", memory_mib=1)])
    agent.take([SAMPLE])
    node = CollectorRegistry()
    node.register(agent)
    texts = [generate_latest(registry).decode() for registry in (service.registry, node)]
    return {s.name: set(s.labels) for text in texts for family in parse(text) for s in family.samples}


def queries():
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def test_every_metric_of_the_dashboard_is_exported_with_the_labels_it_is_asked_by():
    exported = told()
    added = {"namespace", "node"}  # by the monitors
    assert len(queries()) > 20
    for expression in queries():
        found = re.findall(r"(shisuan_\w+)\{([^}]*)\}", expression)
        assert found, expression
        for name, matchers in found:
            assert name in exported, f"nobody exports {name}"
            assert set(re.findall(r"(\w+)=", matchers)) <= exported[name] | added, expression
        grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        assert grouped <= set.union(*(exported[name] for name, _ in found)) | added, expression


def test_time_buckets_are_spelled_as_the_engine_does():
    asked = {bucket for expression in queries() for bucket in re.findall(r'bucket="(\w+)"', expression)}
    assert asked
    assert asked <= {bucket.value for bucket in Bucket}


def test_panels_do_not_overlap_and_speak_both_languages():
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert re.search(r"[一-鿿]", panel["title"]), panel["title"]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
