"""The lanes over a park on paper: restarts, deaths, faults. What both lanes share with Ray on one machine is in
``tests/contract/test_executor.py``.
"""

from dataclasses import replace

import pytest

from k8s.manifests import pool_cluster, ray_cluster
from k8s.names import DEVICES, LEASE, RANK
from k8s.shapes import Shape
from scheduler.model.lease import AttemptState
from scheduler.model.order import ReportKind
from tests.fakes.kube.faults import Fault, Loss
from tests.farm import lease
from tests.kube_executor import SITE
from tests.unit.k8s.paper import clusters, numbers, objects, slots, train, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def reader(farm):
    made = farm.reader()
    made.kind(ReportKind.RUNTIME_UP)
    return made


def hold(farm):
    """No worker becomes ready until the answer is called."""
    waiting = [True]
    farm.park.kubelets.pulled = lambda pod: not waiting or pod["metadata"]["labels"]["ray.io/node-type"] == "head"
    return waiting.clear


def run(reader, order):
    reader.executor.start([order])
    end = reader.end_of(order.lease_id)
    reader.executor.acknowledge([end.cursor])
    return end


# ── cards ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_slots_become_the_uuids_that_the_pod_reports(farm, reader):
    order = lease(next(numbers), "sleep", "1000", devices=slots("alpha", 1))
    reader.executor.start([order])
    assert reader.start_of(order.lease_id).node == "alpha"
    (pod,) = farm.park.workers(order.lease_id)
    assert pod["metadata"]["annotations"][DEVICES] == "slot:alpha:nvidia.com/gpu:1"
    (held,) = (h for f in farm.park.farms.values() for a in f.agents.values() for h in a.held.values())
    name = pod["metadata"]["name"]
    assert (held.order.node, held.order.devices) == (name, ("GPU-alpha-0",))


def test_nothing_starts_on_a_pod_that_lacks_a_card(farm, reader):
    farm.park.cards = lambda shape: shape.count - 1
    end = run(reader, lease(next(numbers), "true", devices=slots("alpha", 0, 1)))
    assert end.state is AttemptState.LOST
    assert "shows 1 of 2 cards" in end.message
    assert farm.lines.started == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"card_milli": 250, "devices": slots("alpha", 0)}, "Ask for a whole card"),
        ({"devices": ("NPU-1234",)}, "a driver that names them gives UUIDs"),
    ],
    ids=["fraction", "named"],
)
def test_what_the_lanes_cannot_give_fails_with_the_reason(reader, fields, words):
    end = run(reader, lease(next(numbers), "true", **fields))
    assert end.state is AttemptState.FAILED
    assert words in end.message


def test_another_tenants_warm_pod_makes_room(farm, reader):
    first = lease(next(numbers), "true", devices=slots("alpha", 0, 1), tenant="a")
    run(reader, first)
    until(lambda: all(LEASE not in p["metadata"]["annotations"] for p in farm.park.workers()), "the release")
    assert (
        run(reader, lease(next(numbers), "true", devices=slots("beta", 0), node="beta", tenant="b")).state
        == "succeeded"
    )
    assert len(farm.park.workers()) == 2, "a warm pod that is in nobody's way stays"
    (warm,) = (p["metadata"]["name"] for p in farm.park.workers() if "pool-a" in p["metadata"]["name"])
    run(reader, lease(next(numbers), "true", devices=slots("alpha", 0), tenant="b"))
    until(lambda: warm not in [p["metadata"]["name"] for p in farm.park.workers()], "the eviction")


def test_a_tenants_next_lease_takes_the_warm_pod(farm, reader):
    for _ in range(5):
        run(reader, lease(next(numbers), "true", devices=slots("alpha", 0)))
        until(lambda: all(LEASE not in p["metadata"]["annotations"] for p in farm.park.workers()), "the release")
    assert len(farm.park.workers()) == 1


def test_idle_pods_and_clusters_go(farm):
    farm.site = replace(SITE, warm_ms=1, cluster_idle_ms=1)
    reader = farm.reader()
    reader.kind(ReportKind.RUNTIME_UP)
    run(reader, lease(next(numbers), "true"))
    until(lambda: not clusters(farm) and not farm.park.double.objects("pods"), "the end of the cluster")
    until(lambda: not objects(farm, "secrets") and not objects(farm, "networkpolicies"), "the end of what it owned")
    until(lambda: farm.lines.dropped, "the farewell to its bridge")


