"""What every API server does that shisuan leans on, asked of the double and of a real one."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from k8s.api import Only
from k8s.errors import Absent, AlreadyThere, BudgetSpent, Contested, HistoryGone, Malformed, Stale
from k8s.resource import BUDGETS, DEPLOYMENTS, LEASES, NAMESPACES, NODES, PODS, RAY_CLUSTERS, RAY_JOBS
from tests.contract.kube.objects import budget, deployment, lease, node, pod, ray_cluster, ray_job

needs = pytest.mark.needs


def items(api, resource, namespace="", **where):
    return [item for page in api.pages(resource, namespace, **where) for item in page.items]


def names(found):
    return [item["metadata"]["name"] for item in found]


def version(obj):
    return obj["metadata"]["resourceVersion"]


# ── creating and reading ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_created_object_has_an_identity_and_a_version(api, namespace):
    made = api.create(LEASES, lease("one"), namespace)
    meta = made["metadata"]
    assert meta["namespace"] == namespace
    assert all(meta[what] for what in ("uid", "resourceVersion", "creationTimestamp"))
    assert api.get(LEASES, "one", namespace)["metadata"]["uid"] == meta["uid"]


def test_a_name_can_be_taken_once(api, namespace):
    api.create(LEASES, lease("one"), namespace)
    with pytest.raises(AlreadyThere, match="already exists"):
        api.create(LEASES, lease("one"), namespace)


def test_who_comes_again_under_a_name_is_another(api, namespace):
    first = api.create(LEASES, lease("one", "a"), namespace)
    api.delete(LEASES, "one", namespace)
    second = api.create(LEASES, lease("one", "a"), namespace)
    assert first["metadata"]["uid"] != second["metadata"]["uid"]


@pytest.mark.parametrize("place", ["object", pytest.param("namespace", marks=needs(NAMESPACES))])
def test_what_is_not_there_is_absent(api, namespace, place):
    ask = {
        "object": lambda: api.get(LEASES, "nobody", namespace),
        "namespace": lambda: api.create(LEASES, lease("one"), "shisuan-no-such-namespace"),
    }
    with pytest.raises(Absent):
        ask[place]()


def test_a_server_says_which_kinds_it_has(api):
    assert api.serves(RAY_JOBS)
    assert not api.serves(replace(RAY_JOBS, plural="rayjobbers"))
    assert not api.serves(replace(RAY_JOBS, version="v9"))


@pytest.mark.parametrize(
    ("resource", "body", "said"),
    [
        pytest.param(PODS, {"metadata": {"name": "one"}, "spec": {}}, "containers", marks=needs(PODS)),
        (RAY_CLUSTERS, {"metadata": {"name": "one"}, "spec": {}}, "headGroupSpec"),
        (RAY_CLUSTERS, ray_cluster("one", replicas="many"), "replicas"),
        (RAY_JOBS, ray_job("one", backoffLimit="none"), "backoffLimit"),
        (LEASES, lease("UPPER"), "metadata.name"),
    ],
)
def test_an_object_that_breaks_its_schema_is_refused(api, namespace, resource, body, said):
    with pytest.raises(Malformed) as refused:
        api.create(resource, body, namespace)
    assert said in str(refused.value)
    assert not items(api, resource, namespace)


def test_unknown_fields_go_and_defaults_come(api, namespace):
    made = api.create(RAY_CLUSTERS, ray_cluster("one", noSuchField=1), namespace)
    assert "noSuchField" not in made["spec"]
    assert made["spec"]["workerGroupSpecs"][0]["numOfHosts"] == 1


def test_a_list_in_pages_is_of_one_moment(api, namespace):
    for number in range(5):
        api.create(LEASES, lease(f"l{number}", "x"), namespace)
    pages = api.pages(LEASES, namespace, limit=2)
    first = next(pages)
    api.delete(LEASES, "l4", namespace)
    api.create(LEASES, lease("l3b", "x"), namespace)
    rest = list(pages)
    assert names([*first.items, *(i for page in rest for i in page.items)]) == ["l0", "l1", "l2", "l3", "l4"]
    assert {page.version for page in (first, *rest)} == {first.version}
    assert names(items(api, LEASES, namespace)) == ["l0", "l1", "l2", "l3", "l3b"]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("kind=a", ["p0", "p2"]),
        ("kind!=a", ["p1", "p3"]),
        ("kind in (a,b),size", ["p1", "p2"]),
        ("kind notin (a)", ["p1", "p3"]),
        ("!kind", ["p3"]),
        ("kind,!size", ["p0"]),
    ],
)
def test_label_selectors(api, namespace, selector, found):
    for number, labels in enumerate(({"kind": "a"}, {"kind": "b", "size": "1"}, {"kind": "a", "size": "2"}, None)):
        api.create(LEASES, lease(f"p{number}", labels=labels), namespace)
    assert names(items(api, LEASES, namespace, labels=selector)) == found


@needs(PODS)
def test_field_selectors(api, namespace):
    api.create(PODS, pod("here", node="n1"), namespace)
    api.create(PODS, pod("there", node="n2"), namespace)
    api.create(PODS, pod("nowhere"), namespace)
    assert names(items(api, PODS, namespace, fields="spec.nodeName=n1")) == ["here"]
    assert names(items(api, PODS, namespace, fields="spec.nodeName!=,metadata.name!=here")) == ["there"]
    with pytest.raises(Malformed, match=r"spec\.priority"):
        items(api, PODS, namespace, fields="spec.priority=1")


# ── patching ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_merge_sets_replaces_and_removes(api, namespace):
    api.create(LEASES, lease("one", labels={"a": "1", "b": "2"}), namespace)
    made = api.merge(LEASES, "one", {"metadata": {"labels": {"a": None, "c": "3"}}}, namespace)
    assert made["metadata"]["labels"] == {"b": "2", "c": "3"}


def test_a_change_that_changes_nothing_keeps_the_version(api, namespace):
    made = api.create(LEASES, lease("one", labels={"a": "1"}), namespace)
    assert version(api.merge(LEASES, "one", {"metadata": {"labels": {"a": "1"}}}, namespace)) == version(made)


@pytest.mark.parametrize("how", ["merge", "apply", "delete"])
@pytest.mark.parametrize("what", ["uid", "version"])
def test_a_stale_write_is_refused(api, namespace, how, what):
    first = api.create(LEASES, lease("one", "a"), namespace)
    now = api.merge(LEASES, "one", {"spec": {"holderIdentity": "b"}}, namespace)
    only = Only(version=version(first)) if what == "version" else Only(uid="11111111-2222-4333-8444-555555555555")
    write = {
        "merge": lambda: api.merge(LEASES, "one", {"spec": {"holderIdentity": "c"}}, namespace, only=only),
        "apply": lambda: api.apply(LEASES, lease("one", "c"), namespace, only=only, force=True),
        "delete": lambda: api.delete(LEASES, "one", namespace, only=only),
    }
    with pytest.raises(Stale):
        write[how]()
    assert api.get(LEASES, "one", namespace) == now


def test_of_many_who_take_a_lease_in_one_version_one_gets_it(api, namespace):
    only = Only(version=version(api.create(LEASES, lease("leader", ""), namespace)))

    def take(who):
        try:
            api.merge(LEASES, "leader", {"spec": {"holderIdentity": who}}, namespace, only=only)
        except Stale:
            return None
        return who

    with ThreadPoolExecutor(8) as pool:
        winners = [who for who in pool.map(take, map(str, range(8))) if who is not None]
    assert winners == [api.get(LEASES, "leader", namespace)["spec"]["holderIdentity"]]


def test_apply_creates_then_sets_and_takes_back_what_it_had_set(api, namespace):
    api.apply(RAY_CLUSTERS, ray_cluster("one", params={"a": "1", "b": "2"}), namespace)
    api.merge(RAY_CLUSTERS, "one", {"metadata": {"annotations": {"theirs": "stays"}}}, namespace)
    made = api.apply(RAY_CLUSTERS, ray_cluster("one", params={"b": "3"}), namespace)
    assert made["spec"]["headGroupSpec"]["rayStartParams"] == {"b": "3"}
    assert made["metadata"]["annotations"] == {"theirs": "stays"}
    assert made["metadata"]["generation"] == 2


def test_what_is_empty_without_what_was_taken_back_goes_too(api, namespace):
    api.apply(LEASES, lease("one", labels={"a": "1"}), namespace)
    assert "labels" not in api.apply(LEASES, lease("one"), namespace)["metadata"]
    api.apply(RAY_CLUSTERS, ray_cluster("two", gcsFaultToleranceOptions={"redisAddress": "redis:6379"}), namespace)
    assert "gcsFaultToleranceOptions" not in api.apply(RAY_CLUSTERS, ray_cluster("two"), namespace)["spec"]


def test_applying_the_same_twice_changes_nothing(api, namespace):
    if api.serves(PODS) and not api.serves(BUDGETS):
        pytest.skip("this API server is older than 1.21: it writes the time of an apply anew that changes nothing")
    first = api.apply(RAY_CLUSTERS, ray_cluster("one"), namespace)
    assert version(api.apply(RAY_CLUSTERS, ray_cluster("one"), namespace)) == version(first)


def test_fields_of_another_manager_are_contested_unless_taken_by_force(api, namespace, site):
    other = site.connect(manager="somebody-else")
    other.apply(LEASES, lease("one", labels={"a": "theirs", "b": "theirs"}), namespace)
    mine = {"metadata": {"name": "one", "labels": {"a": "mine", "c": "mine"}}}
    with pytest.raises(Contested) as refused:
        api.apply(LEASES, mine, namespace)
    assert any("metadata.labels.a" in cause and "somebody-else" in cause for cause in refused.value.causes)
    assert api.apply(LEASES, mine, namespace, force=True)["metadata"]["labels"] == {
        "a": "mine",
        "b": "theirs",
        "c": "mine",
    }
    made = other.apply(LEASES, lease("one", labels={"b": "new"}), namespace)
    assert made["metadata"]["labels"] == {"a": "mine", "b": "new", "c": "mine"}
    other.close()


@needs(DEPLOYMENTS)
def test_items_of_a_list_by_key_have_owners_of_their_own(api, namespace, site):
    two = [{"name": "one", "image": "a.invalid/a"}, {"name": "two", "image": "a.invalid/a"}]
    first = deployment("d")
    first["spec"]["template"]["spec"]["containers"] = two
    api.apply(DEPLOYMENTS, first, namespace)
    other = site.connect(manager="somebody-else")
    limits = {"name": "one", "resources": {"limits": {"cpu": "1"}}}
    other.apply(
        DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": [limits]}}}}, namespace
    )
    first["spec"]["template"]["spec"]["containers"] = [{"name": "one", "image": "b.invalid/b"}]
    made = api.apply(DEPLOYMENTS, first, namespace)["spec"]["template"]["spec"]["containers"]
    assert [(c["name"], c["image"], c["resources"]["limits"]) for c in made] == [("one", "b.invalid/b", {"cpu": "1"})]
    other.close()


def test_an_apply_to_one_certain_object_never_creates(api, namespace):
    with pytest.raises(Stale):
        api.apply(LEASES, lease("one"), namespace, only=Only(uid="11111111-2222-4333-8444-555555555555"))
    with pytest.raises(Absent):
        api.get(LEASES, "one", namespace)


def test_a_dry_run_answers_and_stores_nothing(api, namespace):
    assert api.create(LEASES, lease("one"), namespace, dry_run=True)["metadata"]["uid"]
    kept = api.create(LEASES, lease("two"), namespace)
    api.merge(LEASES, "two", {"metadata": {"labels": {"a": "1"}}}, namespace, dry_run=True)
    api.apply(LEASES, {"metadata": {"name": "two", "labels": {"b": "1"}}}, namespace, dry_run=True)
    assert api.delete(LEASES, "two", namespace, dry_run=True)
    assert [version(found) for found in items(api, LEASES, namespace)] == [version(kept)]


# ── status, scale ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_specification_and_status_are_written_apart(api, namespace):
    made = api.create(RAY_JOBS, {**ray_job("one", suspend=True), "status": {"jobStatus": "RUNNING"}}, namespace)
    assert "jobStatus" not in made.get("status", {})
    assert made["metadata"]["generation"] == 1
    both = {"spec": {"suspend": False}, "status": {"jobStatus": "RUNNING"}}
    told = api.merge(RAY_JOBS, "one", both, namespace, subresource="status")
    assert (told["spec"]["suspend"], told["status"]["jobStatus"], told["metadata"]["generation"]) == (
        True,
        "RUNNING",
        1,
    )
    both = {"spec": {"suspend": False}, "status": {"jobStatus": "FAILED"}}
    told = api.merge(RAY_JOBS, "one", both, namespace)
    assert (told["spec"]["suspend"], told["status"]["jobStatus"], told["metadata"]["generation"]) == (
        False,
        "RUNNING",
        2,
    )


@needs(DEPLOYMENTS)
def test_a_scale_changes_the_replicas_and_nothing_else(api, namespace):
    made = api.create(DEPLOYMENTS, deployment("d", replicas=1), namespace)
    told = api.merge(DEPLOYMENTS, "d", {"spec": {"replicas": 3}}, namespace, subresource="scale")
    assert (told["kind"], told["spec"]["replicas"]) == ("Scale", 3)
    now = api.get(DEPLOYMENTS, "d", namespace)
    assert now["spec"] == {**made["spec"], "replicas": 3}
    only = Only(version=version(made))
    with pytest.raises(Stale):
        api.merge(DEPLOYMENTS, "d", {"spec": {"replicas": 5}}, namespace, subresource="scale", only=only)


# ── deleting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_deleting_twice_is_harmless(api, namespace):
    made = api.create(LEASES, lease("one"), namespace)
    assert api.delete(LEASES, "one", namespace, only=Only(uid=made["metadata"]["uid"]))
    assert not api.delete(LEASES, "one", namespace, only=Only(uid=made["metadata"]["uid"]))


def test_a_finalizer_holds_a_deleted_object(api, namespace):
    api.create(
        LEASES, lease("one", "a") | {"metadata": {"name": "one", "finalizers": ["shisuan.test/hold"]}}, namespace
    )
    assert api.delete(LEASES, "one", namespace)
    held = api.get(LEASES, "one", namespace)
    assert held["metadata"]["deletionTimestamp"]
    api.merge(LEASES, "one", {"metadata": {"finalizers": None}}, namespace)
    with pytest.raises(Absent):
        api.get(LEASES, "one", namespace)


@needs(PODS)
def test_a_pod_on_a_node_is_ended_by_its_kubelet_or_by_force(api, namespace):
    api.create(PODS, pod("one", node="shisuan-no-such-node"), namespace)
    api.delete(PODS, "one", namespace)
    assert api.get(PODS, "one", namespace)["metadata"]["deletionGracePeriodSeconds"] == 30
    api.delete(PODS, "one", namespace, grace_s=0)
    with pytest.raises(Absent):
        api.get(PODS, "one", namespace)


@needs(PODS, BUDGETS)
def test_an_eviction_respects_budgets(api, namespace):
    labels = {"app": "held"}
    api.create(PODS, pod("one", node="n1", labels=labels), namespace)
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    api.merge(PODS, "one", {"status": ready}, namespace, subresource="status")
    made = api.create(BUDGETS, budget("b", labels), namespace)
    with pytest.raises(BudgetSpent):
        api.evict(PODS, "one", namespace)
    counts = {"currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2, "disruptionsAllowed": 1}
    counts["observedGeneration"] = made["metadata"]["generation"]
    api.merge(BUDGETS, "b", {"status": counts}, namespace, subresource="status")
    assert api.evict(PODS, "one", namespace)
    assert api.get(PODS, "one", namespace)["metadata"]["deletionTimestamp"]
    assert not api.evict(PODS, "nobody", namespace)


# ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def heard(watch):
    return [(kind, obj["metadata"]["name"]) for kind, obj in watch if kind != "BOOKMARK"]


def listed_version(api, resource, namespace=""):
    return next(api.pages(resource, namespace)).version


def test_a_watch_tells_what_happened_since_in_order(api, namespace):
    api.create(LEASES, lease("old", "a"), namespace)
    since = listed_version(api, LEASES, namespace)
    api.create(LEASES, lease("one", "a"), namespace)
    api.merge(LEASES, "one", {"spec": {"holderIdentity": "b"}}, namespace)
    api.delete(LEASES, "one", namespace)
    watch = api.watch(LEASES, since, namespace, lasts_s=1)
    assert heard(watch) == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]


def test_objects_enter_and_leave_what_a_watch_selects(api, namespace):
    since = listed_version(api, LEASES, namespace)
    api.create(LEASES, lease("one", labels={"mine": "no"}), namespace)
    for value in ("yes", "yes-still", "no"):
        api.merge(LEASES, "one", {"metadata": {"labels": {"mine": value}}}, namespace)
    watch = api.watch(LEASES, since, namespace, labels="mine in (yes,yes-still)", lasts_s=1)
    assert heard(watch) == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]


def test_a_watch_from_a_forgotten_version_says_so(api):
    with pytest.raises(HistoryGone):
        heard(api.watch(RAY_JOBS, "1", lasts_s=1))


@needs(NODES)
def test_a_watch_tells_the_node_that_was_cordoned(api):
    made = api.create(NODES, node())
    name = made["metadata"]["name"]
    api.merge(NODES, name, {"spec": {"unschedulable": True}}, only=Only(version=version(made)))
    watch = api.watch(NODES, version(made), fields=f"metadata.name={name}", lasts_s=1)
    assert [obj["spec"]["unschedulable"] for _, obj in watch if obj["metadata"].get("name") == name] == [True]
    api.delete(NODES, name)
