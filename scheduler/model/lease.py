"""Who holds what, from when to when. A lease may carry several short tasks that run one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scheduler.model.changed import quick
from scheduler.model.measured import Measured


class AttemptState(StrEnum):
    """One try of one task."""

    LEASED = "leased"
    """Recorded; resources are held; the runner has not reported its start."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    """Stopped because a user said so."""
    PREEMPTED = "preempted"
    """Stopped because the park said so."""
    LOST = "lost"
    """The node, agent or runner host died under it; free of charge and of the retry budget."""

    @property
    def is_final(self) -> bool:
        """Nothing more can happen to this attempt."""
        return self is not AttemptState.LEASED and self is not AttemptState.RUNNING

    @property
    def counts_against_retries(self) -> bool:
        """The task itself is to blame."""
        return self in (AttemptState.FAILED, AttemptState.TIMED_OUT)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What one rank holds on one node."""

    node: str
    devices: tuple[str, ...] = ()
    """Device ids, sorted."""
    card_milli: int = 0
    """Thousandths of ``devices[0]`` for a software fraction; 0 means whole devices."""
    cpu_milli: int = 0
    memory_mib: int = 0
    scratch_mib: int = 0


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Resources held from ``granted_ms`` until closed.

    ``attempts`` run in order; a gang has one attempt and many allocations.
    """

    id: str
    """``l`` and a number, in order of granting."""
    job_id: str
    step: str
    tenant: str
    queue: str
    allocations: tuple[Allocation, ...]
    """One per rank."""
    attempts: tuple[str, ...]
    """Attempt ids."""
    granted_ms: int
    leaves_for: str = ""
    """The job whose promised start it must not delay: it was granted on the condition that it is stopped when that
    start can be made. Empty: on no condition."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One try of one task, as recorded."""

    id: str
    lease_id: str
    job_id: str
    step: str
    index: int
    number: int
    """1 for the first try of the task; the fencing number of its outputs."""
    state: AttemptState = AttemptState.LEASED
    started_ms: int = 0
    heartbeat_ms: int = 0
    """Last sign of life that was recorded."""
    finished_ms: int = 0
    exit_code: int | None = None
    reason: str = ""
    """Why it ended, in a sentence for the job's owner; empty after success."""
    outputs: tuple[str, ...] = ()
    """Final URIs published by this attempt."""
    facts: str = ""
    """Canonical JSON a runner reports with its result (timings, frame statistics)."""
    checkpoint_ms: int = 0
    """When the last checkpoint of this attempt was committed; 0: none."""
    measured: Measured | None = None
    """What it was seen to do; None when nobody could measure it."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """A lease and its end."""

    lease: Lease
    closed_ms: int = 0
    """0 while open."""
    stopping: bool = False
    """A Stop has been recorded for it."""
    stopping_ms: int = 0
    """When, while it is open: its end is expected a grace later. 0: nobody noted it."""
    stop_reason: str = ""
    stop_charged: bool = False
    """The stop was its owner's own wish: see :class:`scheduler.model.event.LeaseStopping`."""


def task_id(job_id: str, step: str, index: int) -> str:
    """``j17.render.3``"""
    return f"{job_id}.{step}.{index}"


def attempt_id(job_id: str, step: str, index: int, number: int) -> str:
    """``j17.render.3.a2``: second attempt of task 3 of step ``render`` of job 17."""
    return f"{job_id}.{step}.{index}.a{number}"


def number_of(key: str) -> int:
    """``17`` of ``j17`` and ``l17``. Raises ValueError on anything else."""
    digits = key[1:]
    if key[:1] not in ("j", "l") or not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"not a job or lease id: {key!r}")
    return int(digits)


def parse_attempt_id(text: str) -> tuple[str, str, int, int]:
    """Inverse of :func:`attempt_id`. Raises ValueError on anything else."""
    job_id, step, index, number = text.split(".")
    if not number.startswith("a"):
        raise ValueError(f"not an attempt id: {text!r}")
    return job_id, step, int(index), int(number[1:])