# ── the job lane ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_made_runs_and_goes_when_its_end_is_recorded(farm, reader):
    orders = train("sleep", "0.2")
    reader.executor.start(orders)
    reader.start_of(orders[0].lease_id)
    (job,) = objects(farm, "rayjobs").values()
    assert job["spec"]["suspend"] is False
    told = [p["metadata"]["annotations"] for p in farm.park.workers(orders[0].lease_id)]
    assert sorted((Shape.of_text(t["shisuan.io/shape"]).node, t[RANK]) for t in told) == [
        ("alpha", "0/2"),
        ("beta", "1/2"),
    ]
    end = reader.end_of(orders[0].lease_id)
    assert end.state is AttemptState.SUCCEEDED
    assert job["metadata"]["name"] in objects(farm, "rayjobs")
    reader.executor.acknowledge([end.cursor])
    until(lambda: not objects(farm, "rayjobs"), "the deletion")


def test_a_job_that_fails_is_lost_with_the_reason(farm, reader):
    orders = train("sleep", "1000")
    reader.executor.start(orders)
    reader.start_of(orders[0].lease_id)
    (name,) = objects(farm, "rayjobs")
    until(lambda: objects(farm, "rayjobs")[name]["status"].get("jobDeploymentStatus") == "Running")
    farm.park.finish(name, exit_code=1, message="no image")
    end = reader.end_of(orders[0].lease_id)
    assert (end.state, end.cursor) == (AttemptState.LOST, "")
    assert end.message.startswith(("its RayJob failed: AppFailed", "its pod was deleted")), (
        "pods may be seen to go first"
    )
    until(lambda: not objects(farm, "rayjobs"), "the deletion")


def test_a_job_that_vanishes_is_lost(farm, reader):
    orders = train("sleep", "1000")
    reader.executor.start(orders)
    reader.start_of(orders[0].lease_id)
    (name,) = objects(farm, "rayjobs")
    farm.park.double.remove("rayjobs", name, "park")
    assert reader.end_of(orders[0].lease_id).state is AttemptState.LOST


def test_a_job_is_never_let_go_after_its_stop(farm, reader):
    release = hold(farm)
    orders = train("true")
    reader.executor.start(orders)
    until(lambda: objects(farm, "rayjobs"))
    reader.executor.stop([orders[0].lease_id], "cancelled by its owner")
    assert reader.end_of(orders[0].lease_id).state is AttemptState.CANCELLED
    until(lambda: not objects(farm, "rayjobs"), "the deletion")
    release()
    assert farm.lines.started == []


# ── stops ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stop_before_the_pod_is_there_ends_it_at_once(farm, reader):
    release = hold(farm)
    order = lease(next(numbers), "true")
    reader.executor.start([order])
    until(farm.park.workers)
    reader.executor.stop([order.lease_id], "cancelled by its owner")
    end = reader.end_of(order.lease_id)
    assert (end.state, end.message, end.cursor) == (AttemptState.CANCELLED, "cancelled by its owner", "")
    release()
    after = lease(next(numbers), "true")
    assert run(reader, after).state is AttemptState.SUCCEEDED
    assert [started for _, started in farm.lines.started] == [after.lease_id]


def test_a_waiting_lease_is_spoken_of(farm, reader):
    """The control plane calls lost what nobody speaks of for two minutes: images take longer."""
    release = hold(farm)
    order = lease(next(numbers), "true")
    reader.executor.start([order])
    told = reader.until(lambda r: r.kind is ReportKind.INVENTORY and order.lease_id in r.leases)
    assert (told.node, told.at_ms) == ("alpha", 0), "being on the way is no sign of life"
    release()


def test_a_stop_while_the_bridge_is_away_is_sent_when_it_returns(farm, reader):
    order = lease(next(numbers), "sleep", "1000")
    reader.executor.start([order])
    reader.start_of(order.lease_id)
    (name,) = clusters(farm)
    farm.lines.away.add(name)
    until(lambda: name not in farm.lines._bridges)
    reader.executor.stop([order.lease_id], "enough")
    farm.lines.away.clear()
    assert reader.end_of(order.lease_id).state is AttemptState.CANCELLED


