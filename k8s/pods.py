"""Templates of the pods that KubeRay makes for us. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k8s import claims
from k8s.names import CLUSTER, INSTANCE, LANE, MANAGED_BY, OURS, SHAPE, TENANT
from k8s.shapes import Shape
from k8s.site import Site

Body = dict[str, Any]
POD, HOME = "SHISUAN_POD", "SHISUAN_HOME"
TOKEN_KEY, RAY_TOKEN_KEY = "bridge_token", "auth_token"
"""Keys in a cluster's Secret; the second is the one that KubeRay reads."""
LOGICAL_CPUS = "10000"
"""Ray's own count never decides: the database does."""
OBJECT_STORE_BYTES = "80000000"
GCS_PORT, RAYLET_PORT = 6379, 6380
USER = 10_001
CA_PATH, TOKEN_PATH = "/etc/shisuan-gateway", "/etc/shisuan-token"
SUBMITTER = "ray-job-submitter"
"""KubeRay fills in command and variables of the container of this name."""
OWN_COMMAND = {"ray.io/overwrite-container-cmd": "true"}
"""Annotation: KubeRay gives its command in a variable and leaves ours: its own way to label Ray nodes knows no pods."""
POD_LABEL = "shisuan-node"
"""Of a worker's Ray node: the pod's name, by which the bridge knows it. A head has none and gets no work."""
RAY_START = f'ulimit -n 65536; eval exec "$KUBERAY_GEN_RAY_START_CMD --labels={POD_LABEL}=${POD}"'
SCRATCH_RESOURCE = "ephemeral-storage"
SCRATCH = "/tmp"  # noqa: S108 (inside the pod, a volume of its own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A RayCluster or RayJob of ours, as its pods need to know it."""

    name: str
    tenant: str
    lane: str
    image: str
    mark: str = ""
    """Which of the objects that bore this name, one after the other: what belongs to an earlier one, and is yet to be
    collected or comes late, must not be taken for what belongs to this one.
    """

    @property
    def secret(self) -> str:
        """Name of the Secret with its tokens."""
        return "-".join(filter(None, (f"{self.name}-tokens", self.mark)))

    @property
    def own(self) -> str:
        """Name of its NetworkPolicy, and how those of its templates of claims begin."""
        return "-".join(filter(None, (self.name, self.mark)))


def labels(site: Site, cluster: Cluster) -> dict[str, str]:
    """Of the cluster's objects and pods."""
    return {MANAGED_BY: OURS, INSTANCE: site.instance, CLUSTER: cluster.name, LANE: cluster.lane}


def bridge(site: Site, cluster: Cluster, *more: str) -> list[str]:
    """The command that dials home."""
    command = ["python", "-P", "-m", "workers.dial", "--dial", site.gateway, "--cluster", cluster.name]
    command += ["--token-file", f"{TOKEN_PATH}/{TOKEN_KEY}", "--home", f"{site.home}/bridge"]
    return [*command, *(["--ca", f"{CA_PATH}/ca.crt"] if site.gateway_ca else []), *more]


