"""The lanes where a driver names the cards: each pod gets those that the engine chose, whole or in parts; and MIG
instances, which a device plugin counts by profile.
"""

import itertools
from dataclasses import replace

import pytest

from k8s.names import LEASE, MANAGED_BY, OURS
from scheduler.model.lease import AttemptState
from scheduler.model.node import DeviceKind, Health
from scheduler.model.order import ReportKind
from tests.fakes.kube.faults import Fault, Loss
from tests.farm import Reader, lease
from tests.kube_executor import SITE, KubeSite, paper_node
from tests.unit.k8s.raw import gpu, mig, resource_slice
from tests.unit.k8s.test_kube_executor import objects, run, until

pytestmark = pytest.mark.timeout(120)
numbers = itertools.count(1)
INSTANCE = "nvidia.com/mig-1g.10gb"


@pytest.fixture
def farm(tmp_path):
    """``alpha`` has two named cards and an instance of a third, ``beta`` two instances that are counted."""
    nodes = [paper_node(name, cpu="64", memory="64Gi") for name in ("alpha", "beta")]
    for kind in ("capacity", "allocatable"):
        nodes[1]["status"][kind] = {**nodes[1]["status"][kind], INSTANCE: "2"}
    site = KubeSite(tmp_path, nodes=nodes, site=replace(SITE, images={"render": "render:1", "default": "other:1"}))
    devices = [gpu(f"gpu-{n}", f"GPU-{n}") for n in range(2)]
    devices += [mig("gpu-2-mig-1", "MIG-1", parent="GPU-2", profile="1g.10gb")]
    site.park.double.put(resource_slice(on="alpha", devices=devices))
    site.readers = []

    def reader():
        made = Reader(site.connect())
        site.readers.append(made)
        made.kind(ReportKind.RUNTIME_UP)
        return made

    site.reader = reader
    yield site
    for made in site.readers:
        made.executor.close()
    site.remove()


@pytest.fixture
def reader(farm):
    return farm.reader()


def held(farm):
    """Devices of every lease that an agent has."""
    with farm.park.lock:
        agents = [agent for one in farm.park.farms.values() for agent in one.agents.values()]
        return {h.order.lease_id: h.order.devices for agent in agents for h in agent.held.values()}


def begin(reader, *devices, **fields):
    order = lease(next(numbers), "sleep", "1000", devices=devices, **fields)
    reader.executor.start([order])
    return order


def started(reader, *orders):
    """All of them, in any order."""
    left = {order.lease_id for order in orders}
    while left:
        left.discard(reader.until(lambda r: r.kind is ReportKind.STARTED).lease_id)


def stop(reader, order):
    reader.executor.stop([order.lease_id], "enough")
    end = reader.end_of(order.lease_id)
    reader.executor.acknowledge([end.cursor])


def released(farm):
    until(lambda: all(LEASE not in p["metadata"]["annotations"] for p in farm.park.workers()), "the release")


def test_a_pod_gets_the_card_that_was_chosen_and_nobody_elses(farm, reader):
    first, second = begin(reader, "GPU-1"), begin(reader, "GPU-0")
    started(reader, first, second)
    assert held(farm) == {first.lease_id: ("GPU-1",), second.lease_id: ("GPU-0",)}
    claims = objects(farm, "resourceclaims").values()
    assert {one["metadata"]["labels"][MANAGED_BY] for one in claims} == {OURS}
    told = [one["status"]["allocation"]["devices"]["results"][0]["device"] for one in claims]
    assert sorted(told) == ["gpu-0", "gpu-1"]
    templates = objects(farm, "resourceclaimtemplates").values()
    (cluster,) = objects(farm, "rayclusters").values()
    assert [one["metadata"]["ownerReferences"][0]["uid"] for one in templates] == [cluster["metadata"]["uid"]] * 2
    managers = {entry["manager"] for one in templates for entry in one["metadata"]["managedFields"]}
    assert managers == {"shisuan"}
    assert [device.health for device in reader.executor.inventory.nodes()[0].devices] == [Health.OK] * 3


