"""What the API server tells of nodes, pods and devices, reduced to what decides. Reading is pure and never fails on an
object that a server would store; what cannot be understood is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import Any

from k8s import quantity
from k8s.accelerators import Accelerators
from k8s.names import DEVICES, EPOCH, LAYOUT, LAYOUT_BEFORE, MANAGED_BY, OURS

Raw = Mapping[str, Any]
Counts = tuple[tuple[str, int], ...]
"""Accelerator resource to whole units, sorted."""
NOISE = "feature.node.kubernetes.io/"
"""Hundreds of labels about processors that nothing here reads."""
HARD = ("NoSchedule", "NoExecute")
"""Effects of taints that keep pods away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """An amount of everything a node has."""

    cpu_milli: int = 0
    memory_mib: int = 0
    scratch_mib: int = 0
    cards: Counts = ()

    def count(self, resource: str) -> int:
        """Units of one accelerator resource."""
        return next((units for name, units in self.cards if name == resource), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSight:
    """A Node object."""

    name: str
    labels: tuple[tuple[str, str], ...]
    taints: tuple[tuple[str, str], ...]
    """Key and value of those that keep pods away."""
    is_unschedulable: bool
    ready: str
    """``True``, ``False`` or ``Unknown``: its kubelet has not been heard of for long."""
    ready_message: str
    present: Amounts
    """Everything, what is broken too."""
    usable: Amounts
    asked: str = ""
    """As :data:`k8s.names.LAYOUT`."""
    before: str = ""
    """As :data:`k8s.names.LAYOUT_BEFORE`."""
    epoch: int = field(default=0, compare=False)
    """Of the leader that wrote on it last."""
    version: str = field(default="", compare=False)
    """It changes with every sign of life, and means nothing then."""

    def label(self, key: str) -> str:
        """Empty: it has none of this key."""
        return next((value for name, value in self.labels if name == key), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSight:
    """A pod that holds something on a node."""

    key: str
    node: str
    is_ours: bool
    devices: tuple[str, ...]
    """Ids of the devices one of ours holds, as it was created with."""
    asks: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSight:
    """A device of a ResourceSlice."""

    at: tuple[str, str, str]
    """Driver, pool and name: how claims name it."""
    is_mig: bool
    uuid: str
    parent: str
    profile: str
    product: str
    memory_mib: int
    taints: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSight:
    """A ResourceSlice of one node."""

    name: str
    node: str
    driver: str
    pool: str
    generation: int
    """Of the pool: only slices of its newest count."""
    devices: tuple[DeviceSight, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSight:
    """A ResourceClaim that was given devices."""

    key: str
    is_ours: bool
    devices: tuple[tuple[str, str, str], ...]
    """Driver, pool and name of each."""


def node_sight(raw: Raw, table: Accelerators) -> NodeSight:
    """A Node."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    ready = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
    meta = raw["metadata"]
    labels, told = meta.get("labels") or {}, meta.get("annotations") or {}
    epoch = told.get(EPOCH, "")
    return NodeSight(
        name=raw["metadata"]["name"],
        labels=tuple(sorted((intern(k), intern(v)) for k, v in labels.items() if not k.startswith(NOISE))),
        taints=tuple(
            sorted((t["key"], t.get("value") or "") for t in spec.get("taints") or () if t.get("effect") in HARD)
        ),
        is_unschedulable=bool(spec.get("unschedulable")),
        ready=ready.get("status", "Unknown"),
        ready_message=ready.get("message") or ready.get("reason") or "",
        present=amounts(_nano(status.get("capacity") or {}), table),
        usable=amounts(_nano(status.get("allocatable") or {}), table),
        asked=told.get(LAYOUT, ""),
        before=told.get(LAYOUT_BEFORE, ""),
        epoch=int(epoch) if epoch.isdecimal() else 0,
        version=meta.get("resourceVersion", ""),
    )


def pod_sight(raw: Raw, table: Accelerators) -> PodSight | None:
    """None: it holds nothing, on no node or not any more."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return None
    is_ours = (meta.get("labels") or {}).get(MANAGED_BY) == OURS
    told = (meta.get("annotations") or {}).get(DEVICES, "")
    return PodSight(
        key=f"{meta.get('namespace', '')}/{meta['name']}",
        node=spec["nodeName"],
        is_ours=is_ours,
        devices=tuple(filter(None, told.split(","))) if is_ours else (),
        asks=amounts(requests(spec), table, is_request=True),
    )


def requests(spec: Raw) -> dict[str, int]:
    """What a pod asks for in billionths: containers and sidecars together, or an initialisation that asks for more."""
    always = [_wanted(c) for c in spec.get("containers") or ()]
    passing: list[dict[str, int]] = []
    for container in spec.get("initContainers") or ():
        (always if container.get("restartPolicy") == "Always" else passing).append(_wanted(container))
    total: dict[str, int] = {}
    for one in always:
        total = {name: total.get(name, 0) + one.get(name, 0) for name in {**total, **one}}
    for one in passing:
        total = {name: max(total.get(name, 0), one.get(name, 0)) for name in {**total, **one}}
    total |= _wanted(spec)  # asked for by the pod as a whole
    extra = _nano(spec.get("overhead") or {})
    return {name: total.get(name, 0) + extra.get(name, 0) for name in {**total, **extra}}


def _wanted(container: Raw) -> dict[str, int]:
    told = container.get("resources") or {}
    return _nano({**(told.get("limits") or {}), **(told.get("requests") or {})})


def _nano(told: Raw) -> dict[str, int]:
    return {name: quantity.nano(text) for name, text in told.items()}


def amounts(told: Mapping[str, int], table: Accelerators, *, is_request: bool = False) -> Amounts:
    """Processors, memory, scratch and accelerators among resources. Memory asked for is rounded up, there is down."""
    mib = quantity.mib if is_request else quantity.whole_mib
    counts = ((intern(name), quantity.whole(amount)) for name, amount in told.items() if table.is_device(name))
    return Amounts(
        cpu_milli=quantity.milli(told.get("cpu", 0)),
        memory_mib=mib(told.get("memory", 0)),
        scratch_mib=mib(told.get("ephemeral-storage", 0)),
        cards=tuple(sorted((name, units) for name, units in counts if units > 0)),
    )


# ── dynamic resource allocation ──────────────────────────────────────────────────────────────────────────────────────


def slice_sight(raw: Raw, table: Accelerators) -> SliceSight | None:
    """None: of a driver nobody knows, or of no single node. Devices without a UUID are not made yet (MIG on demand)."""
    spec = raw["spec"]
    if spec["driver"] not in table.by_driver or not spec.get("nodeName"):
        return None
    pool = spec["pool"]
    found = (_device(device, spec["driver"], pool["name"]) for device in spec.get("devices") or ())
    return SliceSight(
        name=raw["metadata"]["name"],
        node=spec["nodeName"],
        driver=spec["driver"],
        pool=pool["name"],
        generation=int(pool["generation"]),
        devices=tuple(device for device in found if device.uuid),
    )


def _device(raw: Raw, driver: str, pool: str) -> DeviceSight:
    told = {name.removeprefix(f"{driver}/"): value for name, value in (raw.get("attributes") or {}).items()}
    amount = {name.removeprefix(f"{driver}/"): value for name, value in (raw.get("capacity") or {}).items()}
    text = {name: str(next(iter(value.values()), "")) for name, value in told.items()}
    return DeviceSight(
        at=(driver, pool, raw["name"]),
        is_mig=text.get("type", "") == "mig",
        uuid=text.get("uuid", ""),
        parent=text.get("parentUUID", ""),
        profile=text.get("profile", ""),
        product=intern(text.get("productName", "")),
        memory_mib=quantity.whole_mib(quantity.nano(amount.get("memory", {}).get("value", 0))),
        taints=tuple(sorted(t["key"] for t in raw.get("taints") or () if t.get("effect") in HARD)),
    )


def claim_sight(raw: Raw) -> ClaimSight | None:
    """None: it was given no devices, or nobody uses it."""
    status = raw.get("status") or {}
    results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
    if not results or not status.get("reservedFor"):
        return None
    meta = raw["metadata"]
    return ClaimSight(
        key=f"{meta.get('namespace', '')}/{meta['name']}",
        is_ours=(meta.get("labels") or {}).get(MANAGED_BY) == OURS,
        devices=tuple((r["driver"], r["pool"], r["device"]) for r in results if not r.get("adminAccess")),
    )
