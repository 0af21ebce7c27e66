"""From what the API server tells of a node to the model's Node. Pure: the same sightings give the same node.

Device plugins count cards and do not name them. Until a pod reports the UUIDs, a node's cards are *slots* with ids of
their own; which of them our pods hold is written on the pods, strangers and broken cards take the last of the others.
With dynamic resource allocation devices have their UUIDs from the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from k8s import mig
from k8s.accelerators import Accelerator, Accelerators, Unit
from k8s.names import CORDON_TAINT, HIDDEN, LANE, RACK, TOLERATED, TROUBLE
from k8s.sightings import ClaimSight, DeviceSight, NodeSight, PodSight, SliceSight
from scheduler.model import catalogue
from scheduler.model.node import Device, DeviceKind, Health, Lane, Node, NodeState

MODEL, MEMORY = "nvidia.com/gpu.product", "nvidia.com/gpu.memory"
MOST_NAMED = 3
"""Strangers told by name in a reason."""


class Cards(StrEnum):
    """Where a node's cards are read from, and so how pods ask for them."""

    AUTO = "auto"
    """By name where their driver names them, else counted."""
    PLUGIN = "plugin"
    """What device plugins count; what a driver names is not looked at."""
    CLAIMS = "claims"
    """What drivers name: a plugin's count of cards that have such a driver is not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sights:
    """Everything that is known of one node."""

    node: NodeSight
    pods: tuple[PodSight, ...] = ()
    """Those on it that hold something, by key."""
    slices: tuple[SliceSight, ...] = ()
    claims: tuple[ClaimSight, ...] = ()
    """Those that hold devices of its slices, by key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The node does not answer; what ran there is lost."""

    reason: str


def mapped(
    sights: Sights,
    table: Accelerators,
    *,
    lane: Lane = Lane.POOL,
    rack_label: str = RACK,
    cards: Cards = Cards.AUTO,
    configs: tuple[mig.Config, ...] = (),
) -> Node | Gone:
    """The node as the engine wants it. ``lane``: of nodes whose label does not say."""
    node = sights.node
    if node.ready == "Unknown":
        return Gone(reason=f"its kubelet does not answer: {node.ready_message or 'nothing was heard of it yet'}")
    labels = dict(node.labels)
    strangers = [pod.asks for pod in sights.pods if not pod.is_ours]
    devices, vendors = devices_of(sights, table, cards)
    model = _model(labels.get(MODEL, ""), _whole(labels.get(MEMORY, "")))
    laid = mig.laid(node, devices, model, configs, is_named=any(one.driver in table.by_driver for one in sights.slices))
    state, reason = _state(node)
    return Node(
        name=node.name,
        cpu_milli=max(0, node.usable.cpu_milli - sum(asks.cpu_milli for asks in strangers)),
        memory_mib=max(0, node.usable.memory_mib - sum(asks.memory_mib for asks in strangers)),
        scratch_mib=max(0, node.usable.scratch_mib - sum(asks.scratch_mib for asks in strangers)),
        devices=laid.devices,
        labels=tuple((key, value) for key, value in node.labels if not key.startswith(HIDDEN)),
        taints=tuple(sorted({*vendors, *_taints(node)})),
        rack=labels.get(rack_label, ""),
        lane=Lane(labels[LANE]) if labels.get(LANE) in list(Lane) else lane,
        state=state,
        state_reason=reason,
        cuts=laid.cuts,
        layouts=laid.layouts,
        layout=laid.layout,
    )


def _state(node: NodeSight) -> tuple[NodeState, str]:
    troubles = [key for key, _ in node.taints if key.startswith(TROUBLE) and key != CORDON_TAINT]
    if node.ready != "True":
        return NodeState.UNREADY, f"Kubernetes says that it is not ready: {node.ready_message}".removesuffix(": ")
    if node.is_unschedulable:
        return NodeState.UNREADY, "cordoned in Kubernetes"
    if troubles:
        return NodeState.UNREADY, f"taken out by Kubernetes: {', '.join(troubles)}"
    return NodeState.READY, ""


def _taints(node: NodeSight) -> Iterator[str]:
    """Taints of the site's own, as jobs name them in ``tolerations``: ``key`` or ``key=value``."""
    for key, value in node.taints:
        if key not in TOLERATED and not key.startswith(TROUBLE):
            yield f"{key}={value}" if value else key


# ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def devices_of(
    sights: Sights, table: Accelerators, cards: Cards = Cards.AUTO
) -> tuple[tuple[Device, ...], frozenset[str]]:
    """The node's devices, numbered, and the taints of their vendors."""
    slices = sights.slices if cards is not Cards.PLUGIN else ()
    named = [device for one in newest(slices) for device in one.devices]
    drivers = {one.driver for one in slices} if cards is not Cards.CLAIMS else set(table.by_driver)
    ordered = sorted(named, key=lambda device: device.at)
    found = [_named(device, index, sights) for index, device in enumerate(ordered)]
    vendors = {table.by_driver[device.at[0]].taint for device in named}
    for resource, units in sights.node.present.cards:
        accelerator = table.find(resource)
        if accelerator is None or accelerator.vendor.dra in drivers:
            continue
        vendors.add(accelerator.vendor.taint)
        found += _slots(accelerator, units, len(found), sights)
    return tuple(found), frozenset(vendors - {""})


