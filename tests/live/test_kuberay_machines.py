"""Pods of the stand-in as real processes: a cluster's bridge dials home, and what it runs has its own pod's folders."""

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

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

POOL = Cluster(name="pool-studio", tenant="studio", lane="pool", image="pool:1")
A = Shape(node="a", resource="nvidia.com/gpu", count=1)
B = Shape(node="b")


def create(park, kind, version, body):
    made = {"apiVersion": version, "kind": kind, **body}
    return park.double.verbs.create(Call(kind=park.double.kind_of(made), namespace="park"), made).obj


def test_a_pool_cluster_runs_leases_in_its_pods_and_nothing_outlives_it(tmp_path):
    machines = Machines(library=compile_stub(tmp_path / "nvml"))
    service = OneCluster(cluster=POOL.name)
    site = Site(
        namespace="park",
        gateway=f"127.0.0.1:{service.port}",
        images={"default": "pool:1"},
        head_node_selector={"kubernetes.io/hostname": "heads"},
    )
    reader = Reader(service)
    with KubePark(nodes=[node("a", cards=2), node("b"), node("heads")], runtime=machines) as park:
        try:
            park.kubelets.cards["a"] = ("GPU-a0", "GPU-a1")
            token = manifests.secret(site, POOL, bridge_token="bridge", ray_token="ray" * 10)
            create(park, "Secret", "v1", token)
            body = manifests.ray_cluster(site, POOL, "render")
            body["spec"]["workerGroupSpecs"] = [manifests.group(site, POOL, shape, 1) for shape in (A, B)]
            create(park, "RayCluster", "ray.io/v1", body)
            park.until(
                lambda: park.double.get("rayclusters", POOL.name, "park").get("status", {}).get("state") == "ready"
            )
            (on_a,), (on_b,) = park.pods(group=A.group), park.pods(group=B.group)
            names = [pod["metadata"]["name"] for pod in (on_a, on_b)]
            facts = {
                report.node: report.facts for report in (reader.kind(ReportKind.NODE), reader.kind(ReportKind.NODE))
            }
            assert {name: [d.id for d in facts[name].devices] for name in names} == {names[0]: ["GPU-a0"], names[1]: []}
            order = lease(1, "sh", "-c", "pwd; echo $HOME", node=names[1])
            service.start([order])
            assert reader.end_of(order.lease_id).state is AttemptState.SUCCEEDED
            said = service.read_log(names[1], order.tasks[0].attempt_id, 0, 1_000).text
            assert said.startswith(str(machines.home(on_b["metadata"]["uid"])))
            assert machines.processes("a")
            park.lose_node("a")
            assert not machines.processes("a")
            gone = reader.kind(ReportKind.NODE_GONE)
            assert gone.node == names[0]
        finally:
            print(park.told(), machines.logs())
            service.close()
    assert machines.processes() == set()
    assert not machines.folder.exists()
