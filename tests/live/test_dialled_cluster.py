"""A Ray cluster of pods whose bridge dials home: what runs there minds neither the service's end nor the bridge's."""

import itertools
import os
import signal
from dataclasses import replace

import pytest

from scheduler.model.errors import NotFound
from scheduler.model.lease import AttemptState
from scheduler.model.node import Node
from scheduler.model.order import ReportKind
from tests.farm import NODES, Reader, gang, lease
from tests.nvml_stub.stub import compile_stub, h100
from tests.pods import TOKEN, Bridge, OneCluster, Pods, runs, wait_for
from workers import procfs

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

numbers = itertools.count(1)
epochs = itertools.count(1)


def environ_with_a_card(folder):
    """For a pod that sees one H100."""
    scenario = folder / "scenario.txt"
    scenario.write_text("driver 580.65.06\n" + h100(3) + "\n")
    return {"LD_LIBRARY_PATH": str(compile_stub(folder / "nvml")), "SHISUAN_NVML_SCENARIO": str(scenario)}


@pytest.fixture(scope="module")
def pods(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pods")
    pods = Pods(folder, NODES, {"beta": environ_with_a_card(folder)})
    pods.start()
    yield pods
    pods.remove()
    assert pods.processes() == set()


class Site:
    """The cluster's one bridge, and the service that is there now."""

    def __init__(self, pods) -> None:
        self.pods = pods
        self.service = OneCluster(epoch=next(epochs))
        self.bridge = Bridge(pods, self.service.port)
        self.reader = Reader(self.service)

    def replace(self, epoch=None, **more):
        """The service goes, another one comes at the same place."""
        self.service.close()
        self.service = OneCluster(epoch=epoch or next(epochs), port=self.service.port, **more)
        self.reader = Reader(self.service)
        return self.reader

    def runner(self, order, node=None):
        """Pids of the order's runner in the home of its own pod."""
        home = self.pods.home_of(node or order.node)
        return [pid for pid, work in procfs.marked(str(home)).items() if order.tasks[0].attempt_id in work]

    def running(self, node="alpha"):
        order = lease(next(numbers), "sleep", "1000", node=node)
        self.service.start([order])
        self.reader.start_of(order.lease_id)
        return order, wait_for(lambda: self.runner(order))

    def finish(self, order):
        self.service.stop([order.lease_id], "the test is over")
        end = self.reader.end_of(order.lease_id)
        self.reader.acknowledge_all()
        return end

    def close(self):
        self.bridge.close()
        self.service.close()


@pytest.fixture(scope="module")
def shared(pods):
    site = Site(pods)
    for node in NODES:
        site.reader.kind(ReportKind.NODE, node.name)
    yield site
    site.close()


@pytest.fixture
def site(shared):
    yield shared
    shared.reader.acknowledge_all()


def test_pods_say_themselves_what_they_have_and_the_head_gets_no_work(site):
    reader = site.replace()
    facts = {node.name: reader.kind(ReportKind.NODE, node.name).facts for node in NODES}
    assert all(node.cpu_milli >= 1_000 and node.scratch_mib > 0 for node in facts.values())
    order, _ = site.running("beta")  # by now a head would have been told of
    site.finish(order)
    assert not [r for r in reader.heard if r.node == "head"]
    assert [(device.id, device.model) for device in facts["beta"].devices] == [("GPU-00000003", "H100-SXM-80GB")]
    assert facts["alpha"].devices == ()


def test_a_task_runs_in_its_pods_own_home_and_its_log_is_read(site):
    order = lease(next(numbers), "echo", "hello", node="beta")
    site.service.start([order])
    assert site.reader.end_of(order.lease_id).state is AttemptState.SUCCEEDED
    assert site.service.read_log("beta", order.tasks[0].attempt_id, 0, 100).text == "hello\n"
    with pytest.raises(NotFound):
        site.service.read_log("alpha", order.tasks[0].attempt_id, 0, 100)
    assert list((site.pods.home_of("beta") / "nodes").iterdir()) == [site.pods.home_of("beta") / "nodes" / "beta"]
    assert not (site.pods.home_of("head") / "nodes").exists()


def test_a_gang_runs_in_two_pods_that_share_no_home(site):
    orders = gang(next(numbers), ("sleep", "1000"))
    site.service.start(orders)
    site.reader.start_of(orders[0].lease_id)
    pids = [wait_for(lambda order=order: site.runner(order)) for order in orders]
    assert set(pids[0]).isdisjoint(pids[1])
    assert site.finish(orders[0]).state is AttemptState.CANCELLED
    assert (site.pods.home_of("head") / "gangs").exists()


def test_a_service_with_a_higher_epoch_takes_over_and_nothing_starts_twice(site):
    order, pids = site.running()
    done = lease(next(numbers), "/bin/true")
    site.service.start([done])
    ended = site.reader.end_of(done.lease_id)
    reader = site.replace()
    reader.kind(ReportKind.RUNTIME_UP)
    assert reader.heard == reader.heard[-1:], "nothing comes before it"
    inventory = reader.kind(ReportKind.INVENTORY, "alpha")
    assert {order.lease_id, done.lease_id} <= set(inventory.leases)
    assert reader.of(done.lease_id, ReportKind.FINISHED) == [ended], "told before the inventory"
    site.service.start([order, done])
    after = lease(next(numbers), "/bin/true")
    site.service.start([after])
    reader.end_of(after.lease_id)
    assert site.runner(order) == pids
    assert len(reader.of(order.lease_id, ReportKind.STARTED)) == len(reader.of(done.lease_id, ReportKind.STARTED)) == 1
    assert site.finish(order).state is AttemptState.CANCELLED


def test_what_ends_while_no_service_is_there_is_told_to_the_next(site):
    order, pids = site.running()
    site.service.close()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    reader = site.replace()
    assert reader.end_of(order.lease_id).state in {AttemptState.FAILED, AttemptState.LOST}


def test_what_a_dead_agent_left_in_its_pod_is_told_to_the_next_service(site):
    order, _ = site.running("beta")
    site.service.close()
    agents = site.pods.agents("beta")
    assert agents
    for pid in agents:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not site.pods.agents("beta"))
    reader = site.replace()
    assert reader.end_of(order.lease_id).state is AttemptState.LOST
    assert reader.of(order.lease_id, ReportKind.STARTED) != []


