"""The JSON every face shows, which the API's schema is made from. Instants are Unix ms; 0: not yet, or none."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict  # pydantic reads these for OpenAPI, and typing's own only from Python 3.12

from scheduler.control.deadline_shapes import DeadlineView, KeptView, SlotView
from scheduler.control.delivery import FeedView
from scheduler.control.measured import MeasuredView


class StepView(TypedDict):
    """One step of a job; its tasks are in exactly one of the five counts."""

    name: str
    kind: str
    count: int
    ranks: int
    needs: list[str]
    waiting: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    progress_milli: int
    eta_ms: int
    """Until its last task is done, as far as measured tasks tell; 0: nothing can be said, or nothing is left."""
    message: str


class JobView(TypedDict):
    """A job and where it stands."""

    id: str
    name: str
    kind: str
    tenant: str
    queue: str
    priority: int
    state: str
    reason: str
    submitted_ms: int
    started_ms: int
    finished_ms: int
    deadline_ms: int
    slot: SlotView | None
    """Kept for its one task or gang since its deadline was promised."""
    kept: list[KeptView]
    """Likewise for many tasks or several steps, by step. Without this and a slot nothing was promised."""
    deadline_permille: int
    """Thousandths of the probability, said at submission, that the deadline is met; 0: nothing was said."""
    steps: list[StepView]
    progress_milli: int


class AttemptView(TypedDict):
    """One try of one task."""

    id: str
    job_id: str
    step: str
    index: int
    number: int
    state: str
    node: str
    lease_id: str
    started_ms: int
    finished_ms: int
    exit_code: int | None
    reason: str
    outputs: list[str]
    facts: str
    checkpoint_ms: int
    """When its last checkpoint was committed; 0: none."""
    progress_milli: int
    message: str
    measured: MeasuredView | None


class JobDetail(JobView):
    """A job with its latest attempts and what it published."""

    after: list[str]
    source: str
    attempts: list[AttemptView]
    outputs: list[str]


class JobList(TypedDict):
    """Jobs, newest first."""

    jobs: list[JobView]


class AttemptList(TypedDict):
    """Attempts of one job, in order of task and number."""

    attempts: list[AttemptView]


class ReasonView(TypedDict):
    """One true statement about why a task waits."""

    kind: str
    resource: str
    message: str
    until_ms: NotRequired[int]
    """When it is over by itself, where that is known."""


class WaitView(TypedDict):
    """A step whose waiting tasks do not start now."""

    job_id: str
    step: str
    tasks: int
    position: int
    reasons: list[ReasonView]
    start_ms: NotRequired[list[int]]
    """Instants at which its next task is expected to start: 5, 50 and 95 % quantiles; empty: nobody can say."""
    changes: NotRequired[list[str]]
    """Smallest changes that would each start it now, tried on the real plan."""


class WaitList(TypedDict):
    """Why a job's steps wait."""

    waits: list[WaitView]


class PlannedStep(TypedDict):
    """A step as the planner sees it."""

    name: str
    kind: str
    count: int
    ranks: int
    needs: list[str]


class PlannedStart(TypedDict):
    """Tasks that would start now, and where."""

    step: str
    tasks: int
    nodes: list[str]
    devices: list[str]


class TrialView(TypedDict):
    """What would happen if the job were submitted now. Nothing is stored."""

    tasks: int
    steps: list[PlannedStep]
    starts: list[PlannedStart]
    waits: list[WaitView]
    start_ms: list[int]
    deadline: DeadlineView | None


class AllocationView(TypedDict):
    """What one rank holds on one node."""

    node: str
    devices: list[str]
    card_milli: int
    cpu_milli: int
    memory_mib: int
    scratch_mib: int


class LeaseView(TypedDict):
    """Who holds what, from when to when."""

    id: str
    job_id: str
    step: str
    tenant: str
    queue: str
    granted_ms: int
    closed_ms: int
    stopping: bool
    attempts: list[str]
    allocations: list[AllocationView]


class LeaseList(TypedDict):
    """Leases in order of granting."""

    leases: list[LeaseView]


class QueueView(TypedDict):
    """A queue of the fair-share tree and how busy it is (the caller's own tasks, or all for an operator)."""

    name: str
    parent: str
    weight: int
    guaranteed: dict[str, int]
    """``cpu_milli``, ``memory_mib``, ``card_milli``, ``mig_milli``: those that are set."""
    limit: dict[str, int]
    lends: dict[str, int]
    jobs_max: int
    waiting: int
    running: int


class QueueList(TypedDict):
    """Queues by name."""

    queues: list[QueueView]


class ReservationView(TypedDict):
    """Nodes kept for someone during windows of time. ``state``: now, coming, past, cancelled."""

    name: str
    kind: str
    nodes: list[str]
    queues: list[str]
    start_ms: int
    end_ms: int
    every_ms: int
    repeats: int
    reason: str
    state: str
    next_start_ms: int
    next_end_ms: int


class ReservationList(TypedDict):
    """Reservations by name."""

    reservations: list[ReservationView]


class QuantityView(TypedDict):
    """An amount of one SKU."""

    sku: str
    model: str
    amount: int


class UsageView(TypedDict):
    """A sealed interval of one lease in one bucket."""

    id: str
    lease_id: str
    job_id: str
    step: str
    tenant: str
    queue: str
    start_ms: int
    end_ms: int
    bucket: str
    free_reason: str
    devices: list[str]
    quantities: list[QuantityView]
    simulated: bool
    purpose: str
    evidence: str


class UsageList(TypedDict):
    """Usage records in order of time."""

    records: list[UsageView]


class KeyView(TypedDict):
    """A key without its secret."""

    id: str
    tenant: str
    role: str
    label: str
    created_ms: int
    expires_ms: int
    revoked_ms: int


class NewKey(KeyView):
    """A key just made: the only time its secret is shown."""

    key: str


class KeyList(TypedDict):
    """Keys in order of making."""

    keys: list[KeyView]


class TenantView(TypedDict):
    """A studio or a team."""

    name: str
    display_name: str
    queues: list[str]
    storage_roots: list[str]
    subsidy_excluded: str
    budget: str | None


class RuntimeView(TypedDict):
    """Whether workers can be reached: ``up``, ``starting`` or ``down``."""

    state: str
    message: str


class Counts(TypedDict):
    """How much there is of everything."""

    jobs: dict[str, int]
    tasks: dict[str, int]
    nodes: dict[str, int]
    cards: dict[str, int]


class StatusView(TypedDict):
    """The service at a glance. ``feed``: operators' alone, null when none is configured."""

    version: str
    started_ms: int
    now_ms: int
    runtime: RuntimeView
    counts: Counts
    simulated: bool
    feed: FeedView | None


class SelfView(TypedDict):
    """What an attempt may know about itself."""

    attempt_id: str
    job_id: str
    job_name: str
    tenant: str
    step: str
    index: int
    number: int
    state: str
