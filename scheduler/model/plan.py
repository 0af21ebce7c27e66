"""What the engine decides: a tuple of actions, and a Wait with typed reasons for every task that does not start."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scheduler.model.job import KeptStart, Seat
from scheduler.model.lease import Lease
from scheduler.model.node import Lane, Layout


class ReasonKind(StrEnum):
    """Why a step's next task is not starting now."""

    HELD = "held"
    DEPENDENCY = "dependency"
    PARALLEL_LIMIT = "parallel_limit"
    CAPACITY = "capacity"
    """Enough of it exists, but others hold it now."""
    NEVER_FITS = "never_fits"
    """No node, even empty, could run it."""
    HEALTH = "health"
    """It would fit if cordoned nodes or quarantined cards came back."""
    ORDER = "order"
    """Resources are free but someone ahead in order will take them this cycle."""
    BACKOFF = "backoff"
    """It failed, and its next attempt is not due yet."""
    QUOTA = "quota"
    """Its queue, or one above it, holds what it may; or others' guarantees keep the rest."""
    LICENCE = "licence"
    BUDGET = "budget"
    """Its tenant's budget is used up."""
    RESERVATION = "reservation"
    """It would delay a start that is promised to someone ahead, or run into a window that is kept for others."""
    CALENDAR = "calendar"
    """Its price band has not begun."""
    TOPOLOGY = "topology"
    """Enough is free, but not near enough to each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One true statement about why a task waits."""

    kind: ReasonKind
    resource: str = ""
    """For capacity and fit: cpu, memory, scratch, card, card_model, card_memory, feature, mig_profile, recut (a card is
    being cut for it), label, taint, lane, island."""
    message: str = ""
    """A sentence with the numbers in it."""
    until_ms: int = 0
    """For BACKOFF: the instant at which it is over; 0: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Grant this lease and start its attempts."""

    lease: Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End a lease because its job was cancelled."""

    lease_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempt:
    """End a lease for someone more entitled; its tasks wait again, free of charge since the last checkpoint."""

    lease_id: str
    for_job: str
    reason: str
    place: tuple[str, int] | None = None
    """``(card model, ranks)`` where its task is to go on; None: wherever there will be room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Keep a seat for a step's next lease, while what is moved for it makes room."""

    job_id: str
    step: str
    seat: Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Keep these nodes draining for a gang, which is expected to start on them at ``start_ms``."""

    job_id: str
    step: str
    nodes: tuple[str, ...]
    start_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepStarts:
    """Record which starts are promised from here on, and where: later plans keep them there, or make them earlier."""

    starts: tuple[tuple[str, str, KeptStart], ...]
    """``(job, step, start)``, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Convert:
    """Move a node to another lane after it drained."""

    node: str
    lane: Lane
    cost_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recut:
    """Cut a card, or all cards of a node, into other MIG instances. Nobody holds those that go."""

    node: str
    card: str
    """UUID; empty: all cards of the node, see ``name``."""
    layout: Layout
    """As the card is to be, with the instances that stay."""
    for_job: str
    cost_ms: int
    name: str = ""
    """As the node is to be: one of its layouts. Empty: one card is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUpRecut:
    """A card (or, where it is empty, a node) is not what it was to be within the limit: count on it no more."""

    node: str
    card: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A step that has waiting tasks which do not start now."""

    job_id: str
    step: str
    tasks: int
    position: int
    """1: next in the order of this cycle; 0: not in the order at all (held, or waiting for others to finish)."""
    reasons: tuple[Reason, ...]


class ChangeKind(StrEnum):
    """What could be changed so that a waiting step starts its next task now, or a deadline can be promised."""

    RELEASE = "release"
    """Release the held job."""
    RETRY = "retry"
    """Do not wait before the next attempt of what failed."""
    SMALLER = "smaller"
    """Ask for less of one resource."""
    FEWER_RANKS = "fewer_ranks"
    OTHER_CARD = "other_card"
    """Accept one more card model."""
    LABEL = "label"
    """Do without one label."""
    TOLERATE = "tolerate"
    """Tolerate one more taint."""
    APART = "apart"
    """Let the ranks be anywhere."""
    PRIORITY = "priority"
    PARALLEL = "parallel"
    """Raise the step's own limit on tasks at once."""
    QUEUE_LIMIT = "queue_limit"
    LICENCE = "licence"
    """More seats."""
    BUDGET = "budget"
    END_LEASES = "end_leases"
    """Wait for, or stop, these leases."""
    RECUT = "recut"
    """Cut these cards into other MIG instances."""
    HEAL = "heal"
    """Bring these nodes or cards back."""
    ADD_NODES = "add_nodes"
    CANCEL_RESERVATION = "cancel_reservation"
    ANY_TIME = "any_time"
    """Do without the price band."""
    DEADLINE = "deadline"
    """Let it end later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The smallest change of its kind that starts the step's next task now, or lets its deadline be promised. Tried."""

    kind: ChangeKind
    message: str
    """As an instruction, with the numbers in it."""
    target: str = ""
    """Which resource, card model, label, taint, queue, licence, reservation or node to copy."""
    amount: int = 0
    """The new value, for DEADLINE an instant in milliseconds (or, for ADD_NODES, LICENCE: how many more)."""
    names: tuple[str, ...] = ()
    """Leases, or nodes and cards, sorted."""


Action = Start | Stop | Preempt | Keep | Reserve | KeepStarts | Convert | Recut | GiveUpRecut


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One cycle's decision. Actions are applied in order."""

    now_ms: int
    actions: tuple[Action, ...] = ()
    waits: tuple[Wait, ...] = ()
    wake_ms: int = 0
    """When to plan again even if nothing happens until then; 0: no need."""
