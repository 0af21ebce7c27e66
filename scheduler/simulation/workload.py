"""The usual truth: work per task, speeds as the step says, failures by probability."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.model.job import Job, Step
from scheduler.model.lease import AttemptState
from scheduler.queueing.rate import work_rate_permille
from scheduler.simulation.scenario import Script, Starting

Work = Mapping[str, int | Sequence[int]] | Callable[[Job, Step, int], int]
"""Milliseconds of work at full speed: by job id (one number, or one per task index), or worked out on request."""
WHOLE_PERMILLE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Attempts take what their task has left to do, at the speed of the cards and ranks they are given."""

    work_ms: Work
    start_ms: int = 0
    """From a grant to the start of the runner."""
    told_ms: int = 0
    """From an end to the cycle that hears of it."""
    stop_ms: int | None = None
    """From a stop to the end; None: the step's grace."""
    failed_permille: int = 0
    """Of attempts, each failing somewhere within its run."""
    seed: int = 0

    def script(self, starting: Starting) -> Script:
        """What is left of the task's work, at its speed, after catching up with its last checkpoint."""
        step = starting.step
        speed = speed_permille(step, starting.models, len(starting.lease.allocations))
        left_ms = max(self._work(starting) - starting.kept_ms, 0)
        catch_up_ms = step.restart_ms if starting.number > 1 else 0
        run_ms = max(catch_up_ms + -(-left_ms * WHOLE_PERMILLE // speed), 1)
        failed_ms = self._failed_ms(starting, run_ms)
        state, reason = (AttemptState.FAILED, "failed by the scenario") if failed_ms else (AttemptState.SUCCEEDED, "")
        if step.timeout_ms and (failed_ms or run_ms) > step.timeout_ms:
            failed_ms, state, reason = step.timeout_ms, AttemptState.TIMED_OUT, "ran into its time limit"
        return Script(
            run_ms=failed_ms or run_ms,
            state=state,
            reason=reason,
            start_ms=self.start_ms,
            told_ms=self.told_ms,
            stop_ms=step.grace_ms if self.stop_ms is None else self.stop_ms,
            catch_up_ms=catch_up_ms,
            speed_permille=speed,
        )

    def _work(self, starting: Starting) -> int:
        if callable(self.work_ms):
            return self.work_ms(starting.job, starting.step, starting.index)
        work = self.work_ms[starting.job.id]
        return work if isinstance(work, int) else work[starting.index]

    def _failed_ms(self, starting: Starting, run_ms: int) -> int:
        """When in its run the attempt fails; 0: never. Drawn from what names the attempt, not from a stream."""
        if not self.failed_permille:
            return 0
        steps = [step.name for step in starting.job.steps]
        name = [int(starting.job.id[1:]), steps.index(starting.step.name), starting.index, starting.number]
        draw = np.random.default_rng([self.seed, *name])
        if int(draw.integers(WHOLE_PERMILLE)) >= self.failed_permille:
            return 0
        return int(draw.integers(1, run_ms + 1))


def speed_permille(step: Step, models: Sequence[str], ranks: int) -> int:
    """Work per time of one task, at least 1: its slowest card's speed times what its number of ranks gives."""
    return max(min(work_rate_permille(step, ranks, model) for model in models or ("",)), 1)