# ── deaths ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pod_that_ends_takes_its_lease_with_it_and_no_other(farm, reader):
    dying, other = (lease(next(numbers), "sleep", "1000", node=node) for node in ("alpha", "beta"))
    for order in (dying, other):
        reader.executor.start([order])
        reader.start_of(order.lease_id)
    (pod,) = farm.park.workers(dying.lease_id)
    farm.park.end(pod["metadata"]["name"], reason="Evicted")
    end = reader.end_of(dying.lease_id)
    assert end.state is AttemptState.LOST
    assert "Evicted" in end.message or "was deleted" in end.message or "Ray lost" in end.message
    assert not reader.of(other.lease_id, ReportKind.FINISHED)
    assert run(reader, lease(next(numbers), "true")).state is AttemptState.SUCCEEDED


def test_a_node_that_is_gone_is_told_and_forgotten(farm, reader):
    order = lease(next(numbers), "sleep", "1000")
    reader.executor.start([order])
    reader.start_of(order.lease_id)
    farm.park.lose_node("alpha")
    reader.kind(ReportKind.NODE_GONE, "alpha")
    farm.park.return_node("alpha")
    reader.kind(ReportKind.NODE, "alpha")
    until(lambda: not farm.park.workers(order.lease_id), "the end of the pod")


def test_a_cluster_without_a_head_is_given_up_after_a_while(farm):
    farm.site = replace(SITE, bridge_ms=1)
    reader = farm.reader()
    order = lease(next(numbers), "sleep", "1000")
    reader.executor.start([order])
    reader.start_of(order.lease_id)
    (pod,) = farm.park.workers(order.lease_id)
    farm.lines.away |= set(clusters(farm))
    end = reader.end_of(order.lease_id)
    assert end.message.startswith("nothing was heard from the head of")
    until(lambda: pod not in farm.park.workers(), "the end of the pod")


def test_a_pod_that_does_not_start_is_given_up_with_kubernetes_words(farm):
    farm.site = replace(SITE, start_ms=300)
    hold(farm)
    reader = farm.reader()
    order = lease(next(numbers), "true")
    reader.executor.start([order])
    end = reader.end_of(order.lease_id)
    assert (end.state, end.message[:38]) == (AttemptState.LOST, "its pods did not start within 0 s")


def test_why_an_image_does_not_come_is_said_with_its_kind(farm):
    farm.site = replace(SITE, start_ms=8_000)
    farm.park.kubelets.pull_problem = lambda pod: "no such image" if is_worker(pod) else ""
    reader = farm.reader()
    order = lease(next(numbers), "true")
    reader.executor.start([order])
    end = reader.end_of(order.lease_id)
    assert end.state is AttemptState.LOST
    assert end.message == "its pods did not start within 8 s: image_pull: ImagePullBackOff: no such image"


def test_why_a_head_does_not_begin_is_said_too(farm):
    farm.site = replace(SITE, start_ms=8_000)
    farm.park.kubelets.pull_problem = lambda pod: "" if is_worker(pod) else "no such image"
    reader = farm.reader()
    order = lease(next(numbers), "true")
    reader.executor.start([order])
    message = reader.end_of(order.lease_id).message
    assert message == "its pods did not start within 8 s: its head: image_pull: ImagePullBackOff: no such image"


def test_a_pod_that_used_too_much_memory_has_failed(farm, reader):
    order = lease(next(numbers), "sleep", "1000")
    reader.executor.start([order])
    reader.start_of(order.lease_id)
    pod = farm.park.workers(order.lease_id)[0]["metadata"]["name"]
    farm.park.end(pod, reason="OOMKilled", exit_code=137)
    end = reader.end_of(order.lease_id)
    assert (end.state, end.message) == (
        AttemptState.FAILED,
        "its pod ended: out_of_memory: OOMKilled (exit code 137)",
    )
    reader.acknowledge_all()


def is_worker(pod):
    return pod["metadata"]["labels"]["ray.io/node-type"] == "worker"


# ── restarts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_service_adopts_what_runs_and_what_waits(farm):
    first = farm.reader()
    runs = lease(next(numbers), "sleep", "1000", devices=slots("alpha", 0))
    waits = train("sleep", "1000")
    first.executor.start([runs])
    first.start_of(runs.lease_id)
    release = hold(farm)
    first.executor.start(waits)
    until(lambda: objects(farm, "rayjobs"))
    before = {
        name: o["metadata"]["uid"] for kind in ("rayclusters", "rayjobs") for name, o in objects(farm, kind).items()
    }
    first.executor.close()

    second = farm.reader()
    second.kind(ReportKind.RUNTIME_UP)
    told = second.inventories({"alpha", "beta"})
    leases = {report.node: set(report.leases) for report in told}
    assert leases == {"alpha": {runs.lease_id, waits[0].lease_id}, "beta": {waits[0].lease_id}}
    second.executor.start(waits)  # not begun: the control plane orders it again
    release()
    second.start_of(waits[0].lease_id)
    after = {
        name: o["metadata"]["uid"] for kind in ("rayclusters", "rayjobs") for name, o in objects(farm, kind).items()
    }
    assert before.items() <= after.items(), "nothing was made twice"
    assert [lease_id for _, lease_id in farm.lines.started] == [waits[0].lease_id] * 2
    second.executor.stop([runs.lease_id], "over")
    assert second.end_of(runs.lease_id).state is AttemptState.CANCELLED