def head(site: Site, cluster: Cluster, *, has_bridge: bool) -> Body:
    """The pod with the control store and, in the pool lane, the bridge beside it. It has no cards and runs no tasks."""
    ray: Body = {
        "name": "ray-head",
        "image": cluster.image,
        "env": [*_env(site), _void()],
        "ports": [{"name": "gcs", "containerPort": GCS_PORT}],
        "resources": _amounts(site.head_cpu_milli, site.head_memory_mib, site.head_memory_mib),
        **_probes(GCS_PORT),
        **_locked_down(site, has_token=not has_bridge),
    }
    beside: Body = {
        "name": "bridge",
        "image": cluster.image,
        "command": bridge(site, cluster),
        "env": [
            *_env(site),
            _void(),
            {"name": "RAY_ADDRESS", "value": f"127.0.0.1:{GCS_PORT}"},
            {"name": "RAY_AUTH_MODE", "value": "token"},
            _from_secret("RAY_AUTH_TOKEN", cluster.secret, RAY_TOKEN_KEY),
        ],
        "resources": _amounts(100, 512, 1_024),
        **_locked_down(site, has_token=True),
    }
    submitter: Body = {"name": SUBMITTER, "image": cluster.image, "env": [_void()], **_locked_down(site)}
    others = [beside] if has_bridge else [submitter] if site.own_submitter else []
    spec = {
        **_pod(site, [ray, *others], _token(cluster)),
        "restartPolicy": "Always" if has_bridge else "Never",  # KubeRay's SidecarMode wants the latter
        # Ray's driver finds its raylet among the processes that it sees: the bridge needs those of the other container.
        **({"shareProcessNamespace": True} if has_bridge else {}),
        **({"nodeSelector": dict(site.head_node_selector)} if site.head_node_selector else {}),
        **({"tolerations": [dict(one) for one in site.head_tolerations]} if site.head_tolerations else {}),
    }
    return {"metadata": {"labels": labels(site, cluster), "annotations": {TENANT: cluster.tenant}}, "spec": spec}


def worker(site: Site, cluster: Cluster, shape: Shape) -> Body:
    """A pod that one tenant's leases run in, one after the other, on the node the engine has chosen."""
    amounts, claimed = _of_shape(site, shape), claims.is_claimed(shape)
    ray: Body = {
        "name": "ray-worker",
        "image": cluster.image,
        "command": ["sh", "-c", RAY_START],
        # What is claimed comes by its driver: NVIDIA's runtime must not show all cards besides.
        "env": [*_env(site), *_bucket_env(site), *([] if shape.count and not claimed else [_void()])],
        **({"resources": amounts} if amounts else {}),
        **_probes(RAYLET_PORT),
        **_locked_down(site),
    }
    here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [shape.node]}]}
    spec = {
        **_pod(site, [ray]),
        "restartPolicy": "Never",  # a worker that ended is another worker: nothing of its leases is left in it
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [here]}}},
        # The engine has weighed every taint: Kubernetes' scheduler must not think again.
        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
        **({"runtimeClassName": site.runtime_class} if site.runtime_class and shape.count and not claimed else {}),
        **(claims.of_pod(claim_name(site, cluster, shape), shape) if claimed else {}),
    }
    annotations = {TENANT: cluster.tenant, SHAPE: shape.text(), **OWN_COMMAND}
    return {"metadata": {"labels": labels(site, cluster), "annotations": annotations}, "spec": spec}


def claim_name(site: Site, cluster: Cluster, shape: Shape) -> str:
    """Of the claim, or template of claims, that pods of this shape name."""
    return claims.name_of(site.instance, cluster.tenant, cluster.own, shape)


def _of_shape(site: Site, shape: Shape) -> Body:
    """Exact requests keep the engine's packing true; limits leave room for Ray and the agent."""
    over = site.overhead_mib
    amounts = _amounts(shape.cpu_milli, shape.memory_mib, shape.memory_mib + over if shape.memory_mib else 0)
    if shape.scratch_mib:
        amounts.setdefault("requests", {})[SCRATCH_RESOURCE] = f"{shape.scratch_mib}Mi"
        amounts.setdefault("limits", {})[SCRATCH_RESOURCE] = f"{shape.scratch_mib + over}Mi"
    if claims.is_claimed(shape):
        amounts["claims"] = [{"name": claims.NAME}]
    elif shape.count:
        amounts.setdefault("limits", {})[shape.resource] = str(shape.count)
    return amounts


def head_params(*, has_dashboard: bool) -> dict[str, str]:
    """Of ``ray start`` in the head: it offers nothing."""
    told = {"num-cpus": "0", "num-gpus": "0", "no-monitor": "true", "object-store-memory": OBJECT_STORE_BYTES}
    return {**told, "include-dashboard": "true" if has_dashboard else "false"}


