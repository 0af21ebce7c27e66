"""What a simulation gives back: every job, every lease, how many tasks waited when, and how the park looked."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.model.job import JobRecord, JobState
from scheduler.model.lease import AttemptState
from scheduler.model.node import Node

NEVER = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome:
    """One job. Other instants than ``granted_ms`` are 0 where they never came."""

    id: str
    name: str
    tenant: str
    queue: str
    kind: str
    state: JobState
    submitted_ms: int
    granted_ms: int
    """First lease; NEVER: it had none."""
    finished_ms: int
    deadline_ms: int
    preempted: int
    """Attempts the park stopped."""
    lost_ms: int
    """Time of attempts that was in vain: work no checkpoint kept, catching up, and grace; for each rank."""
    card_ms: int
    """Thousandths of cards held, times ms, over 1,000."""

    @property
    def was_granted(self) -> bool:
        """It had a lease."""
        return self.granted_ms != NEVER

    @property
    def wait_ms(self) -> int:
        """From submission to the first lease, for a job that had one."""
        return self.granted_ms - self.submitted_ms

    @property
    def jct_ms(self) -> int:
        """Job completion time: from submission to the end."""
        return self.finished_ms - self.submitted_ms

    @property
    def met_deadline(self) -> bool:
        """It succeeded by its deadline."""
        return self.state is JobState.SUCCEEDED and self.finished_ms <= self.deadline_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A lease from its grant to its close; ``closed_ms`` is the end of the run for one still open then."""

    lease_id: str
    job_id: str
    step: str
    tenant: str
    queue: str
    kind: str
    attempts: tuple[str, ...]
    nodes: tuple[str, ...]
    """One per rank."""
    devices: tuple[str, ...]
    card_milli: int
    """Thousandths of cards held by all ranks."""
    cpu_milli: int
    granted_ms: int
    closed_ms: int
    state: AttemptState | None
    """How its last attempt ended; None: still open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A simulation that is over."""

    jobs: tuple[JobOutcome, ...]
    """In order of submission."""
    spans: tuple[Span, ...]
    """In order of granting."""
    waiting: tuple[tuple[int, str, int], ...]
    """``(instant, queue, change in the number of tasks that wait)``, in order of time."""
    park: tuple[tuple[int, int, int], ...]
    """``(instant, thousandths of cards, thousandths of vCPUs)`` offered from then on."""
    nodes: tuple[Node, ...]
    """As they were at the end."""
    start_ms: int
    end_ms: int
    plans: int
    """Cycles that were planned."""


@dataclass(slots=True)
class Tally:
    """What grows while a job is simulated."""

    granted_ms: int = NEVER
    preempted: int = 0
    lost_ms: int = 0
    card_ms: int = 0
    waiting: int = 0

    def outcome(self, record: JobRecord) -> JobOutcome:
        """The job as it stands."""
        job = record.job
        return JobOutcome(
            id=job.id,
            name=job.name,
            tenant=job.tenant,
            queue=job.queue,
            kind=job.kind.value,
            state=record.state,
            submitted_ms=job.submitted_ms,
            granted_ms=self.granted_ms,
            finished_ms=record.finished_ms,
            deadline_ms=job.deadline_ms,
            preempted=self.preempted,
            lost_ms=self.lost_ms,
            card_ms=self.card_ms,
        )
