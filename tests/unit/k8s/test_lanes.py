"""Tables: what is there → what is to be done."""

from dataclasses import replace

import pytest

from k8s.actions import Adopt
from k8s.fence import AT_ONCE
from k8s.lanes import (
    Assign,
    DeleteCluster,
    DeleteJob,
    Held,
    Lose,
    MakeCluster,
    MakeJob,
    Relabel,
    Release,
    SetGroups,
    Unsuspend,
    World,
    decide,
)
from k8s.pods import Cluster
from k8s.seen import ClusterSeen, GroupSeen, JobSeen, PodSeen
from k8s.shapes import Shape
from k8s.site import Site
from k8s.trouble import Kind, Trouble
from scheduler.model.node import Device, Health, Lane, Node

GPU = "nvidia.com/gpu"
SITE = Site(namespace="park", gateway="g:1", images={"default": "image"}, warm_ms=100, cluster_idle_ms=1_000)
POOL = Cluster(name="pool-a", tenant="a", lane="pool", image="image")
OTHER = Cluster(name="pool-b", tenant="b", lane="pool", image="image")
ONE = Shape(node="n1", resource=GPU, count=1, cpu_milli=1_000, memory_mib=512)
CPU = Shape(node="n1", cpu_milli=1_000, memory_mib=512)


def node(name="n1", *, cards=2, cpu_milli=64_000, sick=0):
    devices = tuple(
        Device(
            id=f"slot:{name}:{GPU}:{n}",
            model="H100",
            index=n,
            health=Health.QUARANTINED if n >= cards - sick else Health.OK,
        )
        for n in range(cards)
    )
    return Node(name=name, cpu_milli=cpu_milli, memory_mib=1 << 20, devices=devices)


def held(lease="l1", *shapes, cluster=POOL, **fields):
    return Held(
        lease=lease,
        tenant=cluster.tenant,
        cluster=cluster,
        kind="render",
        tasks=(f"j{lease[1:]}.a.0.a1",),
        shapes=shapes or (ONE,),
        **{"asked_ms": 0, **fields},
    )


def pod(name, *, cluster=POOL, shape=ONE, **fields):
    return PodSeen(
        name=name,
        uid=f"u-{name}",
        version="1",
        cluster=cluster.name,
        tenant=cluster.tenant,
        lane=cluster.lane,
        shape=shape,
        **{"is_ready": True, "phase": "Running", **fields},
    )


def cluster(*groups, of=POOL, **fields):
    return ClusterSeen(
        name=of.name, uid="c", version="7", cluster=of.name, tenant=of.tenant, kind="render", groups=groups, **fields
    )


def world(*things, site=SITE, **fields):
    """Leases, pods, clusters and RayJobs, each where it belongs; one node of two cards unless told otherwise."""
    made = World(
        site=site,
        **{
            "now_ms": 50,
            "held": {one.lease: one for one in things if isinstance(one, Held)},
            "pods": {one.uid: one for one in things if isinstance(one, PodSeen)},
            "clusters": {one.name: one for one in things if isinstance(one, ClusterSeen)},
            "jobs": {one.name: one for one in things if isinstance(one, JobSeen)},
            "nodes": {"n1": node()},
            **fields,
        },
    )
    assert decide(made) == decide(made)
    return made


def groups_of(actions):
    """``{cluster: {shape: (replicas, to delete)}}``"""
    return {
        action.seen.name: {group.shape: (group.replicas, group.to_delete) for group in action.groups}
        for action in actions
        if isinstance(action, SetGroups)
    }


# ── the pool ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_node_is_labelled_with_the_lane_it_is_to_serve_while_it_is_there_and_says_another():
    nodes = {"n1": replace(node(), lane=Lane.POOL), "n2": replace(node("n2"), lane=Lane.JOB)}
    moves = {"n1": Lane.JOB, "n2": Lane.JOB, "gone": Lane.JOB}
    there = World(site=SITE, now_ms=0, nodes=nodes, moves=moves, versions={"n1": "5", "n2": "6"})
    first = Relabel(node="n1", lane=Lane.JOB, version="5")
    assert decide(replace(there, labelled=frozenset({"n2"}))) == (first,)
    assert decide(there) == (first, Relabel(node="n2", lane=Lane.JOB, version="6")), "an earlier leader may sleep on it"
    assert decide(replace(there, versions={})) == (), "what cannot be bound to a version is not written"


