"""The whole way: objects change in the API server, reports come out, the observer makes facts of them."""

import threading

import pytest

from k8s.inventory import Inventory
from k8s.mapping import Cards
from scheduler.model.node import NodeState
from scheduler.model.order import ReportKind
from tests.fakes.kube.faults import Fault
from tests.unit.k8s.raw import claim, gpu, node, pod, resource_slice


class Desk:
    """Where reports arrive."""

    def __init__(self):
        self.reports, self.calls = [], 0
        self._came = threading.Condition()

    def __call__(self, reports):
        with self._came:
            self.reports += reports
            self.calls += 1
            self._came.notify_all()

    def take(self, count=1):
        """The next reports, which are all there are."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.reports) >= count, 30), self.reports
            taken, self.reports[:] = list(self.reports), []
            assert len(taken) == count, taken
            return taken


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def inventory(api, desk):
    inventory = Inventory(api, desk, now_ms=lambda: 7)
    yield inventory
    inventory.close()
    assert not inventory.is_alive


def external(report):
    return [d.id for d in report.facts.devices if d.health == "external"]


def test_everything_is_told_once_and_together(double, inventory, desk):
    for name in ("n2", "n1"):
        double.put(node(name))
    double.put(node("theirs", labels={}) | {"metadata": {"name": "theirs"}})
    double.put(pod("x", on="n1", cards=1))
    inventory.start()
    first, second = desk.take(2)
    assert (first.node, second.node, desk.calls) == ("n1", "n2", 1)
    assert (first.kind, first.at_ms, external(first)) == (ReportKind.NODE, 7, ["slot:n1:nvidia.com/gpu:7"])
    assert [n.name for n in inventory.nodes()] == ["n1", "n2"]
    assert inventory.is_alive
    assert inventory.problem == ""


def test_changes_are_told_and_what_changes_nothing_is_not(double, inventory, desk):
    double.put(node())
    inventory.start()
    desk.take()
    heard = node()
    heard["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-11-26T00:00:00Z"
    double.put(heard)
    double.put(pod("theirs", cards=2))
    assert len(external(desk.take()[0])) == 2
    double.remove("pods", "theirs", "default")
    assert not external(desk.take()[0])
    double.put(node(unschedulable=True))
    assert desk.take()[0].facts.state is NodeState.UNREADY
    double.put(node(cards=4))
    assert len(desk.take()[0].facts.devices) == 4


def test_a_pod_that_ends_gives_its_card_back(double, inventory, desk):
    double.put(node())
    double.put(pod("theirs", cards=2))
    inventory.start()
    desk.take()
    double.put(pod("theirs", cards=2, phase="Succeeded"))
    assert not external(desk.take()[0])


def test_a_node_dies_and_returns(double, inventory, desk):
    double.put(node())
    inventory.start()
    desk.take()
    double.put(node(ready="Unknown", message="silence"))
    gone = desk.take()[0]
    assert (gone.kind, gone.node, gone.message) == (ReportKind.NODE_GONE, "n1", "its kubelet does not answer: silence")
    assert not inventory.nodes()
    double.put(node(cards=6))
    assert len(desk.take()[0].facts.devices) == 6
    double.remove("nodes", "n1")
    assert "was deleted" in desk.take()[0].message


def test_claims_find_their_node_through_slices(double, inventory, desk):
    double.put(node())
    double.put(resource_slice(devices=[gpu("gpu-0", "GPU-0"), gpu("gpu-1", "GPU-1")]))
    inventory.start()
    assert [d.id for d in desk.take()[0].facts.devices] == ["GPU-0", "GPU-1"]
    double.put(claim("theirs", devices=["gpu-1"]))
    assert external(desk.take()[0]) == ["GPU-1"]
    double.remove("resourceclaims", "theirs", "default")
    assert not external(desk.take()[0])


def test_who_wants_plugins_only_asks_for_no_devices(double, desk, api):
    double.put(node())
    double.put(resource_slice(devices=[gpu("gpu-0", "GPU-0")]))
    inventory = Inventory(api, desk, now_ms=lambda: 0, cards=Cards.PLUGIN)
    inventory.start()
    assert len(desk.take()[0].facts.devices) == 8
    inventory.close()
    assert not [seen for seen in double.seen if seen.group == "resource.k8s.io"]


def test_after_lost_history_nothing_is_told_twice(double, inventory, desk):
    for number in range(20):
        double.put(node(f"n{number:02}"))
    inventory.start()
    desk.take(20)
    double.faults.add(Fault(verbs=("watch",), status=500), times=3)
    double.cut_watches()
    double.compact()
    double.put(node("n07", cards=1))
    assert [r.node for r in desk.take()] == ["n07"]


def test_a_server_without_dynamic_allocation_is_enough(double, inventory, desk):
    for key in [key for key in double.verbs.kinds if key[0] == "resource.k8s.io"]:
        del double.verbs.kinds[key]
    double.put(node())
    inventory.start()
    assert len(desk.take()[0].facts.devices) == 8
