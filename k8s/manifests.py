"""The objects of both lanes: RayCluster, RayJob, Secret, NetworkPolicy. Pure: the same wish gives the same object."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from k8s import claims, pods
from k8s.names import CLUSTER, DOMAIN, LANE, LEASE, SHAPE, TASKS, TENANT
from k8s.pods import RAY_TOKEN_KEY, TOKEN_KEY, Body, Cluster
from k8s.shapes import Shape
from k8s.site import Site
from scheduler.model.order import LeaseOrder

POOL, JOB = "pool", "job"
DASHBOARD_PORT = 8265
MOST_REPLICAS = 1_000
"""KubeRay wants a bound; the engine's is the node."""
NAME = 40
"""KubeRay takes names of RayJobs up to 47 characters."""


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pool_cluster(site: Site, tenant: str, kind: str, node: str) -> Cluster:
    """The pool cluster of a tenant for a kind of step, on this node. Raises KeyError when no image serves the kind."""
    image = site.image(kind)
    shard = int(_hash(node), 16) % site.shards
    said = f"pool-{_slug(tenant)[:18]}"
    name = f"{said}-{_hash(f'{site.instance}/{image}/{tenant}/{shard}')}"
    return Cluster(name=name, tenant=tenant, lane=POOL, image=image)


def job_cluster(site: Site, order: LeaseOrder, kind: str) -> Cluster:
    """The RayJob of a lease. Ids begin again with a new database: the job's submission tells them apart.

    Raises KeyError when no image serves the kind.
    """
    attempt = order.tasks[0].attempt_id
    said = f"{order.lease_id}-{_slug(attempt)}"[: NAME - 15].rstrip("-")
    name = f"job-{said}-{_hash(f'{site.instance}/{order.lease_id}/{attempt}/{order.submitted_ms}')}"
    return Cluster(name=name, tenant=order.tenant, lane=JOB, image=site.image(kind))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-") or "x"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


# ── objects ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def ray_cluster(site: Site, cluster: Cluster, kind: str) -> Body:
    """A pool cluster without workers: groups come and go with leases."""
    return {
        **_meta(site, cluster, annotations={TENANT: cluster.tenant, DOMAIN: kind}),
        "spec": _spec(site, cluster, [], has_bridge=True),
    }


def group(site: Site, cluster: Cluster, shape: Shape, replicas: int, to_delete: Sequence[str] = ()) -> Body:
    """A worker group: pods of one shape."""
    return {
        "groupName": shape.group,
        "replicas": replicas,
        "minReplicas": 0,
        "maxReplicas": MOST_REPLICAS,
        "rayStartParams": pods.worker_params(shape),
        "template": pods.worker(site, cluster, shape),
        **({"scaleStrategy": {"workersToDelete": list(to_delete)}} if to_delete else {}),
    }


def ray_job(site: Site, cluster: Cluster, lease_id: str, tasks: Iterable[str], shapes: Sequence[Shape]) -> Body:
    """A RayJob for one lease, suspended. ``shapes``: one per rank."""
    tasks = tuple(tasks)
    until = ("--until-over", "--pods", str(len(shapes)), "--wait-s", str(site.start_ms // 1_000))
    until += ("--lease", lease_id, "--attempt", tasks[0])
    counted = {shape: shapes.count(shape) for shape in sorted(set(shapes))}
    groups = [group(site, cluster, shape, replicas) for shape, replicas in counted.items()]
    annotations = {TENANT: cluster.tenant, TASKS: ",".join(tasks), SHAPE: "\n".join(shape.text() for shape in shapes)}
    return {
        **_meta(site, cluster, annotations=annotations, labels={LEASE: lease_id}),
        "spec": {
            "suspend": True,
            "submissionMode": "SidecarMode",
            "shutdownAfterJobFinishes": True,
            "backoffLimit": 0,
            "entrypoint": shlex.join(pods.bridge(site, cluster, *until)),
            "rayClusterSpec": _spec(site, cluster, groups, has_bridge=False),
        },
    }


def owned(body: Body, owner: Mapping[str, Any]) -> Body:
    """``body``, which Kubernetes deletes when ``owner`` is gone: a crash between two deletions leaves nothing."""
    meta = {key: owner["metadata"][key] for key in ("name", "uid")}
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], **meta}
    return {**body, "metadata": {**body["metadata"], "ownerReferences": [reference]}}


def secret(site: Site, cluster: Cluster, *, bridge_token: str, ray_token: str) -> Body:
    """The tokens of a cluster: the bridge's, and the one by which its Ray processes know each other."""
    return {
        **_meta(site, cluster, name=cluster.secret),
        "type": "Opaque",
        "stringData": {TOKEN_KEY: bridge_token, RAY_TOKEN_KEY: ray_token},
    }


def claim(site: Site, cluster: Cluster, shape: Shape) -> Body:
    """The claim, or the template of claims (each pod has its own), of the named cards of a shape."""
    meta = _meta(site, cluster, name=pods.claim_name(site, cluster, shape))
    if claims.is_shared(shape):
        # Pods of several clusters of the tenant share it: it is none of theirs.
        kept = {key: value for key, value in meta["metadata"]["labels"].items() if key not in (CLUSTER, LANE)}
        return {"metadata": {**meta["metadata"], "labels": kept}, "spec": claims.spec(shape)}
    born = {"labels": meta["metadata"]["labels"], "annotations": meta["metadata"]["annotations"]}
    return {**meta, "spec": {"metadata": born, "spec": claims.spec(shape)}}


def network_policy(site: Site, cluster: Cluster) -> Body:
    """Pods of a cluster talk to each other, dial the control plane, ask for names, and reach what the site allows."""
    own = {"podSelector": {"matchLabels": {CLUSTER: cluster.name}}}
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}}
    service = {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "control-plane"}}}
    return {
        **_meta(site, cluster, name=cluster.own),
        "spec": {
            "podSelector": own["podSelector"],
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [own]}, {"from": [operator], "ports": [{"port": DASHBOARD_PORT, "protocol": "TCP"}]}],
            "egress": [
                {"to": [own]},
                {"to": [service], "ports": [{"port": int(site.gateway.rpartition(":")[2]), "protocol": "TCP"}]},
                {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
                *(dict(rule) for rule in site.egress),
            ],
        },
    }


def _meta(
    site: Site,
    cluster: Cluster,
    *,
    name: str = "",
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Body:
    told = annotations if annotations is not None else {TENANT: cluster.tenant}
    return {
        "metadata": {
            "name": name or cluster.name,
            "namespace": site.namespace,
            "labels": {**pods.labels(site, cluster), **(labels or {})},
            "annotations": dict(told),
        }
    }


def _spec(site: Site, cluster: Cluster, groups: list[Body], *, has_bridge: bool) -> Body:
    return {
        "rayVersion": site.ray_version,
        "enableInTreeAutoscaling": False,  # shisuan scales; two autoscalers of one pool fight
        "authOptions": {"mode": "token", "secretName": cluster.secret},
        "headGroupSpec": {
            "rayStartParams": pods.head_params(has_dashboard=not has_bridge),
            "template": pods.head(site, cluster, has_bridge=has_bridge),
        },
        "workerGroupSpecs": groups,
    }