# ── the fence ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_an_earlier_leader_wrote_is_taken_over_and_only_then_relied_on():
    seen, free = cluster(GroupSeen(shape=ONE, replicas=2), epoch=1), pod("free")
    busy = pod("busy", lease="l2", epoch=1)
    both = (held("l1"), held("l2", pods=("u-busy",)))
    assert decide(world(*both, seen, free, busy, epoch=2)) == (Adopt(seen=seen), Adopt(seen=busy))
    ours = (replace(seen, epoch=2), replace(busy, epoch=2))
    assert decide(world(*both, *ours, free, epoch=2)) == (Assign(pod=free, lease="l1", rank=0),)


def test_a_write_takes_its_object_over_itself():
    seen, busy = cluster(GroupSeen(shape=ONE, replicas=1), epoch=1), pod("busy", lease="l2", epoch=1)
    assert decide(world(seen, busy, epoch=2)) == (Adopt(seen=seen), Release(pod=busy))
    left = job(epoch=1)
    assert decide(world(left, epoch=2)) == (DeleteJob(seen=left),)


def test_what_is_going_is_not_taken_over():
    seen = cluster(epoch=1, is_deleting=True)
    busy = pod("busy", lease="l2", epoch=1, is_deleting=True)
    assert decide(world(held("l2", pods=("u-busy",)), seen, busy, epoch=2)) == ()


def test_many_are_taken_over_a_part_at_a_time_and_clusters_first():
    many = [pod(f"p{n:04}", lease=f"l{n}", epoch=1) for n in range(AT_ONCE + 5)]
    leases = [held(one.lease, pods=(one.uid,)) for one in many]
    found = decide(world(*leases, cluster(GroupSeen(shape=ONE, replicas=len(many)), epoch=1), *many, epoch=2))
    assert [type(one.seen) for one in found] == [ClusterSeen] + [PodSeen] * (AT_ONCE - 1)


def test_a_pod_that_lost_what_it_carries_is_told_again():
    bare, seen = pod("bare"), cluster(GroupSeen(shape=ONE, replicas=1))
    assert decide(world(held(pods=("u-bare",)), seen, bare)) == (Assign(pod=bare, lease="l1", rank=0),)


def test_a_lease_without_its_cluster_gets_one():
    assert decide(world(held())) == (MakeCluster(cluster=POOL, kind="render"),)


def test_a_cluster_without_the_group_gets_it_with_a_pod_per_lease():
    actions = decide(world(held("l1"), held("l2"), held("l3", CPU), cluster()))
    assert groups_of(actions) == {"pool-a": {ONE: (2, ()), CPU: (1, ())}}


def test_pods_on_their_way_are_waited_for():
    assert decide(world(held("l1"), held("l2"), cluster(GroupSeen(shape=ONE, replicas=2)))) == ()
    starting = pod("p1", is_ready=False, phase="Pending")
    assert decide(world(held("l1"), held("l2"), starting, cluster(GroupSeen(shape=ONE, replicas=2)))) == ()


def test_an_idle_pod_is_taken_before_another_is_made():
    warm = pod("p1")
    seen = cluster(GroupSeen(shape=ONE, replicas=1))
    assert decide(world(held(), warm, seen)) == (Assign(pod=warm, lease="l1", rank=0),)
    both = decide(world(held("l1"), held("l2", asked_ms=1), warm, seen))
    assert both[0] == Assign(pod=warm, lease="l1", rank=0)
    assert groups_of(both) == {"pool-a": {ONE: (2, ())}}


@pytest.mark.parametrize(
    "unfit",
    [
        {"is_ready": False, "phase": "Pending"},
        {"is_deleting": True},
        {"phase": "Failed"},
        {"cluster": OTHER},
        {"shape": replace(ONE, cpu_milli=2_000)},
        {"lease": "l9"},
    ],
    ids=str,
)
def test_only_a_ready_idle_pod_of_the_same_shape_and_tenant_is_taken(unfit):
    found = pod("p1", **unfit)
    actions = decide(world(held(), found, cluster(GroupSeen(shape=ONE, replicas=1)), cluster(of=OTHER)))
    assert not any(isinstance(action, Assign) for action in actions)


