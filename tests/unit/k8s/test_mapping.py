"""Tables: what the API server tells, and the node that the engine is shown."""

import pytest

from k8s.accelerators import shipped
from k8s.mapping import Cards, Gone, Sights, mapped
from k8s.quantity import nano
from k8s.sightings import claim_sight, node_sight, pod_sight, requests, slice_sight
from scheduler.model.node import DeviceKind, Health, Lane, NodeState
from tests.unit.k8s.raw import H100, claim, gpu, mig, node, pod, resource_slice

TABLE = shipped()


def seen(raw, *pods, slices=(), claims=(), **more):
    sights = Sights(
        node=node_sight(raw, TABLE),
        pods=tuple(s for p in pods if (s := pod_sight(p, TABLE)) is not None),
        slices=tuple(s for r in slices if (s := slice_sight(r, TABLE)) is not None),
        claims=tuple(s for c in claims if (s := claim_sight(c)) is not None),
    )
    return mapped(sights, TABLE, **more)


def slot(number, resource="nvidia.com/gpu"):
    return f"slot:n1:{resource}:{number}"


def out(made):
    """Number, health and reason of the devices that take no work."""
    return {d.index: (d.health.value, d.health_reason) for d in made.devices if d.health is not Health.OK}


def test_a_node_of_eight_cards():
    made = seen(node(labels={**H100, "zone": "a", "topology.kubernetes.io/rack": "r7"}))
    assert (made.cpu_milli, made.memory_mib, made.scratch_mib) == (95_500, 1_048_576, 2_097_152)
    assert [d.id for d in made.devices] == [slot(number) for number in range(8)]
    assert {(d.model, d.memory_mib, d.kind, d.island, d.health) for d in made.devices} == {
        ("H100-SXM-80GB", 81_559, DeviceKind.CARD, "n1-nvlink", Health.OK)
    }
    assert [d.index for d in made.devices] == list(range(8))
    assert made.labels == (("topology.kubernetes.io/rack", "r7"), ("zone", "a"))
    assert (made.rack, made.lane, made.state, made.taints) == ("r7", Lane.POOL, NodeState.READY, ())


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        ({}, NodeState.READY, ""),
        ({"unschedulable": True}, NodeState.UNREADY, "cordoned in Kubernetes"),
        (
            {"unschedulable": True, "taints": [("node.kubernetes.io/unschedulable", "")]},
            NodeState.UNREADY,
            "cordoned in Kubernetes",
        ),
        (
            {"taints": [("node.kubernetes.io/disk-pressure", "")]},
            NodeState.UNREADY,
            "taken out by Kubernetes: node.kubernetes.io/disk-pressure",
        ),
        (
            {"ready": "False", "message": "container runtime is down"},
            NodeState.UNREADY,
            "Kubernetes says that it is not ready: container runtime is down",
        ),
    ],
)
def test_what_kubernetes_says_of_a_node_is_its_state(changes, state, reason):
    made = seen(node(**changes))
    assert (made.state, made.state_reason, len(made.devices)) == (state, reason, 8)


def test_a_silent_kubelet_is_a_lost_node():
    told = seen(node(ready="Unknown", message="Kubelet stopped posting node status."))
    assert told == Gone(reason="its kubelet does not answer: Kubelet stopped posting node status.")


def test_a_node_nobody_has_reported_on_yet_is_not_offered():
    raw = node()
    raw["status"] = {}
    assert isinstance(seen(raw), Gone)


@pytest.mark.parametrize(
    ("labels", "lane"),
    [({}, Lane.POOL), ({"shisuan.io/lane": "job"}, Lane.JOB), ({"shisuan.io/lane": "fast"}, Lane.POOL)],
)
def test_the_lane_is_a_label(labels, lane):
    assert seen(node(labels=labels)).lane is lane


def test_a_sites_taints_are_for_jobs_to_tolerate_and_ours_are_not():
    taints = [("night", ""), ("team", "film"), ("shisuan.io/managed", "true"), ("nvidia.com/gpu", "present")]
    assert seen(node(taints=taints)).taints == ("night", "team=film")


# ── cards that are counted ───────────────────────────────────────────────────────────────────────────────────────────


def test_strangers_take_the_last_cards_and_their_memory():
    made = seen(node(), pod("jupyter", cards=2, cpu="4", memory="64Gi"), pod("agent", cpu="500m", memory="1Gi"))
    why = ("external", "held by default/jupyter")
    assert out(made) == {6: why, 7: why}
    assert (made.cpu_milli, made.memory_mib) == (91_000, 1_048_576 - 65 * 1024)


