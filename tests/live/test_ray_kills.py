"""Real Ray on this machine: kill its processes one after the other; everything returns, nothing is told wrongly."""

import itertools
import os
import signal
import time

import psutil
import pytest

from scheduler.model.lease import AttemptState
from scheduler.model.order import ReportKind
from tests.farm import NODES, Reader, gang, lease
from workers import procfs
from workers.ray_head import RayHead
from workers.runtime import RayExecutor, shutdown

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

numbers = itertools.count(1)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("ray-kills")
    yield home
    shutdown(home)
    assert RayHead(home).processes() == set()
    assert procfs.marked(str(home)) == {}


@pytest.fixture(scope="module")
def executor(home):
    executor = RayExecutor(home, nodes=NODES)
    Reader(executor).kind(ReportKind.RUNTIME_UP)
    yield executor
    executor.close()


@pytest.fixture
def reader(executor):
    """A reader of a runtime that is up and busy with nothing."""
    reader = Reader(executor)
    for node in NODES:
        probe = lease(next(numbers), "/bin/true", node=node.name)
        executor.start([probe])  # dropped when the runtime is not up yet
        try:
            reader.end_of(probe.lease_id, deadline_s=5)
        except AssertionError:
            executor.start([probe])
            reader.end_of(probe.lease_id)
    reader.acknowledge_all()
    reader.heard.clear()
    return reader


def running(home, reader, node="alpha"):
    """A lease that runs until it is stopped."""
    order = lease(next(numbers), "sleep", "1000", node=node)
    reader.executor.start([order])
    reader.start_of(order.lease_id)
    wait_for(lambda: runner(home, order))
    return order


def wait_for(condition, deadline_s=20):
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return value


def runner(home, order):
    """Pids of the lease's runner."""
    return [pid for pid, work in procfs.marked(str(home)).items() if order.tasks[0].attempt_id in work]


def kill(pids):
    pids = list(pids)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def named(home, text):
    """Processes of this home's Ray, or its bridge, with ``text`` in their command line."""
    found = RayHead(home).processes() | {p.pid for p in psutil.process_iter() if _is_bridge(p, home)}
    return [pid for pid in found if text in _command(pid)]


def _is_bridge(process, home):
    command = _command(process.pid)
    return "workers.ray_bridge" in command and str(home) in command


def _command(pid):
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def finish(reader, order):
    """Stop what still runs and take its end."""
    reader.executor.stop([order.lease_id], "the test is over")
    end = reader.end_of(order.lease_id)
    reader.acknowledge_all()
    return end


def test_a_killed_bridge_is_replaced_and_the_task_runs_on(home, reader):
    order = running(home, reader)
    pids = runner(home, order)
    kill(named(home, "workers.ray_bridge"))
    reader.kind(ReportKind.RUNTIME_DOWN)
    reader.kind(ReportKind.RUNTIME_UP)
    assert order.lease_id in reader.kind(ReportKind.INVENTORY, "alpha").leases
    assert runner(home, order) == pids
    assert len(named(home, "workers.ray_bridge")) == 1
    assert finish(reader, order).state is AttemptState.CANCELLED


def test_a_killed_agent_is_replaced_and_its_tasks_are_lost(home, reader):
    order = running(home, reader)
    kill(named(home, "ray::RayAgent"))
    end = reader.end_of(order.lease_id)
    assert end.state is AttemptState.LOST
    assert order.lease_id in reader.kind(ReportKind.INVENTORY, "alpha").leases
    reader.acknowledge_all()
    assert runner(home, order) == []
    assert not [r for r in reader.heard if r.kind is ReportKind.RUNTIME_DOWN]


@pytest.mark.parametrize("part", ["gcs_server", "--head"])
def test_a_killed_head_is_replaced_and_its_tasks_are_lost(home, reader, part):
    order = running(home, reader)
    kill(named(home, part))
    reader.kind(ReportKind.RUNTIME_DOWN)
    reader.kind(ReportKind.RUNTIME_UP)
    assert reader.end_of(order.lease_id).state is AttemptState.LOST
    reader.acknowledge_all()
    assert runner(home, order) == []
    assert len(named(home, "gcs_server")) == 1


def test_a_killed_node_is_replaced_and_its_tasks_are_lost(home, reader):
    order, other = running(home, reader, "beta"), running(home, reader, "alpha")
    kill(pid for pid in named(home, "raylet/raylet") if "--head" not in _command(pid))
    assert reader.end_of(order.lease_id).state is AttemptState.LOST
    assert runner(home, order) == []
    assert runner(home, other)
    assert not [r for r in reader.heard if r.kind is ReportKind.RUNTIME_DOWN]
    finish(reader, other)


def test_bridge_and_agent_killed_at_once(home, reader):
    order = running(home, reader)
    kill(named(home, "workers.ray_bridge") + named(home, "ray::RayAgent"))
    assert reader.end_of(order.lease_id).state is AttemptState.LOST
    reader.acknowledge_all()
    assert runner(home, order) == []


def test_an_acknowledged_end_is_not_told_again(home, reader):
    order = lease(next(numbers), "/bin/true")
    reader.executor.start([order])
    reader.end_of(order.lease_id)
    reader.acknowledge_all()
    settled = lease(next(numbers), "/bin/true")
    reader.executor.start([settled])
    reader.end_of(settled.lease_id)
    reader.acknowledge_all()
    reader.heard.clear()
    kill(named(home, "ray::RayAgent"))
    inventory = reader.kind(ReportKind.INVENTORY, "alpha")
    assert order.lease_id not in inventory.leases
    assert reader.of(order.lease_id, ReportKind.FINISHED) == []


def test_a_gang_survives_the_bridge_and_is_told_once_as_one(home, reader):
    orders = gang(next(numbers), ("sleep", "1000"))
    reader.executor.start(orders)
    started = reader.start_of(orders[0].lease_id)
    kill(named(home, "workers.ray_bridge"))
    reader.kind(ReportKind.RUNTIME_UP)
    again = reader.start_of(orders[0].lease_id)
    assert (again.attempt_id, again.cursor) == (started.attempt_id, started.cursor)
    assert finish(reader, orders[0]).state is AttemptState.CANCELLED
    assert len(reader.of(orders[0].lease_id, ReportKind.FINISHED)) == 1


def test_a_gang_loses_a_rank_and_ends_as_a_whole(home, reader):
    orders = gang(next(numbers), ("sleep", "1000"))
    reader.executor.start(orders)
    reader.start_of(orders[0].lease_id)
    kill(wait_for(lambda: runner(home, orders[0]))[:1])
    end = reader.end_of(orders[0].lease_id)
    assert end.state in (AttemptState.FAILED, AttemptState.LOST)
    reader.acknowledge_all()
    assert runner(home, orders[0]) == []


def test_a_second_service_finds_what_runs(home, executor, reader):
    order = running(home, reader)
    pids = runner(home, order)
    second = Reader(RayExecutor(home, nodes=NODES))  # as after kill -9 of the first: nobody said good-bye
    try:
        second.kind(ReportKind.RUNTIME_UP)
        assert second.start_of(order.lease_id).attempt_id == order.tasks[0].attempt_id
        assert order.lease_id in second.kind(ReportKind.INVENTORY, "alpha").leases
        assert runner(home, order) == pids
        assert finish(second, order).state is AttemptState.CANCELLED
    finally:
        second.executor.close()
