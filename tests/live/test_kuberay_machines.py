"""Pods of the stand-in as real processes: a cluster's bridge dials home, and what it runs has its own pod's folders."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from k8s import manifests
from k8s.pods import Cluster
from k8s.shapes import Shape
from k8s.site import Site
from scheduler.model.lease import AttemptState
from scheduler.model.order import ReportKind
from tests.fakes.kube.verbs import Call
from tests.fakes.kuberay.machines import Machines
from tests.fakes.kuberay.park import KubePark, node
from tests.farm import Reader, lease
from tests.nvml_stub.stub import compile_stub
from tests.pods import OneCluster
from workers import procfs

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

POOL = Cluster(name="pool-studio", tenant="studio", lane="pool", image="pool:1")
ON_A = Shape(node="a", resource="nvidia.com/gpu", count=1)
ON_B = Shape(node="b")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A pool cluster with a worker on each of two nodes, its Secret, and the service that its bridge dials."""
    service = OneCluster(cluster=POOL.name)
    machines = Machines(library=compile_stub(tmp_path_factory.mktemp("nvml")))
    told = Site(
        namespace="park",
        gateway=f"127.0.0.1:{service.port}",
        images={"default": "pool:1"},
        head_node_selector={"kubernetes.io/hostname": "heads"},
    )
    with KubePark(nodes=[node("a", cards=2), node("b"), node("heads")], runtime=machines) as park:
        park.kubelets.cards["a"] = ("GPU-a0", "GPU-a1")
        create(park, "Secret", "v1", manifests.secret(told, POOL, bridge_token="bridge", ray_token="ray" * 10))
        body = manifests.ray_cluster(told, POOL, "render")
        body["spec"]["workerGroupSpecs"] = [manifests.group(told, POOL, shape, 1) for shape in (ON_A, ON_B)]
        create(park, "RayCluster", "ray.io/v1", body)
        try:
            park.until(lambda: status(park).get("state") == "ready")
            yield SimpleNamespace(park=park, machines=machines, service=service, reader=Reader(service), told=told)
        finally:
            service.close()
    assert machines.processes() == set()
    assert not machines.folder.exists()


def create(park, kind, version, body):
    made = {"apiVersion": version, "kind": kind, **body}
    return park.double.verbs.create(Call(kind=park.double.kind_of(made), namespace="park"), made).obj


def status(park):
    return park.double.get("rayclusters", POOL.name, "park").get("status", {})


def worker(site, shape):
    (pod,) = site.park.pods(group=shape.group)
    return pod["metadata"]["name"]


def test_a_pod_sees_its_own_cards_and_runs_leases_in_its_own_home(site):
    names = [worker(site, shape) for shape in (ON_A, ON_B)]
    found = {report.node: report.facts for report in (site.reader.kind(ReportKind.NODE) for _ in names)}
    assert {name: [d.id for d in facts.devices] for name, facts in found.items()} == dict(
        zip(names, (["GPU-a0"], []), strict=True)
    )
    order = lease(1, "pwd", node=names[1])
    site.service.start([order])
    assert site.reader.end_of(order.lease_id).state is AttemptState.SUCCEEDED
    (pod,) = site.park.pods(group=ON_B.group)
    said = site.service.read_log(names[1], order.tasks[0].attempt_id, 0, 1_000).text
    assert said.startswith(f"{site.machines.home(pod['metadata']['uid'])}/")
    assert f"{site.machines.folder}/b/" in said


def test_a_container_of_the_head_that_dies_begins_again(site):
    (bridge,) = [pid for pid in site.machines.processes("heads") if "workers.dial" in command(pid)]
    os.kill(bridge, signal.SIGKILL)
    site.reader.kind(ReportKind.RUNTIME_DOWN)
    site.reader.kind(ReportKind.RUNTIME_UP)
    found = {site.reader.kind(ReportKind.NODE).node for _ in range(2)}
    assert found == {worker(site, shape) for shape in (ON_A, ON_B)}
    (head,) = site.park.pods(node_type="head")
    assert {one["name"]: one["restartCount"] for one in head["status"]["containerStatuses"]} == {
        "ray-head": 0,
        "bridge": 1,
    }


def test_a_named_worker_goes_and_says_goodbye_to_ray(site):
    name = worker(site, ON_B)
    groups = [manifests.group(site.told, POOL, ON_A, 1), manifests.group(site.told, POOL, ON_B, 0, [name])]
    call = Call(kind=site.park.double._plural("rayclusters"), namespace="park", name=POOL.name)
    patch = {"spec": {"workerGroupSpecs": groups}}
    site.park.double.verbs.patch(call, "application/merge-patch+json", patch)
    assert site.reader.kind(ReportKind.NODE_GONE).node == name
    site.park.until(lambda: not site.park.pods(group=ON_B.group))
    assert site.machines.processes("b") == set()
    assert list((site.machines.folder / "b").iterdir()) == []


def test_a_lost_node_takes_its_processes_and_its_disk_and_ray_finds_out(site):
    name = worker(site, ON_A)
    order = lease(2, "sleep", "1000", node=name)
    site.service.start([order])
    site.reader.start_of(order.lease_id)
    site.park.until(lambda: procfs.marked(str(site.machines.folder / "a")))
    site.park.lose_node("a")
    assert site.machines.processes("a") == set()
    assert not (site.machines.folder / "a").exists()
    assert site.reader.kind(ReportKind.NODE_GONE).node == name


def command(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
