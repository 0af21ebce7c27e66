"""What the double does on demand, and what needs controllers on a real server: collecting dependents."""

import json
import urllib.error
import urllib.request

import pytest

from k8s.errors import Absent, HistoryGone
from k8s.resource import DEPLOYMENTS, LEASES, NODES, PODS, RAY_CLUSTERS, RAY_JOBS
from tests.contract.kube.objects import lease, pod, ray_cluster, ray_job
from tests.fakes.kube.faults import Fault, Loss
from tests.fakes.kube.patches import Unprocessable, json_patch
from tests.fakes.kube.server import FakeKubernetes


def owned_by(owner, **more):
    meta = owner["metadata"]
    owner = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
    return {"ownerReferences": [{**owner, **more}]}


def is_there(api, resource, name, namespace):
    try:
        return api.get(resource, name, namespace)
    except Absent:
        return None


def test_dependents_go_with_their_last_owner(api, namespace, double):
    job, other = (api.create(RAY_JOBS, ray_job(name), namespace) for name in ("one", "other"))
    api.create(RAY_CLUSTERS, ray_cluster("c") | {"metadata": {"name": "c", **owned_by(job)}}, namespace)
    cluster = api.get(RAY_CLUSTERS, "c", namespace)
    api.create(PODS, pod("head", **owned_by(cluster)), namespace)
    api.create(PODS, pod("kept"), namespace)
    both = {"ownerReferences": owned_by(job)["ownerReferences"] + owned_by(other)["ownerReferences"]}
    api.create(PODS, pod("shared", **both), namespace)
    api.delete(RAY_JOBS, "one", namespace)
    assert is_there(api, RAY_CLUSTERS, "c", namespace) is None
    assert [p["metadata"]["name"] for p in double.objects("pods") if p["metadata"]["namespace"] == namespace] == [
        *("kept", "shared")
    ]
    api.delete(RAY_JOBS, "other", namespace)
    assert is_there(api, PODS, "shared", namespace) is None


def test_an_owner_deleted_in_the_foreground_goes_last(api, namespace, double):
    job = api.create(RAY_JOBS, ray_job("one"), namespace)
    api.create(PODS, pod("rank", node="n1", **owned_by(job, blockOwnerDeletion=True)), namespace)
    api.delete(RAY_JOBS, "one", namespace, propagation="Foreground")
    assert is_there(api, RAY_JOBS, "one", namespace)["metadata"]["finalizers"] == ["foregroundDeletion"]
    double.remove("pods", "rank", namespace)
    assert is_there(api, RAY_JOBS, "one", namespace) is None


def test_orphans_stay_without_their_owner(api, namespace, double):
    job = api.create(RAY_JOBS, ray_job("one"), namespace)
    api.create(PODS, pod("rank", **owned_by(job)), namespace)
    api.delete(RAY_JOBS, "one", namespace, propagation="Orphan")
    assert is_there(api, RAY_JOBS, "one", namespace) is None
    assert api.get(PODS, "rank", namespace)["metadata"]["ownerReferences"] == []


def test_whose_owner_is_gone_already_does_not_stay(api, namespace, double):
    job = api.create(RAY_JOBS, ray_job("one"), namespace)
    api.delete(RAY_JOBS, "one", namespace)
    api.create(PODS, pod("late", **owned_by(job)), namespace)
    assert is_there(api, PODS, "late", namespace) is None


def test_compaction_ends_watches_and_lists(api, namespace, double):
    for number in range(3):
        api.create(LEASES, lease(f"l{number}", "x"), namespace)
    pages = api.pages(LEASES, namespace, limit=1)
    first = next(pages)
    running = iter(api.watch(LEASES, first.version, namespace, lasts_s=30))
    api.create(LEASES, lease("l3", "x"), namespace)
    assert next(running)[0] == "ADDED"
    double.compact()
    for gone in (running, pages, iter(api.watch(LEASES, first.version, namespace, lasts_s=1))):
        with pytest.raises(HistoryGone):
            list(gone)


def test_bookmarks_move_a_watch_on():
    with FakeKubernetes(bookmark_s=0.01) as double:
        double.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
        url = f"{double.url}/api/v1/pods?watch=1&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion="
        with urllib.request.urlopen(f"{url}{double.storage.version}", timeout=10) as told:
            event = json.loads(next(told))
        assert (event["type"], event["object"]["metadata"]["resourceVersion"]) == (
            "BOOKMARK",
            str(double.storage.version),
        )


def test_a_lost_answer_was_done_and_a_lost_request_was_not(api, namespace, double):
    for loss, done in ((Loss.REQUEST, False), (Loss.ANSWER, True)):
        double.faults.add(Fault(verbs=("create",), loss=loss))
        body = json.dumps(pod(f"p-{loss.value}") | {"apiVersion": "v1", "kind": "Pod"}).encode()
        asked = urllib.request.Request(f"{double.url}/api/v1/namespaces/{namespace}/pods", body, method="POST")
        with pytest.raises(OSError):
            urllib.request.urlopen(asked, timeout=10)
        assert (double.get("pods", f"p-{loss.value}", namespace) is not None) is done


def test_requests_are_noted_as_a_role_would_name_them(api, namespace, double):
    del double.seen[:]
    api.create(PODS, pod("one"), namespace)
    api.evict(PODS, "one", namespace)
    next(api.pages(NODES))
    list(api.watch(DEPLOYMENTS, str(double.storage.version), lasts_s=0))
    assert [(s.verb, s.group, s.resource, s.status) for s in double.seen] == [
        ("create", "", "pods", 201),
        ("create", "", "pods/eviction", 201),
        ("list", "", "nodes", 200),
        ("watch", "apps", "deployments", 200),
    ]


def test_a_put_needs_the_present_version_where_servers_insist(api, namespace, double):
    def put(body):
        url = f"{double.url}/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/one"
        asked = urllib.request.Request(url, json.dumps(body).encode(), method="PUT")
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    made = api.create(LEASES, lease("one", "a"), namespace)
    without = {"metadata": {"name": "one"}, "spec": {"holderIdentity": "b"}}
    assert put(without) == 422
    assert put({**made, "spec": {"holderIdentity": "b"}}) == 200
    assert put({**made, "spec": {"holderIdentity": "c"}}) == 409


def test_json_patch_is_all_or_nothing():
    target = {"a": [1, 2], "b": {"c/d": 1}}
    done = [
        {"op": "test", "path": "/a/0", "value": 1},
        {"op": "add", "path": "/a/-", "value": 3},
        {"op": "remove", "path": "/a/0"},
        {"op": "replace", "path": "/b/c~1d", "value": 2},
        {"op": "move", "from": "/b/c~1d", "path": "/e"},
    ]
    assert json_patch(target, done) == {"a": [2, 3], "b": {}, "e": 2}
    for wrong in (
        {"op": "test", "path": "/a/0", "value": 9},
        {"op": "remove", "path": "/x"},
        {"op": "add", "path": "/a/9"},
    ):
        with pytest.raises(Unprocessable):
            json_patch(target, [{"op": "add", "path": "/new", "value": 1}, wrong])
    assert target == {"a": [1, 2], "b": {"c/d": 1}}
