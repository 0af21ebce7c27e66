"""What crosses to a worker and comes back: orders and reports. Plain values; every field survives JSON.

The control plane expands a lease into one LeaseOrder per rank; the agent answers with Reports, each numbered
per agent, kept on disk until acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scheduler.model.changed import quick
from scheduler.model.lease import AttemptState
from scheduler.model.measured import Measured
from scheduler.model.node import Node

GANG_INCOMPLETE = "gang_incomplete"
"""First word of the reason when nodes of a gang did not come: who knows why adds it."""


class RunnerKind(StrEnum):
    """How the agent runs a task."""

    PROCESS = "process"
    """A child process per task: ``argv``."""
    RESIDENT = "resident"
    """A long-lived child that takes one request per task: ``argv`` starts it, ``request`` is written to its stdin."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOrder:
    """One attempt of one task (one rank of it, in a gang)."""

    attempt_id: str
    number: int
    """Fencing number of the outputs."""
    runner: RunnerKind = RunnerKind.PROCESS
    argv: tuple[str, ...]
    request: str = ""
    """One line of JSON for a resident runner. In argv, request and env, ``{work}`` is the attempt's work folder."""
    env: tuple[tuple[str, str], ...] = ()
    """The whole environment the runner gets beside PATH, HOME, LANG and the card variables."""
    reads: tuple[str, ...] = ()
    """Files and folders the runner may read."""
    output_dir: str = ""
    """URI of the folder outputs are published into; empty: the task publishes nothing."""
    outputs: tuple[str, ...] = ()
    """Names below ``{work}/outputs``, kept below ``output_dir``, that must exist after success; ``*``: all found."""
    stale_before: int = 0
    """What an attempt before this number published is out of date: it is replaced, not taken for the result."""
    timeout_ms: int = 0
    grace_ms: int = 10_000
    token: str = ""
    """Short-lived token of this attempt."""
    checkpoints: str = ""
    """URI of the folder with the checkpoints of all attempts at this task: attempt ``n`` writes below ``a<n>`` and
    reads the earlier ones. Empty: the task keeps none."""
    first_rank_publishes: bool = False
    """In a gang, outputs of the other ranks are not published."""
    kept_log: str = ""
    """URI under which the log is kept in the tenant's storage, without its end (:func:`log_name`). Empty: it stays
    on the node."""
    literal: bool = False
    """``argv`` and ``env`` are a user's own words: no placeholder is replaced in them (a shell may say ``${work}``)."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOrder:
    """Run these tasks one after the other on these devices."""

    lease_id: str
    tenant: str
    node: str
    submitted_ms: int = 0
    """Of the job: ids begin again with a new database, this tells a task from its namesake in an earlier one."""
    rank: int = 0
    ranks: int = 1
    devices: tuple[str, ...] = ()
    simulated: bool = False
    """The devices do not exist: do not put them into CUDA_VISIBLE_DEVICES."""
    cpu_milli: int = 1_000
    memory_mib: int = 0
    scratch_mib: int = 0
    """Space for files of its own, where the runtime can keep it from others."""
    card_milli: int = 0
    """Thousandths of ``devices[0]`` for a software fraction; 0: whole devices."""
    kind: str = ""
    """Kind of step: which image can run it, where images differ."""
    lane: str = "pool"
    """Kind of runtime it belongs to, where they differ."""
    warm_key: str = ""
    roots: tuple[str, ...] = ()
    """The tenant's storage roots."""
    log_mib: int = 64
    """An attempt's log is cut there."""
    rendezvous: str = ""
    """``host:port`` at which rank 0 of a gang listens, the same for all ranks. The executor fills it in."""
    tasks: tuple[TaskOrder, ...] = ()


class ReportKind(StrEnum):
    """What an agent or the bridge tells."""

    NODE = "node"
    """A node is there, with these facts."""
    NODE_GONE = "node_gone"
    STARTED = "started"
    PROGRESS = "progress"
    FINISHED = "finished"
    RUNTIME_DOWN = "runtime_down"
    """The Ray cluster or the bridge died; it is being restarted."""
    RUNTIME_UP = "runtime_up"
    """Executor is connected; every agent's unacknowledged reports follow, then its INVENTORY says what it runs."""
    INVENTORY = "inventory"
    """The leases an agent knows, sent after it (re)connects: a lease that the database has open there and the agent
    does not know is lost."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One message from the executor. ``cursor`` is opaque; acknowledge it once the fact is recorded."""

    kind: ReportKind
    at_ms: int = 0
    """Worker's wall clock."""
    cursor: str = ""
    node: str = ""
    facts: Node | None = None
    lease_id: str = ""
    attempt_id: str = ""
    rank: int = 0
    progress_milli: int = 0
    """0–1000."""
    message: str = ""
    state: AttemptState | None = None
    exit_code: int | None = None
    outputs: tuple[str, ...] = ()
    result: str = ""
    """Canonical JSON from the runner."""
    checkpoint_ms: int = 0
    """When the attempt's last checkpoint was committed; 0: none."""
    leases: tuple[str, ...] = ()
    tenant: str = ""
    measured: Measured | None = None
    """With FINISHED: what the attempt was seen to do."""
    nodes: tuple[str, ...] | None = None
    """With RUNTIME_UP: all nodes there are, whether they answer or not. None: nobody knows who will come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    """A file or an object that holds a log or part of one."""

    uri: str
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Part of an attempt's log. ``end`` says the attempt is over and nothing follows."""

    text: str
    next_offset: int
    end: bool


def log_name(kept_log: str, rank: int) -> str:
    """URI of one rank's log, from an order's ``kept_log``."""
    return f"{kept_log}.r{rank}.log" if rank else f"{kept_log}.log"


def job_logs(root: str, job_id: str, submitted_ms: int) -> str:
    """URI of the folder with all kept logs of a job. Ids begin again with a new database: its submission tells them
    apart.
    """
    return f"{root.rstrip('/')}/.shisuan/logs/{job_id}@{submitted_ms}"
