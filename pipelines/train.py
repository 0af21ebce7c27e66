"""TRAIN steps: one gang of ``torchrun``, or one node of it, with checkpoints it can go on from.

**The runner's side of the contract.** A process per rank: ``{python} {train_runner} REQUEST``, where REQUEST is one
flat JSON object. The rank, the number of nodes and the rendezvous come in the environment of every gang
(``SHISUAN_NODE_RANK``, ``SHISUAN_NUM_NODES``, ``MASTER_ADDR``, ``MASTER_PORT``).

=============  =======================================================================================================
``python``     the interpreter that has torch; ``{train_python}`` is the node's
``script``     absolute path of the Python file, or empty
``module``     name of a module (``python -m``), or empty; exactly one of the two is set
``args``       list of its arguments
``env``        further environment variables
``processes``  training processes on each node; 0: one per card held, 1 without cards
=============  =======================================================================================================

**The training's side** is plain text and folders, documented in ``docs/training.md``: nothing of ours is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pipelines.command import ANY_OUTPUT
from pipelines.request import Template, line
from scheduler.model import codec
from scheduler.model.job import Job, Step
from scheduler.model.lease import attempt_id
from scheduler.model.order import TaskOrder

GRACE_MS = 60_000
"""A training process gets this long to save its state when it is stopped, unless the job file says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """``Step.spec`` of a TRAIN step. Exactly one of ``script`` and ``module`` is set; every path is absolute."""

    script: str = ""
    module: str = ""
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    """Sorted by name."""
    python: str = ""
    """Empty: the node's."""
    processes: int = 0
    """On each node; 0: one per card held."""
    output_dir: str = ""
    """Where rank 0's outputs go, and the checkpoints."""
    output_files: tuple[str, ...] = ANY_OUTPUT
    reads: tuple[str, ...] = ()


@lru_cache(maxsize=256)
def decode(spec: str) -> TrainSpec:
    """A TRAIN step's spec."""
    value: TrainSpec = codec.loads(TrainSpec, spec)
    return value


def checkpoints(job: Job, output_dir: str) -> str:
    """Folder of all attempts' checkpoints. Two jobs that share an output folder never share checkpoints."""
    return f"{output_dir}/checkpoints/{job.id}-{job.submitted_ms}"


def order(job: Job, step: Step, index: int, number: int) -> TaskOrder:
    """Attempt ``number`` of the one task; the same for all ranks."""
    spec = decode(step.spec)
    request = {
        "python": spec.python or Template("{train_python}"),
        "script": spec.script,
        "module": spec.module,
        "args": spec.args,
        "env": {**dict(spec.env), "SHISUAN_JOB_NAME": job.name},
        "processes": spec.processes,
    }
    return TaskOrder(
        attempt_id=attempt_id(job.id, step.name, index, number),
        number=number,
        argv=("{python}", "{train_runner}", line(request)),
        reads=spec.reads,
        output_dir=spec.output_dir,
        outputs=spec.output_files,
        checkpoints=checkpoints(job, spec.output_dir),
        first_rank_publishes=True,
        timeout_ms=step.timeout_ms,
        grace_ms=step.grace_ms,
    )
