"""The nodes as rows of arrays: what is free where, and which class of equal nodes each belongs to.

A class is everything about a node that leases do not change, so that a shape is judged once per class and not per node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.model.lease import Allocation
from scheduler.model.node import Device, DeviceKind, Node
from scheduler.model.units import WHOLE_CARD_MILLI
from scheduler.placement.kernels import Rows
from scheduler.placement.mix import content_key
from scheduler.placement.view import NodeView, device_millis, leasable

ROWS_LEAST, SLOTS_LEAST = 16, 8
LOG_PER_ROW = 4
"""A shape that was not asked during four changes per row is better weighed whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClass:
    """Nodes that no shape can tell apart while they are empty."""

    node: Node
    """One of them."""
    slots: tuple[Device, ...]
    """Its devices in slot order: by index, then id."""
    leasable: tuple[bool, ...]
    kinds: tuple[int, ...]
    """Per slot; equal for devices that are alike."""
    key: int
    """A hash of all of it, the same in every process."""
    islands: tuple[int, ...]
    """Per slot, NVLink island, numbered from 0 by name; a device without one is an island of its own, before those."""
    likeness: int
    """Equal for classes that differ in labels alone: those of a park whose nodes are all labelled with their names."""
    price_permille: int = 0
    """What work costs here beside all else, in thousandths of the cards it asks for."""


