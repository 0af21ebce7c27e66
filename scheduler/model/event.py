"""The journal's alphabet: every recorded fact. Events are versioned; ``scheduler/store`` upcasts old versions.

An event's ``at_ms`` is the service's clock, which never runs backwards in one journal.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.model.changed import quick
from scheduler.model.job import Job, KeptStart, Seat
from scheduler.model.lease import AttemptState, Lease
from scheduler.model.measured import Measured
from scheduler.model.money import PolicyVersion, RateCard, Voucher
from scheduler.model.node import Node
from scheduler.model.policy import Policy
from scheduler.model.queue import Queue, Reservation, Tenant
from scheduler.model.usage import UsageRecord

EVENT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStarted:
    """From here on plans are made by this engine and policy: whoever replays the journal must know."""

    at_ms: int
    engine: int
    """``scheduler.engine.VERSION``"""
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSet:
    """A queue was created or changed."""

    at_ms: int
    queue: Queue


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationSet:
    """A reservation was made, changed or cancelled."""

    at_ms: int
    reservation: Reservation
    by: str = ""
    """Id of the operator's key."""


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


@quick
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
    charged: bool = False
    """The owner asked for it: a preempted attempt is then charged to its end, as a cancelled one is."""
    for_job: str = ""
    """The job that starts in its place; empty: none does."""
    place: tuple[str, int] | None = None
    """``(card model, ranks)`` where its task is to go on, if that was decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatKept:
    """Room was made, or found, for the next lease of a step by moving leases; it is kept for a while."""

    at_ms: int
    job_id: str
    step: str
    seat: Seat
    by: str = ""
    """Id of the operator's key; empty: the policy's rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartsPromised:
    """From here on these starts are promised, and no others."""

    at_ms: int
    starts: tuple[tuple[str, str, KeptStart], ...]
    """``(job, step, start)``, sorted."""


@quick
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


@quick
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
    checkpoint_ms: int = 0
    """When its last checkpoint was committed, clamped into its run; 0: none."""
    measured: Measured | None = None
    """None: nobody measured it, as when its node died."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSealed:
    """An interval of a lease was closed for billing."""

    at_ms: int
    record: UsageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCardSet:
    """A version of the prices was recorded."""

    at_ms: int
    card: RateCard


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """A version of a voucher policy was recorded, with its pool."""

    at_ms: int
    policy: PolicyVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class VoucherGranted:
    """A tenant was given a voucher."""

    at_ms: int
    voucher: Voucher
    by: str = ""
    """Id of the operator's key; empty: the configuration file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoucherRevoked:
    """What is left of a voucher goes back to its pool; what it paid stays paid."""

    at_ms: int
    voucher_id: str
    reason: str
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeReversed:
    """An operator took back everything that was charged for one usage record."""

    at_ms: int
    usage_id: str
    reason: str
    by: str = ""


Event = (
    EngineStarted
    | QueueSet
    | ReservationSet
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
    | SeatKept
    | StartsPromised
    | AttemptStarted
    | AttemptsSeen
    | AttemptFinished
    | UsageSealed
    | RateCardSet
    | PolicySet
    | VoucherGranted
    | VoucherRevoked
    | ChargeReversed
)
MoneyEvent = TenantSet | UsageSealed | RateCardSet | PolicySet | VoucherGranted | VoucherRevoked | ChargeReversed
"""What the ledger is made from: it reads these, in the journal's order, and nothing else."""
