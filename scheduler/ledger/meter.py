"""From a lease and its attempts to usage records: who held what, in which bucket, gapless from grant to close.

Rules (DESIGN §4, "Money"; facts page on billing, §4 "Proposed defaults"):

* before an attempt's runner runs, the time is ``starting``;
* while it runs, ``held_charged``: success, failure, timeout and cancellation by the user are the user's;
* LOST: from the last recorded sign of life on, ``held_free`` with reason ``lost``: the park failed, not the user;
* PREEMPTED: from its last committed checkpoint on (from its start, when there is none), ``held_free`` with reason
  ``preempted``: that work is done again. Not so when the stop was its owner's own wish: then as if cancelled.

Intervals are half-open; the union of a lease's records is exactly ``[granted_ms, closed_ms)``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scheduler.model import measured
from scheduler.model.changed import quick
from scheduler.model.codec import quoted
from scheduler.model.lease import Allocation, AttemptRecord, AttemptState, Lease, LeaseRecord
from scheduler.model.node import Device, DeviceKind
from scheduler.model.units import WHOLE_CARD_MILLI
from scheduler.model.usage import Bucket, Quantity, Sku, UsageRecord

_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
UNKNOWN_MODEL = "unknown"
"""Model of a device the caller can no longer describe: what was held is still counted."""


class Segment(NamedTuple):
    """A part of a lease's time in one bucket."""

    start_ms: int
    end_ms: int
    bucket: Bucket
    free_reason: str = ""


def segments(lease: LeaseRecord, attempts: Sequence[AttemptRecord], until_ms: int) -> tuple[Segment, ...]:
    """The lease's time from its grant to ``until_ms`` (or its end, if earlier), without gap or overlap.

    ``attempts`` in the order they ran; they may still be running. Instants outside their neighbours are clamped, so a
    late or repeated report can never make time count twice. Neighbouring parts of one bucket are joined.
    """
    end_ms = min(until_ms, lease.closed_ms) if lease.closed_ms else until_ms
    found: list[Segment] = []
    at_ms = lease.lease.granted_ms
    for attempt in attempts:
        for part in _parts(attempt, at_ms, end_ms, by_owner=lease.stop_charged):
            _append(found, part)
            at_ms = part.end_ms
    _append(found, Segment(at_ms, end_ms, Bucket.STARTING))
    return tuple(found)


def seal(
    lease: LeaseRecord, attempts: Sequence[AttemptRecord], devices: Mapping[str, Device], purpose: str = ""
) -> tuple[UsageRecord, ...]:
    """The usage of a closed lease. ``attempts``: all of the lease's, in any order. Raises ValueError for an open lease.

    A device missing from ``devices`` counts under model ``unknown``. The same arguments give the same records.
    """
    if not lease.closed_ms:
        raise ValueError(f"lease {lease.lease.id} is still open")
    return usage_until(lease, attempts, devices, lease.closed_ms, purpose)


def usage_until(
    lease: LeaseRecord,
    attempts: Sequence[AttemptRecord],
    devices: Mapping[str, Device],
    until_ms: int,
    purpose: str = "",
) -> tuple[UsageRecord, ...]:
    """What :func:`seal` would give if the lease ended at ``until_ms``: for showing the cost of what still runs."""
    ordered = attempts
    if len(attempts) > 1:
        position = {attempt_id: at for at, attempt_id in enumerate(lease.lease.attempts)}
        ordered = sorted(attempts, key=lambda attempt: position[attempt.id])
    held = _Held.of(lease.lease, devices)
    return tuple(_record(lease.lease, held, ordered, part, purpose) for part in segments(lease, ordered, until_ms))


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What a lease holds, the same in all its parts."""

    devices: tuple[str, ...]
    amounts: tuple[tuple[Sku, str, int], ...]
    """``(SKU, model, amount per ms)``"""
    simulated: bool

    @classmethod
    def of(cls, lease: Lease, devices: Mapping[str, Device]) -> _Held:
        ids = tuple(sorted(device for allocation in lease.allocations for device in allocation.devices))
        return cls(
            devices=ids,
            amounts=_amounts(lease.allocations, devices),
            simulated=any(device in devices and devices[device].simulated for device in ids),
        )


def _parts(attempt: AttemptRecord, from_ms: int, until_ms: int, *, by_owner: bool) -> Iterable[Segment]:
    """One attempt's time, beginning where the one before it ended."""
    end_ms = _clamp(attempt.finished_ms if attempt.state.is_final else until_ms, from_ms, until_ms)
    if not attempt.started_ms:
        yield Segment(from_ms, end_ms, Bucket.STARTING)
        return
    start_ms = _clamp(attempt.started_ms, from_ms, end_ms)
    yield Segment(from_ms, start_ms, Bucket.STARTING)
    free_ms, reason = end_ms, ""
    if attempt.state is AttemptState.LOST:
        free_ms, reason = _clamp(attempt.heartbeat_ms, start_ms, end_ms), "lost"
    elif attempt.state is AttemptState.PREEMPTED and not by_owner:
        free_ms, reason = _clamp(attempt.checkpoint_ms, start_ms, end_ms), "preempted"
    yield Segment(start_ms, free_ms, Bucket.HELD_CHARGED)
    if reason:
        yield Segment(free_ms, end_ms, Bucket.HELD_FREE, reason)