class Cluster:
    """Nodes and what is held on them. A fork shares the nodes and has amounts of its own."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        """By row."""
        self.row: dict[str, int] = {}
        self.classes: list[NodeClass] = []
        self.members: list[int] = []
        """Nodes per class."""
        self.rows = _rows(ROWS_LEAST, SLOTS_LEAST)
        self.prices: dict[str, int] = {}
        """By node, in thousandths of the cards asked: what makes it dearer than others like it; absent or 0: none."""
        self.version = 0
        """Moves when the arrays are others than before."""
        self._class_of: dict[tuple[object, ...], int] = {}
        self._likeness: dict[tuple[object, ...], int] = {}
        self._slot: list[dict[str, int]] = []
        self._ids: list[tuple[str, ...]] = []
        self._strays: dict[int, dict[str, tuple[int, str]]] = {}
        """By row: what leases hold of devices that the node does not have."""
        self._tenants: dict[str, int] = {}
        self._names: list[str] = [""]
        self._racks: NDArray[np.int32] | None = None
        self._ranked = 0
        """Nodes whose names have their rank."""

    def fork(self) -> Cluster:
        """A copy whose amounts change on their own. Valid until a node of the original is set again."""
        other = Cluster.__new__(Cluster)
        other.__dict__ |= self.__dict__
        other.rows = Rows._make(array.copy() for array in self.rows)
        other._strays = {row: dict(held) for row, held in self._strays.items()}
        return other

    @property
    def count(self) -> int:
        """Nodes."""
        return len(self.nodes)

    def tenant(self, name: str) -> int:
        """The number of a tenant, from 1."""
        number = self._tenants.get(name)
        if number is None:
            number = self._tenants[name] = len(self._names)
            self._names.append(name)
        return number

    def rank_names(self) -> None:
        """Give every node the rank of its name. The order of two names never changes, so rankings stay right."""
        if self._ranked != self.count:
            for rank, name in enumerate(sorted(self.row)):
                self.rows.rank[self.row[name]] = rank
            self._ranked = self.count

    def racks(self) -> NDArray[np.int32]:
        """The number of each row's rack, in the order of their names. Nodes without one count as one more rack."""
        if self._racks is None:
            number = {name: index for index, name in enumerate(sorted({node.rack for node in self.nodes}))}
            self._racks = np.array([number[node.rack] for node in self.nodes], np.int32)
        return self._racks

    def set_node(self, node: Node) -> int:
        """A node joined or is described anew; what is held on it stays held. Its row, which the caller must touch."""
        row = self.row.get(node.name)
        held = self.held(row) if row is not None else {}
        used = self._used(row) if row is not None else (0, 0, 0)
        if row is None:
            row = self.row[node.name] = self.count
            self.nodes.append(node)
            self._slot.append({})
            self._ids.append(())
        else:
            self.members[self.rows.klass[row]] -= 1
        self.nodes[row], self._racks = node, None
        number = self._intern(node)
        kind = self.classes[number]
        self.members[number] += 1
        self._reserve(self.count, len(kind.slots))
        ordered = _in_slots(node)
        self._ids[row] = tuple(device.id for device in ordered)
        self._slot[row] = {device.id: slot for slot, device in enumerate(ordered)}
        rows = self.rows
        rows.klass[row], rows.slots[row] = number, len(ordered)
        rows.free[row] = (node.cpu_milli - used[0], node.memory_mib - used[1], node.scratch_mib - used[2])
        rows.milli[row], rows.holder[row] = 0, 0
        rows.milli[row, : len(ordered)] = WHOLE_CARD_MILLI
        self._strays.pop(row, None)
        for device, (milli, tenant) in held.items():
            self.hold(row, device, milli, tenant)
        return row

    def drop_node(self, name: str) -> tuple[int, int]:
        """A node was never there: the last row takes its place. Both rows, which the caller must touch."""
        row, last = self.row.pop(name), self.count - 1
        self.prices.pop(name, None)
        self.members[self.rows.klass[row]] -= 1
        self._strays.pop(row, None)
        self.nodes[row], self._slot[row], self._ids[row] = self.nodes[last], self._slot[last], self._ids[last]
        del self.nodes[last], self._slot[last], self._ids[last]
        if row != last:
            self.row[self.nodes[row].name] = row
            for array in (self.rows.free, self.rows.milli, self.rows.holder, self.rows.klass, self.rows.slots):
                array[row] = array[last]
            if last in self._strays:
                self._strays[row] = self._strays.pop(last)
        self.rows.klass[last] = -1
        self._racks, self._ranked = None, -1
        return row, last

    def hold(self, row: int, device: str, milli: int, tenant: str) -> None:
        """Take ``milli`` of a device (negative: give back), without touching the row."""
        slot = self._slot[row].get(device)
        if slot is None:
            strays = self._strays.setdefault(row, {})
            left = strays.pop(device, (0, tenant))[0] + milli
            if left > 0:
                strays[device] = (left, tenant)
            return
        self.rows.milli[row, slot] -= milli
        if milli > 0:
            self.rows.holder[row, slot] = self.tenant(tenant)
        if self.rows.milli[row, slot] >= WHOLE_CARD_MILLI:
            self.rows.holder[row, slot] = 0

    def slots_of(self, row: int, allocation: Allocation) -> list[int] | None:
        """The slots of an allocation's devices; None when the node lacks one of them."""
        known = self._slot[row]
        slots = [known.get(device, -1) for device, _ in device_millis(allocation)]
        return None if -1 in slots else slots

    def ids(self, row: int) -> tuple[str, ...]:
        """Device ids of a row by slot."""
        return self._ids[row]

    def held(self, row: int) -> dict[str, tuple[int, str]]:
        """Device id to ``(thousandths held, tenant that holds them)``; free devices are absent."""
        held = dict(self._strays.get(row, {}))
        ids = self._ids[row]
        if ids:
            millis, holders = self.rows.milli[row].tolist(), self.rows.holder[row].tolist()
            for slot, device in enumerate(ids):
                if millis[slot] < WHOLE_CARD_MILLI:
                    held[device] = (WHOLE_CARD_MILLI - millis[slot], self._names[holders[slot]])
        return held

    def held_of(self, row: int, device: str) -> tuple[int, str]:
        """Thousandths held of one device, and the tenant that holds them; ``(0, "")``: nobody."""
        slot = self._slot[row].get(device)
        if slot is None:
            return self._strays.get(row, {}).get(device, (0, ""))
        milli = WHOLE_CARD_MILLI - int(self.rows.milli[row, slot])
        return (milli, self._names[self.rows.holder[row, slot]]) if milli > 0 else (0, "")

    def view(self, row: int) -> NodeView:
        """One node as an object, for reasons and people."""
        cpu_milli, memory_mib, scratch_mib = self.rows.free[row].tolist()
        node = self.nodes[row]
        return NodeView(
            node=node,
            devices=leasable(node),
            cpu_milli=cpu_milli,
            memory_mib=memory_mib,
            scratch_mib=scratch_mib,
            held=self.held(row),
        )

    def _used(self, row: int) -> tuple[int, int, int]:
        node, (cpu, memory, scratch) = self.nodes[row], self.rows.free[row].tolist()
        return node.cpu_milli - cpu, node.memory_mib - memory, node.scratch_mib - scratch

    def _intern(self, node: Node) -> int:
        slots = _in_slots(node)
        price = self.prices.get(node.name, 0)
        content = (price, *_content(node, slots)) if price else _content(node, slots)
        number = self._class_of.get(content)
        if number is None:
            number = self._class_of[content] = len(self.classes)
            likeness = self._likeness.setdefault((content[:-3], content[-2:]), len(self._likeness))
            self.classes.append(_class_of(node, slots, content, likeness, price))
            self.members.append(0)
        return number

    def _reserve(self, rows: int, slots: int) -> None:
        """Arrays for that many rows and slots; rows are a power of two, for the tournament trees."""
        have_rows, have_slots = self.rows.milli.shape
        if rows <= have_rows and slots <= have_slots:
            return
        more = _rows(max(have_rows, 1 << (rows - 1).bit_length()), max(have_slots, slots))
        for name in Rows._fields:
            old, new = getattr(self.rows, name), getattr(more, name)
            if name == "clock":
                new[:] = old
            elif name != "log":  # the caller's rankings are made anew, so nobody reads old changes
                new[tuple(slice(0, length) for length in old.shape)] = old
        self.rows = more
        self.version += 1


