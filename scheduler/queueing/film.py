"""A film: many equal tasks that run one after the other on a few tracks, and when they will all have ended.

Nobody knows the mean of its frames beforehand, and frames differ about it. An estimate before the first frame is one of
the mean, because steps are remembered by their means; it is shared by all frames, so it does not get better with their
number. What frames differ by does: it grows with the root of their number only.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from scheduler.model.job import StepRecord
from scheduler.queueing.durations import STEP_SAMPLES_LEAST, Estimate
from scheduler.queueing.histogram import quantile
from scheduler.queueing.rate import FULL_PERMILLE

TURN_MS = 1_000
"""From the end of a task to the start of the next on the same track: an end is reported and a plan is made."""
DEVIATION = 0.35
"""Of the logarithm of a frame's time about their mean, as :mod:`scheduler.queueing.durations` has it."""
SURE = 1.96
"""Deviations of a normal distribution that 39 of 40 values stay below."""
NOISE_PERMILLE = round(1_000 * DEVIATION * SURE)
CAREFUL_PERMILLE = 975
DRAWS = 200_000
"""Tasks that are played for one answer, over all futures."""
FUTURES_LEAST, FUTURES_MOST = 20, 200
PARTS_MOST = 4_000
"""A step with more tasks is played in so many parts."""
NEVER_MS = float(1 << 62)


def careful_task_ms(prior: Estimate, done: StepRecord) -> int:
    """The mean of a step's tasks as it should be reckoned with: 39 of 40 are shorter.

    ``prior``: what was known without the step's own tasks. Those narrow it, and never make it longer than they are.
    """
    before = quantile(prior.atoms, CAREFUL_PERMILLE)
    if done.run_count < STEP_SAMPLES_LEAST:
        return max(before, 1)
    mean = done.run_ms_mean
    own = mean + mean * NOISE_PERMILLE // (1_000 * math.isqrt(done.run_count))
    return max(mean, min(before, own), 1)


def length_ms(tasks: int, task_ms: int) -> int:
    """How long a track takes for so many tasks of such a mean, one after the other, at the longest to be expected."""
    root_milli = math.isqrt(tasks * 1_000_000)
    return tasks * (task_ms + TURN_MS) + task_ms * NOISE_PERMILLE * root_milli // 1_000_000


def room(stretch_ms: int, task_ms: int) -> int:
    """How many tasks a stretch of time is long enough for."""
    each, noise = task_ms + TURN_MS, task_ms * NOISE_PERMILLE / 1_000
    root = (math.sqrt(noise * noise + 4 * each * max(stretch_ms, 0)) - noise) / (2 * each)
    tasks = int(root * root)
    while tasks and length_ms(tasks, task_ms) > stretch_ms:
        tasks -= 1
    while length_ms(tasks + 1, task_ms) <= stretch_ms:
        tasks += 1
    return tasks


# ── with what probability ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One copy of a track. Instants count from the promise."""

    node: str
    start_ms: int
    rate_permille: int = FULL_PERMILLE
    behind: tuple[str, ...] = ()
    """Leases that must have left before it begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One step: its tasks, the equally likely values of their mean, its lanes, and the steps that must be over."""

    name: str
    count: int
    means: tuple[int, ...]
    lanes: tuple[Lane, ...]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reel:
    """What a promise of a film rests on."""

    parts: tuple[Part, ...]
    """Each behind those that it needs."""
    limit_ms: int
    ends: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Equally likely instants of the end of each lease that a lane is behind."""
    failures_per_hour: float = 0.0
    """Of one node. One that fails is gone for good, with what ran there."""


def chance(reel: Reel, seed: int) -> int:
    """Probability, in thousandths and rounded down, that all steps end within the limit.

    Futures are played: means and frames drawn, lanes late by what has not left, nodes lost. Lanes of a lost node are
    not made up for elsewhere, though they are where there is room. Never surer than as many futures can be.
    """
    rng = np.random.default_rng(seed)
    played = sum(min(part.count, PARTS_MOST) for part in reel.parts)
    futures = min(max(DRAWS // max(played, 1), FUTURES_LEAST), FUTURES_MOST)
    means = {part.name: rng.permutation(np.resize(np.array(part.means), futures)) for part in reel.parts}
    good = 0
    for at in range(futures):
        lost = _lost(reel, rng)
        ends = {lease: atoms[int(rng.integers(len(atoms)))] for lease, atoms in sorted(reel.ends.items())}
        over: dict[str, float] = {}
        for part in reel.parts:
            from_ms = max((over[name] for name in part.needs), default=0.0)
            over[part.name] = _played(part, float(means[part.name][at]), from_ms, ends, lost, rng)
        good += max(over.values()) <= reel.limit_ms
    return 1_000 * good // (futures + 1)


def _lost(reel: Reel, rng: np.random.Generator) -> dict[str, float]:
    """When each node fails."""
    if not reel.failures_per_hour:
        return {}
    nodes = sorted({lane.node for part in reel.parts for lane in part.lanes})
    return dict(zip(nodes, rng.exponential(3_600_000 / reel.failures_per_hour, len(nodes)), strict=True))


def _played(  # noqa: PLR0917 (one future)
    part: Part,
    mean_ms: float,
    from_ms: float,
    ended: Mapping[str, int],
    lost: Mapping[str, float],
    rng: np.random.Generator,
) -> float:
    """When the last task ends; NEVER_MS: no lane is left for it. Whoever ends first takes the next task."""
    together = -(-part.count // PARTS_MOST)
    left = -(-part.count // together)
    spread = DEVIATION / math.sqrt(together)
    draws = iter(np.exp(rng.normal(-spread * spread / 2, spread, left + len(part.lanes))) * mean_ms * together)
    usual = mean_ms * together
    heap: list[tuple[float, int, float]] = []
    for at, lane in enumerate(part.lanes):
        begins = max(from_ms, lane.start_ms, *(ended[lease] for lease in lane.behind))
        heap.append((begins + usual * FULL_PERMILLE / lane.rate_permille, at, begins))
    heapq.heapify(heap)
    last = from_ms
    while left:
        if not heap:
            return NEVER_MS
        _, at, begins = heapq.heappop(heap)
        lane = part.lanes[at]
        ends = begins + float(next(draws)) * FULL_PERMILLE / lane.rate_permille + TURN_MS * together
        if ends > lost.get(lane.node, NEVER_MS):
            continue
        last, left = max(last, ends), left - 1
        heapq.heappush(heap, (ends + usual * FULL_PERMILLE / lane.rate_permille, at, ends))
    return last
