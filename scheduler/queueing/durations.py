"""How long tasks run: learned from those that finished, and corrected when an expectation turns out wrong.

What is learned is a sum over the job records, so that a state built from a snapshot knows what the grown one knows.
A step counts with its mean run time: single run times are not in the records.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from scheduler.model.job import Job, JobRecord, Step, StepRecord
from scheduler.queueing.histogram import FINE_BITS, SUB_BITS, Histogram, bucket_of, quantile

SAMPLES_LEAST = 5
"""A class with fewer finished tasks says less than a wider one with more."""
STEP_SAMPLES_LEAST = 3
"""Tasks of a step that must have succeeded before its own mean stands for the rest of it."""
STEP_WEIGHT_MAX = 8
"""A step with 10,000 frames is one scene, not 10,000 opinions."""
DEFAULT_MS = 10 * 60_000
"""Median run time when nothing at all is known."""
NORMAL = (63, 189, 319, 454, 598, 755, 935, 1150, 1440, 1960)
"""Upper half of the middles of 20 equal parts of the normal distribution, in thousandths of its deviation."""
TAIL = ((3, 2), (2, 1), (4, 1))
"""Once nearly all that was seen is exceeded: the rest of a heavy tail (Pareto, exponent 1) as three equally likely
multiples of the time already run, whose median is twice that time."""

Key = tuple[object, ...]
K = TypeVar("K", Key, str)


class Source(StrEnum):
    """What an estimate rests on, best first."""

    STEP = "step"
    """Finished tasks of the same step."""
    OWNER = "owner"
    """What its owner said, corrected by how right the tenant (or, before that is known, everybody) was."""
    WARM = "warm"
    """Steps of the tenant of the same warm key and shape: the same scene, the same model."""
    NAME = "name"
    """Steps of the same name and shape in the tenant's jobs whose names differ in digits only."""
    TENANT = "tenant"
    """Steps of the tenant of the same kind and shape."""
    KIND = "kind"
    """Steps of the same kind and shape."""
    ALL = "all"
    TIMEOUT = "timeout"
    DEFAULT = "default"


def _spread(deviation: float) -> tuple[int, ...]:
    """A log-normal distribution around 1,000, as equally likely values."""
    upper = [math.exp(deviation * z / 1_000) for z in NORMAL]
    return tuple(round(1_000 * factor) for factor in (*(1 / f for f in reversed(upper)), *upper))