def test_a_pod_that_leaves_is_not_taken():
    seen = cluster(GroupSeen(shape=ONE, replicas=0, to_delete=("p1",)))
    actions = decide(world(held(), pod("p1"), seen))
    assert groups_of(actions) == {"pool-a": {ONE: (1, ("p1",))}}


def test_a_cold_pod_goes_by_name():
    seen = cluster(GroupSeen(shape=ONE, replicas=2))
    things = (held("l1", pods=("u-p1",)), pod("p1", lease="l1"), pod("p2"), seen)
    assert decide(world(*things, idle_ms={"u-p2": 0}, now_ms=99)) == ()
    actions = decide(world(*things, idle_ms={"u-p2": 0}, now_ms=100))
    assert groups_of(actions) == {"pool-a": {ONE: (1, ("p2",))}}


def test_replicas_never_fall_by_pods_that_nobody_named():
    """The third may be a pod that KubeRay has made and we have not seen: it would choose whom to end by chance."""
    seen = cluster(GroupSeen(shape=ONE, replicas=3))
    things = (held("l1", pods=("u-p1",)), pod("p1", lease="l1"), pod("p2"), seen)
    actions = decide(world(*things, idle_ms={"u-p2": 0}, now_ms=100))
    assert groups_of(actions) == {"pool-a": {ONE: (2, ("p2",))}}


def test_a_pod_that_died_is_replaced_by_kuberay_and_not_twice():
    seen = cluster(GroupSeen(shape=ONE, replicas=1))
    assert decide(world(held(), pod("p1", phase="Failed"), seen)) == ()


def test_empty_groups_and_spent_names_go_with_the_next_change():
    spent = GroupSeen(shape=CPU, replicas=0, to_delete=("gone",))
    assert decide(world(cluster(spent))) == ()
    actions = decide(world(held(), cluster(spent)))
    assert groups_of(actions) == {"pool-a": {ONE: (1, ())}}


def test_an_idle_cluster_goes_after_a_while():
    seen = cluster(GroupSeen(shape=ONE, replicas=0))
    assert decide(world(seen, idle_ms={"pool-a": 0}, now_ms=999)) == ()
    assert decide(world(seen, idle_ms={"pool-a": 0}, now_ms=1_000)) == (DeleteCluster(seen=seen),)
    kept = cluster(GroupSeen(shape=ONE, replicas=1))
    assert decide(world(kept, idle_ms={"pool-a": 0}, now_ms=1_000)) == ()


def test_a_cluster_that_is_being_deleted_is_left_alone():
    assert decide(world(held(), cluster(is_deleting=True))) == ()


def test_a_pod_whose_lease_is_over_is_released():
    done = pod("p1", lease="l9")
    assert decide(world(done, cluster(GroupSeen(shape=ONE, replicas=1)))) == (Release(pod=done),)
    twice = (held("l1", pods=("u-p1",)), pod("p1", lease="l1"), pod("p2", lease="l1"))
    assert decide(world(*twice, cluster(GroupSeen(shape=ONE, replicas=2)))) == (Release(pod=twice[2]),)


def test_pods_of_nodes_that_do_not_answer_go():
    seen = cluster(GroupSeen(shape=ONE, replicas=1))
    actions = decide(world(pod("p1"), seen, nodes={}))
    assert groups_of(actions) == {"pool-a": {ONE: (0, ("p1",))}}


# ── in the way ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_idle_pod_of_another_tenant_goes_when_its_card_is_needed():
    theirs = pod("w1", cluster=OTHER)
    things = (held("l1"), held("l2"), theirs, cluster(), cluster(GroupSeen(shape=ONE, replicas=1), of=OTHER))
    actions = decide(world(*things, idle_ms={"u-w1": 49}))
    assert groups_of(actions) == {"pool-a": {ONE: (2, ())}, "pool-b": {ONE: (0, ("w1",))}}
    roomy = decide(world(*things, idle_ms={"u-w1": 49}, nodes={"n1": node(cards=3)}))
    assert groups_of(roomy) == {"pool-a": {ONE: (2, ())}}