def test_what_our_pods_hold_is_not_taken_from_them():
    ours = pod("ours", cards=2, devices=[slot(6), slot(7)], cpu="16", memory="100Gi")
    made = seen(node(), ours, pod("theirs", cards=3))
    assert sorted(out(made)) == [3, 4, 5]
    assert (made.cpu_milli, made.memory_mib) == (95_500, 1_048_576)


def test_a_broken_card_is_the_last_that_nobody_of_ours_holds():
    why = "its device plugin calls it unhealthy (7 of 8 nvidia.com/gpu usable)"
    assert out(seen(node(usable=7))) == {7: ("quarantined", why)}
    ours = pod("ours", cards=1, devices=[slot(7)])
    assert out(seen(node(usable=7), ours, pod("x", cards=1))) == {
        6: ("quarantined", why),
        5: ("external", "held by default/x"),
    }
    everything = pod("ours", cards=8, devices=[slot(n) for n in range(8)])
    assert out(seen(node(usable=7), everything)) == {7: ("quarantined", why)}


def test_pods_that_are_over_or_nowhere_hold_nothing():
    assert not out(seen(node(), pod("a", cards=8, phase="Succeeded"), pod("b", cards=8, on="")))


def test_many_strangers_are_counted():
    made = seen(node(), *(pod(f"p{n}", cards=1) for n in range(5)))
    assert out(made)[3] == ("external", "held by default/p0, default/p1, default/p2 and 2 more")


def test_a_card_fewer_is_a_device_fewer():
    assert len(seen(node(cards=7)).devices) == 7


@pytest.mark.parametrize(
    ("labels", "resources", "count"),
    [
        ({**H100, "nvidia.com/gpu.replicas": "4"}, {"nvidia.com/gpu": "32"}, 8),
        ({**H100, "nvidia.com/gpu.replicas": "4"}, {"nvidia.com/gpu.shared": "32", "nvidia.com/gpu": "0"}, 8),
        ({}, {"hygon.com/hcunum": "3"}, 3),
    ],
)
def test_shared_cards_are_shown_and_not_offered(labels, resources, count):
    made = seen(node(labels=labels, resources=resources))
    assert len(made.devices) == len(out(made)) == count
    assert "needs whole cards" in made.devices[0].health_reason


def test_mig_instances_are_devices_with_a_profile():
    labels = {**H100, "nvidia.com/mig-1g.10gb.memory": "9856", "nvidia.com/mig-3g.40gb.memory": "40448"}
    resources = {"nvidia.com/gpu": "2", "nvidia.com/mig-1g.10gb": "7", "nvidia.com/mig-3g.40gb": "2"}
    made = seen(node(labels=labels, resources=resources), pod("x", cards=1, resource="nvidia.com/mig-3g.40gb"))
    kinds = [(d.kind.value, d.profile, d.memory_mib, d.model) for d in made.devices]
    assert kinds == [
        *[("card", "", 81_559, "H100-SXM-80GB")] * 2,
        *[("mig", "1g.10gb", 9_856, "H100-SXM-80GB")] * 7,
        *[("mig", "3g.40gb", 40_448, "H100-SXM-80GB")] * 2,
    ]
    assert list(out(made)) == [10]


def test_a_node_cut_into_equal_instances_says_so_in_its_product():
    labels = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "nvidia.com/gpu.memory": "4864"}
    made = seen(node(labels=labels, resources={"nvidia.com/gpu": "7"}))
    assert {(d.kind, d.profile, d.model, d.memory_mib, d.island) for d in made.devices} == {
        (DeviceKind.MIG, "1g.5gb", "A100-SXM-40GB", 4_864, "")
    }


@pytest.mark.parametrize(
    ("product", "memory", "model"),
    [
        ("NVIDIA-H100-80GB-HBM3", "81559", "H100-SXM-80GB"),
        ("NVIDIA-H100-80GB-HBM3-SHARED", "81559", "H100-SXM-80GB"),
        ("NVIDIA-GeForce-RTX-4090", "24564", "RTX-4090"),
        ("Tesla-T4", "15360", "T4"),
        ("NVIDIA-H20", "97871", "H20-96GB"),
        ("NVIDIA-H20", "143771", "H20-141GB"),
        ("NVIDIA-H20", "", "unknown"),
        ("NVIDIA-A10-24Q", "24000", "unknown"),
        ("", "", "unknown"),
    ],
)
def test_products_are_boards_of_the_catalogue(product, memory, model):
    labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": memory}
    assert {d.model for d in seen(node(labels=labels, cards=1)).devices} == {model}


def test_cards_of_other_makers_need_a_toleration_and_say_what_they_are():
    resources = {"huawei.com/Ascend910": "8", "huawei.com/Ascend910-memory": "524288"}
    made = seen(node(labels={}, resources=resources), pod("x", cards=1, resource="huawei.com/Ascend910"))
    assert made.taints == ("huawei",)
    assert [(d.model, d.kind) for d in made.devices] == [("unknown", DeviceKind.CARD)] * 8
    assert list(out(made)) == [7]


