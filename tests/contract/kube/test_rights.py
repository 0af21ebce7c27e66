"""The product on a real API server with the rights that the chart gives it, and no others."""

import hashlib
import itertools
import time

import pytest
import yaml

from k8s.actions import (
    Adopt,
    Assign,
    DeleteCluster,
    DeleteJob,
    MakeCluster,
    MakeJob,
    Relabel,
    Release,
    SetGroups,
    Unsuspend,
)
from k8s.api import Api
from k8s.backoff import Backoff
from k8s.book import Entry
from k8s.door import from_kubeconfig
from k8s.errors import NotAllowed, Stale
from k8s.inventory import Inventory
from k8s.lanes import Held
from k8s.leader import Elector, Timing
from k8s.names import DEVICES, LANE, LEASE, MANAGED
from k8s.pods import Cluster
from k8s.resource import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    LEASES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    RAY_CLUSTERS,
    RAY_JOBS,
    SECRETS,
    Resource,
)
from k8s.seen import GroupSeen, cluster_seen, job_seen, pod_seen
from k8s.shapes import Shape
from k8s.writes import Writer
from scheduler import mig_file
from scheduler.control.lanes import MigConfigMapConfig
from scheduler.model.errors import InvalidInput
from scheduler.model.node import Lane, NodeState
from scheduler.model.order import ReportKind
from tests.contract.kube.objects import lease as lease_object
from tests.contract.kube.objects import pod
from tests.fakes.kuberay import objects as kuberay
from tests.farm import lease
from tests.kube_executor import SITE, paper_node
from tests.unit.chart.conftest import Helm

RBAC = {"group": "rbac.authorization.k8s.io"}
ACCOUNTS = Resource(plural="serviceaccounts", kind="ServiceAccount")
RIGHTS = {
    "ServiceAccount": ACCOUNTS,
    "Role": Resource(**RBAC, plural="roles", kind="Role"),
    "RoleBinding": Resource(**RBAC, plural="rolebindings", kind="RoleBinding"),
    "ClusterRole": Resource(**RBAC, plural="clusterroles", kind="ClusterRole", namespaced=False),
    "ClusterRoleBinding": Resource(**RBAC, plural="clusterrolebindings", kind="ClusterRoleBinding", namespaced=False),
}
PARK, OPERATOR = "park", "gpu-operator"
MIG = (
    f"lanes.enabled=true,lanes.images.default=a,lanes.settings.mig_config_map.namespace={OPERATOR},"
    "lanes.settings.mig_config_map.use={half}"
)
FILE = "{version: v1, mig-configs: {half: [{devices: all, mig-enabled: true, mig-devices: {3g.40gb: 2}}]}}"
TOKEN = Resource(plural="serviceaccounts/shisuan/token", kind="TokenRequest")
pytestmark = pytest.mark.timeout(200)
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def config(site, shared_api, tmp_path_factory):
    """A kubeconfig with a token of the account that the chart makes, and the chart's roles bound to it."""
    if site.double is not None:
        pytest.skip("the double asks nobody for rights")
    if not shared_api.serves(RIGHTS["Role"]):
        pytest.skip("this API server has no roles")
    folder = tmp_path_factory.mktemp("rights")
    for namespace in (PARK, OPERATOR):
        shared_api.create(NAMESPACES, {"metadata": {"name": namespace}})
    for thing in Helm(folder).objects("--set", "rbac.parts={inventory,leader,lanes}", "--set", MIG):
        resource = RIGHTS.get(thing["kind"])
        if resource is not None:
            where = thing["metadata"].get("namespace", PARK) if resource.namespaced else ""
            shared_api.create(resource, thing, where)
    asked = {"apiVersion": "authentication.k8s.io/v1", "spec": {"expirationSeconds": 3600}}
    told = yaml.safe_load(site.kubeconfig.read_text("utf-8"))
    told["users"][0]["user"] = {"token": shared_api.create(TOKEN, asked, PARK)["status"]["token"]}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(told), encoding="utf-8")
    return path


@pytest.fixture
def ours(config):
    """What the service's account may do, and no more."""
    api = Api(from_kubeconfig(str(config)), backoff=Backoff(first_s=0.05, tries=3))
    yield api
    api.close()


@pytest.fixture
def writer(ours):
    return Writer(ours, SITE, lambda text: hashlib.sha256(text.encode()).hexdigest())