def running(farm):
    """A service under which a single task runs and a gang on both nodes: it, and their orders."""
    first = farm.reader()
    single, gang = lease(next(numbers), "sleep", "1000"), train("sleep", "1000")
    for orders in ([single], gang):
        first.executor.start(orders)
        first.start_of(orders[0].lease_id)
    return first, single, gang


def test_a_node_that_died_while_no_service_was_there_is_told_gone(farm):
    """Nobody else would say so: the control plane would wait for it for two minutes, and with it its leases."""
    first, single, _ = running(farm)
    first.executor.close()
    farm.park.lose_node("alpha")
    second = farm.reader()
    second.kind(ReportKind.RUNTIME_UP)
    gone = second.kind(ReportKind.NODE_GONE)
    assert (gone.node, gone.message) == ("alpha", "its kubelet does not answer: Kubelet stopped posting node status.")
    told = second.kind(ReportKind.INVENTORY)
    assert (told.node, single.lease_id in told.leases) == ("beta", False)
    until(lambda: not objects(farm, "rayjobs"), "the deletion")
    farm.park.return_node("alpha")
    second.kind(ReportKind.NODE, "alpha")


def test_a_node_that_was_deleted_while_no_service_was_there_is_none_of_those_there_are(farm):
    """And what was found of its leases is let go, the other ranks too: the control plane closes them."""
    first, single, gang = running(farm)
    assert (single.node, {order.node for order in gang}) == ("alpha", {"alpha", "beta"})
    first.executor.close()
    farm.park.remove_node("alpha")
    second = farm.reader()
    assert second.kind(ReportKind.RUNTIME_UP).nodes == ("beta",)
    told = second.kind(ReportKind.INVENTORY)
    assert (told.node, single.lease_id in told.leases) == ("beta", False)
    until(lambda: not objects(farm, "rayjobs"), "the deletion")


def test_a_node_that_does_not_answer_is_one_of_those_there_are(farm):
    farm.park.lose_node("alpha")
    reader = farm.reader()
    assert reader.kind(ReportKind.RUNTIME_UP).nodes == ("alpha", "beta")
    assert reader.kind(ReportKind.NODE_GONE).node == "alpha"


def test_what_nobody_holds_open_is_stopped_and_deleted(farm):
    first = farm.reader()
    orders = train("sleep", "1000")
    first.executor.start(orders)
    first.start_of(orders[0].lease_id)
    first.executor.close()
    second = farm.reader()
    second.until(lambda r: r.kind is ReportKind.INVENTORY and orders[0].lease_id in r.leases)
    second.executor.stop([orders[0].lease_id], "its lease is over")  # as the observer answers
    end = second.end_of(orders[0].lease_id)
    second.executor.acknowledge([end.cursor])
    until(lambda: not objects(farm, "rayjobs"), "the deletion")


def test_who_does_not_lead_any_more_writes_nothing(farm, reader):
    farm.reader().kind(ReportKind.RUNTIME_UP)
    written = len([seen for seen in farm.park.double.seen if seen.verb in ("create", "patch", "delete")])
    reader.executor.start([lease(next(numbers), "true")])
    reader.executor.start(train("true"))
    until(lambda beats=farm.park.beats: farm.park.beats > beats + 50)
    assert [seen for seen in farm.park.double.seen if seen.verb in ("create", "patch", "delete")][written:] == []


def test_an_order_that_was_written_on_a_pod_but_not_sent_is_sent_by_the_next(farm):
    first = farm.reader()
    order = lease(next(numbers), "true")
    first.executor.start([lease(next(numbers), "true")])  # so that there is a cluster
    (name,) = until(lambda: clusters(farm))
    farm.lines.away.add(name)
    first.executor.start([order])
    until(lambda: farm.park.workers(order.lease_id), "the assignment")
    first.executor.close()
    second = farm.reader()
    second.until(lambda r: r.kind is ReportKind.INVENTORY and order.lease_id in r.leases)
    assert run(second, order).state is AttemptState.SUCCEEDED