# ── cards that are named ─────────────────────────────────────────────────────────────────────────────────────────────


def test_devices_of_slices_have_their_uuids_and_replace_what_is_counted():
    devices = [gpu(f"gpu-{n}", f"GPU-{n}", taints=["gpu.nvidia.com/xid"] if n == 1 else ()) for n in range(3)]
    claims = [
        claim("theirs", devices=["gpu-2"]),
        claim("ours", devices=["gpu-0"], ours=True),
        claim("idle", devices=["gpu-0"], used=False),
    ]
    made = seen(node(), slices=[resource_slice(devices=devices)], claims=claims)
    assert [(d.id, d.model, d.memory_mib, d.index) for d in made.devices] == [
        (f"GPU-{n}", "H100-SXM-80GB", 81_559, n) for n in range(3)
    ]
    assert out(made) == {
        1: ("quarantined", "tainted by its driver: gpu.nvidia.com/xid"),
        2: ("external", "held by default/theirs"),
    }


@pytest.mark.parametrize(
    ("cards", "slices", "ids"),
    [
        (Cards.AUTO, True, ["GPU-0", "slot:n1:huawei.com/npu:0"]),
        (Cards.AUTO, False, ["slot:n1:huawei.com/npu:0", slot(0), slot(1)]),
        (Cards.PLUGIN, True, ["slot:n1:huawei.com/npu:0", slot(0), slot(1)]),
        (Cards.CLAIMS, True, ["GPU-0", "slot:n1:huawei.com/npu:0"]),
        (Cards.CLAIMS, False, ["slot:n1:huawei.com/npu:0"]),
    ],
)
def test_an_installation_says_whose_word_counts(cards, slices, ids):
    there = node(resources={"nvidia.com/gpu": "2", "huawei.com/npu": "1"})
    told = [resource_slice(devices=[gpu("gpu-0", "GPU-0")])] if slices else []
    assert sorted(d.id for d in seen(there, slices=told, cards=cards).devices) == ids


def test_only_named_cards_can_be_had_in_parts():
    counted, named = seen(node(cards=1)), seen(node(), slices=[resource_slice(devices=[gpu("gpu-0", "GPU-0")])])
    assert [d.only_whole for d in (*counted.devices, *named.devices)] == [True, False]


def test_only_the_newest_generation_of_a_pool_counts():
    old = resource_slice("old", devices=[gpu("gpu-0", "GPU-0"), gpu("gpu-1", "GPU-1")], generation=3)
    new = resource_slice("new", devices=[gpu("gpu-0", "GPU-0")], generation=4)
    assert [d.id for d in seen(node(), slices=[old, new]).devices] == ["GPU-0"]


def test_instances_that_are_not_made_yet_are_no_devices():
    devices = [
        gpu("gpu-0", "GPU-0"),
        mig("gpu-0-mig-1", "MIG-1", parent="GPU-0", profile="1g.10gb"),
        mig("gpu-0-mig-2", "", parent="GPU-0", profile="1g.10gb"),
    ]
    made = seen(node(), slices=[resource_slice(devices=devices)])
    assert [(d.id, d.parent, d.profile) for d in made.devices] == [("GPU-0", "", ""), ("MIG-1", "GPU-0", "1g.10gb")]


def test_slices_of_other_drivers_and_of_the_network_are_passed_over():
    other = resource_slice("nic", devices=[gpu("nic-0", "X")], driver="dra.net")
    whole = resource_slice("net", devices=[gpu("gpu-0", "X")])
    del whole["spec"]["nodeName"]
    assert len(seen(node(), slices=[other, whole]).devices) == 8


# ── what pods ask for ────────────────────────────────────────────────────────────────────────────────────────────────


def container(cpu, **more):
    return {"name": "c", "resources": {"requests": {"cpu": cpu}}, **more}


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        ({"containers": [container("1"), container("500m")]}, "1500m"),
        ({"containers": [container("1")], "initContainers": [container("3")]}, "3"),
        ({"containers": [container("1")], "initContainers": [container("1", restartPolicy="Always")]}, "2"),
        ({"containers": [container("1")], "overhead": {"cpu": "250m"}}, "1250m"),
        ({"containers": [container("1")], "resources": {"requests": {"cpu": "4"}}}, "4"),
        ({"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]}, "2"),
        ({"containers": [{"name": "c"}]}, "0"),
    ],
)
def test_what_a_pod_asks_for_in_all(spec, cpu):
    assert requests(spec).get("cpu", 0) == nano(cpu)
