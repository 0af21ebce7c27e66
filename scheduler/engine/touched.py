"""Which records changed since the store was last told, and the order in which records are given to anybody."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from scheduler.model.job import JobRecord
from scheduler.model.lease import AttemptRecord, LeaseRecord, number_of
from scheduler.model.node import Node
from scheduler.model.queue import Queue, QueueUse, Reservation, Tenant

N = TypeVar("N", Queue, QueueUse, Reservation, Tenant, Node)


@dataclass(slots=True)
class Touched:
    """Records changed since the last take, newest version of each."""

    queues: dict[str, Queue] = field(default_factory=dict)
    uses: dict[str, QueueUse] = field(default_factory=dict)
    reservations: dict[str, Reservation] = field(default_factory=dict)
    tenants: dict[str, Tenant] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    jobs: dict[str, JobRecord] = field(default_factory=dict)
    leases: dict[str, LeaseRecord] = field(default_factory=dict)
    attempts: dict[str, AttemptRecord] = field(default_factory=dict)


def by_name(records: Iterable[N]) -> tuple[N, ...]:
    """Sorted by name."""
    return tuple(sorted(records, key=lambda record: record.name))


def jobs_in_order(jobs: Iterable[JobRecord]) -> tuple[JobRecord, ...]:
    """In order of submission."""
    return tuple(sorted(jobs, key=lambda record: number_of(record.job.id)))


def leases_in_order(leases: Iterable[LeaseRecord]) -> tuple[LeaseRecord, ...]:
    """In order of granting."""
    return tuple(sorted(leases, key=lambda record: number_of(record.lease.id)))


def attempts_in_order(attempts: Iterable[AttemptRecord]) -> tuple[AttemptRecord, ...]:
    """By lease, in the order they run."""
    # Of numbers without zeros in front the longer is the larger, and nobody reads them.
    return tuple(sorted(attempts, key=lambda a: (len(a.lease_id), a.lease_id, a.step, a.index, a.number)))