def newest(slices: Iterable[SliceSight]) -> list[SliceSight]:
    """The slices that count: those of the newest generation of each pool."""
    ordered = sorted(slices, key=lambda one: (one.driver, one.pool, one.name))
    latest: dict[tuple[str, str], int] = {}
    for one in ordered:
        latest[one.driver, one.pool] = max(one.generation, latest.get((one.driver, one.pool), 0))
    return [one for one in ordered if one.generation == latest[one.driver, one.pool]]


def _named(device: DeviceSight, index: int, sights: Sights) -> Device:
    model = _model(device.product, 0 if device.is_mig else device.memory_mib)
    made = Device(
        id=device.uuid,
        model=model,
        kind=DeviceKind.MIG if device.is_mig else DeviceKind.CARD,
        index=index,
        memory_mib=device.memory_mib,
        parent=device.parent,
        profile=device.profile,
        island="" if device.is_mig else catalogue.island(model, sights.node.name),
    )
    if device.taints:
        return _out(made, Health.QUARANTINED, f"tainted by its driver: {', '.join(device.taints)}")
    strangers = [claim.key for claim in sights.claims if not claim.is_ours and device.at in claim.devices]
    return _out(made, Health.EXTERNAL, f"held by {strangers[0]}") if strangers else made


def _slots(accelerator: Accelerator, units: int, first: int, sights: Sights) -> list[Device]:
    """Devices that are counted but not named, numbered from ``first``."""
    labels = dict(sights.node.labels)
    vendor, resource = accelerator.vendor, accelerator.resource
    replicas = _whole(labels.get(vendor.replicas, ""))
    product = labels.get(vendor.model, "")
    profile = accelerator.profile or product.partition("-MIG-")[2]
    is_mig = bool(profile)
    memory_mib = _whole(labels.get(accelerator.memory_mib, ""))
    model = _model(product, 0 if is_mig else memory_mib)
    if accelerator.unit is Unit.SHARE or (replicas > 1 and not is_mig):
        units = -(-units // max(1, replicas))
    island = "" if is_mig else catalogue.island(model, sights.node.name)
    if not memory_mib and not is_mig and model != catalogue.UNKNOWN:
        memory_mib = catalogue.nominal_mib(model)
    slots = [
        Device(
            id=f"slot:{sights.node.name}:{resource}:{number}",
            model=model,
            kind=DeviceKind.MIG if is_mig else DeviceKind.CARD,
            index=first + number,
            memory_mib=memory_mib,
            profile=profile,
            island=island,
            only_whole=not is_mig,
        )
        for number in range(units)
    ]
    if accelerator.unit is Unit.SHARE or replicas > 1:
        shared = f"shared by its device plugin ({resource}): shisuan needs whole cards"
        return [_out(slot, Health.QUARANTINED, shared) for slot in slots]
    return _taken(slots, accelerator, sights)


def _taken(slots: Sequence[Device], accelerator: Accelerator, sights: Sights) -> list[Device]:
    """Broken ones and those that strangers hold, from the last slot that no pod of ours holds backwards."""
    resource, node = accelerator.resource, sights.node
    usable = node.usable.count(resource)
    broken = len(slots) - usable
    holders = [(pod.key, pod.asks.count(resource)) for pod in sights.pods if not pod.is_ours]
    holders = [(key, count) for key, count in holders if count]
    ours = {device for pod in sights.pods for device in pod.devices}
    free = [slot.id for slot in reversed(slots) if slot.id not in ours]
    held = [slot.id for slot in reversed(slots) if slot.id in ours]
    sick = set((free + held)[: max(0, broken)])
    external = [slot for slot in free if slot not in sick][: sum(count for _, count in holders)]
    why_sick = f"its device plugin calls it unhealthy ({usable} of {len(slots)} {resource} usable)"
    why_external = f"held by {_names([key for key, _ in holders])}"
    out = dict.fromkeys(external, (Health.EXTERNAL, why_external)) | dict.fromkeys(sick, (Health.QUARANTINED, why_sick))
    return [_out(slot, *out[slot.id]) if slot.id in out else slot for slot in slots]


def _names(keys: Sequence[str]) -> str:
    more = len(keys) - MOST_NAMED
    return ", ".join(keys[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _out(device: Device, health: Health, reason: str) -> Device:
    return replace(device, health=health, health_reason=reason)


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() else 0


_LABELLED = {name.replace(" ", "-").casefold(): name for board in catalogue.BY_ID.values() for name in board.nvml_names}
"""Names of the driver, as GPU Feature Discovery spells them in a label."""


@lru_cache(maxsize=1_024)
def _model(product: str, memory_mib: int) -> str:
    """Board of a product label (``NVIDIA-H100-80GB-HBM3``, ``...-SHARED``, ``...-MIG-1g.10gb``) or a driver's name."""
    words = product.replace(" ", "-").casefold().partition("-mig-")[0].removesuffix("-shared")
    name = _LABELLED.get(words.removeprefix("nvidia-"))
    return catalogue.by_nvml_name(name, memory_mib) if name is not None else catalogue.UNKNOWN
