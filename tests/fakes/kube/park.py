"""A large park in the double: GPU nodes as heavy as real ones (labels of both feature discoveries, conditions, images),
and on each the pods every node has.
"""

from collections.abc import Mapping
from typing import Any

from tests.fakes.kube.server import FakeKubernetes

CARDS_PER_NODE = 8
PODS_PER_NODE = 4
_TIME = "2026-11-26T00:00:00Z"
_NFD = {f"feature.node.kubernetes.io/cpu-cpuid.FEATURE{n}": "true" for n in range(60)}
_GFD = {f"nvidia.com/{name}": value for name, value in (
    ("cuda.driver-version.full", "580.95.05"), ("cuda.runtime-version.full", "13.0"), ("gfd.timestamp", "1795651200"),
    ("gpu.compute.major", "9"), ("gpu.compute.minor", "0"), ("gpu.count", "8"), ("gpu.family", "hopper"),
    ("gpu.machine", "SYS-821GE-TNHR"), ("gpu.memory", "81559"), ("gpu.mode", "compute"), ("gpu.present", "true"),
    ("gpu.product", "NVIDIA-H100-80GB-HBM3"), ("gpu.replicas", "1"), ("gpu.sharing-strategy", "none"),
    ("mig.capable", "true"), ("mig.config", "all-disabled"), ("mig.config.state", "success"),
    ("mig.strategy", "mixed"), ("mps.capable", "false"),
)}  # fmt: skip
_SIZE = {"cpu": "192", "memory": "2113535792Ki", "ephemeral-storage": "3650Gi", "pods": "110", "hugepages-1Gi": "0"}
_STATES = {"MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False", "Ready": "True"}
_CONDITIONS = [
    {"type": kind, "status": status, "reason": f"Kubelet{kind}", "message": f"kubelet says {kind} is {status}",
     "lastHeartbeatTime": _TIME, "lastTransitionTime": _TIME}
    for kind, status in _STATES.items()
]  # fmt: skip
_IMAGES = [
    {"names": [f"registry.example/images/image-{n}@sha256:{n:064x}", f"registry.example/images/image-{n}:1.{n}"],
     "sizeBytes": 10**9 + n}
    for n in range(50)
]  # fmt: skip
_OWNED = {"f:metadata": {"f:labels": {f"f:{key}": {} for key in (*_NFD, *_GFD)}}}
_POD_SPEC: Mapping[str, Any] = {
    "serviceAccountName": "agent",
    "tolerations": [{"operator": "Exists", "key": f"node.kubernetes.io/{n}", "effect": "NoSchedule"} for n in range(6)],
    "volumes": [{"name": f"v{n}", "hostPath": {"path": f"/var/lib/v{n}"}} for n in range(6)],
    "containers": [
        {
            "name": f"c{n}",
            "image": f"registry.example/agents/agent-{n}:1.0",
            "env": [{"name": f"NAME_{e}", "value": f"value-{e}"} for e in range(10)],
            "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"memory": "400Mi"}},
            "volumeMounts": [{"name": f"v{v}", "mountPath": f"/v{v}"} for v in range(6)],
        }
        for n in range(2)
    ],
}


def node(number: int, heartbeat: str = _TIME) -> dict[str, Any]:
    """One node of eight H100, a rack of sixteen."""
    name = f"gpu-{number:05d}"
    there = {**_SIZE, "nvidia.com/gpu": str(CARDS_PER_NODE)}
    where = {
        "kubernetes.io/hostname": name,
        "topology.kubernetes.io/rack": f"r{number // 16:03d}",
        "shisuan.io/managed": "true",
    }
    owner = {"manager": "nfd-master", "operation": "Apply", "apiVersion": "v1", "time": _TIME, "fieldsType": "FieldsV1"}
    ready = {**_CONDITIONS[-1], "lastHeartbeatTime": heartbeat}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {**_NFD, **_GFD, **where},
            "managedFields": [{**owner, "fieldsV1": _OWNED}],
        },
        "spec": {"providerID": f"park://{name}", "podCIDR": "10.0.0.0/24"},
        "status": {
            "capacity": there,
            "allocatable": {**there, "cpu": "190"},
            "conditions": [*_CONDITIONS[:-1], ready],
            "images": _IMAGES,
        },
    }


def fill(double: FakeKubernetes, nodes: int) -> None:
    """So many nodes, and the pods of their DaemonSets."""
    for number in range(nodes):
        made = node(number)
        double.put(made)
        for pod in range(PODS_PER_NODE):
            meta = {"name": f"agent-{pod}-{number:05d}", "namespace": "kube-system", "labels": {"app": f"agent-{pod}"}}
            spec = {**_POD_SPEC, "nodeName": made["metadata"]["name"]}
            status = {"phase": "Running", "conditions": _CONDITIONS, "podIP": "10.0.0.1"}
            double.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status})
