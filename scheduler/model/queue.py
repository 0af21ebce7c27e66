"""Queues form the fair-share tree; a tenant submits into queues it may use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scheduler.model.changed import quick

Amounts = tuple[int, int, int, int]
"""``(cpu_milli, memory_mib, card thousandths, MIG instance thousandths)``"""

UNLIMITED: Amounts = (-1, -1, -1, -1)
"""A negative amount in a limit means that there is none for that resource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A node of the fair-share tree. Shares are weights among siblings."""

    name: str
    parent: str = ""
    weight: int = 100
    guaranteed: Amounts = (0, 0, 0, 0)
    """What it gets back from borrowers when its jobs wait for it."""
    limit: Amounts = UNLIMITED
    """It and the queues below it never hold more than this: the guarantee and what may be borrowed."""
    lends: Amounts = UNLIMITED
    """Most of the guarantee that others may use while it is idle; the rest stays free for this queue."""
    jobs_max: int = 0
    """Jobs with open leases at once; 0: no limit."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class QueueUse:
    """What a queue has used, decayed with the half-life ``USAGE_HALF_LIFE_MS``: closed leases, up to ``at_ms``."""

    name: str
    at_ms: int
    used: Amounts
    """Amount x seconds; what a lease held counts from its close on."""


class ReservationKind(StrEnum):
    """What a reservation keeps its nodes for."""

    EVENT = "event"
    """For jobs of its queues."""
    MAINTENANCE = "maintenance"
    """For nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Nodes kept for someone during a window of time. What cannot end before the window opens does not start there."""

    name: str
    kind: ReservationKind
    nodes: tuple[str, ...]
    """Sorted."""
    start_ms: int
    end_ms: int
    every_ms: int = 0
    """The window repeats after this; 0: once."""
    repeats: int = 1
    """How often it is held; 0: until it is cancelled."""
    queues: tuple[str, ...] = ()
    """Whose jobs (theirs and those of queues below) may use an EVENT's nodes."""
    cancelled: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A studio or a team. Storage roots are absolute paths or URIs its jobs may read and write."""

    name: str
    display_name: str = ""
    queues: tuple[str, ...] = ("default",)
    """First one is used when a job names none."""
    storage_roots: tuple[str, ...] = ()
    """First one resolves relative output paths."""
    subsidy_excluded: str = ""
    """Why no voucher pays for this tenant (a related party of the operator, the park's own use); empty: they do."""
    budget_micro_yuan: int = -1
    """Most that it may come to owe beside what vouchers pay, in all; -1: no limit. Raised as it pays."""
