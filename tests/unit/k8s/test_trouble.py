"""Why a pod does not run, as kubelets and the scheduler say it."""

import pytest

from k8s.failures import key
from k8s.lanes import Assign, DeleteCluster, DeleteJob, Release, Unsuspend
from k8s.seen import ClusterSeen, JobSeen, PodSeen, head_seen
from k8s.shapes import Shape
from k8s.trouble import Kind, trouble_of


def container(**state):
    return {"containerStatuses": [{"name": "ray-worker", "state": state}]}


def waits(reason, message=""):
    return container(waiting={"reason": reason, "message": message})


NO_ROOM = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
PULL = 'Back-off pulling image "registry/x:1"'


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (waits("ImagePullBackOff", PULL), Kind.IMAGE_PULL, f"image_pull: ImagePullBackOff: {PULL}"),
        (waits("InvalidImageName"), Kind.IMAGE_PULL, "image_pull: InvalidImageName"),
        (
            {"initContainerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}}]}
            | waits("PodInitializing"),
            Kind.IMAGE_PULL,
            "image_pull: ErrImagePull: no",
        ),
        ({"conditions": [NO_ROOM]}, Kind.UNSCHEDULABLE, "unschedulable: Unschedulable: 0/3 nodes are available"),
        (
            waits("CreateContainerConfigError", 'secret "x" not found'),
            Kind.CONFIGURATION,
            'configuration: CreateContainerConfigError: secret "x" not found',
        ),
        (
            container(terminated={"reason": "OOMKilled", "exitCode": 137}),
            Kind.OUT_OF_MEMORY,
            "out_of_memory: OOMKilled (exit code 137)",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                        "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
                    }
                ]
            },
            Kind.OUT_OF_MEMORY,
            "out_of_memory: OOMKilled (exit code 137)",
        ),
        (
            {"reason": "Evicted", "message": "The node was low on resource: memory."},
            Kind.EVICTED,
            "evicted: Evicted: The node was low on resource: memory.",
        ),
        (
            container(terminated={"reason": "Error", "exitCode": 1, "message": "no GCS"}),
            Kind.CRASHED,
            "crashed: Error (exit code 1): no GCS",
        ),
        (waits("SomethingNew", "who knows"), Kind.OTHER, "SomethingNew: who knows"),
    ],
)
def test_each_kind_of_trouble_is_known_and_keeps_kubernetes_own_words(status, kind, text):
    found = trouble_of(status)
    assert (found.kind, str(found)) == (kind, text)


@pytest.mark.parametrize(
    "status",
    [
        {},
        waits("ContainerCreating"),
        waits("PodInitializing"),
        container(running={"startedAt": "2026-11-27T00:00:00Z"}),
        container(terminated={"reason": "Completed", "exitCode": 0}),
        {"conditions": [{"type": "PodScheduled", "status": "True"}]},
    ],
)
def test_what_goes_its_way_is_no_trouble(status):
    assert trouble_of(status) is None


def test_a_message_is_bounded():
    assert len(str(trouble_of(waits("ErrImagePull", "x" * 100_000)))) < 1_100


def test_a_head_is_told_from_workers():
    meta = {"name": "h", "uid": "u", "resourceVersion": "1", "labels": {"shisuan.io/cluster": "pool-a"}}
    raw = {"metadata": meta, "status": waits("ErrImagePull", "no")}
    assert str(head_seen(raw).trouble) == "image_pull: ErrImagePull: no"
    assert head_seen({**raw, "metadata": {**meta, "annotations": {"shisuan.io/shape": "{}"}}}) is None
    assert head_seen({**raw, "metadata": {**meta, "labels": {}}}) is None


def test_every_action_has_a_key_of_its_own():
    common = {"uid": "u", "version": "1", "cluster": "c", "tenant": "t"}
    pod = PodSeen(name="p", shape=Shape(node="n"), lane="pool", is_ready=True, phase="Running", **common)
    job = JobSeen(name="j", lease="l1", tasks=(), shapes=(), is_suspended=True, **common)
    cluster = ClusterSeen(name="c", kind="render", **common)
    actions = [Assign(pod=pod, lease="l1", rank=0), Release(pod=pod), DeleteCluster(seen=cluster)]
    actions += [DeleteJob(seen=job), Unsuspend(seen=job)]
    assert [key(action) for action in actions] == [
        *("Assign p", "Release p", "DeleteCluster c", "DeleteJob j", "Unsuspend j")
    ]
