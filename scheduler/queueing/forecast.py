"""When a waiting task will start: many futures of its pool, each with run times drawn from what was learned.

The answer is raw: :mod:`scheduler.queueing.calibration` corrects it by how right earlier answers were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scheduler.model.policy import Backfill
from scheduler.queueing import rollout
from scheduler.queueing.histogram import ATOMS, quantile
from scheduler.queueing.pool import Arrivals, Ask, Pool

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FUTURES = 48
"""Enough for a 5 % and a 95 % quantile; more costs time and tells little, because the estimates are rough."""
SHARED_DEVIATION = 0.2
"""Of the logarithm of a factor that all run times of a future have in common: estimates are wrong together."""
CHAINS = 64
"""A step with more waiting tasks is played as this many, each of which stands for several in a row."""
ARRIVALS_MAX = 256
"""Jobs that may still come are played so far ahead."""
HORIZON_MS = 90 * 24 * 3_600_000
"""Arrivals later than this are nobody's business."""
MODES = {
    Backfill.NONE: rollout.NONE,
    Backfill.ANY: rollout.ANY,
    Backfill.EASY: rollout.EASY,
    Backfill.CONSERVATIVE: rollout.EASY,
}


@dataclass(frozen=True, slots=True)
class _Group:
    """Tasks in order, with what each future makes of them."""

    asks: tuple[Ask, ...]
    runs: Ints
    at: Ints


def forecast(pool: Pool, ask: Ask, seed: int) -> tuple[int, ...]:
    """``ATOMS`` equally likely waits of the first task of ``ask``, sorted, in milliseconds; empty: no future starts it.

    The same arguments give the same answer.
    """
    rng = np.random.default_rng(seed)
    elapsed = np.array([lease.elapsed_ms for lease in pool.running], np.int64)
    shared = np.exp(rng.normal(0, SHARED_DEVIATION, (FUTURES, 1)))
    ends = _drawn(rng, [lease.estimate.survivors(lease.elapsed_ms) for lease in pool.running]) - elapsed
    ends = np.maximum((ends * shared).astype(np.int64), 1)
    ahead = _waiting(rng, pool.ahead, shared)
    target = _waiting(rng, (replace(ask, count=1),), shared)
    waits = _play(pool, ends, [ahead], target, [])
    if pool.arrivals and waits.max() > 0:
        horizon = 2 * int(np.quantile(np.minimum(waits, HORIZON_MS), 0.9))
        before, behind = [ahead], list[_Group]()
        for arrivals in pool.arrivals:
            (before if arrivals.are_ahead else behind).append(_coming(rng, arrivals, horizon, shared))
        waits = _play(pool, ends, before, target, behind)
    known = tuple(int(wait) for wait in np.sort(waits[waits < rollout.NEVER]))
    return tuple(quantile(known, (2 * i + 1) * 500 // ATOMS) for i in range(ATOMS)) if known else ()


def _play(pool: Pool, ends: Ints, before: list[_Group], target: _Group, behind: list[_Group]) -> Ints:
    """When the target starts in each future."""
    groups = [*before, target, *behind]
    asks = [ask for group in groups for ask in group.asks]
    at = np.concatenate([group.at for group in groups], axis=1)
    runs = np.concatenate([group.runs for group in groups], axis=1)
    amounts = np.array([ask.amount for ask in asks], np.int64)
    arriving = np.argsort(at, axis=1, kind="stable")
    held = [node for lease in pool.running for node in lease.nodes]
    places = [*(len(lease.nodes) for lease in pool.running), *(ask.ranks for ask in asks)]
    unknown = np.zeros(sum(ask.ranks for ask in asks), np.int64)
    board = rollout.Board(
        free=np.array(pool.free, np.int64),
        spare=np.array(pool.free, np.int64),
        first=np.cumsum([0, *places], dtype=np.int64),
        nodes=np.concatenate((np.array(held, np.int64), unknown)),
        amounts=np.concatenate((np.array([le.amount for le in pool.running for _ in le.nodes], np.int64), unknown)),
        leases=len(pool.running),
    )
    position = sum(len(group.asks) for group in before)
    starts = np.empty(FUTURES, np.int64)
    for k in range(FUTURES):
        fresh = board._replace(free=board.free.copy(), spare=board.spare.copy())
        moves = rollout.Moves(amounts, ends[k], at[k], arriving[k], runs[k])
        starts[k] = rollout.start_of(fresh, moves, position, MODES[pool.backfill])
    return starts


def _waiting(rng: np.random.Generator, asks: Sequence[Ask], shared: Floats) -> _Group:
    """Tasks that wait now; many equal ones as chains, whose sum varies as sums do: with the root of their number."""
    tasks: list[Ask] = []
    lengths: list[int] = []
    for ask in asks:
        chains = min(ask.count, CHAINS)
        tasks += [ask] * chains
        lengths += [ask.count // chains + (i < ask.count % chains) for i in range(chains)]
    runs = _drawn(rng, [ask.estimate.survivors(ask.elapsed_ms) for ask in tasks])
    runs -= np.array([ask.elapsed_ms for ask in tasks], np.int64)
    length = np.array(lengths, np.int64)
    mean = np.array([sum(ask.estimate.atoms) // ATOMS for ask in tasks], np.int64)
    runs = np.where(length > 1, mean * length + ((runs - mean) * np.sqrt(length)).astype(np.int64), runs)
    return _Group(tuple(tasks), np.maximum((runs * shared).astype(np.int64), 1), np.zeros_like(runs))


def _coming(rng: np.random.Generator, arrivals: Arrivals, horizon_ms: int, shared: Floats) -> _Group:
    """Tasks that come within the horizon, the same in each future but for their times."""
    count = min(horizon_ms // max(arrivals.gap_ms, 1) + 1, ARRIVALS_MAX)
    group = _waiting(
        rng, [replace(arrivals.asks[i], count=1) for i in rng.integers(0, len(arrivals.asks), count)], shared
    )
    gaps = rng.exponential(arrivals.gap_ms, group.runs.shape)
    return _Group(group.asks, group.runs, np.cumsum(gaps, axis=1).astype(np.int64) + 1)


def _drawn(rng: np.random.Generator, values: Sequence[tuple[int, ...]]) -> Ints:
    """A draw from each of ``values`` (sorted, equally likely, straight between) in each future, one per column."""
    table = np.zeros((len(values), max((len(row) for row in values), default=1)), np.int64)
    for i, row in enumerate(values):
        table[i, : len(row)] = row
    last = np.array([len(row) - 1 for row in values], np.float64)
    where = np.clip(rng.random((FUTURES, len(values))) * (last + 1) - 0.5, 0, last)
    low = where.astype(np.int64)
    high = np.minimum(low + 1, last.astype(np.int64))
    column = np.arange(len(values))
    step = (table[column, high] - table[column, low]) * (where - low)
    return table[column, low] + step.astype(np.int64)
