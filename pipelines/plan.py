"""The one table from step kinds to planners."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipelines import command, merge, render, train, transcode
from scheduler.model.job import Job, Step, StepKind
from scheduler.model.order import TaskOrder

Planner = Callable[[Job, Step, int, int], TaskOrder]

PLANNERS: Mapping[StepKind, Planner] = {
    StepKind.COMMAND: command.order,
    StepKind.SCENE: render.scene_order,
    StepKind.RENDER: render.frame_order,
    StepKind.MERGE: merge.order,
    StepKind.TRANSCODE: transcode.film_order,
    StepKind.CHUNK: transcode.chunk_order,
    StepKind.AUDIO: transcode.audio_order,
    StepKind.JOIN: transcode.join_order,
    StepKind.TRAIN: train.order,
}


def order(job: Job, step: Step, index: int, number: int) -> TaskOrder:
    """Attempt ``number`` of task ``index`` of ``step``, token still empty.

    Raises IndexError when the step has no such task.
    """
    if not 0 <= index < step.count:
        raise IndexError(f"step {step.name!r} has tasks 0 to {step.count - 1}, not {index}")
    return PLANNERS[step.kind](job, step, index, number)
