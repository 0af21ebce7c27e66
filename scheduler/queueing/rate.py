"""How fast a step works on what it was given, beside all its ranks on the fastest card it may use."""

from __future__ import annotations

from itertools import pairwise

from scheduler.model.job import Step

FULL_PERMILLE = 1_000


def work_rate_permille(step: Step, ranks: int, model: str) -> int:
    """Thousandths of full speed with ``ranks`` ranks on cards of ``model`` (empty: without cards)."""
    if ranks == step.ranks and not (step.speeds or step.scaling):
        return FULL_PERMILLE
    speed = dict(step.speeds).get(model, FULL_PERMILLE)
    return speed * scaling_permille(step, ranks) // FULL_PERMILLE


def scaling_permille(step: Step, ranks: int) -> int:
    """Thousandths of the speed with all ranks: on straight lines between what ``scaling`` gives, no ranks and all."""
    points = sorted(({0: 0, step.ranks: FULL_PERMILLE} | dict(step.scaling)).items())
    for (low, slower), (high, faster) in pairwise(points):
        if ranks <= high:
            return slower + (faster - slower) * (ranks - low) // (high - low)
    return points[-1][1]


def work_done(step: Step, ranks: int, models: frozenset[str], started_ms: int, saved_ms: int, *, resumed: bool) -> int:
    """Milliseconds at full speed that a checkpoint at ``saved_ms`` keeps of an attempt; 0: none was committed.

    Cards of several models wait for the slowest. ``resumed``: it went on from an earlier checkpoint, so its first
    ``restart_ms`` only caught up.
    """
    if not (started_ms and saved_ms):
        return 0
    lasted_ms = saved_ms - started_ms - (step.restart_ms if resumed else 0)
    rate = min(work_rate_permille(step, ranks, model) for model in models or {""})
    return max(0, lasted_ms) * rate // FULL_PERMILLE
