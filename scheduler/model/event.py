"""The journal's alphabet: every recorded fact. Events are versioned; ``scheduler/store`` upcasts old versions.

An event's ``at_ms`` is the service's clock, which never runs backwards in one journal.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.model.job import Job
from scheduler.model.lease import AttemptState, Lease
from scheduler.model.node import Node
from scheduler.model.queue import Queue, Tenant
from scheduler.model.usage import UsageRecord

EVENT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSet:
    """A queue was created or changed."""

    at_ms: int
    queue: Queue


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSet:
    """A tenant was created or changed."""

    at_ms: int
    tenant: Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """A node joined, came back, or reports other capacities, cards or health."""

    at_ms: int
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLost:
    """A node's agent is gone. Attempts on it are ended by their own AttemptFinished events."""

    at_ms: int
    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmitted:
    """A job was accepted."""

    at_ms: int
    job: Job
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHeld:
    """Nothing more of this job starts until it is released."""

    at_ms: int
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReleased:
    """A held job may start again."""

    at_ms: int
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCancelled:
    """A user cancelled the job; running attempts are to be stopped."""

    at_ms: int
    job_id: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRetried:
    """A user wants failed or cancelled tasks to run again, with a fresh retry budget; with ``redo``, others too."""

    at_ms: int
    job_id: str
    step: str = ""
    """Empty: every step."""
    indices: tuple[int, ...] = ()
    """Empty: every failed or cancelled task."""
    redo: bool = False
    """Tasks of ``step`` that succeeded run again as well, and with them every task of the steps behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseGranted:
    """Resources were given to attempts. Recorded before any worker hears of it."""

    at_ms: int
    lease: Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseStopping:
    """A stop for this lease was decided; recorded before any worker hears of it."""

    at_ms: int
    lease_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    """The runner process runs."""

    at_ms: int
    """When it started, clamped into [grant, now]."""
    attempt_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptsSeen:
    """Signs of life of running attempts, recorded now and then: what a later LOST is metered by."""

    at_ms: int
    """When the agent saw them run, not after now."""
    attempt_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    """The attempt ended. The lease closes with its last attempt."""

    at_ms: int
    attempt_id: str
    state: AttemptState
    exit_code: int | None = None
    reason: str = ""
    outputs: tuple[str, ...] = ()
    facts: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSealed:
    """An interval of a lease was closed for billing."""

    at_ms: int
    record: UsageRecord


Event = (
    QueueSet
    | TenantSet
    | NodeSeen
    | NodeLost
    | JobSubmitted
    | JobHeld
    | JobReleased
    | JobCancelled
    | JobRetried
    | LeaseGranted
    | LeaseStopping
    | AttemptStarted
    | AttemptsSeen
    | AttemptFinished
    | UsageSealed
)
