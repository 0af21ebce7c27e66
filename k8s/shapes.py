"""What a pod is made for: a node, cards, processors and memory. One worker group per shape. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

SLOT = "slot"
"""Beginning of the ids of cards that a device plugin counts and does not name: ``slot:NODE:RESOURCE:N``."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shape:
    """Pods of one shape are alike: a lease may take any idle one of its tenant's."""

    node: str
    """The Kubernetes node: the engine has chosen it, Kubernetes' scheduler must not."""
    resource: str = ""
    """Extended resource of the cards; empty: none."""
    count: int = 0
    """How many of them."""
    cpu_milli: int = 0
    memory_mib: int = 0

    @property
    def group(self) -> str:
        """Name of the worker group."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"g{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def text(self) -> str:
        """As an annotation keeps it."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def of_text(cls, text: str) -> Shape:
        """Inverse of :meth:`text`. Raises ValueError."""
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"not a shape: {text!r}: {error}") from None


def shape_of(node: str, devices: Sequence[str], cpu_milli: int, memory_mib: int) -> Shape:
    """The shape for these devices of one node. Raises ValueError when no pod can be asked for them."""
    resources = {resource_of(device) for device in devices}
    if len(resources) > 1:
        raise ValueError(f"one pod cannot hold devices of several kinds: {', '.join(sorted(resources))}")
    resource = resources.pop() if resources else ""
    return Shape(node=node, resource=resource, count=len(devices), cpu_milli=cpu_milli, memory_mib=memory_mib)


def resource_of(device: str) -> str:
    """Extended resource of a slot. Raises ValueError for what is none."""
    kind, _, rest = device.partition(":")
    _, _, tail = rest.partition(":")
    resource, _, number = tail.rpartition(":")
    if kind != SLOT or not resource or not number.isdecimal():
        raise ValueError(
            f"device {device} is named by its driver (dynamic resource allocation): "
            "the lanes ask device plugins for cards, which count them (slot:NODE:RESOURCE:N)"
        )
    return resource
