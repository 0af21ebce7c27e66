"""The stand-in does with RayClusters and RayJobs what KubeRay does, and says it in fields that its definitions have."""

import pytest

from k8s import manifests
from k8s.pods import Cluster
from k8s.shapes import Shape
from k8s.site import Site
from scheduler.model.order import LeaseOrder, TaskOrder
from tests.fakes.kube.schema import Findings
from tests.fakes.kube.verbs import Call
from tests.fakes.kuberay.conditions import is_true
from tests.fakes.kuberay.park import KubePark, node

SITE = Site(namespace="park", gateway="shisuan:7443", images={"default": "pool:1"})
POOL = Cluster(name="pool-studio", tenant="studio", lane="pool", image="pool:1")
A = Shape(node="a", cpu_milli=500)
B = Shape(node="b", cpu_milli=500)
CARD = Shape(node="b", resource="nvidia.com/gpu", count=1)


@pytest.fixture
def park():
    with KubePark(nodes=[node("a"), node("b", cards=2), node("heads")]) as park:
        yield park


def create(park, kind, body, version="ray.io/v1"):
    made = {"apiVersion": version, "kind": kind, **body}
    call = Call(kind=park.double.kind_of(made), namespace="park", query={"fieldValidation": "Strict"})
    return park.double.verbs.create(call, made).obj


def patch(park, plural, name, spec):
    call = Call(kind=park.double._plural(plural), namespace="park", name=name)
    return park.double.verbs.patch(call, "application/merge-patch+json", {"spec": spec}).obj


def delete(park, plural, name):
    park.double.verbs.delete(Call(kind=park.double._plural(plural), namespace="park", name=name), {})


def secret(park, cluster):
    create(park, "Secret", manifests.secret(SITE, cluster, bridge_token="b", ray_token="r"), "v1")


def pool(park, *groups, has_secret=True):
    if has_secret:
        secret(park, POOL)
    body = manifests.ray_cluster(SITE, POOL, "render")
    body["spec"]["workerGroupSpecs"] = [manifests.group(SITE, POOL, shape, count) for shape, count in groups]
    return create(park, "RayCluster", body)


def scale(park, *groups):
    return patch(
        park,
        "rayclusters",
        POOL.name,
        {"workerGroupSpecs": [manifests.group(SITE, POOL, shape, count, drop) for shape, count, *drop in groups]},
    )


def job(park, *shapes):
    order = LeaseOrder(
        lease_id="l1",
        tenant="studio",
        node="a",
        lane="job",
        tasks=(TaskOrder(attempt_id="j1.r.0.a1", number=1, argv=("true",)),),
    )
    cluster = manifests.job_cluster(SITE, order, "train")
    secret(park, cluster)
    body = manifests.ray_job(SITE, cluster, "l1", ["j1.r.0.a1"], shapes or [A])
    return create(park, "RayJob", body)["metadata"]["name"]


def status(park, plural, name):
    return park.double.get(plural, name, "park").get("status", {})


def state(park, name):
    return status(park, "rayjobs", name).get("jobDeploymentStatus")


def ready(park, name=POOL.name):
    return park.until(lambda: status(park, "rayclusters", name).get("state") == "ready")


def names(pods):
    return [pod["metadata"]["name"] for pod in pods]


def workers(park, shape=A):
    return park.pods(group=shape.group)


# ── RayClusters ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cluster_becomes_a_head_and_workers_on_their_nodes(park):
    made = pool(park, (A, 1), (CARD, 1))
    ready(park)
    (head,) = park.pods(node_type="head")
    assert names([head]) == ["pool-studio-head"]
    assert {pod["spec"]["nodeName"] for pod in park.pods(node_type="worker")} == {"a", "b"}
    (worker,) = workers(park)
    assert worker["metadata"]["name"].startswith(f"pool-studio-{A.group}-worker-")
    assert (
        worker["metadata"]["labels"]
        | {
            "ray.io/cluster": "pool-studio",
            "ray.io/is-ray-node": "yes",
            "app.kubernetes.io/created-by": "kuberay-operator",
            "app.kubernetes.io/managed-by": "shisuan",
        }
        == worker["metadata"]["labels"]
    )
    assert [o["uid"] for o in worker["metadata"]["ownerReferences"]] == [made["metadata"]["uid"]]
    told = status(park, "rayclusters", POOL.name)
    assert (told["readyWorkerReplicas"], told["desiredWorkerReplicas"]) == (2, 2)
    assert told["head"] == {
        "podName": "pool-studio-head",
        "podIP": head["status"]["podIP"],
        "serviceIP": head["status"]["podIP"],
        "serviceName": "pool-studio-head-svc",
    }
    assert is_true(told, "RayClusterProvisioned")
    assert told["desiredGPU"] == "1"


def test_what_is_said_is_in_the_definitions(park):
    pool(park, (A, 1))
    ready(park)
    name = job(park)
    patch(park, "rayjobs", name, {"suspend": False})
    park.until(lambda: state(park, name) == "Running")
    park.finish(name, exit_code=1)
    park.until(lambda: state(park, name) == "Failed")
    for plural in ("rayclusters", "rayjobs"):
        kind = park.double._plural(plural)
        for obj in park.double.objects(plural):
            findings = Findings()
            park.double.verbs.schemas.conform(dict(obj), kind.schema, findings)
            assert (findings.invalid, findings.mistyped, findings.unknown) == ([], [], [])
            assert obj["status"]