def test_who_is_idle_for_longest_goes_first_and_no_more_than_needed():
    seen = cluster(GroupSeen(shape=ONE, replicas=2), of=OTHER)
    things = (held("l1"), pod("w1", cluster=OTHER), pod("w2", cluster=OTHER), cluster(), seen)
    actions = decide(world(*things, idle_ms={"u-w1": 40, "u-w2": 30}))
    assert groups_of(actions)["pool-b"] == {ONE: (1, ("w2",))}


def test_a_busy_pod_is_never_in_the_way():
    busy = (held("l9", cluster=OTHER, pods=("u-w1",)), pod("w1", cluster=OTHER, lease="l9"))
    seen = cluster(GroupSeen(shape=ONE, replicas=1), of=OTHER)
    actions = decide(world(held("l1"), *busy, cluster(), seen, nodes={"n1": node(cards=1)}))
    assert groups_of(actions) == {"pool-a": {ONE: (1, ())}}


def test_an_idle_pod_of_ones_own_that_has_another_shape_goes_too():
    big = replace(ONE, cpu_milli=60_000)
    seen = cluster(GroupSeen(shape=big, replicas=1))
    actions = decide(world(held("l1"), pod("p1", shape=big), seen, nodes={"n1": node(cpu_milli=60_500)}))
    assert groups_of(actions) == {"pool-a": {big: (0, ("p1",)), ONE: (1, ())}}


def test_sick_cards_are_no_room():
    theirs = pod("w1", cluster=OTHER)
    things = (held("l1"), theirs, cluster(), cluster(GroupSeen(shape=ONE, replicas=1), of=OTHER))
    actions = decide(world(*things, nodes={"n1": node(cards=2, sick=1)}))
    assert groups_of(actions)["pool-b"] == {ONE: (0, ("w1",))}


# ── cards that have names ────────────────────────────────────────────────────────────────────────────────────────────

NAMED = Node(name="n1", cpu_milli=64_000, memory_mib=1 << 20, devices=(Device(id="GPU-0", model="H100"),))
WHOLE = Shape(node="n1", resource="gpu.nvidia.com", count=1, devices=("GPU-0",), cpu_milli=1_000)
PART = replace(WHOLE, card_milli=500)
SMALL = replace(PART, card_milli=300)


@pytest.mark.parametrize(
    ("wanted", "idle", "of", "goes"),
    [
        (WHOLE, PART, POOL, True),
        (PART, WHOLE, POOL, True),
        (SMALL, PART, POOL, False),
        (replace(PART, card_milli=600), PART, POOL, True),
        (SMALL, SMALL, OTHER, True),
        (replace(WHOLE, devices=("GPU-1",)), WHOLE, OTHER, False),
    ],
    ids=["whole", "held whole", "another part", "too much of it", "another tenant's part", "another card"],
)
def test_an_idle_pod_goes_when_it_keeps_a_card_from_who_is_next(wanted, idle, of, goes):
    nodes = {"n1": replace(NAMED, devices=(*NAMED.devices, Device(id="GPU-1", model="H100", index=1)))}
    warm = pod("w1", cluster=of, shape=idle)
    things = [held("l1", wanted), warm, cluster(GroupSeen(shape=idle, replicas=1), of=of)]
    things += [cluster()] if of is OTHER else []
    found = groups_of(decide(world(*things, nodes=nodes)))
    assert found[of.name].get(idle) == (0, ("w1",)) if goes else found.get(of.name, {}).get(idle) in ((1, ()), None)
    if not goes:
        assert "w1" not in repr(found)


def test_a_pod_that_waits_for_a_card_of_an_idle_tenant_gets_it():
    """The new pod is there already, and pending: that it is what somebody waits for is not enough."""
    mine = pod("p1", shape=SMALL, is_ready=False, phase="Pending")
    theirs = pod("w1", cluster=OTHER, shape=SMALL)
    groups = (cluster(GroupSeen(shape=SMALL, replicas=1)), cluster(GroupSeen(shape=SMALL, replicas=1), of=OTHER))
    actions = decide(world(held("l1", SMALL), mine, theirs, *groups, nodes={"n1": NAMED}))
    assert groups_of(actions) == {"pool-b": {SMALL: (0, ("w1",))}}
    ready = replace(mine, is_ready=True, phase="Running")
    actions = decide(world(held("l1", SMALL), ready, theirs, *groups, nodes={"n1": NAMED}))
    assert groups_of(actions) == {}


