"""Where every device-millisecond went: the buckets of DESIGN §4, summing to devices x period with error 0.

Amounts are thousandths of a device x ms, so that software fractions are exact. A device that is not (or no longer)
reported by any node, or whose node is lost, counts as ``unknown``: its row too sums to the whole period.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.ledger.meter import segments
from scheduler.model.event import Event, NodeLost, NodeSeen
from scheduler.model.layout import layout_under_way, settled, under_way
from scheduler.model.lease import AttemptRecord, LeaseRecord
from scheduler.model.node import DeviceKind, Health, Node, NodeState
from scheduler.model.units import WHOLE_CARD_MILLI
from scheduler.model.usage import Bucket

Held = tuple[LeaseRecord, Sequence[AttemptRecord]]
"""A lease, open or closed, and its attempts in the order they run."""


class Overlap(ValueError):
    """More than one whole device was leased at some instant: a millisecond would be billed twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """From ``start_ms`` until the device's next Presence, the bucket of whatever part of it is not leased."""

    device: str
    start_ms: int
    bucket: Bucket
    """FREE, QUARANTINED (a node that takes nothing too), SWITCHING (its card is being cut), EXTERNAL or UNKNOWN."""


def inventory(events: Iterable[Event]) -> tuple[Presence, ...]:
    """What NodeSeen and NodeLost tell about devices, in order of time; other events are skipped."""
    nodes: dict[str, Node] = {}
    home: dict[str, str] = {}
    found: list[Presence] = []
    for event in events:
        if isinstance(event, NodeSeen):
            node = settled(nodes.get(event.node.name), event.node, event.at_ms)
            now = dict(_offered(node))
            before = _offered(nodes[event.node.name]) if event.node.name in nodes else ()
            gone = [d for d, _ in before if d not in now and home.get(d) == event.node.name]
            found += [Presence(device=d, start_ms=event.at_ms, bucket=Bucket.UNKNOWN) for d in gone]
            found += [Presence(device=d, start_ms=event.at_ms, bucket=bucket) for d, bucket in now.items()]
            home |= dict.fromkeys(now, event.node.name)
            nodes[event.node.name] = node
        elif isinstance(event, NodeLost) and event.node in nodes:
            lost = [d for d, _ in _offered(nodes[event.node]) if home[d] == event.node]
            found += [Presence(device=d, start_ms=event.at_ms, bucket=Bucket.UNKNOWN) for d in lost]
    return tuple(found)


def buckets(
    presence: Iterable[Presence], leases: Iterable[Held], start_ms: int, end_ms: int
) -> dict[str, dict[Bucket, int]]:
    """Device id to bucket to amount over ``[start_ms, end_ms)``; each row sums to ``1000 x (end_ms - start_ms)``.

    Raises Overlap when leases hold more than the whole of a device at some instant of the period, ValueError for a
    period that ends before it starts.
    """
    if end_ms < start_ms:
        raise ValueError(f"the period ends ({end_ms}) before it starts ({start_ms})")
    offered: dict[str, list[tuple[int, Bucket]]] = defaultdict(list)
    for entry in presence:
        offered[entry.device].append((entry.start_ms, entry.bucket))
    steps: dict[str, list[tuple[int, Bucket, int]]] = defaultdict(list)
    for lease, attempts in leases:
        for device, milli in _devices(lease):
            for part in segments(lease, attempts, end_ms):
                low, high = max(part.start_ms, start_ms), min(part.end_ms, end_ms)
                if low < high:
                    steps[device] += [(low, part.bucket, milli), (high, part.bucket, -milli)]
    return {
        device: _sweep(device, offered.get(device, []), steps.get(device, []), (start_ms, end_ms))
        for device in sorted({*offered, *steps})
    }


def error(rows: Mapping[str, Mapping[Bucket, int]], start_ms: int, end_ms: int) -> int:
    """How far the rows are from devices x period, in thousandths of a device x ms: 0, always."""
    whole = WHOLE_CARD_MILLI * (end_ms - start_ms)
    return sum(abs(sum(row.values()) - whole) for row in rows.values())


def _offered(node: Node) -> tuple[tuple[str, Bucket], ...]:
    """``(device, bucket while it is not leased)`` of each device of ``node`` that can be leased."""
    split = {device.parent for device in node.devices if device.kind is DeviceKind.MIG}
    cut, is_whole = under_way(node), bool(layout_under_way(node))
    return tuple(
        (d.id, _idle_bucket(node, d.health, is_cut=is_whole or (d.parent or d.id) in cut))
        for d in node.devices
        if d.id not in split
    )


def _idle_bucket(node: Node, health: Health, *, is_cut: bool) -> Bucket:
    if node.state is NodeState.LOST:
        return Bucket.UNKNOWN
    if is_cut and health is Health.QUARANTINED:
        return Bucket.SWITCHING
    if health is Health.EXTERNAL:
        return Bucket.EXTERNAL
    sick = node.state is not NodeState.READY or health is Health.QUARANTINED
    return Bucket.QUARANTINED if sick else Bucket.FREE


def _devices(lease: LeaseRecord) -> Iterable[tuple[str, int]]:
    for allocation in lease.lease.allocations:
        for device in allocation.devices:
            yield device, allocation.card_milli or WHOLE_CARD_MILLI


def _sweep(
    device: str, offered: list[tuple[int, Bucket]], steps: list[tuple[int, Bucket, int]], period: tuple[int, int]
) -> dict[Bucket, int]:
    """Walk through the period from change to change; ends of leases come before beginnings at the same instant."""
    start_ms, end_ms = period
    changes: list[tuple[int, int, Bucket, int]] = [(at, 0 if milli < 0 else 1, b, milli) for at, b, milli in steps]
    row = dict.fromkeys(Bucket, 0)
    held = dict.fromkeys(Bucket, 0)
    idle, at_ms = Bucket.UNKNOWN, start_ms
    presence = [(max(at, start_ms), order, bucket) for order, (at, bucket) in enumerate(offered) if at < end_ms]
    queue = sorted(
        [(at, -1, order, bucket, 0) for at, order, bucket in presence] + [(*c[:2], 0, *c[2:]) for c in changes]
    )
    for when_ms, kind, _, bucket, milli in (*queue, (end_ms, -1, 0, Bucket.UNKNOWN, 0)):
        _count(row, held, idle, when_ms - at_ms)
        at_ms = when_ms
        if kind < 0:
            idle = bucket
            continue
        held[bucket] += milli
        if sum(held.values()) > WHOLE_CARD_MILLI:
            raise Overlap(f"device {device}: {sum(held.values())} of 1000 thousandths leased at {when_ms}")
    return row


def _count(row: dict[Bucket, int], held: Mapping[Bucket, int], idle: Bucket, duration_ms: int) -> None:
    if not duration_ms:
        return
    for bucket, milli in held.items():
        row[bucket] += milli * duration_ms
    row[idle] += (WHOLE_CARD_MILLI - sum(held.values())) * duration_ms