def test_a_worker_with_its_own_command_keeps_it_and_is_given_kuberays_in_a_variable(park):
    pool(park, (CARD, 1))
    ready(park)
    (ray,) = workers(park, CARD)[0]["spec"]["containers"]
    env = {one["name"]: one.get("value") for one in ray["env"]}
    assert "KUBERAY_GEN_RAY_START_CMD" in ray["command"][-1]
    start = env["KUBERAY_GEN_RAY_START_CMD"]
    assert start.startswith("ray start  --address=pool-studio-head-svc.park.svc.cluster.local:6379 ")
    assert " --block " in start
    assert """ --resources='{"gpu0": 1}' """ in start
    (head,) = park.pods(node_type="head")
    ray = head["spec"]["containers"][0]
    assert ray["command"] == ["/bin/bash", "-c", "--"]
    assert ray["args"][0].startswith("ulimit -n 65536; ray start --head ")
    assert " --include-dashboard=false " in ray["args"][0]


def test_named_workers_go_and_the_others_stay(park):
    pool(park, (A, 3))
    ready(park)
    first, second, third = names(workers(park))
    scale(park, (A, 2, second))
    park.until(lambda: names(workers(park)) == [first, third])
    scale(park, (A, 3))
    park.until(lambda: len(workers(park)) == 3)
    assert {first, third} < set(names(workers(park)))


def test_without_names_somebody_goes(park):
    pool(park, (A, 3))
    ready(park)
    before = set(names(workers(park)))
    scale(park, (A, 1))
    park.until(lambda: len(workers(park)) == 1)
    assert set(names(workers(park))) < before


def test_a_worker_that_failed_is_replaced_and_a_container_of_the_head_starts_again(park):
    pool(park, (A, 1))
    ready(park)
    (name,) = names(workers(park))
    park.end(name, reason="OOMKilled", exit_code=137)
    park.until(lambda: names(workers(park)) not in ([], [name]))
    park.end("pool-studio-head", "bridge")

    def restarts():
        (head,) = park.pods(node_type="head")
        return {one["name"]: one["restartCount"] for one in head["status"]["containerStatuses"]}

    park.until(lambda: restarts() == {"ray-head": 0, "bridge": 1})
    ready(park)


