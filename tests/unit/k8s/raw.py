"""Raw objects as an API server shows them: a node of eight H100, pods on it, devices by dynamic allocation."""

from k8s.names import DEVICES, MANAGED, MANAGED_BY, OURS

H100 = {
    "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
    "nvidia.com/gpu.memory": "81559",
    "nvidia.com/gpu.count": "8",
    "nvidia.com/gpu.replicas": "1",
    "nvidia.com/gpu.present": "true",
}


def node(name="n1", *, cards=8, usable=None, labels=None, resources=None, ready="True", message="", taints=(), **spec):
    """``resources`` replace the eight cards."""
    there = {"nvidia.com/gpu": str(cards)} if resources is None else resources
    still = there if usable is None else {**there, "nvidia.com/gpu": str(usable)}
    size = {"cpu": "96", "memory": "1056Gi", "ephemeral-storage": "3Ti", "pods": "110", "hugepages-2Mi": "0"}
    offered = {"cpu": "95500m", "memory": "1024Gi", "ephemeral-storage": "2Ti", "pods": "110"}
    told = {"type": "Ready", "status": ready, "message": message}
    hard = [{"key": k, "value": v, "effect": "NoSchedule"} for k, v in taints]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {MANAGED: "true", **(H100 if labels is None else labels)}},
        "spec": {**({"taints": hard} if hard else {}), **spec},
        "status": {
            "capacity": {**size, **there},
            "allocatable": {**offered, **still},
            "conditions": [{"type": "MemoryPressure", "status": "False"}, told],
        },
    }


def pod(name, *, on="n1", cards=0, resource="nvidia.com/gpu", devices=None, phase="Running", **requests):
    """``devices``: one of ours, which holds them. ``cards`` are asked for as limits, as device plugins want it."""
    asks = {key: str(value) for key, value in requests.items()}
    limits = {resource: str(cards)} if cards else {}
    meta = {"name": name, "namespace": "default"}
    if devices is not None:
        meta |= {"labels": {MANAGED_BY: OURS}, "annotations": {DEVICES: ",".join(devices)}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {
            "nodeName": on,
            "containers": [{"name": "main", "image": "none", "resources": {"requests": asks, "limits": limits}}],
        },
        "status": {"phase": phase},
    }


def resource_slice(name="n1-gpus", *, on="n1", devices=(), generation=1, driver="gpu.nvidia.com"):
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": name},
        "spec": {
            "driver": driver,
            "nodeName": on,
            "pool": {"name": on, "generation": generation, "resourceSliceCount": 1},
            "devices": list(devices),
        },
    }


def gpu(name, uuid, *, product="NVIDIA H100 80GB HBM3", memory="81559Mi", taints=()):
    return {
        "name": name,
        "attributes": {"type": {"string": "gpu"}, "uuid": {"string": uuid}, "productName": {"string": product}},
        "capacity": {"memory": {"value": memory}},
        "taints": [{"key": key, "effect": "NoSchedule"} for key in taints],
    }


def mig(name, uuid, *, parent, profile):
    attributes = {"type": "mig", "parentUUID": parent, "profile": profile, "productName": "NVIDIA H100 80GB HBM3"}
    attributes |= {"uuid": uuid} if uuid else {}
    return {
        "name": name,
        "attributes": {key: {"string": value} for key, value in attributes.items()},
        "capacity": {"memory": {"value": "9856Mi"}},
    }


def claim(name, *, devices, on="n1", ours=False, used=True):
    meta = {"name": name, "namespace": "default", **({"labels": {MANAGED_BY: OURS}} if ours else {})}
    results = [{"request": "r", "driver": "gpu.nvidia.com", "pool": on, "device": device} for device in devices]
    users = [{"resource": "pods", "name": name, "uid": "u"}] if used else []
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": meta,
        "spec": {},
        "status": {"allocation": {"devices": {"results": results}}, "reservedFor": users},
    }