def test_several_cards_and_an_instance_are_claimed_alike(farm, reader):
    both, instance = begin(reader, "GPU-0", "GPU-1"), begin(reader, "MIG-1")
    started(reader, both, instance)
    assert held(farm) == {both.lease_id: ("GPU-0", "GPU-1"), instance.lease_id: ("MIG-1",)}


def test_what_is_claimed_goes_with_its_cluster(farm):
    farm.site = replace(farm.site, warm_ms=1, cluster_idle_ms=1)
    reader = farm.reader()
    run(reader, lease(next(numbers), "true", devices=("GPU-0",)))
    run(reader, lease(next(numbers), "true", devices=("GPU-0",), card_milli=500))
    for kind in ("rayclusters", "resourceclaimtemplates", "resourceclaims"):
        until(lambda kind=kind: not objects(farm, kind), f"the end of {kind}")


def test_a_template_of_a_cluster_that_is_gone_is_not_taken_for_the_next_ones(farm):
    """The API server will collect it, and who took it for the next one's would make none."""
    farm.site = replace(farm.site, warm_ms=1, cluster_idle_ms=1)
    reader = farm.reader()
    begun = begin(reader, "GPU-0")
    started(reader, begun)
    (left,) = objects(farm, "resourceclaimtemplates").values()
    stop(reader, begun)
    for kind in ("rayclusters", "resourceclaimtemplates"):
        until(lambda kind=kind: not objects(farm, kind), f"the end of {kind}")
    farm.park.double.verbs._collect_orphan = lambda *_: None  # the collector takes its time
    farm.park.double.put({**left, "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate"})
    started(reader, begin(reader, "GPU-0"))
    (cluster,) = objects(farm, "rayclusters").values()
    (group,) = [group for group in cluster["spec"]["workerGroupSpecs"] if group["replicas"]]
    (claim,) = group["template"]["spec"]["resourceClaims"]
    used = objects(farm, "resourceclaimtemplates")[claim["resourceClaimTemplateName"]]
    assert used["metadata"]["ownerReferences"][0]["uid"] == cluster["metadata"]["uid"]


