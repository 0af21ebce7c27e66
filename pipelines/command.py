"""COMMAND steps: a shell text or a program with arguments, once per array index, or once per rank of a gang.

A list runs directly, without a shell: the shortest way for very short tasks. A text runs as ``/bin/sh -c TEXT``.
The order's environment is the user's ``env`` and what the planner alone knows: SHISUAN_JOB_ID, SHISUAN_JOB_NAME,
SHISUAN_STEP, SHISUAN_TASK_INDEX (the user's number: ``array: 5-8`` gives 5 to 8), SHISUAN_TASK_COUNT and
SHISUAN_ATTEMPT. The agent adds the rank, the work folder, the outputs folder and the token, and does not overrule what
the order says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pipelines.media import FrameRange
from pipelines.request import numbered
from scheduler.model import codec
from scheduler.model.job import Job, Step
from scheduler.model.lease import attempt_id
from scheduler.model.order import TaskOrder

ANY_OUTPUT = ("*",)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """``Step.spec`` of a COMMAND step. Exactly one of ``argv`` and ``shell`` is set; every path is absolute."""

    argv: tuple[str, ...] = ()
    shell: str = ""
    env: tuple[tuple[str, str], ...] = ()
    """Sorted by name."""
    indices: tuple[tuple[int, int, int], ...] = ()
    """Spans of a :class:`FrameRange`: the users' numbers of the tasks; empty: 0 to count-1."""
    output_dir: str = ""
    """Empty: nothing is published."""
    outputs: tuple[str, ...] = ANY_OUTPUT
    reads: tuple[str, ...] = ()

    def index(self, position: int) -> int:
        """The number the user knows task ``position`` by."""
        return FrameRange(self.indices).at(position) if self.indices else position


@lru_cache(maxsize=256)
def decode(spec: str) -> CommandSpec:
    """A step's spec, decoded once for all its tasks."""
    value: CommandSpec = codec.loads(CommandSpec, spec)
    return value


def order(job: Job, step: Step, index: int, number: int) -> TaskOrder:
    """Attempt ``number`` of task ``index``."""
    spec = decode(step.spec)
    mine = spec.index(index)
    argv = spec.argv or ("/bin/sh", "-c", spec.shell)
    known = {
        **dict(spec.env),
        "SHISUAN_JOB_ID": job.id,
        "SHISUAN_JOB_NAME": job.name,
        "SHISUAN_STEP": step.name,
        "SHISUAN_TASK_INDEX": str(mine),
        "SHISUAN_TASK_COUNT": str(step.count),
        "SHISUAN_ATTEMPT": str(number),
    }
    return TaskOrder(
        attempt_id=attempt_id(job.id, step.name, index, number),
        number=number,
        argv=tuple(numbered(word, mine) for word in argv),
        env=tuple((name, numbered(value, mine)) for name, value in known.items()),
        reads=spec.reads,
        output_dir=numbered(spec.output_dir, mine),
        outputs=tuple(numbered(name, mine) for name in spec.outputs) if spec.output_dir else (),
        timeout_ms=step.timeout_ms,
        grace_ms=step.grace_ms,
        literal=True,
    )