@pytest.fixture
def at_rest(api):
    """A node, and a cluster and a shape for it."""
    name = f"rest-{next(numbers)}"
    join(api, paper_node(name, cpu="64", memory="64Gi", cards=2))
    cluster = Cluster(name=f"pool-{name}", tenant="t1", lane="pool", image="pool:1")
    yield name, cluster, Shape(node=name, resource="nvidia.com/gpu", count=1, cpu_milli=1_000, memory_mib=512)
    api.delete(NODES, name)
    for kind in (PODS, SECRETS, NETWORK_POLICIES):  # no garbage collector runs
        for left in next(api.pages(kind, PARK)).items:
            api.delete(kind, left["metadata"]["name"], PARK, grace_s=0)


def join(api, node):
    """As a kubelet does: the server taints new nodes, and takes a status apart only."""
    api.create(NODES, {k: v for k, v in node.items() if k != "status"})
    name = node["metadata"]["name"]
    api.merge(NODES, name, {"spec": {"taints": node["spec"].get("taints")}})
    api.merge(NODES, name, {"status": node["status"]}, subresource="status")


def until(condition, deadline_s=60):
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return found


def test_the_account_may_lead(ours):
    elector = Elector(ours, PARK, "leader", "me", timing=Timing())
    assert elector.attempt(), elector.problem
    assert elector.attempt()
    elector.release()
    assert ours.get(LEASES, "leader", PARK)["spec"]["holderIdentity"] == ""


def test_the_account_may_read_the_configurations_of_the_mig_manager(ours, api):
    told = MigConfigMapConfig(namespace=OPERATOR, use=["half"])
    with pytest.raises(InvalidInput, match="there is no ConfigMap gpu-operator/default-mig-parted-config"):
        mig_file.read(ours, told)
    api.create(CONFIG_MAPS, {"metadata": {"name": told.name}, "data": {told.key: FILE}}, OPERATOR)
    assert mig_file.read(ours, told)["half"][0].mig_devices == {"3g.40gb": 2}
    with pytest.raises(InvalidInput, match=r"the service may not read ConfigMap park/.*cannot get resource"):
        mig_file.read(ours, told.model_copy(update={"namespace": PARK}))


@pytest.mark.parametrize(
    "ask",
    {
        "read another ConfigMap there": lambda api: api.get(CONFIG_MAPS, "other", OPERATOR),
        "list ConfigMaps there": lambda api: list(api.pages(CONFIG_MAPS, OPERATOR)),
        "read a ConfigMap here": lambda api: api.get(CONFIG_MAPS, "default-mig-parted-config", PARK),
        "read a secret": lambda api: api.get(SECRETS, "any", PARK),
        "list secrets": lambda api: list(api.pages(SECRETS, PARK)),
        "make a pod": lambda api: api.create(PODS, pod("one"), PARK),
        "delete a pod": lambda api: api.delete(PODS, "one", PARK),
        "evict a pod": lambda api: api.evict(PODS, "one", PARK),
        "patch a pod elsewhere": lambda api: api.merge(PODS, "one", {"metadata": {}}, "default"),
        "delete a node": lambda api: api.delete(NODES, "alpha"),
        "delete a lease": lambda api: api.delete(LEASES, "leader", PARK),
        "lead elsewhere": lambda api: api.create(LEASES, lease_object("leader"), "default"),
        "change itself": lambda api: list(api.pages(DEPLOYMENTS, PARK)),
        "a cluster elsewhere": lambda api: list(api.pages(RAY_CLUSTERS, "default")),
        "give itself rights": lambda api: api.merge(RIGHTS["Role"], "shisuan", {"rules": []}, PARK),
        "a job's status": lambda api: api.merge(RAY_JOBS, "j", {"status": {}}, PARK, subresource="status"),
    }.items(),
    ids=lambda pair: pair[0].replace(" ", "-"),
)
def test_the_account_may_not(ours, ask):
    with pytest.raises(NotAllowed, match="cannot"):
        ask[1](ours)


