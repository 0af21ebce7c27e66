"""Somebody else's Ray cluster, named by its address: its nodes are taken as they are, and left clean."""

import itertools

import psutil
import pytest

from scheduler.model.lease import AttemptState
from scheduler.model.node import Node
from scheduler.model.order import ReportKind
from tests.farm import Reader, gang, lease
from workers import procfs
from workers.ray_head import RayHead
from workers.runtime import RayExecutor, shutdown

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

numbers = itertools.count(1)


class PlainHead(RayHead):
    """A cluster that knows nothing of shisuan: no labels, no card names."""

    def _launch(self, nodes):
        import workers.ray_head as module

        plan = module._node_plan
        module._node_plan = lambda node: plan(node) | {"labels": {}, "resources": {}, "cpus": 4}
        try:
            super()._launch(nodes)
        finally:
            module._node_plan = plan


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    head = PlainHead(
        tmp_path_factory.mktemp("theirs"), [Node(name=name, cpu_milli=1, memory_mib=1) for name in ("one", "two")]
    )
    head.start()
    yield head
    head.remove()


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def reader(cluster, home, monkeypatch):
    for name, value in cluster.environ().items():
        if name.startswith("RAY_AUTH"):
            monkeypatch.setenv(name, value)
    reader = Reader(RayExecutor(home, address=cluster.address))
    reader.kind(ReportKind.RUNTIME_UP)
    yield reader
    reader.executor.close()
    shutdown(home)


def test_nodes_say_themselves_what_they_have(reader):
    facts = {name: reader.kind(ReportKind.NODE, name).facts for name in ("one", "two")}
    assert {name: node.name for name, node in facts.items()} == {"one": "one", "two": "two"}
    assert all(node.cpu_milli >= 1_000 and node.memory_mib > 0 for node in facts.values())


def test_tasks_and_gangs_run_and_their_logs_are_read(reader):
    order = lease(next(numbers), "echo", "hello", node="two")
    reader.executor.start([order])
    assert reader.end_of(order.lease_id).state is AttemptState.SUCCEEDED
    assert reader.executor.read_log("two", order.tasks[0].attempt_id, 0, 100).text == "hello\n"
    orders = gang(next(numbers), ("/bin/true",), nodes=("one", "two"))
    reader.executor.start(orders)
    assert reader.end_of(orders[0].lease_id).state is AttemptState.SUCCEEDED


def test_shutdown_ends_what_runs_there_and_leaves_the_cluster(cluster, home, reader):
    order = lease(next(numbers), "sleep", "1000", node="one")
    reader.executor.start([order])
    reader.start_of(order.lease_id)
    reader.executor.close()
    assert shutdown(home)
    assert procfs.marked(str(home)) == {}
    assert cluster.alive()
    commands = [" ".join(psutil.Process(pid).cmdline()) for pid in cluster.processes()]
    assert not [command for command in commands if "ray::RayAgent" in command]
    assert not shutdown(home)
