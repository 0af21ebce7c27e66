"""What a pod is made for: a node, cards, processors, memory, scratch. One worker group per shape. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

SLOT = "slot"
"""Beginning of the ids of cards that a device plugin counts and does not name: ``slot:NODE:RESOURCE:N``."""
CLASSES = {"GPU-": "gpu.nvidia.com", "MIG-": "mig.nvidia.com"}
"""Beginning of the ids of devices that a driver of dynamic resource allocation names, and their class in claims."""
DRIVERS = {"gpu.nvidia.com": "gpu.nvidia.com", "mig.nvidia.com": "gpu.nvidia.com"}
"""Driver of the devices of a class."""
MOST_CLAIMED = 32
"""A claim holds no more devices."""
FIRST = ("node", "resource", "count", "cpu_milli", "memory_mib")
"""Fields that every text of a shape has; the later ones are left out where they say nothing, so that a shape that was
written by an earlier version still has the same name.
"""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shape:
    """Pods of one shape are alike: a lease may take any idle one of its tenant's."""

    node: str
    """The Kubernetes node: the engine has chosen it, Kubernetes' scheduler must not."""
    resource: str = ""
    """Extended resource of the cards, or their device class where they are named; empty: none."""
    count: int = 0
    """How many of them."""
    cpu_milli: int = 0
    memory_mib: int = 0
    scratch_mib: int = 0
    devices: tuple[str, ...] = ()
    """UUIDs of cards that are claimed by name, sorted; empty: they are counted."""
    card_milli: int = 0
    """Thousandths of the one device; 0: whole ones."""

    @property
    def driver(self) -> str:
        """Driver of dynamic resource allocation of its named devices."""
        return DRIVERS[self.resource]

    @property
    def group(self) -> str:
        """Name of the worker group."""
        return f"g{hashlib.sha256(self.text().encode()).hexdigest()[:12]}"

    def text(self) -> str:
        """As an annotation keeps it."""
        told = {name: value for name, value in asdict(self).items() if value or name in FIRST}
        return json.dumps(told, sort_keys=True)

    @classmethod
    def of_text(cls, text: str) -> Shape:
        """Inverse of :meth:`text`. Raises ValueError."""
        try:
            told = json.loads(text)
            return cls(**{**told, "devices": tuple(told.get("devices", ()))})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a shape: {text!r}: {error}") from None


def shape_of(
    node: str,
    devices: Sequence[str],
    cpu_milli: int,
    memory_mib: int,
    *,
    scratch_mib: int = 0,
    card_milli: int = 0,
) -> Shape:
    """The shape for these devices of one node. Raises ValueError when no pod can be asked for them."""
    resources = {resource_of(device) for device in devices}
    if len(resources) > 1:
        raise ValueError(f"one pod cannot hold devices of several kinds: {', '.join(sorted(resources))}")
    resource = resources.pop() if resources else ""
    named = tuple(sorted(devices)) if resource in DRIVERS else ()
    if len(named) > MOST_CLAIMED:
        raise ValueError(f"one pod cannot claim {len(named)} devices: {MOST_CLAIMED} is the most")
    if card_milli and not named:
        raise ValueError(
            f"a part of a card that a device plugin counts ({', '.join(devices)}) cannot be had: only pods that claim "
            "cards by name (dynamic resource allocation) share one. Ask for a whole card or a MIG instance"
        )
    return Shape(
        node=node,
        resource=resource,
        count=len(devices),
        cpu_milli=cpu_milli,
        memory_mib=memory_mib,
        scratch_mib=scratch_mib,
        devices=named,
        card_milli=card_milli,
    )


def resource_of(device: str) -> str:
    """Extended resource of a slot, device class of a named device. Raises ValueError for what is neither."""
    for beginning, name in CLASSES.items():
        if device.startswith(beginning):
            return name
    kind, _, rest = device.partition(":")
    _, _, tail = rest.partition(":")
    resource, _, number = tail.rpartition(":")
    if kind != SLOT or not resource or not number.isdecimal():
        known = ", ".join(f"{beginning}..." for beginning in CLASSES)
        raise ValueError(
            f"device {device} cannot be asked for: a device plugin counts cards (slot:NODE:RESOURCE:N), "
            f"a driver that names them gives UUIDs ({known})"
        )
    return resource