def worker_params(shape: Shape) -> dict[str, str]:
    """Of ``ray start`` in a worker: each card is a resource of its own."""
    cards = json.dumps({f"gpu{number}": 1 for number in range(shape.count)})
    return {
        "num-cpus": LOGICAL_CPUS,
        "num-gpus": str(shape.count),
        "node-manager-port": str(RAYLET_PORT),
        "object-store-memory": OBJECT_STORE_BYTES,
        **({"resources": f"'{cards}'"} if shape.count else {}),
    }


def _pod(site: Site, containers: list[Body], *more: Body) -> Body:
    """What all our pods have in common: no rights, no root, folders of their own that end with them."""
    volumes: list[Body] = [{"name": "home", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}, *more]
    volumes += [
        {"name": f"claim-{n}", "persistentVolumeClaim": {"claimName": one.claim, "readOnly": one.read_only}}
        for n, one in enumerate(site.volumes)
    ]
    if site.gateway_ca:
        volumes.append({"name": "gateway-ca", "configMap": {"name": site.gateway_ca}})
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"imagePullSecrets": [{"name": name} for name in site.pull_secrets]} if site.pull_secrets else {}),
        **({"priorityClassName": site.priority_class} if site.priority_class else {}),
        "containers": containers,
        "volumes": volumes,
    }


def _token(cluster: Cluster) -> Body:
    only = [{"key": TOKEN_KEY, "path": TOKEN_KEY}]
    return {"name": "token", "secret": {"secretName": cluster.secret, "items": only, "defaultMode": 0o440}}


def _locked_down(site: Site, *, has_token: bool = False) -> Body:
    mounts: list[Body] = [{"name": "home", "mountPath": site.home}, {"name": "tmp", "mountPath": SCRATCH}]
    mounts += [
        {"name": f"claim-{n}", "mountPath": one.path, "readOnly": one.read_only} for n, one in enumerate(site.volumes)
    ]
    if has_token:
        mounts.append({"name": "token", "mountPath": TOKEN_PATH, "readOnly": True})
    if site.gateway_ca:
        mounts.append({"name": "gateway-ca", "mountPath": CA_PATH, "readOnly": True})
    return {
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _env(site: Site) -> list[Body]:
    return [
        {"name": POD, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "HOME", "value": site.home},
        {"name": HOME, "value": site.home},
        {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
        # A head that comes back is another cluster: workers of the old one must not wait for it.
        {"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": "30"},
    ]


def _bucket_env(site: Site) -> list[Body]:
    """For the agent, which brings inputs and publishes outputs; runners get an environment of their own."""
    bucket = site.bucket
    if bucket is None:
        return []
    said = {"AWS_ENDPOINT_URL_S3": bucket.endpoint, "AWS_REGION": bucket.region}
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if bucket.secret else ()
    return [
        *({"name": name, "value": value} for name, value in said.items() if value),
        *(_from_secret(name, bucket.secret, name) for name in keys),
    ]


def _void() -> Body:
    """Where NVIDIA's runtime is the default one, a container that asks for no card would see them all."""
    return {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}


def _from_secret(name: str, secret: str, key: str) -> Body:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _amounts(cpu_milli: int, memory_mib: int, limit_mib: int) -> Body:
    """Processors are never limited: what others leave may be used."""
    requests = {"cpu": f"{cpu_milli}m"} if cpu_milli else {}
    requests |= {"memory": f"{memory_mib}Mi"} if memory_mib else {}
    return {
        **({"requests": requests} if requests else {}),
        **({"limits": {"memory": f"{limit_mib}Mi"}} if limit_mib else {}),
    }


def _probes(port: int) -> Body:
    """KubeRay's own ask with ``wget``, which our images do not have."""
    probe: Mapping[str, Any] = {"tcpSocket": {"port": port}, "periodSeconds": 5, "timeoutSeconds": 2}
    return {
        "readinessProbe": {**probe, "failureThreshold": 3},
        "livenessProbe": {**probe, "initialDelaySeconds": 60, "failureThreshold": 24},
    }
