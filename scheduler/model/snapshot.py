"""Everything the engine needs to begin: the tables as values. ``Engine.snapshot()`` gives the same back."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.model.job import JobRecord
from scheduler.model.lease import AttemptRecord, LeaseRecord
from scheduler.model.node import Node
from scheduler.model.queue import Queue, QueueUse, Reservation, Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All collections are sorted by their key (jobs and leases by number)."""

    at_ms: int = 0
    """Largest instant in any applied event: the engine's idea of 'now' never goes back past it."""
    next_job: int = 1
    next_lease: int = 1
    queues: tuple[Queue, ...] = ()
    uses: tuple[QueueUse, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    """Cancelled and past ones included."""
    tenants: tuple[Tenant, ...] = ()
    nodes: tuple[Node, ...] = ()
    jobs: tuple[JobRecord, ...] = ()
    leases: tuple[LeaseRecord, ...] = ()
    """Open leases only."""
    attempts: tuple[AttemptRecord, ...] = ()
    """Attempts of open leases only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Records touched since the last take: what the store must write beside the events that caused it."""

    at_ms: int
    next_job: int
    next_lease: int
    queues: tuple[Queue, ...] = ()
    uses: tuple[QueueUse, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    """Cancelled and past ones included."""
    tenants: tuple[Tenant, ...] = ()
    nodes: tuple[Node, ...] = ()
    jobs: tuple[JobRecord, ...] = ()
    leases: tuple[LeaseRecord, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()