def test_a_ray_job_claims_the_cards_of_its_ranks(farm, reader):
    orders = [lease(900, "sleep", "1000", lane="job", kind="train", devices=("GPU-1",))]
    reader.executor.start(orders)
    reader.start_of("l900")
    assert held(farm) == {"l900": ("GPU-1",)}
    (template,) = objects(farm, "resourceclaimtemplates").values()
    (job,) = objects(farm, "rayjobs").values()
    assert template["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    stop(reader, orders[0])
    until(lambda: not objects(farm, "resourceclaimtemplates"), "the end of the template")


def test_a_pod_that_is_ending_keeps_its_card_from_the_next(farm, reader):
    """With one claim for both, the next would have the card while processes of the first are still there."""
    first = begin(reader, "GPU-0")
    reader.start_of(first.lease_id)
    (pod,) = farm.park.workers(first.lease_id)
    leaves = []
    ends, farm.park.runtime.stop = farm.park.runtime.stop, lambda uid: bool(leaves) and ends(uid)
    stop(reader, first)
    second = begin(reader, "GPU-0", cpu_milli=2_000)
    waits = until(lambda: [p for p in farm.park.workers() if p["metadata"]["uid"] != pod["metadata"]["uid"]])
    name = waits[0]["metadata"]["name"]
    seen = until(lambda: [p for p in farm.park.workers() if p["metadata"]["name"] == name and _why(p)])
    assert "cannot allocate all claims" in _why(seen[0])
    assert pod["metadata"]["name"] in [p["metadata"]["name"] for p in farm.park.workers()]
    leaves.append(True)
    reader.start_of(second.lease_id)


def _why(pod):
    return " ".join(one.get("message", "") for one in pod.get("status", {}).get("conditions", ()))


def test_a_pod_that_shows_another_card_gets_nothing(farm, reader):
    farm.park.kubelets._devices.uuids = lambda pod: ("GPU-9",)
    end = run(reader, lease(next(numbers), "true", devices=("GPU-0",)))
    assert (end.state, "claimed GPU-0 and shows GPU-9" in end.message) == (AttemptState.LOST, True)
    assert farm.lines.started == []


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_parts_of_a_card_run_beside_each_other_whatever_their_images(farm, reader):
    """Each in a pod of its own, with its own processors and memory: only the card is shared."""
    kinds = ("render", "transcode", "render")
    orders = [begin(reader, "GPU-0", card_milli=300, kind=kind, cpu_milli=1_000 + n) for n, kind in enumerate(kinds)]
    started(reader, *orders)
    assert held(farm) == {order.lease_id: ("GPU-0",) for order in orders}
    (claim,) = objects(farm, "resourceclaims").values()
    assert len(claim["status"]["reservedFor"]) == 3
    clusters = objects(farm, "rayclusters").values()
    assert {one["uid"] for one in claim["metadata"]["ownerReferences"]} == {c["metadata"]["uid"] for c in clusters}
    assert len(clusters) == 2
    assert objects(farm, "resourceclaimtemplates") == {}


def test_the_claim_of_parts_stays_until_the_last_cluster_goes(farm, reader):
    one, two = (begin(reader, "GPU-0", card_milli=300, kind=kind) for kind in ("render", "transcode"))
    started(reader, one, two)
    (pod,) = farm.park.workers(one.lease_id)
    farm.park.double.remove("rayclusters", pod["metadata"]["labels"]["ray.io/cluster"], "park")
    assert reader.end_of(one.lease_id).state is AttemptState.LOST
    (claim,) = objects(farm, "resourceclaims").values()
    until(lambda: len(next(iter(objects(farm, "resourceclaims").values()))["status"]["reservedFor"]) == 1)
    assert claim["metadata"]["name"] in objects(farm, "resourceclaims")
    until(lambda: held(farm) == {two.lease_id: ("GPU-0",)}, "the other part alone")


def test_idle_parts_make_room_for_a_whole_lease_and_for_another_tenant(farm, reader):
    part = begin(reader, "GPU-0", card_milli=300, tenant="a")
    reader.start_of(part.lease_id)
    stop(reader, part)
    released(farm)
    assert len(farm.park.workers()) == 1, "it stays warm"
    theirs = begin(reader, "GPU-0", card_milli=300, tenant="b")
    reader.start_of(theirs.lease_id)
    assert held(farm) == {theirs.lease_id: ("GPU-0",)}
    (pod,) = farm.park.workers()
    assert "pool-b" in pod["metadata"]["name"], "two tenants never share a card"
    stop(reader, theirs)
    released(farm)
    whole = begin(reader, "GPU-0", tenant="a")
    reader.start_of(whole.lease_id)
    assert held(farm) == {whole.lease_id: ("GPU-0",)}


def test_a_part_is_lost_alone(farm, reader):
    dying, other = (begin(reader, "GPU-0", card_milli=400) for _ in range(2))
    started(reader, dying, other)
    (pod,) = farm.park.workers(dying.lease_id)
    farm.park.end(pod["metadata"]["name"])
    assert reader.end_of(dying.lease_id).state is AttemptState.LOST
    until(lambda: held(farm) == {other.lease_id: ("GPU-0",)}, "the other part alone")


def test_a_new_service_adopts_claims_and_parts(farm):
    first = farm.reader()
    orders = [begin(first, "GPU-0", card_milli=400), begin(first, "GPU-0", card_milli=400), begin(first, "GPU-1")]
    started(first, *orders)
    before = held(farm)
    first.executor.close()
    second = farm.reader()
    told = second.until(lambda r: r.kind is ReportKind.INVENTORY and r.node == "alpha")
    assert set(told.leases) == {order.lease_id for order in orders}
    another = begin(second, "GPU-0", card_milli=200)
    second.start_of(another.lease_id)
    assert held(farm) == {**before, another.lease_id: ("GPU-0",)}


STORM = (
    Fault(status=429, retry_after_s=0),
    Fault(status=500),
    Fault(loss=Loss.REQUEST),
    Fault(loss=Loss.ANSWER, weight=2),
    Fault(verbs=("watch",), cut_after=2),
)


def test_in_a_storm_of_faults_no_card_is_given_twice(farm, reader):
    farm.park.double.faults.storm(1, 0.5, STORM)
    wholes = [lease(next(numbers), "sleep", "0.05", devices=("GPU-1",)) for _ in range(4)]
    parts = [
        lease(next(numbers), "sleep", "0.05", devices=("GPU-0",), card_milli=300, kind=kind)
        for kind in ("render", "transcode", "render")
    ]
    reader.executor.start(parts)
    ends = [reader.until(lambda r: r.kind is ReportKind.FINISHED) for _ in parts]
    assert {end.lease_id for end in ends} == {order.lease_id for order in parts}
    assert {end.state for end in ends} == {AttemptState.SUCCEEDED}
    for order in wholes:
        assert run(reader, order).state is AttemptState.SUCCEEDED
    assert farm.park.double.faults.met > 10
    farm.park.double.faults.calm()
    assert len([c for c in objects(farm, "resourceclaims") if c.startswith("card-")]) == 1


# ── scratch ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_scratch_space_is_asked_for_and_an_idle_pod_gives_it_back(farm):
    for kind in ("capacity", "allocatable"):
        node = farm.park.double.get("nodes", "beta")
        amounts = {**node["status"][kind], "ephemeral-storage": "10Gi"}
        farm.park.double.put({**node, "status": {**node["status"], kind: amounts}})
    reader = farm.reader()
    assert [n.scratch_mib for n in reader.executor.inventory.nodes()] == [0, 10_240]
    first = begin(reader, node="beta", scratch_mib=6_144)
    reader.start_of(first.lease_id)
    (pod,) = farm.park.workers(first.lease_id)
    asked = pod["spec"]["containers"][0]["resources"]
    assert asked["requests"]["ephemeral-storage"] == "6144Mi"
    assert asked["limits"]["ephemeral-storage"] == f"{6_144 + SITE.overhead_mib}Mi"
    stop(reader, first)
    released(farm)
    second = begin(reader, node="beta", scratch_mib=7_168)
    reader.start_of(second.lease_id)
    assert len(farm.park.workers()) == 1, "the warm pod had to go"


# ── MIG instances that a plugin counts ───────────────────────────────────────────────────────────────────────────────


def test_counted_instances_become_the_uuids_that_the_pod_reports(farm, reader):
    (node,) = (one for one in reader.executor.inventory.nodes() if one.name == "beta")
    assert [(d.kind, d.profile) for d in node.devices] == [(DeviceKind.MIG, "1g.10gb")] * 2
    orders = [begin(reader, device.id, node="beta") for device in node.devices]
    started(reader, *orders)
    given = held(farm)
    assert sorted(given) == sorted(order.lease_id for order in orders)
    assert sorted(given.values()) == [("MIG-beta-mig-1g.10gb-0",), ("MIG-beta-mig-1g.10gb-1",)]
    asked = [pod["spec"]["containers"][0]["resources"]["limits"] for pod in farm.park.workers()]
    assert [one[INSTANCE] for one in asked] == ["1", "1"]
    (group,) = next(iter(objects(farm, "rayclusters").values()))["spec"]["workerGroupSpecs"]
    assert group["replicas"] == 2, "one group per profile"