def test_the_inventory_follows_hundreds_of_nodes_and_pods(ours, api):
    count, told = 200, []
    labels = {"many": "yes"}
    for number in range(count):
        node = paper_node(f"many-{number}", cpu="8", memory="8Gi", cards=4)
        join(api, {**node, "metadata": {**node["metadata"], "labels": {MANAGED: "true", **labels}}})
        stranger = pod(f"stranger-{number}", node=f"many-{number}")
        stranger["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "3"}}
        api.create(PODS, stranger, "default")
    inventory = Inventory(ours, told.extend, now_ms=lambda: 0, selector="many=yes")
    inventory.start()
    try:
        until(lambda: inventory.is_listed and len(inventory.nodes()) == count)
        assert {node.cpu_milli for node in inventory.nodes()} == {5_000}
        assert {len(node.devices) for node in inventory.nodes()} == {4}
        api.merge(NODES, "many-7", {"spec": {"unschedulable": True}})
        until(lambda: next(n for n in inventory.nodes() if n.name == "many-7").state is NodeState.UNREADY)
        api.delete(PODS, "stranger-9", "default", grace_s=0)
        until(lambda: next(n for n in inventory.nodes() if n.name == "many-9").cpu_milli == 8_000)
        api.delete(NODES, "many-8")
        until(lambda: len(inventory.nodes()) == count - 1)
        until(lambda: [r.node for r in told if r.kind is ReportKind.NODE_GONE] == ["many-8"])
        assert inventory.problem == ""
    finally:
        inventory.close()
        for number in range(count):
            api.delete(PODS, f"stranger-{number}", "default", grace_s=0)
            api.delete(NODES, f"many-{number}")


def test_the_account_may_do_all_that_the_pool_lane_writes(writer, api, at_rest):
    node, cluster, shape = at_rest
    (made,) = writer.carry_out(MakeCluster(cluster=cluster, kind="render"), None).objects
    seen = cluster_seen(made[1])
    action = SetGroups(seen=seen, cluster=cluster, groups=(GroupSeen(shape=shape, replicas=1),))
    (grown,) = writer.carry_out(action, None).objects
    with pytest.raises(Stale):  # of the version before
        writer.carry_out(action, None)
    (group,) = grown[1]["spec"]["workerGroupSpecs"]
    api.create(PODS, kuberay.pod(grown[1], None, ""), PARK)  # what the operator would make of it
    worker = pod_seen(api.create(PODS, kuberay.pod(grown[1], group, "bcdfg"), PARK))
    order = lease(1, "true", devices=(f"slot:{node}:nvidia.com/gpu:1",))
    held = Held(lease="l1", tenant="t1", cluster=cluster, kind="render", tasks=("j1",), shapes=(shape,), asked_ms=0)
    entry = Entry(held=held, orders=(order,))
    (carrier,) = writer.carry_out(Assign(pod=worker, lease="l1", rank=0), entry).objects
    told = carrier[1]["metadata"]["annotations"]
    assert (told[LEASE], told[DEVICES]) == ("l1", order.devices[0])
    (free,) = writer.carry_out(Release(pod=pod_seen(carrier[1])), None).objects
    assert LEASE not in free[1]["metadata"]["annotations"]
    version = api.get(NODES, node)["metadata"]["resourceVersion"]
    writer.carry_out(Relabel(node=node, lane=Lane.JOB, version=version), None)
    with pytest.raises(Stale):
        writer.carry_out(Relabel(node=node, lane=Lane.POOL, version=version), None)
    assert api.get(NODES, node)["metadata"]["labels"][LANE] == "job"
    owned = [o for kind in (SECRETS, NETWORK_POLICIES) for o in next(api.pages(kind, PARK)).items]
    assert [o["metadata"]["ownerReferences"][0]["uid"] for o in owned] == [made[1]["metadata"]["uid"]] * 2
    with pytest.raises(Stale):
        writer.carry_out(DeleteCluster(seen=seen), None)
    (adopted,) = writer.carry_out(Adopt(seen=cluster_seen(grown[1])), None).objects  # as a new leader does
    writer.carry_out(DeleteCluster(seen=cluster_seen(adopted[1])), None)
    assert not next(api.pages(RAY_CLUSTERS, PARK)).items


def test_the_account_may_do_all_that_the_job_lane_writes(writer, api, at_rest):
    node, cluster, shape = at_rest
    held = Held(lease="l2", tenant="t1", cluster=cluster, kind="train", tasks=("j2",), shapes=(shape,), asked_ms=0)
    entry = Entry(held=held, orders=(lease(2, "true", devices=(f"slot:{node}:nvidia.com/gpu:0",)),))
    (made,) = writer.carry_out(MakeJob(lease="l2"), entry).objects
    assert made[1]["spec"]["suspend"] is True
    assert writer.carry_out(MakeJob(lease="l2"), entry).objects[0][1] == made[1]  # its answer was lost
    (runs,) = writer.carry_out(Unsuspend(seen=job_seen(made[1])), entry).objects
    assert (runs[1]["spec"]["suspend"], runs[1]["metadata"]["generation"]) == (False, 2)
    writer.carry_out(DeleteJob(seen=job_seen(runs[1])), None)
    assert not next(api.pages(RAY_JOBS, PARK)).items
