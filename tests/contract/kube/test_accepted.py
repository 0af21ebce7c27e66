"""What the chart renders and what the lanes make, taken by an API server: each object by a dry run of an apply.

Applies are stricter than creations: a field that the server's version does not have is refused, not dropped.
"""

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml

from k8s import pods
from k8s.errors import Absent, KubernetesError, Malformed
from k8s.manifests import pool_cluster
from k8s.resource import CLAIM_TEMPLATES, DEPLOYMENTS, NAMESPACES, PODS, RAY_CLUSTERS, RESOURCE_CLAIMS, Resource
from k8s.shapes import Shape
from tests.contract.kube.objects import deployment, ray_cluster
from tests.fakes.kube.kinds import built_in
from tests.unit.k8s.test_manifests import CPU, FOUR, INSTANCE, NAMED, ONE, PART, PLAIN, SITE, objects

GOLDEN = Path(__file__).parents[2] / "golden" / "chart"
"""What ``helm template`` renders, as ``tests/unit/chart/test_rendered.py`` sees to."""
OLDER = {("policy", "PodDisruptionBudget"): ("v1beta1", {"unhealthyPodEvictionPolicy": "since 1.27"})}
"""Kinds that servers before 1.21 have under another version: there they are applied under it, without newer fields."""
PROMETHEUS = "of the Prometheus operator, whose definitions were not to be had"
NOT_OF_KUBERNETES = {
    ("monitoring.coreos.com", "ServiceMonitor"): PROMETHEUS,
    ("monitoring.coreos.com", "PodMonitor"): PROMETHEUS,
}
LATER = {RESOURCE_CLAIMS: "since 1.34", CLAIM_TEMPLATES: "since 1.34"}
"""Kinds of the lanes that a whole server may lack, and since when it has them."""
SITES = {"everything": SITE, "defaults": PLAIN}
PRIORITY = Resource(group="scheduling.k8s.io", plural="priorityclasses", kind="PriorityClass", namespaced=False)
RUNTIME = Resource(group="node.k8s.io", plural="runtimeclasses", kind="RuntimeClass", namespaced=False)
needs = pytest.mark.needs


@cache
def rendered(values):
    return [thing for thing in yaml.safe_load_all((GOLDEN / f"{values}.yaml").read_text("utf-8")) if thing]


VALUES = sorted(path.stem for path in GOLDEN.glob("*.yaml"))
CHARTED = [
    pytest.param(thing, id=f"{values}-{thing['kind']}-{thing['metadata']['name']}")
    for values in VALUES
    for thing in rendered(values)
]


def resource_of(thing):
    """How to ask for its kind; None where Kubernetes 1.36 has none of that name."""
    for kind in built_in():
        if (kind.api_version, kind.name) == (thing["apiVersion"], thing["kind"]):
            asked = {"group": kind.group, "version": kind.version, "plural": kind.plural, "kind": kind.name}
            return Resource(**asked, namespaced=kind.namespaced)
    return None


def fitted(api, thing, namespace=""):
    """The object for this server, in a namespace of the test's, and its kind. Skips only what a table above names."""
    resource, spec = resource_of(thing), thing.get("spec")
    key = (thing["apiVersion"].rpartition("/")[0], thing["kind"])
    if resource is None:
        pytest.skip(f"{key[1]} is {NOT_OF_KUBERNETES[key]}")
    if not api.serves(resource) and key in OLDER:
        version, later = OLDER[key]
        resource, spec = replace(resource, version=version), {k: v for k, v in spec.items() if k not in later}
    assert api.serves(resource), f"this API server has no {resource.plural} in {resource.api_version}"
    thing = thing | ({"spec": spec} if spec is not None else {})
    return resource, placed(thing, resource, namespace)


def placed(thing, resource, namespace):
    meta = thing["metadata"] | ({"namespace": namespace} if resource.namespaced else {})
    return thing | {"metadata": meta, "apiVersion": resource.api_version, "kind": resource.kind}


def try_on(api, resource, body, namespace):
    """A dry run: the server's answer. Nothing is there afterwards that was not there before, or in another version."""
    where = (resource, body["metadata"]["name"], namespace if resource.namespaced else "")
    before = version(api, *where)
    told = api.apply(resource, body, where[2], dry_run=True)
    assert version(api, *where) == before
    return told


def version(api, *where):
    try:
        return api.get(*where)["metadata"]["resourceVersion"]
    except Absent:
        return ""


# ── the chart ────────────────────────────────────────────────────────────────────────────────────────────────────────


@needs(NAMESPACES)
@pytest.mark.parametrize("thing", CHARTED)
def test_what_the_chart_renders_is_taken(api, namespace, thing):
    resource, body = fitted(api, thing, namespace)
    told = try_on(api, resource, body, namespace)
    assert ("shisuan", "Apply") in [
        (entry["manager"], entry["operation"]) for entry in told["metadata"]["managedFields"]
    ]