def test_pods_come_and_go(site):
    gamma = Node(name="gamma", cpu_milli=2_000, memory_mib=2_048)
    site.pods._launch([gamma])
    site.reader.kind(ReportKind.NODE, "gamma")
    order, _ = site.running("gamma")
    os.kill(site.pods._raylets["gamma"].pid, signal.SIGKILL)
    site.reader.kind(ReportKind.NODE_GONE, "gamma")
    assert site.reader.of(order.lease_id, ReportKind.FINISHED) == [], "whose leases these were is the service's to say"


def test_the_bridge_of_a_job_ends_with_its_gang(pods, tmp_path):
    service = OneCluster(cluster="job")
    more = ("--until-over", "--pods", "2", "--wait-s", "60")
    bridge = Bridge(pods, service.port, cluster="job", home=tmp_path / "job", more=more)
    reader = Reader(service)
    orders = [replace(order, tenant="t2") for order in gang(next(numbers), ("/bin/true",))]
    reader.kind(ReportKind.RUNTIME_UP)
    service.start(orders)
    assert reader.end_of(orders[0].lease_id).state is AttemptState.SUCCEEDED
    assert bridge.process.poll() is None
    reader.acknowledge_all()
    assert bridge.process.wait(30) == 0
    service.close()


def test_a_service_of_a_lower_epoch_is_not_obeyed(site):
    seen = int((site.bridge.home / "epoch_seen").read_text())
    site.service.close()
    with_old = OneCluster(epoch=seen - 1, port=site.service.port)
    site.service = with_old
    wait_for(lambda: with_old.gateway and f"epoch {seen - 1} of this service is over" in site.bridge.said())
    assert with_old.hellos == [], "it was not even asked"
    assert with_old.poll(0) == ()
    site.replace(epoch=seen).kind(ReportKind.RUNTIME_UP)


def test_a_wrong_token_is_refused_and_no_log_shows_it(pods, tmp_path, caplog):
    service = OneCluster(admit=lambda hello: "" if hello.token == "right" else "the token is not this cluster's")
    bridge = Bridge(pods, service.port, home=tmp_path / "other")
    wait_for(lambda: "it refuses: the token is not this cluster's" in bridge.said())
    assert "'c1'" in caplog.text
    assert TOKEN not in caplog.text + bridge.said()
    assert service.poll(0) == ()
    bridge.close()
    service.close()


def test_a_killed_driver_is_replaced_and_the_task_runs_on(site):
    order, pids = site.running()
    for child in psutil_children(site.bridge.process.pid):
        os.kill(child, signal.SIGKILL)
    site.reader.kind(ReportKind.RUNTIME_DOWN)
    site.reader.kind(ReportKind.RUNTIME_UP)
    assert order.lease_id in site.reader.kind(ReportKind.INVENTORY, "alpha").leases
    assert site.runner(order) == pids
    site.finish(order)


def test_a_driver_that_is_stuck_is_found_out_by_the_beats(site):
    reader = site.replace(beat_ms=100, silent_ms=2_000)
    reader.kind(ReportKind.RUNTIME_UP)
    stuck = psutil_children(site.bridge.process.pid)
    for child in stuck:
        os.kill(child, signal.SIGSTOP)
    assert "nothing came" in reader.kind(ReportKind.RUNTIME_DOWN).message
    reader.kind(ReportKind.RUNTIME_UP)
    assert not [child for child in stuck if runs(child)]
    site.replace().kind(ReportKind.RUNTIME_UP)


def psutil_children(pid):
    import psutil

    return [child.pid for child in psutil.Process(pid).children() if "ray_bridge" in " ".join(child.cmdline())]
