"""Which card model each gang should use so that all of them end as early as possible.

Prices per card-millisecond are raised where too much is asked for until the models are equally loaded (the dual of the
linear program of Gavel's makespan policy, OSDI 2020, section 4.2), then single gangs are moved while that helps. All
on integers, so that the same input gives the same answer everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

NOWHERE_MS = 10**11
"""Time on a model it may not use: three years, long enough to be avoided and short enough to multiply."""
PRICE = 10**4
ROUNDS = 150
MOVES_MAX = 400


def balance(times_ms: Sequence[Sequence[int]], cards: Sequence[int], capacity: Sequence[int]) -> tuple[int, ...]:
    """A model (a column of ``times_ms``) for each gang (a row, with so many ``cards``)."""
    times = np.minimum(np.array(times_ms, dtype=np.int64).reshape(len(times_ms), len(capacity)), NOWHERE_MS)
    area = times * np.array(cards, dtype=np.int64)[:, None]
    caps = np.array(capacity, dtype=np.int64)
    chosen = _priced(times, area, caps)
    return tuple(int(model) for model in _moved(chosen, times, area, caps))


def _loads(chosen: Ints, area: Ints, caps: Ints) -> Ints:
    """Milliseconds for which each model is fully busy."""
    sums = np.zeros(len(caps), dtype=np.int64)
    np.add.at(sums, chosen, area[np.arange(len(chosen)), chosen])
    return sums // np.maximum(caps, 1)


def _end(chosen: Ints, times: Ints, area: Ints, caps: Ints) -> int:
    """No schedule of this choice ends before this."""
    longest = int(times[np.arange(len(chosen)), chosen].max(initial=0))
    return max(longest, int(_loads(chosen, area, caps).max(initial=0)))


def _priced(times: Ints, area: Ints, caps: Ints) -> Ints:
    prices = PRICE * PRICE // np.maximum(caps, 1)
    unit = max(int(area.max(initial=1)) // 10**8, 1)
    coarse = area // unit
    best, least = np.zeros(len(area), dtype=np.int64), -1
    for turn in range(ROUNDS):
        chosen = np.argmin(coarse * prices, axis=1)
        end = _end(chosen, times, area, caps)
        if least < 0 or end < least:
            best, least = chosen, end
        loads = _loads(chosen, area, caps)
        mean = max(int(loads.sum()) // len(caps), 1)
        step = 2 * PRICE // (4 + turn)
        change = np.clip(step * (loads - mean) // mean, -PRICE * 4 // 5, PRICE * 4)
        prices = np.clip(prices * (PRICE + change) // PRICE, 1, 10**10)
    return best


def _moved(chosen: Ints, times: Ints, area: Ints, caps: Ints) -> Ints:
    """Single gangs leave the fullest model while the fullest gets less full."""
    chosen = chosen.copy()
    for _ in range(MOVES_MAX):
        loads = _loads(chosen, area, caps)
        full = int(np.argmax(loads))
        rows = np.flatnonzero(chosen == full)
        left = loads[full] - area[rows, full] // max(int(caps[full]), 1)
        there = loads + area[rows] // np.maximum(caps, 1)
        there[:, full] = loads[full]
        worst = np.maximum(np.maximum(there, left[:, None]), times[rows])
        worst[:, full] = loads[full]
        at = int(np.argmin(worst)) if worst.size else 0
        if not worst.size or int(worst.flat[at]) >= int(loads[full]):
            break
        chosen[rows[at // len(caps)]] = at % len(caps)
    return chosen