def test_a_worker_waits_for_its_head(park):
    park.kubelets.pulled = lambda pod: pod["metadata"]["labels"]["ray.io/node-type"] != "head"
    pool(park, (A, 1))
    park.until(lambda: [p["status"].get("containerStatuses") for p in workers(park)])
    (worker,) = workers(park)
    assert worker["status"]["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    park.kubelets.pulled = lambda _pod: True
    ready(park)


def test_a_deleted_cluster_takes_its_pods_with_it(park):
    pool(park, (A, 2))
    ready(park)
    delete(park, "rayclusters", POOL.name)
    park.until(lambda: not park.pods() and not park.double.objects("services"))


def test_a_suspended_cluster_has_no_pods_until_it_goes_on(park):
    pool(park, (A, 1))
    ready(park)
    patch(park, "rayclusters", POOL.name, {"suspend": True})
    park.until(lambda: status(park, "rayclusters", POOL.name)["state"] == "suspended")
    assert park.pods() == []
    patch(park, "rayclusters", POOL.name, {"suspend": False})
    ready(park)


# ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pod_that_fits_nowhere_says_why(park):
    pool(park, (CARD, 3))
    park.until(lambda: sum(is_true(p["status"], "Ready") for p in workers(park, CARD)) == 2)
    (waits,) = [pod for pod in workers(park, CARD) if not pod["spec"].get("nodeName")]
    (condition,) = waits["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("PodScheduled", "False", "Unschedulable")
    assert condition["message"] == (
        "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match Pod's node affinity/selector."
    )
    assert not status(park, "rayclusters", POOL.name).get("state")


def test_cards_are_given_to_one_pod_each_and_come_back(park):
    park.kubelets.cards["b"] = ("GPU-x", "GPU-y")
    pool(park, (CARD, 2))
    ready(park)
    first, second = workers(park, CARD)
    given = {pod["metadata"]["name"]: park.runtime.cards[pod["metadata"]["uid"]] for pod in (first, second)}
    assert sorted(given.values()) == [("GPU-x",), ("GPU-y",)]
    name = first["metadata"]["name"]
    park.end(name)
    park.until(lambda: len(workers(park, CARD)) == 2 and name not in names(workers(park, CARD)))
    ready(park)
    (fresh,) = [pod for pod in workers(park, CARD) if pod["metadata"]["name"] not in given]
    assert park.runtime.cards[fresh["metadata"]["uid"]] == given[name]


def test_an_image_that_does_not_come_is_said(park):
    park.kubelets.pull_problem = lambda pod: "no such image" if "worker" in pod["metadata"]["name"] else ""
    pool(park, (A, 1))
    park.until(lambda: [p["status"].get("containerStatuses") for p in workers(park)])
    (worker,) = workers(park)
    waiting = worker["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting == {"reason": "ImagePullBackOff", "message": "no such image"}


def test_a_pod_waits_for_its_secret(park):
    pool(park, has_secret=False)
    park.until(lambda: [p["status"].get("containerStatuses") for p in park.pods()])
    waiting = park.pods()[0]["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["message"] == 'secret "pool-studio-tokens" not found'
    secret(park, POOL)
    ready(park)


def test_a_dead_node_keeps_its_pods_on_the_books_until_it_is_removed(park):
    pool(park, (A, 1), (B, 1))
    ready(park)
    park.lose_node("a")
    (dead,) = workers(park, A)
    assert (dead["status"]["phase"], is_true(dead["status"], "Ready")) == ("Running", False)
    scale(park, (A, 0, dead["metadata"]["name"]), (B, 1))
    park.until(lambda: "deletionTimestamp" in workers(park, A)[0]["metadata"])
    assert is_true(workers(park, B)[0]["status"], "Ready")
    park.remove_node("a")
    park.until(lambda: not workers(park, A))


def test_a_node_that_comes_back_has_lost_what_it_ran(park):
    pool(park, (A, 1))
    ready(park)
    (dead,) = names(workers(park))
    park.lose_node("a")
    park.return_node("a")
    park.until(lambda: len(workers(park)) == 1 and names(workers(park)) != [dead])
    ready(park)


# ── RayJobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_that_is_suspended_has_nothing_and_runs_when_it_may(park):
    name = job(park, A, B)
    park.until(lambda: state(park, name) == "Suspended")
    assert park.pods() == []
    assert "rayClusterName" not in status(park, "rayjobs", name)
    patch(park, "rayjobs", name, {"suspend": False})
    park.until(lambda: status(park, "rayjobs", name).get("jobStatus") == "RUNNING")
    told = status(park, "rayjobs", name)
    cluster = park.double.get("rayclusters", told["rayClusterName"], "park")
    assert cluster["metadata"]["name"].startswith(f"{name}-")
    assert cluster["metadata"]["labels"]["shisuan.io/lease"] == "l1"
    assert len(park.pods(cluster=told["rayClusterName"], node_type="worker")) == 2
    (head,) = park.pods(cluster=told["rayClusterName"], node_type="head")
    assert [one["name"] for one in head["spec"]["containers"]] == ["ray-head", "ray-job-submitter"]
    assert told["jobId"] in head["spec"]["containers"][1]["args"][0]
    patch(park, "rayjobs", name, {"suspend": True})
    park.until(lambda: state(park, name) == "Suspended")
    assert park.pods() == []


@pytest.mark.parametrize(("code", "ended"), [(0, ("Complete", "SUCCEEDED", 1, 0)), (3, ("Failed", "FAILED", 0, 1))])
def test_a_job_ends_with_its_entrypoint_and_its_cluster_goes(park, code, ended):
    name = job(park)
    patch(park, "rayjobs", name, {"suspend": False})
    park.until(lambda: status(park, "rayjobs", name).get("jobStatus") == "RUNNING")
    park.finish(name, exit_code=code)
    park.until(lambda: not park.pods())
    told = status(park, "rayjobs", name)
    assert (told["jobDeploymentStatus"], told["jobStatus"], told["succeeded"], told["failed"]) == ended
    assert told["endTime"] >= told["startTime"]
    assert ("exit code 3" in told["message"]) == (code == 3)
    assert park.double.objects("rayclusters") == []


def test_a_job_without_its_head_has_failed(park):
    name = job(park)
    patch(park, "rayjobs", name, {"suspend": False})
    park.until(lambda: status(park, "rayjobs", name).get("jobStatus") == "RUNNING")
    (head,) = park.pods(node_type="head")
    delete(park, "pods", head["metadata"]["name"])
    park.until(lambda: state(park, name) == "Failed")
    assert status(park, "rayjobs", name)["message"] == "Ray head pod not found."
    park.until(lambda: not park.pods())


def test_a_deleted_job_takes_everything_with_it(park):
    name = job(park)
    patch(park, "rayjobs", name, {"suspend": False})
    park.until(lambda: state(park, name) == "Running")
    assert park.double.get("rayjobs", name, "park")["metadata"]["finalizers"] == ["ray.io/rayjob-finalizer"]
    delete(park, "rayjobs", name)
    park.until(lambda: not park.double.objects("rayjobs"))
    park.until(lambda: not park.pods() and not park.double.objects("rayclusters"))


def test_a_job_that_kuberay_refuses_says_so(park):
    name = job(park)
    park.until(lambda: state(park, name) == "Suspended")
    body = {"metadata": {"name": "bad", "namespace": "park"}}
    spec = {**park.double.get("rayjobs", name, "park")["spec"], "shutdownAfterJobFinishes": False}
    create(park, "RayJob", {**body, "spec": spec})
    park.until(lambda: state(park, "bad") == "ValidationFailed")
    assert "suspended" in status(park, "rayjobs", "bad")["message"]