def test_a_closed_lease_on_a_warm_pod_frees_it(farm):
    first = farm.reader()
    order = lease(next(numbers), "true")
    first.executor.start([order])
    end = first.end_of(order.lease_id)
    first.executor.close()
    for farmed in farm.park.farms.values():
        farmed.settle(end.cursor.partition("|")[2])
    farm.reader().kind(ReportKind.RUNTIME_UP)
    until(lambda: not farm.park.workers(order.lease_id) and farm.park.workers(), "the release")


# ── the API server ───────────────────────────────────────────────────────────────────────────────────────────────────

STORM = (
    Fault(status=429, retry_after_s=0),
    Fault(status=500),
    Fault(status=503),
    Fault(loss=Loss.REQUEST),
    Fault(loss=Loss.ANSWER, weight=2),
    Fault(verbs=("watch",), cut_after=2),
)


@pytest.mark.parametrize("seed", range(3))
def test_in_a_storm_of_faults_all_runs_once_and_nothing_is_left(farm, seed):
    reader = farm.reader()
    reader.kind(ReportKind.RUNTIME_UP)
    farm.park.double.faults.storm(seed, 0.5, STORM)
    singles = [lease(next(numbers), "sleep", "0.05", node=("alpha", "beta")[n % 2]) for n in range(12)]
    jobs = [train("sleep", "0.05") for _ in range(3)]
    for orders in ([order] for order in singles):
        reader.executor.start(orders)
    for orders in jobs:
        reader.executor.start(orders)
    wanted = {order.lease_id for order in singles} | {orders[0].lease_id for orders in jobs}
    ends = {}
    while ends.keys() != wanted:
        end = reader.until(lambda r: r.kind is ReportKind.FINISHED)
        reader.executor.acknowledge([end.cursor])
        assert end.lease_id not in ends or ends[end.lease_id] == end
        ends[end.lease_id] = end
    assert {end.state for end in ends.values()} == {AttemptState.SUCCEEDED}
    assert farm.park.double.faults.met > 10
    farm.park.double.faults.calm()
    until(lambda: not objects(farm, "rayjobs"), "the deletion")
    until(lambda: all(LEASE not in p["metadata"]["annotations"] for p in farm.park.workers()), "the release")
    assert len(clusters(farm)) == 1
    assert len(farm.park.workers()) <= 12, "no more pods than leases"


def test_what_kubernetes_refuses_for_good_fails(farm, reader):
    farm.park.double.faults.add(Fault(verbs=("create",), resources=("rayjobs",), status=422), times=1)
    orders = train("true")
    reader.executor.start(orders)
    end = reader.end_of(orders[0].lease_id)
    assert end.state is AttemptState.FAILED
    assert end.message.startswith("Kubernetes refuses it:")


def test_a_name_that_is_somebody_elses_is_left_alone(farm, reader):
    name = pool_cluster(SITE, "t1", "", "alpha").name
    meta = {"name": name, "namespace": "park", "labels": {"theirs": "yes"}}
    spec = ray_cluster(SITE, pool_cluster(SITE, "t1", "", "alpha"), "")["spec"]
    farm.park.double.put({"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": meta, "spec": spec})
    reader.executor.start([lease(next(numbers), "true")])
    until(lambda: any(s.verb == "get" and s.name == name for s in farm.park.double.seen))
    assert farm.park.double.get("rayclusters", name, "park")["metadata"]["labels"] == {"theirs": "yes"}
    assert farm.park.double.get("secrets", f"{name}-tokens", "park") is None


def test_a_silent_server_stops_the_planning_and_its_return_resumes_it(farm):
    reader = farm.reader(trouble_s=0.05)
    reader.kind(ReportKind.RUNTIME_UP)
    order = lease(next(numbers), "sleep", "1000")
    reader.executor.start([order])
    reader.start_of(order.lease_id)
    farm.park.double.faults.storm(1, 1.0, (Fault(status=503),))
    farm.park.double.cut_watches()
    down = reader.kind(ReportKind.RUNTIME_DOWN)
    assert down.message.startswith("Kubernetes does not answer")
    farm.park.double.faults.calm()
    reader.kind(ReportKind.RUNTIME_UP)
    assert reader.kind(ReportKind.NODE, "alpha").facts is not None
    assert order.lease_id in reader.kind(ReportKind.INVENTORY, "alpha").leases
