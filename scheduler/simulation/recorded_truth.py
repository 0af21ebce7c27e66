"""The truth behind a recording: attempts go as they went, and those that never happened as their like did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from scheduler.model.job import Step
from scheduler.model.lease import AttemptState, parse_attempt_id
from scheduler.simulation.recording import Recording, Tried
from scheduler.simulation.scenario import Script, Starting
from scheduler.simulation.workload import WHOLE_PERMILLE, speed_permille

DEFAULT_RUN_MS = 60_000
"""When the recording holds no task that ran to its end."""


@dataclass(slots=True)
class Means:
    """Sums over attempts that ran to their own end."""

    run_ms: int = 0
    lag_ms: int = 0
    count: int = 0

    def add(self, run_ms: int, lag_ms: int) -> None:
        """One more."""
        self.run_ms, self.lag_ms, self.count = self.run_ms + run_ms, self.lag_ms + lag_ms, self.count + 1


@dataclass(slots=True)
class RecordedTruth:
    """Scripts from a recording.

    An attempt of the same task and number, with the same work behind it, goes as it was recorded, at the speed of the
    cards it now has. Any other takes what its task is known to need, else the mean of its step, of steps of its name,
    of everything.
    """

    recording: Recording
    _work: dict[tuple[str, str, int], int] = field(default_factory=dict)
    """Work of tasks that succeeded, at the speed of what they ran on."""
    _kept: dict[str, int] = field(default_factory=dict)
    """Work behind each recorded attempt."""
    _means: dict[tuple[str, ...], Means] = field(default_factory=dict)
    _stop: Means = field(default_factory=Means)

    def __post_init__(self) -> None:
        kept: dict[tuple[str, str, int], int] = {}
        for tried in self._in_order():
            job_id, step, index, _ = parse_attempt_id(tried.id)
            task = (job_id, step, index)
            self._kept[tried.id] = kept.get(task, 0)
            if tried.saved_at_ms:
                kept[task] = kept.get(task, 0) + max(tried.saved_at_ms - (tried.started_ms or tried.granted_ms), 0)
            if tried.stopped_ms and tried.finished_ms:
                self._stop.add(max(tried.finished_ms - tried.stopped_ms, 0), 0)
            if tried.state is AttemptState.SUCCEEDED and tried.started_ms:
                self._work[task] = self._kept[tried.id] + tried.finished_ms - tried.started_ms
                lag_ms = tried.started_ms - tried.granted_ms
                for key in ((job_id, step), (step,), ()):
                    self._means.setdefault(key, Means()).add(self._work[task], lag_ms)
            if tried.state is AttemptState.SUCCEEDED:
                kept[task] = 0  # should it run again, it begins anew

    def _in_order(self) -> Iterable[Tried]:
        return sorted(self.recording.attempts.values(), key=lambda tried: (int(tried.lease.id[1:]), tried.granted_ms))

    def script(self, starting: Starting) -> Script:
        """As recorded, else as expected."""
        tried = self.recording.attempts.get(
            f"{starting.job.id}.{starting.step.name}.{starting.index}.a{starting.number}"
        )
        if tried is None:
            return self._expected(starting, None)
        alike = self._speed(starting.step, tried) == self._speed_now(starting)
        if not (_is_natural(tried) and alike and self._kept[tried.id] == starting.kept_ms):
            return self._expected(starting, tried)
        return self._scripted(tried, tried.finished_ms, tried.state or AttemptState.SUCCEEDED)

    def _scripted(self, tried: Tried, end_ms: int, state: AttemptState) -> Script:
        """The recorded attempt, ending by itself at ``end_ms``."""
        began_ms = tried.started_ms or tried.granted_ms
        finished_ms = tried.finished_ms or end_ms
        return Script(
            run_ms=max(end_ms - began_ms, 0),
            state=state,
            reason=tried.reason,
            starts=bool(tried.started_ms),
            start_ms=max(began_ms - tried.granted_ms, 0),
            start_told_ms=max(tried.start_told_ms - began_ms, 0) if tried.start_told_ms else 0,
            told_ms=max(tried.told_ms - finished_ms, 0) if tried.told_ms else 0,
            stop_ms=self._stop_ms(tried),
            stop_behind_ms=max((tried.finished_ms or self.recording.end_ms + 1) - tried.granted_ms, 0),
            stop_state=tried.state if tried.stopped_ms else None,
            saved_ms=tried.saved_at_ms - began_ms if tried.saved_at_ms else 0 if tried.finished_ms else -1,
            saved_after_ms=finished_ms - began_ms,
            start_rank=tried.start_rank,
            end_rank=tried.end_rank,
        )

    def _expected(self, starting: Starting, tried: Tried | None) -> Script:
        """What the attempt would have taken: ``tried`` began so, and was cut short, or ran on other cards."""
        task = (starting.job.id, starting.step.name, starting.index)
        work_ms = self._work.get(task) or self._mean(starting).run_ms
        then = self._speed(starting.step, tried) if tried is not None else WHOLE_PERMILLE
        left_ms = max(work_ms - starting.kept_ms, 1) * then // self._speed_now(starting)
        if tried is None:
            return Script(run_ms=max(left_ms, 1), start_ms=self._mean(starting).lag_ms, stop_ms=self._stop_ms(None))
        began_ms = tried.started_ms or tried.granted_ms
        ran_ms = (tried.finished_ms or self.recording.end_ms) - began_ms
        if not _is_natural(tried):
            left_ms = max(left_ms, ran_ms + 1)  # it ran that long and was not done
        state = AttemptState.SUCCEEDED
        return self._scripted(tried, began_ms + left_ms, state)

    def _stop_ms(self, tried: Tried | None) -> int:
        if tried is not None and tried.stopped_ms:
            return max((tried.finished_ms or self.recording.end_ms + 1) - tried.stopped_ms, 0)
        return self._stop.run_ms // self._stop.count if self._stop.count else 0

    def _mean(self, starting: Starting) -> Means:
        for key in ((starting.job.id, starting.step.name), (starting.step.name,), ()):
            found = self._means.get(key)
            if found is not None:
                return Means(run_ms=found.run_ms // found.count, lag_ms=found.lag_ms // found.count, count=1)
        return Means(run_ms=starting.step.run_ms_expected or DEFAULT_RUN_MS, count=1)

    @staticmethod
    def _speed(step: Step, tried: Tried) -> int:
        return speed_permille(step, tried.models, len(tried.lease.allocations))

    @staticmethod
    def _speed_now(starting: Starting) -> int:
        return speed_permille(starting.step, starting.models, len(starting.lease.allocations))


def _is_natural(tried: Tried) -> bool:
    """It ended, and nobody decided that."""
    stopped = tried.stopped_ms and tried.state in (AttemptState.CANCELLED, AttemptState.PREEMPTED)
    return tried.state is not None and not tried.node_lost and not stopped