def test_scratch_space_of_idle_pods_is_made_room_of():
    big = replace(CPU, scratch_mib=800)
    nodes = {"n1": replace(node(), scratch_mib=1_000)}
    groups = cluster(GroupSeen(shape=big, replicas=1))
    actions = decide(world(held("l1", replace(CPU, scratch_mib=300)), pod("p1", shape=big), groups, nodes=nodes))
    assert groups_of(actions)["pool-a"][big] == (0, ("p1",))


# ── the job lane ─────────────────────────────────────────────────────────────────────────────────────────────────────

JOB = Cluster(name="job-l5", tenant="a", lane="job", image="image")
TWO = (ONE, replace(ONE, node="n2"))
NODES = {"n1": node(), "n2": node("n2")}


def job(**fields):
    return JobSeen(
        **{
            "name": JOB.name,
            "uid": "j",
            "version": "3",
            "cluster": JOB.name,
            "tenant": "a",
            "lease": "l5",
            "tasks": ("j5.a.0.a1",),
            "shapes": TWO,
            "is_suspended": False,
            "state": "Running",
            **fields,
        }
    )


def gang(**fields):
    return held("l5", *TWO, cluster=JOB, **fields)


def test_a_ray_job_is_made_then_let_go():
    assert decide(world(gang(), nodes=NODES)) == (MakeJob(lease="l5"),)
    waiting = job(is_suspended=True, state="Suspended")
    assert decide(world(gang(is_made=True), waiting, nodes=NODES)) == (Unsuspend(seen=waiting),)
    assert decide(world(gang(is_made=True), job(), nodes=NODES)) == ()


def test_each_rank_takes_the_pod_on_its_node():
    ranks = (pod("q2", cluster=JOB, shape=TWO[1]), pod("q1", cluster=JOB, shape=TWO[0]))
    actions = decide(world(gang(is_made=True), job(), *ranks, nodes=NODES))
    assert actions == (Assign(pod=ranks[1], lease="l5", rank=0), Assign(pod=ranks[0], lease="l5", rank=1))


def test_a_ray_job_that_nobody_holds_is_deleted_once():
    assert decide(world(job())) == (DeleteJob(seen=job()),)
    assert decide(world(job(is_deleting=True))) == ()


def test_a_ray_job_needs_its_room_before_it_has_pods():
    theirs = pod("w1", cluster=OTHER)
    things = (gang(is_made=True), job(is_suspended=True), theirs, cluster(GroupSeen(shape=ONE, replicas=1), of=OTHER))
    actions = decide(world(*things, nodes={"n1": node(cards=1), "n2": node("n2")}))
    assert groups_of(actions) == {"pool-b": {ONE: (0, ("w1",))}}


def test_pods_of_a_ray_job_that_wait_for_room_get_it():
    """KubeRay makes them whether there is room or not: the idle pod in their way may have been left, by a conflict."""
    theirs = pod("w1", cluster=OTHER)
    waits = [pod(f"q{n}", cluster=JOB, shape=shape, is_ready=False, phase="Pending") for n, shape in enumerate(TWO)]
    things = (gang(is_made=True), job(), theirs, *waits, cluster(GroupSeen(shape=ONE, replicas=1), of=OTHER))
    nodes = {"n1": node(cards=1), "n2": node("n2")}
    assert groups_of(decide(world(*things, nodes=nodes))) == {"pool-b": {ONE: (0, ("w1",))}}
    ready = [replace(one, is_ready=True, phase="Running") for one in waits]
    assert groups_of(decide(world(*things, *ready, nodes=nodes))) == {}


# ── lost ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

