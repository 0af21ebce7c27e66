"""How right earlier forecasts and promises were, and what that makes of the next one.

Both are functions of the job records, so that a state built from a snapshot knows what the grown one knows.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from scheduler.model.job import Job, JobRecord, JobState
from scheduler.queueing.durations import NORMAL
from scheduler.queueing.histogram import Histogram, merged, quantile

SLACK_MS = 10_000
"""Added to waits before their ratio is taken: nobody minds ten seconds more or less."""
ROUND_MS = 1_000
"""A forecast finer than a cycle is false precision."""
LEAST_SPREAD = 0.1
"""Of the logarithm: a forecast that all futures agree on is still a forecast."""
PRIOR_WEIGHT = 2
"""Forecasts of 40 jobs weigh as much as the futures' own spread."""
RECENT = 200
"""Starts that count, the latest ones: how wrong forecasts are changes with the load (conformal prediction beyond
exchangeability: Barber et al., Annals of Statistics 2023)."""
PROMISE_WEIGHT = 20
"""As many promises kept as were to be expected, before the first one is over."""
PROMISE_BINS = 20


def _scaled(error: float) -> int:
    """An error in spreads, either sign, as a positive number whose ratios are its differences."""
    return max(round(1_000 * math.exp(min(max(error, -6.0), 12.0))), 1)


def _prior() -> Histogram:
    """The futures' spread taken at its word: 5 and 95 % are one spread below and above the median."""
    histogram = Histogram()
    for z in NORMAL:
        for sign in (1, -1):
            histogram.add(_scaled(sign * z / 1_645), PRIOR_WEIGHT)
    return histogram


PRIOR = _prior()


@dataclass(slots=True)
class Calibration:
    """Errors of recorded forecasts, each in units of what its own futures disagreed by (normalised conformal
    prediction: Lei et al., JASA 2018, section 5), and promises kept.
    """

    errors: list[tuple[int, int, str, int]] = field(default_factory=list)
    """``(start, length of the job's id, id, error in thousandths of its exponential)``, sorted: a function of the
    records, in whatever order they came.
    """
    promises: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By twentieth of the probability given: how many were kept, of how many."""

    def put(self, before: JobRecord | None, after: JobRecord) -> None:
        """A job's record is new, or replaces ``before``."""
        old = before.started_ms if before is not None else 0
        if after.started_ms != old:
            self._count_start(after.job, old, -1)
            self._count_start(after.job, after.started_ms, 1)
        was, now = _kept(before), _kept(after)
        if was is not now:
            self._count_promise(after.job, was, -1)
            self._count_promise(after.job, now, 1)

    def copy(self) -> Calibration:
        """What is known now, for use beside the state."""
        return Calibration(errors=self.errors[-RECENT:], promises=dict(self.promises))

    def corrected(self, waits: Sequence[int]) -> tuple[int, ...]:
        """The waits of a forecast, as earlier forecasts of such a spread turned out, in milliseconds, sorted."""
        if not any(waits):  # it starts at once, and that teaches nothing about those that wait
            return tuple(waits)
        middle, spread = _shape(waits)
        seen = merged((PRIOR,))
        for *_, error in self.errors[-RECENT:]:
            seen.add(error, 1)
        errors = seen.atoms()
        found = ((middle + SLACK_MS) * (error / 1_000) ** spread - SLACK_MS for error in errors)
        return tuple(max(round(wait / ROUND_MS) * ROUND_MS, 0) for wait in found)

    def promise(self, permille: int) -> int:
        """A probability as promises of that height were kept."""
        at = _bin(permille)
        kept, made = self.promises.get(at, (0, 0))
        return min((permille * PROMISE_WEIGHT + 1_000 * kept) // (PROMISE_WEIGHT + made), permille)

    def _count_start(self, job: Job, started_ms: int, sign: int) -> None:
        if not (started_ms and job.forecast_raw_ms and job.forecast_raw_ms[-1] > job.submitted_ms):
            return
        middle, spread = _shape([at - job.submitted_ms for at in job.forecast_raw_ms])
        wait = max(started_ms - job.submitted_ms, 0)
        error = _scaled(math.log((wait + SLACK_MS) / (middle + SLACK_MS)) / spread)
        entry = started_ms, len(job.id), job.id, error
        if sign > 0:
            insort(self.errors, entry)
        else:
            del self.errors[bisect_left(self.errors, entry)]

    def _count_promise(self, job: Job, was_kept: bool | None, sign: int) -> None:
        if was_kept is None:
            return
        at = _bin(job.promise_permille)
        kept, made = self.promises.get(at, (0, 0))
        self.promises[at] = kept + sign * was_kept, made + sign
        if not self.promises[at][1]:
            del self.promises[at]


def bounds(waits: Sequence[int]) -> tuple[int, int, int]:
    """5, 50 and 95 % quantiles of equally likely waits."""
    return quantile(waits, 50), quantile(waits, 500), quantile(waits, 950)


def _shape(waits: Sequence[int]) -> tuple[int, float]:
    """Median of the waits, and half the distance of their logarithms' 5 and 95 % quantiles."""
    low, middle, high = bounds(waits) if len(waits) > 3 else waits
    return middle, max(math.log((high + SLACK_MS) / (low + SLACK_MS)) / 2, LEAST_SPREAD)


def _kept(record: JobRecord | None) -> bool | None:
    """Whether a promise was kept; None: none was made, or it is not over, or its owner ended it."""
    if record is None or not record.job.promise_permille or not record.state.is_final or record.cancelled:
        return None
    return record.state is JobState.SUCCEEDED and record.finished_ms <= record.job.deadline_ms


def _bin(permille: int) -> int:
    return min(permille * PROMISE_BINS // 1_000, PROMISE_BINS - 1)