def _append(found: list[Segment], part: Segment) -> None:
    """Add a part that is not empty, joined to its neighbour when both are of one kind."""
    if part.start_ms >= part.end_ms:
        return
    last = found[-1] if found else None
    if last is not None and (last.bucket, last.free_reason) == (part.bucket, part.free_reason):
        found[-1] = last._replace(end_ms=part.end_ms)
    else:
        found.append(part)


def _record(lease: Lease, held: _Held, attempts: Sequence[AttemptRecord], part: Segment, purpose: str) -> UsageRecord:
    length_ms = part.end_ms - part.start_ms
    return UsageRecord(
        id=f"{lease.id}:{part.start_ms}:{part.bucket.value}",
        lease_id=lease.id,
        job_id=lease.job_id,
        step=lease.step,
        tenant=lease.tenant,
        queue=lease.queue,
        start_ms=part.start_ms,
        end_ms=part.end_ms,
        bucket=part.bucket,
        free_reason=part.free_reason,
        devices=held.devices,
        quantities=tuple(
            [Quantity(sku=sku, model=model, amount=each * length_ms) for sku, model, each in held.amounts]
        ),
        simulated=held.simulated,
        purpose=purpose,
        evidence=_evidence(attempts, part),
    )


def _amounts(allocations: Sequence[Allocation], devices: Mapping[str, Device]) -> tuple[tuple[Sku, str, int], ...]:
    cards: dict[tuple[Sku, str], int] = {}
    cpu_milli = memory_mib = 0
    for allocation in allocations:
        cpu_milli += allocation.cpu_milli
        memory_mib += allocation.memory_mib
        for device_id in allocation.devices:
            device = devices.get(device_id)
            if device is None or not device.simulated:
                key = _sku(device)
                cards[key] = cards.get(key, 0) + (allocation.card_milli or WHOLE_CARD_MILLI)
    amounts = [(*key, milli) for key, milli in cards.items()]
    amounts += [(Sku.VCPU, "", cpu_milli), (Sku.MEMORY, "", memory_mib)]
    return tuple([each for each in sorted(amounts) if each[2]])


def _sku(device: Device | None) -> tuple[Sku, str]:
    if device is None:
        return Sku.CARD, UNKNOWN_MODEL
    if device.kind is DeviceKind.MIG:
        return Sku.MIG, f"{device.model}/{device.profile}"
    return Sku.CARD, device.model


def _evidence(attempts: Sequence[AttemptRecord], part: Segment) -> str:
    """Canonical JSON: the attempts whose time lies in this part, with the instants it was worked out from and, where
    they ended, what they were seen to do. ``source`` is ``lease`` when nothing was measured: it changes no charge.
    """
    told: list[str] = []
    sources: set[str] = set()
    for attempt in attempts:
        if attempt.finished_ms and not (attempt.finished_ms > part.start_ms and attempt.started_ms <= part.end_ms):
            continue
        # Written by hand, because every end of a task passes here: names in order, as canonical JSON has them.
        saved = f'"checkpoint_ms":{attempt.checkpoint_ms},' if attempt.checkpoint_ms else ""
        seen = ""
        if attempt.measured is not None and part.start_ms < attempt.finished_ms <= part.end_ms:
            seen = f'"measured":{_JSON(measured.summary(attempt.measured))},'  # once: in the record in which it ended
            sources.add(attempt.measured.source.value)
        told.append(
            f'{{{saved}"finished_ms":{attempt.finished_ms},"heartbeat_ms":{attempt.heartbeat_ms},'
            f'"id":{quoted(attempt.id)},{seen}"started_ms":{attempt.started_ms},"state":"{attempt.state.value}"}}'
        )
    return f'{{"attempts":[{",".join(told)}],"source":{quoted("+".join(sorted(sources)) or "lease")}}}'


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