@needs(NAMESPACES)
@pytest.mark.parametrize("after", VALUES)
@pytest.mark.parametrize("before", VALUES)
def test_one_set_of_values_goes_over_into_another(api, namespace, before, after):
    """As ``helm upgrade`` does it: no field that cannot be changed is. Hooks are made anew each time."""
    for values, is_dry in ((before, False), (after, True)):
        for thing in rendered(values):
            resource = resource_of(thing)
            if (
                resource is None
                or not resource.namespaced
                or "helm.sh/hook" in thing["metadata"].get("annotations", {})
            ):
                continue
            resource, body = fitted(api, thing, namespace)
            api.apply(resource, body, namespace, dry_run=is_dry)


# ── the lanes ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("which", range(len(objects(PLAIN))))
@pytest.mark.parametrize("said", SITES)
def test_what_the_lanes_make_is_taken(api, namespace, said, which):
    resource, body = objects(SITES[said])[which]
    if not api.serves(resource):
        why = f"this API server has no {resource.plural} in {resource.api_version}"
        assert resource in LATER or not api.serves(NAMESPACES), why
        pytest.skip(f"{why}: {LATER.get(resource, 'it has custom kinds only')}")
    told = try_on(api, resource, placed(body, resource, namespace), namespace)
    if "spec" in body:
        assert lost(body["spec"], told["spec"]) == []


def lost(wanted, told, path=""):
    """Fields that were asked for and are not in the answer, or say something else there."""
    if isinstance(wanted, dict) and isinstance(told, dict):
        return [
            at for key, value in wanted.items() for at in lost(value, told.get(key), f"{path}.{key}") if value != {}
        ]
    if isinstance(wanted, list) and isinstance(told, list) and len(wanted) == len(told):
        return [at for n, (a, b) in enumerate(zip(wanted, told, strict=True)) for at in lost(a, b, f"{path}[{n}]")]
    return [] if wanted == told else [path]


@pytest.fixture
def classes(api):
    """Of priority and runtime that pods name: servers refuse pods of classes that nobody made."""
    bodies = {PRIORITY: {"metadata": {"name": "park"}, "value": 1}}
    bodies[RUNTIME] = {"metadata": {"name": "nvidia"}, "handler": "nvidia"}
    for resource, body in bodies.items():
        api.apply(resource, body)
    yield
    for resource, body in bodies.items():
        api.delete(resource, body["metadata"]["name"])


def templates(site):
    pool = pool_cluster(site, "t1", "render", "gpu-7")
    named = {"head-with-bridge": pods.head(site, pool, has_bridge=True)}
    named["head-of-a-job"] = pods.head(site, pool, has_bridge=False)
    shapes = {"one": ONE, "four": FOUR, "cpu": CPU, "anything": Shape(node="n")}
    return named | {name: pods.worker(site, pool, shape) for name, shape in shapes.items()}


@needs(PODS)
@pytest.mark.usefixtures("classes")
@pytest.mark.parametrize("which", templates(PLAIN))
@pytest.mark.parametrize("said", SITES)
def test_pods_of_the_lanes_are_taken(api, namespace, said, which):
    body = templates(SITES[said])[which]
    meta = {**body["metadata"], "name": "one"}
    try_on(api, PODS, placed({**body, "metadata": meta}, PODS, namespace), namespace)


@needs(RESOURCE_CLAIMS)
@pytest.mark.parametrize("shape", [NAMED, PART, INSTANCE], ids=["cards", "part", "instance"])
def test_pods_that_claim_cards_are_taken(api, namespace, shape):
    body = pods.worker(PLAIN, pool_cluster(PLAIN, "t1", "render", "gpu-7"), shape)
    try_on(api, PODS, placed({**body, "metadata": {**body["metadata"], "name": "one"}}, PODS, namespace), namespace)


# ── that all this is looked at ───────────────────────────────────────────────────────────────────────────────────────


def broken(body, way, value):
    made = at = copy.deepcopy(body)
    *before, last = way
    for step in before:
        at = at[step]
    at[last] = value
    return made


@pytest.mark.parametrize(
    ("way", "value", "said"),
    [
        (("spec", "replica"), 2, r"\.spec\.replica: field not declared"),
        (("spec", "replicas"), "two", r"\.spec\.replicas: "),
        (("spec", "selector", "matchLabels", "app"), 7, r"matchLabels"),
        (("spec", "template", "spec", "containers", 0, "ports"), [{"containerPort": "http"}], r"containerPort"),
    ],
)
@needs(DEPLOYMENTS)
def test_an_apply_of_what_a_built_in_kind_does_not_have_is_refused_for_good(api, namespace, way, value, said):
    with pytest.raises(Malformed, match=said):
        api.apply(DEPLOYMENTS, broken(deployment("d"), way, value), namespace, dry_run=True)


def test_an_apply_of_what_a_custom_kind_does_not_have_is_refused_for_good(api, namespace):
    body = ray_cluster("one", noSuchField=1)
    body["spec"]["workerGroupSpecs"][0]["replicas"] = "many"
    with pytest.raises(KubernetesError) as refused:
        api.apply(RAY_CLUSTERS, body, namespace, dry_run=True)
    assert type(refused.value) is Malformed
