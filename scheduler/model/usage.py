"""Usage: sealed intervals of one lease, each in exactly one bucket, with the quantities that could be billed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scheduler.model.changed import quick


class Sku(StrEnum):
    """What is counted. Amounts are integers in the unit named; hours are reached only when a price is applied."""

    CARD = "card"
    """card-milliseconds x 1000 (so that thousandths of a card are exact): divide by 3.6e9 for card-hours."""
    MIG = "mig"
    """MIG-instance-milliseconds x 1000."""
    VCPU = "vcpu"
    """milli-vCPU x ms."""
    MEMORY = "memory"
    """MiB x ms."""


class Bucket(StrEnum):
    """Where a card-millisecond went. The sum over buckets is cards x time."""

    STARTING = "starting"
    """Leased, runner not yet started."""
    HELD_CHARGED = "held_charged"
    HELD_FREE = "held_free"
    """Held but free of charge; the reason says why."""
    SWITCHING = "switching"
    FREE = "free"
    QUARANTINED = "quarantined"
    EXTERNAL = "external"
    """Held by something that is not shisuan's."""
    UNKNOWN = "unknown"


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """An amount of one SKU, of one model where the SKU has models."""

    sku: Sku
    model: str = ""
    """Card model, or ``model/profile`` for MIG."""
    amount: int


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """A closed interval ``[start_ms, end_ms)`` of one lease in one bucket. Never edited."""

    id: str
    """``<lease>:<start_ms>:<bucket>``: deterministic, so writing it twice is harmless."""
    lease_id: str
    job_id: str
    step: str
    tenant: str
    queue: str
    start_ms: int
    end_ms: int
    bucket: Bucket
    free_reason: str = ""
    devices: tuple[str, ...] = ()
    """Device ids held in this interval, over all ranks."""
    quantities: tuple[Quantity, ...] = ()
    simulated: bool = False
    """Some device was simulated: its card quantities are left out."""
    purpose: str = ""
    """Kind of the step (``render``, ``transcode`` …): what a voucher policy may ask for."""
    evidence: str = ""
    """Canonical JSON: first and last heartbeat, attempts, the telemetry source."""
