"""What is free where: an immutable view per node, changed by replacing it, so that a trial costs one dict copy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from scheduler.model.lease import Allocation
from scheduler.model.node import Device, DeviceKind, Health, Lane, Node, NodeState
from scheduler.model.units import WHOLE_CARD_MILLI


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One node and what of it is free now. Free amounts fall below zero when a node shrank under its leases."""

    node: Node
    devices: tuple[Device, ...]
    """Devices that can be leased: all but cards that are split into MIG instances."""
    cpu_milli: int
    memory_mib: int
    scratch_mib: int
    held: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Device id to ``(thousandths held, tenant that holds them)``; free devices are absent."""

    @classmethod
    def empty(cls, node: Node) -> NodeView:
        """``node`` with nothing held."""
        return cls(
            node=node,
            devices=leasable(node),
            cpu_milli=node.cpu_milli,
            memory_mib=node.memory_mib,
            scratch_mib=node.scratch_mib,
        )

    def take(self, allocation: Allocation, tenant: str) -> NodeView:
        """This node after one more allocation. What fits is decided in ``fit``; this only adds up."""
        held = dict(self.held)
        for device, milli in device_millis(allocation):
            held[device] = (held.get(device, (0, tenant))[0] + milli, tenant)
        return self._with(allocation, -1, held)

    def give_back(self, allocation: Allocation) -> NodeView:
        """This node after an allocation ended."""
        held = dict(self.held)
        for device, milli in device_millis(allocation):
            before, tenant = held.pop(device)
            if before > milli:
                held[device] = (before - milli, tenant)
        return self._with(allocation, 1, held)

    def _with(self, allocation: Allocation, sign: int, held: Mapping[str, tuple[int, str]]) -> NodeView:
        return NodeView(
            node=self.node,
            devices=self.devices,
            cpu_milli=self.cpu_milli + sign * allocation.cpu_milli,
            memory_mib=self.memory_mib + sign * allocation.memory_mib,
            scratch_mib=self.scratch_mib + sign * allocation.scratch_mib,
            held=held,
        )


def leasable(node: Node) -> tuple[Device, ...]:
    """Devices of ``node`` that can be leased, sorted by id. A card with MIG instances is leased only as those."""
    split = {device.parent for device in node.devices if device.kind is DeviceKind.MIG}
    return tuple(sorted((d for d in node.devices if d.id not in split), key=lambda device: device.id))


def device_millis(allocation: Allocation) -> tuple[tuple[str, int], ...]:
    """``(device id, thousandths of it)`` for each device of an allocation."""
    if allocation.card_milli:
        return ((allocation.devices[0], allocation.card_milli),)
    return tuple((device, WHOLE_CARD_MILLI) for device in allocation.devices)


def healed(node: Node) -> Node:
    """``node`` as if nobody had cordoned, lost or quarantined anything, and it could serve either lane."""
    devices = tuple(replace(d, health=Health.OK) if d.health is not Health.OK else d for d in node.devices)
    return replace(node, state=NodeState.READY, devices=devices, lane=Lane.ANY)


def totals(nodes: Iterable[Node]) -> tuple[int, int, int, int]:
    """Capacity of all nodes that are not lost, which fair shares are measured against.

    ``(cpu_milli, memory_mib, card thousandths, MIG instance thousandths)``
    """
    cpu_milli = memory_mib = cards = instances = 0
    for node in nodes:
        if node.state is NodeState.LOST:
            continue
        cpu_milli += node.cpu_milli
        memory_mib += node.memory_mib
        for device in leasable(node):
            if device.kind is DeviceKind.MIG:
                instances += WHOLE_CARD_MILLI
            else:
                cards += WHOLE_CARD_MILLI
    return cpu_milli, memory_mib, cards, instances
