"""What a simulation is given: a park, what happens to it from outside, and the truth about every attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from scheduler.model.event import Event
from scheduler.model.job import Job, Step
from scheduler.model.lease import AttemptState, Lease
from scheduler.model.node import Node
from scheduler.model.policy import Policy
from scheduler.model.queue import Queue, Tenant
from scheduler.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Starting:
    """An attempt that is about to start."""

    job: Job
    step: Step
    index: int
    number: int
    """1 for the first try of the task."""
    lease: Lease
    models: tuple[str, ...]
    """Model of the first card of each rank; empty for work without cards."""
    kept_ms: int
    """Work that checkpoints of earlier attempts kept, at the speed of all ranks on the fastest card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How an attempt goes when nobody stops it. All fields but the state are lengths of time."""

    run_ms: int
    """From its start to its own end."""
    state: AttemptState = AttemptState.SUCCEEDED
    """Its own end."""
    reason: str = ""
    start_ms: int = 0
    """From the grant (or the end of the attempt before it on the lease) to its start."""
    start_told_ms: int = 0
    """From its start to the cycle that hears of it."""
    told_ms: int = 0
    """From its end to the cycle that hears of it."""
    stop_ms: int = 0
    """From a stop to its end."""
    stop_behind_ms: int = 0
    """From when it could begin to its end, when its lease is being stopped by then."""
    stop_state: AttemptState | None = None
    """How it ends after a stop; None: cancelled when its job is, else preempted."""
    catch_up_ms: int = 0
    """Part of ``run_ms`` at its beginning in which nothing new is done."""
    speed_permille: int = 1_000
    """Work done per time after that, in thousandths."""
    starts: bool = True
    """Whether anybody hears of its start; without it the run counts from the grant."""
    saved_ms: int = -1
    """From its start to its last checkpoint, if it ends ``saved_after_ms`` after its start; negative: not known."""
    saved_after_ms: int = 0
    start_rank: int = -1
    """Order of its start among what happens at one instant; negative: the usual one."""
    end_rank: int = -1


NOTHING = Snapshot()
Point = tuple[int, int]
"""``(instant, rank)``: a place in the order of everything that happens."""


class Truth(Protocol):
    """What the engine is not told in advance. Must depend on its argument alone, never on the order of calls."""

    def script(self, starting: Starting) -> Script:
        """How this attempt goes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One simulation. The same scenario always gives the same run."""

    policy: Policy
    truth: Truth
    nodes: Sequence[Node] = ()
    queues: Sequence[Queue] = (Queue(name="default"),)
    tenants: Sequence[Tenant] = ()
    jobs: Sequence[Job] = ()
    """In order of ``submitted_ms``, with rising numbers in their ids."""
    admits: bool = False
    """Whether those of the jobs that have a deadline ask for a promise when they come, as at a submission."""
    outside: Sequence[Event] = ()
    """Further facts at their ``at_ms``: nodes lost (what runs there is lost with them) or back, users' verbs, held
    submissions, reservations. A LeaseStopping names an attempt in place of its lease and is dropped when that attempt
    does not run."""
    outside_ranks: Sequence[int] = ()
    """Order of each of them among what happens at one instant; empty: the usual one."""
    start: Snapshot = NOTHING
    """Where the engine begins. Of open leases, the first attempt that has not ended is taken to run since the grant."""
    begin_ms: int = 0
    """Instant of the nodes, queues and tenants above."""
    until_ms: int = 0
    """Nothing after this instant is simulated; 0: to the end."""
    cycle_ms: int = 0
    """Least time between two plans; 0: a plan at every instant at which something changed."""
    wakes: bool = True
    """Plan again when a plan says that it is due; a recording has its own points."""
    plans: Sequence[Point] = ()
    """Further points at which a plan is made."""
    pauses: Sequence[tuple[Point, Point]] = ()
    """Half-open intervals in which nothing is started: the runtime was down."""
    convert_ms: tuple[int, int] = (20_000, 120_000)
    """Least and greatest true length of a lane change, drawn evenly."""
    seed: int = 0
    features: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The catalogue's features per card model."""
