"""May it go there? ``capacity`` says how many copies fit on a node; ``refusal`` says, with numbers, why none does.

Both walk the same conditions in the same order; a property test holds them together. Software fractions of a card are
shared within one tenant only: nothing isolates two processes on one card from each other, and unreleased films are
worth stealing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.model.job import Resources, Step
from scheduler.model.lease import Allocation
from scheduler.model.node import Device, DeviceKind, Health, Lane, Node, NodeState
from scheduler.model.units import WHOLE_CARD_MILLI
from scheduler.placement.view import NodeView

Features = Mapping[str, frozenset[str]]
"""Catalogue features per card model; a model that is absent has none."""

NEVER = 1_000_000_000
"""More copies than any node runs: the answer of a resource that is not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one task, or one rank, asks of one node. Steps with equal demands are placed by the same search."""

    resources: Resources
    lane: str
    tenant: str = ""
    """Only for software fractions, whose fit depends on who holds the rest of the card."""
    speeds: tuple[tuple[str, int], ...] = ()
    """``(card model, thousandths of the fastest model's speed)``; models that are absent run at full speed."""
    _hash: int = field(init=False, repr=False, compare=False)
    """Worked out once: demands are keys that every plan looks up thousands of times."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.resources, self.lane, self.tenant, self.speeds)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The first condition a node does not meet."""

    stage: int
    """Position in the walk: the node that gets furthest explains best."""
    resource: str
    need: str
    """As a phrase: ``needs 2 free cards``."""
    have: str
    """As a phrase about the node: ``has 1``."""
    amount: int = 0
    """What the node has, to compare nodes refused at the same stage."""
    health: bool = False
    """The node or its cards are out for health or maintenance."""


def demand_of(step: Step, tenant: str) -> Demand:
    """The demand of one task (one rank) of ``step``."""
    ask = step.resources
    return Demand(
        resources=ask,
        lane=step.lane,
        tenant=tenant if ask.card_milli else "",
        speeds=step.speeds if ask.cards or ask.card_milli else (),
    )


def capacity(view: NodeView, demand: Demand, features: Features) -> int:
    """How many copies of ``demand`` fit on the node now, together."""
    ask = demand.resources
    if not admits(view.node, demand):
        return 0
    fits = min(
        view.cpu_milli // ask.cpu_milli if ask.cpu_milli > 0 else NEVER,
        view.memory_mib // ask.memory_mib if ask.memory_mib > 0 else NEVER,
        view.scratch_mib // ask.scratch_mib if ask.scratch_mib > 0 else NEVER,
    )
    if fits <= 0 or not (ask.cards or ask.card_milli):
        return max(fits, 0)
    return min(fits, _card_capacity(view, demand, suitable(view.devices, ask, features)))


def suitable(devices: Iterable[Device], ask: Resources, features: Features) -> tuple[Device, ...]:
    """Healthy devices of the asked kind, model, memory and features, whoever holds them."""
    kind = DeviceKind.MIG if ask.mig_profile else DeviceKind.CARD
    return tuple(
        device
        for device in devices
        if device.kind is kind
        and device.health is Health.OK
        and not (ask.card_milli and device.only_whole)
        and (not ask.mig_profile or device.profile == ask.mig_profile)
        and (not ask.card_models or device.model in ask.card_models)
        and device.memory_mib >= ask.card_memory_mib
        and (not ask.features or features.get(device.model, frozenset()).issuperset(ask.features))
    )


def free_whole(view: NodeView, devices: Iterable[Device]) -> tuple[Device, ...]:
    """Those of ``devices`` nobody holds any part of."""
    return tuple(device for device in devices if device.id not in view.held)


def fraction_room(view: NodeView, device: Device, tenant: str) -> int:
    """Thousandths of ``device`` this tenant may still take: none while another tenant is on it."""
    milli, holder = view.held.get(device.id, (0, tenant))
    return max(WHOLE_CARD_MILLI - milli, 0) if holder == tenant else 0


def by_island(devices: Iterable[Device]) -> dict[str, list[Device]]:
    """Devices per NVLink island, islands in name order. A device without an island is an island of its own."""
    islands: dict[str, list[Device]] = {}
    for device in devices:
        islands.setdefault(device.island or f"\0{device.id}", []).append(device)
    return dict(sorted(islands.items()))


def _card_capacity(view: NodeView, demand: Demand, devices: Sequence[Device]) -> int:
    ask = demand.resources
    if ask.card_milli:
        return sum(fraction_room(view, device, demand.tenant) // ask.card_milli for device in devices)
    free = free_whole(view, devices)
    if ask.same_island:
        return sum(len(island) // ask.cards for island in by_island(free).values())
    return len(free) // ask.cards


def admits(node: Node, demand: Demand) -> bool:
    """Everything about the node itself that does not change while leases come and go."""
    ask = demand.resources
    return (
        node.state is NodeState.READY
        and (node.lane is Lane.ANY or node.lane.value == demand.lane)
        and (not node.taints or set(node.taints) <= set(ask.tolerations))
        and has_labels(node, demand)
    )


def allotted(ask: Resources, node: str, devices: tuple[str, ...]) -> Allocation:
    """What one copy holds on a node. ``devices``: their ids, sorted."""
    return Allocation(
        node=node,
        devices=devices,
        card_milli=ask.card_milli,
        cpu_milli=ask.cpu_milli,
        memory_mib=ask.memory_mib,
        scratch_mib=ask.scratch_mib,
    )


def has_labels(node: Node, demand: Demand) -> bool:
    """All that the demand asks for."""
    asked = demand.resources.labels
    return not asked or set(asked) <= set(node.labels)


def refusal(view: NodeView, demand: Demand, features: Features) -> Refusal | None:
    """Why not even one copy fits on the node now; None when it does."""
    return (
        _node_refusal(view.node, demand)
        or _device_refusal(view.devices, demand.resources, features)
        or _free_card_refusal(view, demand, features)
        or _amount_refusal(view, demand.resources)
    )


def _node_refusal(node: Node, demand: Demand) -> Refusal | None:
    ask = demand.resources
    if node.lane is not Lane.ANY and node.lane.value != demand.lane:
        have = f"serves lane {node.lane.value}"
        return Refusal(stage=0, resource="lane", need=f"needs lane {demand.lane}", have=have)
    missing = [f"{key}={value}" for key, value in ask.labels if (key, value) not in node.labels]
    if missing:
        carries = ", ".join(f"{key}={value}" for key, value in node.labels) or "no labels"
        return Refusal(stage=1, resource="label", need=f"needs label {', '.join(missing)}", have=f"has {carries}")
    taints = sorted(set(node.taints) - set(ask.tolerations))
    if taints:
        need = f"needs a toleration for taint {', '.join(taints)}"
        return Refusal(stage=2, resource="taint", need=need, have="has that taint")
    if node.state is not NodeState.READY:
        why = f" ({node.state_reason})" if node.state_reason else ""
        return Refusal(
            stage=3, resource="node", need="needs a ready node", have=f"is {node.state.value}{why}", health=True
        )
    return None


def _device_refusal(devices: Sequence[Device], ask: Resources, features: Features) -> Refusal | None:
    """Which property removes the last suitable device: model, then memory, features and health."""
    if not (ask.cards or ask.card_milli):
        return None
    if ask.mig_profile:
        left = tuple(d for d in devices if d.kind is DeviceKind.MIG and d.profile == ask.mig_profile)
        if not left:
            have = f"has {tally(d.profile for d in devices if d.kind is DeviceKind.MIG) or 'none'}"
            return Refusal(stage=4, resource="mig_profile", need=f"needs MIG profile {ask.mig_profile}", have=have)
    else:
        left = tuple(d for d in devices if d.kind is DeviceKind.CARD)
        if not left:
            return Refusal(stage=4, resource="card", need=f"needs {_cards(ask)}", have="has no card")
    there = f"has {tally(d.model for d in left)}"
    if ask.card_models:
        left = tuple(d for d in left if d.model in ask.card_models)
        if not left:
            need = f"needs card model {' or '.join(ask.card_models)}"
            return Refusal(stage=5, resource="card_model", need=need, have=there)
    if all(d.memory_mib < ask.card_memory_mib for d in left):
        most = max(d.memory_mib for d in left)
        need = f"needs {ask.card_memory_mib} MiB on each card"
        return Refusal(stage=6, resource="card_memory", need=need, have=f"has at most {most} MiB", amount=most)
    left = tuple(d for d in left if d.memory_mib >= ask.card_memory_mib)
    lacking = min(
        (sorted(set(ask.features) - features.get(d.model, frozenset())) for d in left), key=lambda m: (len(m), m)
    )
    if lacking:
        need = f"needs cards with {', '.join(lacking)}"
        return Refusal(stage=7, resource="feature", need=need, have=f"{there} without it", amount=-len(lacking))
    left = tuple(d for d in left if features.get(d.model, frozenset()).issuperset(ask.features))
    left = tuple(d for d in left if not (ask.card_milli and d.only_whole))
    if not left:
        have = "gives its cards away whole only (counted by a device plugin)"
        return Refusal(stage=7, resource="card", need=f"needs {_cards(ask)}", have=have)
    if all(d.health is not Health.OK for d in left):
        why = sorted({d.health_reason for d in left if d.health_reason})
        have = f"has {len(left)} such, quarantined" + (f" ({'; '.join(why)})" if why else "")
        return Refusal(stage=8, resource="card", need=f"needs {_cards(ask)}", have=have, health=True)
    return None


def _free_card_refusal(view: NodeView, demand: Demand, features: Features) -> Refusal | None:
    ask = demand.resources
    if not (ask.cards or ask.card_milli):
        return None
    devices = suitable(view.devices, ask, features)
    if _card_capacity(view, demand, devices) > 0:
        return None
    if ask.card_milli:
        most = max(fraction_room(view, device, demand.tenant) for device in devices)
        have = f"has at most {thousandths(most)} of a card free for this tenant"
        return Refusal(stage=9, resource="card", need=f"needs {_cards(ask)}", have=have, amount=most)
    free = free_whole(view, devices)
    have = f"has {_of(len(free), len(devices))}"
    if len(free) >= ask.cards:
        most = max(len(island) for island in by_island(free).values())
        need = f"needs {_cards(ask)} in one NVLink island"
        return Refusal(stage=10, resource="island", need=need, have=f"has at most {most} free in one", amount=most)
    return Refusal(stage=9, resource="card", need=f"needs {_cards(ask)}", have=have, amount=len(free))


def _amount_refusal(view: NodeView, ask: Resources) -> Refusal | None:
    if view.cpu_milli < ask.cpu_milli and ask.cpu_milli > 0:
        have = f"has {_of(view.cpu_milli, view.node.cpu_milli, thousandths)}"
        need = f"needs {thousandths(ask.cpu_milli)} vCPU"
        return Refusal(stage=11, resource="cpu", need=need, have=have, amount=view.cpu_milli)
    if view.memory_mib < ask.memory_mib and ask.memory_mib > 0:
        have = f"has {_of(view.memory_mib, view.node.memory_mib)}"
        need = f"needs {ask.memory_mib} MiB memory"
        return Refusal(stage=12, resource="memory", need=need, have=have, amount=view.memory_mib)
    if view.scratch_mib < ask.scratch_mib and ask.scratch_mib > 0:
        have = f"has {_of(view.scratch_mib, view.node.scratch_mib)}"
        need = f"needs {ask.scratch_mib} MiB scratch"
        return Refusal(stage=13, resource="scratch", need=need, have=have, amount=view.scratch_mib)
    return None


def _of(free: int, total: int, show: Callable[[int], str] = str) -> str:
    """``3 of 8 free``, or only ``8`` when nothing is taken."""
    return show(total) if free == total else f"{show(max(free, 0))} of {show(total)} free"


def _cards(ask: Resources) -> str:
    if ask.card_milli:
        return f"{thousandths(ask.card_milli)} of a card"
    noun = "MIG instance" if ask.mig_profile else "card"
    return f"{ask.cards} {noun}{'s' if ask.cards != 1 else ''}"


def thousandths(milli: int) -> str:
    """``2500`` as ``2.5``."""
    whole, rest = divmod(milli, 1_000)
    return f"{whole}.{rest:03d}".rstrip("0") if rest else str(whole)


def tally(names: Iterable[str]) -> str:
    """``2 A100, 1 L4``"""
    return ", ".join(f"{count} {name}" for name, count in sorted(Counter(names).items()))
