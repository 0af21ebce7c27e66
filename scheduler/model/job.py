"""What users ask for: Job → Step → Task (frame, tile, chunk, array element) or Gang (ranks that start together)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scheduler.model.ranges import Ranges


class JobKind(StrEnum):
    """The kinds of job file."""

    COMMAND = "CommandJob"
    RENDER = "RenderJob"
    TRANSCODE = "TranscodeJob"
    TRAIN = "TrainJob"
    PIPELINE = "Pipeline"


class StepKind(StrEnum):
    """Which planner in ``pipelines/`` expands a step's tasks, and which runner a worker uses."""

    COMMAND = "command"
    SCENE = "scene"
    """Run a seeded scene script in Blender and publish the .blend."""
    RENDER = "render"
    MERGE = "merge"
    """Put a frame together from its tiles and sample slices."""
    TRANSCODE = "transcode"
    """A whole film."""
    CHUNK = "chunk"
    """A part of a film's picture."""
    AUDIO = "audio"
    """The sound of a film made of chunks."""
    JOIN = "join"
    """A film put together from its chunks."""
    TRAIN = "train"
    """A gang (or one node) of ``torchrun`` with checkpoints."""


class JobState(StrEnum):
    """A state exists only if a job can wait in it; it is derived from the steps, never set by hand."""

    HELD = "held"
    WAITING = "waiting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    """Cancelled by a user; its attempts are being stopped."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """No verb but ``retry`` changes the job any more."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Together(StrEnum):
    """How near to each other the ranks of a gang must be."""

    ANYWHERE = "anywhere"
    """As near as they fit, but not a condition."""
    RACK = "rack"
    NODE = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one task, or one rank of a gang, holds while it runs. ``cards`` and ``card_milli`` exclude each other."""

    cpu_milli: int = 1_000
    memory_mib: int = 512
    scratch_mib: int = 0
    cards: int = 0
    """Whole cards (or, with ``mig_profile``, MIG instances)."""
    card_milli: int = 0
    """Thousandths of one card: a software fraction, 1–999."""
    card_models: tuple[str, ...] = ()
    """Any of these catalogue ids; empty means any model."""
    card_memory_mib: int = 0
    """Least measured memory per card."""
    mig_profile: str = ""
    features: tuple[str, ...] = ()
    """Catalogue features every card must have, e.g. ``nvenc:h264``, ``nvdec:hevc-4:2:2``, ``rt``."""
    labels: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[str, ...] = ()
    same_island: bool = False
    """All cards of a rank in one NVLink island."""
    licences: tuple[tuple[str, int], ...] = ()
    """Floating seats held while it runs, by licence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Tasks of one shape. The kind's planner expands task ``i`` from ``spec`` and ``i``: waiting tasks cost nothing."""

    name: str
    kind: StepKind
    count: int = 1
    """Number of tasks; indices are ``0 … count-1``."""
    ranks: int = 1
    """1: tasks. More: each task is a gang whose ranks start together on separate allocations, or not at all."""
    ranks_min: int = 0
    """Elastic gang: it may run with this many to ``ranks``, resized at checkpoints. 0: always ``ranks``."""
    resources: Resources = Resources()
    needs: tuple[str, ...] = ()
    """Steps of the same job that must have succeeded entirely."""
    retries: int = 2
    """Further attempts after a failure. Attempts lost to the park do not count."""
    backoff_ms: int = 0
    """A task that failed waits about so long for its next attempt, twice as long after each further failure; 0: it does
    not wait, as in jobs from before there was a back-off."""
    backoff_max_ms: int = 0
    """The longest such wait; 0: no limit."""
    timeout_ms: int = 0
    """0: none."""
    grace_ms: int = 10_000
    """Between SIGTERM and SIGKILL."""
    max_parallel: int = 0
    """Tasks of this step at once; 0: no limit."""
    chunk: int = 0
    """Most tasks in one lease; 0: the engine decides from measured run times."""
    lane: str = "pool"
    warm_key: str = ""
    """Tasks of equal key gain from a process that already served one (a resident Blender with the scene loaded)."""
    together: Together = Together.ANYWHERE
    """How near to each other the ranks of a gang must be."""
    run_ms_expected: int = 0
    """What its owner expects one task to take with all ranks on the fastest card it may use; 0: not said."""
    preemptible: bool = True
    """May be stopped for someone more entitled."""
    checkpoint_ms: int = 0
    """A task commits its progress about this often; 0: only at its end, so a stop loses all of it."""
    restart_ms: int = 0
    """From a new start until a task has caught up with its last checkpoint."""
    speeds: tuple[tuple[str, int], ...] = ()
    """``(card model, thousandths of the fastest model's speed)``, sorted; models that are absent run at full speed."""
    scaling: tuple[tuple[int, int], ...] = ()
    """Elastic gangs: ``(ranks, thousandths of the speed with all ranks)``, sorted; between them by straight lines, and
    without any in proportion to the ranks."""
    spec: str = "{}"
    """Canonical JSON for the planner; the engine does not read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A stretch of time on some cards, ``[start_ms, end_ms)``: what a promise rests on."""

    model: str
    """Card model; empty for work without cards."""
    ranks: int
    start_ms: int
    end_ms: int
    nodes: tuple[str, ...] = ()
    """Where each rank is to run; empty in timetables, which count cards only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """A stretch of time ``[start_ms, end_ms)`` on a node in which tasks of a step run one after the other."""

    step: str
    node: str
    model: str
    """Card model; empty for work without cards."""
    copies: int
    """So many tasks side by side."""
    tasks: int
    """Tasks that each of them has time for, as its length was reckoned when it was promised."""
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """As submitted; never changes afterwards."""

    id: str
    """``j`` and a number, in order of submission."""
    name: str
    tenant: str
    queue: str
    kind: JobKind
    steps: tuple[Step, ...]
    submitted_ms: int
    priority: int = 50
    """0–100, higher first within a queue."""
    deadline_ms: int = 0
    """0: none. Instant by which the job should have finished."""
    forecast_ms: tuple[int, ...] = ()
    """Instants at which its first task was expected to start when it was submitted: 5, 50 and 95 % quantiles."""
    forecast_raw_ms: tuple[int, ...] = ()
    """The same before it was corrected by how right earlier forecasts were: what later ones learn from."""
    promise_permille: int = 0
    """Probability, in thousandths, with which admission said that the deadline will be met: promised, where there is a
    slot, and else only expected; 0: it said nothing."""
    slot: Slot | None = None
    """The stretch of time that is kept for its one task or gang since its deadline was promised; None: it was not."""
    tracks: tuple[Track, ...] = ()
    """What is kept for its many tasks or several steps since its deadline was promised; with these it has no slot."""
    band: str = ""
    """Tasks start only while this price band of the calendar lasts; empty: at any time."""
    after: tuple[str, ...] = ()
    """Jobs that must have succeeded first."""
    request_id: str = ""
    """Idempotency key given by the client; unique per tenant."""
    source: str = ""
    """The job file as submitted."""

    @property
    def is_promised(self) -> bool:
        """Its deadline was promised."""
        return self.slot is not None or bool(self.tracks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where the next lease of a step is to be: nobody else may take this room before ``until_ms``."""

    nodes: tuple[str, ...]
    """One per rank."""
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStart:
    """A start that was promised to the next lease of a step: nobody behind it in the order may delay it."""

    start_ms: int
    places: tuple[tuple[str, tuple[str, ...]], ...]
    """``(node, device ids)`` of each rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """Progress of one step. Every index is in exactly one of waiting, running, succeeded, failed, cancelled."""

    name: str
    waiting: Ranges = Ranges()
    running: Ranges = Ranges()
    succeeded: Ranges = Ranges()
    failed: Ranges = Ranges()
    cancelled: Ranges = Ranges()
    attempts: tuple[tuple[int, int, int], ...] = ()
    """Sorted ``(index, attempts made, of which counted against retries)``, only where it is not what the index's state
    implies: ``(0, 0)`` for waiting and cancelled, ``(1, 0)`` for running and succeeded (read with
    ``scheduler.queueing.tasks.tries``)."""
    lost: tuple[tuple[int, int], ...] = ()
    """Sorted ``(index, times lost to the park)`` for indices that were lost at all and have not succeeded since."""
    later: tuple[tuple[int, int], ...] = ()
    """Sorted ``(index, instant)`` of waiting tasks that failed: their next attempt starts at that instant at the
    earliest. Kept until it starts."""
    suspects: tuple[tuple[int, str], ...] = ()
    """Sorted ``(index, node)`` of tasks that failed there and have not ended yet: who is to blame is seen when one
    succeeds elsewhere, or fails for good."""
    redone: tuple[tuple[int, int], ...] = ()
    """Sorted ``(index, attempt number)`` for indices that a user had run again after they succeeded: what attempts
    before this number published is out of date."""
    goes_on: tuple[str, int] | None = None
    """``(card model, ranks)`` to which its lease was stopped to move, until its next one starts."""
    seats: tuple[Seat, ...] = ()
    """Kept for its next leases, one each, because others were moved for them or they were moved themselves."""
    promised: KeptStart | None = None
    """The start that the last plan promised it, where several are promised at a time; until its next lease starts."""
    warm_nodes: tuple[str, ...] = ()
    """Nodes that last ran tasks of a step with a ``warm_key``, latest first, a few at most."""
    worked: tuple[tuple[int, int], ...] = ()
    """Sorted ``(index, ms)`` of work that checkpoints keep for tasks that have not succeeded, at the speed of all ranks
    on the fastest card."""
    served_ms: int = 0
    """Sum over closed leases of their length times their ranks: attained service."""
    preempted: int = 0
    """Attempts the park preempted."""
    run_ms_mean: int = 0
    """Running mean of successful tasks' run time, for chunk sizes and predictions; 0: none yet."""
    run_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job and where it stands: what the database holds and the engine starts from."""

    job: Job
    state: JobState
    steps: tuple[StepRecord, ...]
    held: bool = False
    cancelled: bool = False
    failing: bool = False
    """A task has no retries left: nothing more starts, what runs is being stopped. Cleared by a retry."""
    reason: str = ""
    """Why it failed or was cancelled, in a sentence for its owner."""
    started_ms: int = 0
    finished_ms: int = 0
    is_next: bool = False
    """Leases were stopped so that it starts, and it has not started since."""