class Views(Mapping[str, NodeView]):
    """A cluster's nodes by name, each made into a view when it is looked at."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[str, tuple[int, NodeView]] = {}

    def __getitem__(self, name: str) -> NodeView:
        """The view of a node; the same object as long as nothing of it has changed."""
        row = self._cluster.row[name]
        last, node = int(self._cluster.rows.last[row]), self._cluster.nodes[row]
        known = self._known.get(name)
        if known is not None and known[0] == last and known[1].node is node:
            return known[1]
        view = self._cluster.view(row)
        self._known[name] = (last, view)
        return view

    def __iter__(self) -> Iterator[str]:
        return iter(self._cluster.row)

    def __len__(self) -> int:
        return self._cluster.count

    def __contains__(self, name: object) -> bool:
        return name in self._cluster.row


def _rows(rows: int, slots: int) -> Rows:
    return Rows(
        free=np.zeros((rows, 3), np.int64),
        milli=np.zeros((rows, slots), np.int32),
        holder=np.zeros((rows, slots), np.int32),
        klass=np.full(rows, -1, np.int32),
        slots=np.zeros(rows, np.int32),
        rank=np.zeros(rows, np.int32),
        level=np.zeros((rows, 2), np.int32),
        cards=np.zeros(rows, np.uint64),
        value=np.zeros(rows, np.int64),
        order=np.zeros(rows, np.int64),
        state=np.full(rows, -1, np.int32),
        links=np.full((rows, 3), -1, np.int32),
        last=np.full(rows, -1, np.int64),
        log=np.zeros(rows * LOG_PER_ROW, np.int32),
        clock=np.zeros(1, np.int64),
    )


def _in_slots(node: Node) -> list[Device]:
    return sorted(node.devices, key=lambda device: (device.index, device.id))


def _content(node: Node, slots: list[Device]) -> tuple[object, ...]:
    """What a class is told by: nothing in it names the node or a device. Labels are the last but two."""
    split = {device.parent for device in slots if device.kind is DeviceKind.MIG}
    keys = sorted({device.island or f"\0{device.id}" for device in slots})
    islands = {key: number for number, key in enumerate(keys)}
    devices = tuple(
        (
            islands[device.island or f"\0{device.id}"],
            device.kind.value,
            device.model,
            device.memory_mib,
            device.profile,
            device.health.value,
            *(("whole",) if device.only_whole else ()),
            device.id not in split,
        )
        for device in slots
    )
    amounts = (node.cpu_milli, node.memory_mib, node.scratch_mib)
    return (node.lane.value, node.state.value, node.taints, node.labels, amounts, devices)


def _class_of(
    node: Node, slots: list[Device], content: tuple[object, ...], likeness: int, price_permille: int
) -> NodeClass:
    devices: tuple[tuple[int, ...], ...] = content[-1]  # type: ignore[assignment]
    kinds: dict[tuple[object, ...], int] = {}
    return NodeClass(
        node=node,
        slots=tuple(slots),
        leasable=tuple(bool(device[-1]) for device in devices),
        kinds=tuple(kinds.setdefault(device[1:], len(kinds)) for device in devices),
        islands=tuple(device[0] for device in devices),
        key=content_key(repr(content).encode()),
        likeness=likeness,
        price_permille=price_permille,
    )
