"""Every pod that the product makes keeps to the Pod Security profile ``restricted``; what cannot is named, with why."""

import copy
from dataclasses import replace

import pytest

from k8s import pods
from k8s.manifests import job_cluster, pool_cluster, ray_job
from k8s.shapes import Shape
from tests.fakes.kuberay import objects
from tests.pod_security import violations
from tests.unit.chart.conftest import VALUES, options
from tests.unit.chart.conftest import helm as helm  # noqa: PLC0414 (a fixture)
from tests.unit.chart.conftest import pods as pods_of
from tests.unit.k8s.test_manifests import CPU, FOUR, ONE, PLAIN, SITE
from tests.unit.k8s.test_manifests import order as a_train

EXCEPTIONS = {
    # A card's memory belongs to a process id of the host: which pod that is can be seen nowhere else.
    "DaemonSet/shisuan-meter": ["hostPID: shares the host's"],
}
KUBERAYS_OWN = [
    # KubeRay's submitter has no security settings of its own; `own_submitter` is for operators that take ours.
    f"containers[{objects.SUBMITTER}]: allowPrivilegeEscalation is not false",
    f"containers[{objects.SUBMITTER}]: does not drop ALL capabilities",
]
EVERYTHING = (
    "meter.enabled=true,lanes.enabled=true,lanes.images.default=a,rbac.parts={inventory,leader,lanes},"
    "lanes.tls.secret=t,lanes.tls.caConfigMap=c,controlPlane.replicas=2,controlPlane.election.enabled=true,"
    "database.secret=d,controlPlane.operatorKey.secret=o,oidc.enabled=true,oidc.issuer=https://s.example,"
    "oidc.audience=a,oidc.clientSecret.secret=s,controlPlane.config.queues[0].name=q,controlPlane.configSecret=f,"
    "storage.claims[0].name=a,storage.claims[0].claim=b,storage.claims[0].path=/films"
)


@pytest.mark.parametrize("name", [*VALUES, "everything"])
def test_the_charts_pods_are_restricted(helm, name):
    chosen = ["--set", EVERYTHING] if name == "everything" else options(name)
    found = {at: violations(pod) for at, pod in pods_of(helm.objects(*chosen)).items()}
    assert found
    assert {at: said for at, said in found.items() if said} == {
        at: said for at, said in EXCEPTIONS.items() if at in found
    }


@pytest.mark.parametrize("site", [SITE, PLAIN], ids=["everything", "defaults"])
def test_the_lanes_pods_are_restricted(site):
    pool = pool_cluster(site, "t1", "render", "gpu-7")
    made = [pods.head(site, pool, has_bridge=b) for b in (True, False)]
    made += [pods.worker(site, pool, shape) for shape in (ONE, FOUR, CPU, Shape(node="n"))]
    assert [violations(template["spec"]) for template in made] == [[]] * len(made)


@pytest.mark.parametrize("own", [True, False], ids=["our submitter", "KubeRay's submitter"])
def test_a_rayjobs_head_is_restricted_where_kuberay_takes_our_submitter(own):
    site = replace(SITE, own_submitter=own)
    order = a_train()
    cluster = job_cluster(site, order, "train")
    job = ray_job(site, cluster, order.lease_id, ["j1.a.0.a1"], [ONE])
    job = {"apiVersion": "ray.io/v1", **job, "metadata": {**job["metadata"], "uid": "u"}, "kind": "RayJob"}
    made = objects.cluster_of(job, "made", "id")
    head = made["spec"]["headGroupSpec"]["template"]["spec"]
    assert [one["name"] for one in head["containers"]] == ["ray-head", objects.SUBMITTER], "never two of that name"
    assert "ray job submit" in head["containers"][1]["args"][0]
    assert violations(head) == ([] if own else KUBERAYS_OWN)


BROKEN = {
    "hostNetwork": ({"hostNetwork": True}, {}),
    "volumes[x]": ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, {}),
    "sysctls": ({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, {}),
    "runAsUser": ({"securityContext": {"runAsUser": 0}}, {}),
    "runAsNonRoot": ({}, {"runAsNonRoot": False}),
    "seccompProfile": ({}, {"seccompProfile": {"type": "Unconfined"}}),
    "no seccompProfile": ({"securityContext": {"runAsNonRoot": True}}, {}),
    "allowPrivilegeEscalation": ({}, {"allowPrivilegeEscalation": None}),
    "privileged": ({}, {"privileged": True}),
    "adds capabilities": ({}, {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}),
    "does not drop": ({}, {"capabilities": {"drop": ["NET_RAW"]}}),
    "seLinuxOptions": ({}, {"seLinuxOptions": {"type": "spc_t"}}),
    "procMount": ({}, {"procMount": "Unmasked"}),
}


@pytest.mark.parametrize("said", BROKEN)
def test_what_the_profile_refuses_is_found(said):
    spec = copy.deepcopy(pods.worker(PLAIN, pool_cluster(PLAIN, "t", "render", "n"), ONE)["spec"])
    assert violations(spec) == []
    of_pod, of_container = BROKEN[said]
    spec |= of_pod
    spec["containers"][0]["securityContext"] |= of_container
    assert [found for found in violations(spec) if said in found]