PLACED = held(pods=("u-p1",), is_sent=True)
RUNS = pod("p1", lease="l1")
FULL = cluster(GroupSeen(shape=ONE, replicas=1))
NO_IMAGE = Trouble(kind=Kind.IMAGE_PULL, said="ErrImagePull: no such image")
WAIT_FOR_IMAGE = [
    pod(f"q{n}", cluster=JOB, shape=shape, is_ready=False, phase="Pending", trouble=NO_IMAGE)
    for n, shape in enumerate(TWO)
]
LOST = [
    ("pod gone", (PLACED, FULL), {}, "its pod was deleted"),
    (
        "pod ended",
        (PLACED, replace(RUNS, phase="Failed", trouble=Trouble(kind=Kind.CRASHED, said="Error (exit code 1)")), FULL),
        {},
        "its pod p1 ended: crashed: Error (exit code 1)",
    ),
    ("raylet died", (PLACED, RUNS, FULL), {"condemned": frozenset({"u-p1"})}, "Ray lost its pod p1"),
    (
        "no head",
        (PLACED, RUNS, FULL),
        {"unheard_ms": {"pool-a": 0}, "now_ms": 300_000},
        "nothing was heard from the head of pool-a for 300 s",
    ),
    ("job vanished", (gang(is_made=True),), {}, "its RayJob was deleted"),
    (
        "job failed",
        (gang(is_made=True), job(state="Failed", why="AppFailed: no image")),
        {},
        "its RayJob failed: AppFailed: no image",
    ),
    (
        "job over",
        (gang(is_made=True), job(state="Complete")),
        {},
        "its RayJob ended before the end of its tasks was heard",
    ),
    (
        "does not start",
        (held(), pod("p1", is_ready=False, phase="Pending", trouble=NO_IMAGE), FULL),
        {"now_ms": 900_000},
        "its pods did not start within 900 s: image_pull: ErrImagePull: no such image",
    ),
    (
        "its head does not start",
        (held(),),
        {"now_ms": 900_000, "heads": {"pool-a": NO_IMAGE}},
        "its pods did not start within 900 s: its head: image_pull: ErrImagePull: no such image",
    ),
    (
        "job failed over a pod",
        (gang(is_made=True), job(state="Failed"), *WAIT_FOR_IMAGE),
        {},
        "its RayJob failed: no reason was given: image_pull: ErrImagePull: no such image",
    ),
]


@pytest.mark.parametrize(("things", "fields", "reason"), [row[1:] for row in LOST], ids=[row[0] for row in LOST])
def test_what_cannot_go_on_is_lost_with_the_reason(things, fields, reason):
    (lost,) = decide(world(*things, **{"nodes": NODES, **fields}))
    assert lost == Lose(lease=lost.lease, reason=reason)


def test_a_pod_that_took_more_memory_than_it_asked_for_has_failed_and_is_not_begun_again_for_nothing():
    ended = Trouble(kind=Kind.OUT_OF_MEMORY, said="OOMKilled (exit code 137)")
    things = (replace(PLACED, is_made=True), replace(RUNS, phase="Failed", trouble=ended), FULL)
    reason = "its pod ended: out_of_memory: OOMKilled (exit code 137)"
    failed = (Lose(lease="l1", reason=reason, is_its_own=True),)
    assert decide(world(*things, nodes=NODES)) == failed
    assert decide(world(things[0], FULL, nodes=NODES, last_words={"u-p1": ended})) == failed, "and when it is gone"
    assert decide(world(replace(things[0], is_told=True), *things[1:], nodes=NODES)) == ()


def test_what_ended_a_pod_is_known_when_it_is_gone():
    evicted = Trouble(kind=Kind.EVICTED, said="Evicted")
    (lost,) = decide(world(PLACED, FULL, nodes=NODES, last_words={"u-p1": evicted}))
    assert lost == Lose(lease="l1", reason="its pod ended and was deleted: evicted: Evicted")


def test_what_has_told_its_end_is_not_lost():
    assert decide(world(replace(PLACED, is_told=True), FULL)) == ()
    assert decide(world(gang(is_made=True, is_told=True), job(state="Complete"))) == ()


def test_a_short_silence_is_no_loss():
    assert decide(world(PLACED, RUNS, FULL, unheard_ms={"pool-a": 1}, now_ms=300_000)) == ()


def test_a_pod_that_must_go_is_named_whatever_it_holds():
    actions = decide(world(RUNS, FULL, condemned=frozenset({"u-p1"})))
    assert groups_of(actions) == {"pool-a": {ONE: (0, ("p1",))}}