NARROW = _spread(0.35)
"""Tasks of one step about their mean: 90 % within 0.6 and 1.8 times."""
WIDE = _spread(1.5)
"""Tasks nobody knows anything about: 90 % within a twelfth and twelve times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A run time as equally likely values, sorted, in milliseconds."""

    atoms: tuple[int, ...]
    source: Source

    @property
    def median_ms(self) -> int:
        """As likely exceeded as not."""
        return quantile(self.atoms, 500)

    @property
    def p90_ms(self) -> int:
        """Exceeded by one task in ten."""
        return quantile(self.atoms, 900)

    def left(self, elapsed_ms: int, permille: int = 500) -> int:
        """A quantile of what is still to run, given that the task ran ``elapsed_ms`` and goes on; at least 1.

        The instant it stands for never moves back as time passes. Beyond all that was seen what is left grows in
        proportion to what was run.
        """
        return max(quantile(self.survivors(elapsed_ms), permille) - elapsed_ms, 1)

    def survivors(self, elapsed_ms: int) -> tuple[int, ...]:
        """Equally likely run times of a task that has run ``elapsed_ms``, sorted, at least as many as ``TAIL`` has."""
        longer = self.atoms[bisect_right(self.atoms, elapsed_ms) :]
        missing = len(TAIL) - len(longer)
        if missing <= 0:
            return longer
        tail = (max(elapsed_ms * up // down, *longer, 1) for up, down in TAIL[-missing:])
        return (*longer, *tail)


def remaining(estimate: Estimate, elapsed_ms: int) -> tuple[int, int]:
    """Median and 90 % quantile of what is still to run, in milliseconds, each at least 1."""
    return estimate.left(elapsed_ms), estimate.left(elapsed_ms, 900)


def worked_ms(record: StepRecord, index: int) -> int:
    """Work of a task that checkpoints keep: run time that its next attempt does not need again."""
    at = bisect_left(record.worked, (index,))
    return record.worked[at][1] if at < len(record.worked) and record.worked[at][0] == index else 0


@dataclass(slots=True)
class Durations:
    """Run times of finished tasks by class, and how they compare with what owners said."""

    classes: dict[Key, Histogram] = field(default_factory=dict)
    said: dict[str, Histogram] = field(default_factory=dict)
    """Thousandths of what was said that it took, by tenant; all of them together under the empty name. Counted one by
    one: of three hours a hundredth is two minutes, and enough to miss a deadline."""

    def put(self, before: JobRecord | None, after: JobRecord) -> None:
        """A job's record is new, or replaces ``before``."""
        olds = before.steps if before is not None else (None,) * len(after.steps)
        for step, old, new in zip(after.job.steps, olds, after.steps, strict=True):
            if old is new or (old is not None and (old.run_count, old.run_ms_mean) == (new.run_count, new.run_ms_mean)):
                continue
            if old is not None and _count_alike(step, old, new):
                continue
            if old is not None:
                self.add(after.job, step, old, -1)
            self.add(after.job, step, new, 1)

    def add(self, job: Job, step: Step, done: StepRecord, sign: int) -> None:
        """Count what one step has learned (``sign`` 1), or take it away (-1)."""
        weight = sign * min(done.run_count, STEP_WEIGHT_MAX)
        if not weight:
            return
        for _, key in _classes(job, step):
            _count(self.classes, key, done.run_ms_mean, weight, SUB_BITS)
        if step.run_ms_expected:
            for tenant in (job.tenant, ""):
                _count(self.said, tenant, _ratio(step, done), weight, FINE_BITS)

    def estimate(self, job: Job, step: Step, done: StepRecord) -> Estimate:
        """What a whole task of the step takes, in milliseconds; never more than its time limit."""
        source, atoms = self._known(job, step, done)
        if step.timeout_ms:
            atoms = tuple(min(atom, step.timeout_ms) for atom in atoms)
        return Estimate(atoms=atoms, source=source)

    def _known(self, job: Job, step: Step, done: StepRecord) -> tuple[Source, tuple[int, ...]]:
        if done.run_count >= STEP_SAMPLES_LEAST:
            return Source.STEP, _times(done.run_ms_mean, NARROW)
        if step.run_ms_expected:
            return Source.OWNER, _times(step.run_ms_expected, self._ratios(job.tenant))
        for source, key in _classes(job, step):
            seen = self.classes.get(key)
            if seen is not None and seen.total >= SAMPLES_LEAST:
                return source, seen.atoms()
        if step.timeout_ms:
            return Source.TIMEOUT, _times(step.timeout_ms // 4, WIDE)
        return Source.DEFAULT, _times(DEFAULT_MS, WIDE)

    def _ratios(self, tenant: str) -> tuple[int, ...]:
        for name in (tenant, ""):
            seen = self.said.get(name)
            if seen is not None and seen.total >= SAMPLES_LEAST:
                return seen.atoms()
        return NARROW


def _count_alike(step: Step, old: StepRecord, new: StepRecord) -> bool:
    """The two would be counted with the same weight in the same buckets."""
    if min(old.run_count, STEP_WEIGHT_MAX) != min(new.run_count, STEP_WEIGHT_MAX):
        return False
    if bucket_of(old.run_ms_mean) != bucket_of(new.run_ms_mean):
        return False
    return not step.run_ms_expected or _ratio(step, old) == _ratio(step, new)


def _ratio(step: Step, done: StepRecord) -> int:
    """Thousandths of what was said that it took, rounded."""
    said_ms = step.run_ms_expected
    return (done.run_ms_mean * 1_000 + said_ms // 2) // said_ms


def _classes(job: Job, step: Step) -> Iterator[tuple[Source, Key]]:
    """Classes a step belongs to, from the narrowest to the widest."""
    needs = step.resources
    cards = (needs.cards, needs.card_milli, needs.mig_profile)
    shape: Key = (step.kind.value, step.ranks, *cards, needs.cpu_milli if not any(cards) else 0)
    stem = "".join(letter for letter in job.name if not letter.isdigit())
    if step.warm_key:
        yield Source.WARM, (job.tenant, step.warm_key, step.name, *shape)
    yield Source.NAME, (job.tenant, stem, step.name, *shape)
    yield Source.TENANT, (job.tenant, *shape)
    yield Source.KIND, shape
    yield Source.ALL, ()


def _times(median: int, permille: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(1, median * factor // 1_000) for factor in permille)


def _count(histograms: dict[K, Histogram], key: K, value: int, weight: int, sub_bits: int) -> None:
    histogram = histograms.setdefault(key, Histogram(sub_bits))
    histogram.add(value, weight)
    if not histogram.counts:
        del histograms[key]
