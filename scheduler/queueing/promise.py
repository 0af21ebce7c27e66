"""With what probability a job ends by an instant, when it may wait, run longer than expected, and fail on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence

FAILURES_MAX = 12
"""More failures than this in one run count as a miss."""


def probability(
    waits: Sequence[int],
    runs: Sequence[int],
    limit_ms: int,
    *,
    failures_per_hour: float = 0.0,
    lost_ms: int = 0,
    restart_ms: int = 0,
) -> int:
    """Probability, in thousandths and rounded down, that wait, run and repairs end within ``limit_ms``.

    ``waits`` and ``runs``: equally likely, in milliseconds. Failures come as a Poisson process while it runs; each
    loses ``restart_ms`` (a new start, the wait for it included) and up to ``lost_ms`` of work, evenly: the interval of
    its checkpoints, or (0) all of its work so far.
    """
    if not waits or not runs:
        return 0
    total = sum(
        _within(limit_ms - wait - run, run, failures_per_hour / 3_600_000, lost_ms, restart_ms)
        for wait in waits
        for run in runs
    )
    return math.floor(1_000 * total / (len(waits) * len(runs)) + 1e-9)


def _within(spare_ms: int, run_ms: int, rate: float, lost_ms: int, restart_ms: int) -> float:
    """Probability that repairs fit into the time to spare. Work done again may fail again."""
    if spare_ms < 0:
        return 0.0
    most = min(lost_ms, run_ms) if lost_ms else run_ms
    exposed = run_ms / max(1 - rate * most, 0.1)
    total = 0.0
    for count in range(FAILURES_MAX + 1 if rate else 1):
        room = spare_ms - count * restart_ms
        if room < 0:
            break
        # Without checkpoints it needs one try without a failure; those before it are tries with at least one.
        failed = 1 - math.exp(-rate * run_ms)
        chance = _poisson(rate * exposed, count) if lost_ms else (1 - failed) * failed**count
        total += chance * _uniform_sum(room / max(most, 1), count)
    return total


def _poisson(mean: float, count: int) -> float:
    return math.exp(-mean) * math.pow(mean, count) / math.factorial(count)


def _uniform_sum(at: float, count: int) -> float:
    """Probability that ``count`` numbers even in [0, 1] sum to at most ``at`` (Irwin and Hall)."""
    if at >= count:
        return 1.0
    terms = ((-1) ** j * math.comb(count, j) * math.pow(at - j, count) for j in range(math.floor(at) + 1))
    return float(min(max(sum(terms) / math.factorial(count), 0.0), 1.0))
