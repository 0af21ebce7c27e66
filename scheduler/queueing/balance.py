"""Which card model each gang should use so that all of them end as early as possible.

Prices per card-millisecond are raised where too much is asked for until the models are equally loaded (the dual of the
linear program of Gavel's makespan policy, OSDI 2020, section 4.2), then single gangs are moved while that helps. All
on integers, so that the same input gives the same answer everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

NOWHERE_MS = 10**11
"""Time on a model it may not use: three years, long enough to be avoided and short enough to multiply."""
PRICE = 10**4
ROUNDS = 150
MOVES_MAX = 400
SWAPPED_MAX = 256
"""Gangs of a model that are tried for a swap: pairs are its square."""


def balance(times_ms: Sequence[Sequence[int]], cards: Sequence[int], capacity: Sequence[int]) -> tuple[int, ...]:
    """A model (a column of ``times_ms``) for each gang (a row, with so many ``cards``). Capacities are at least 1."""
    times, area, caps = _arrays(times_ms, cards, capacity)
    chosen = _priced(times, area, caps)
    return tuple(int(model) for model in _moved(chosen, times, area, caps))


def _arrays(
    times_ms: Sequence[Sequence[int]], cards: Sequence[int], capacity: Sequence[int]
) -> tuple[Ints, Ints, Ints]:
    times = np.minimum(np.array(times_ms, dtype=np.int64).reshape(len(times_ms), len(capacity)), NOWHERE_MS)
    return times, times * np.array(cards, dtype=np.int64)[:, None], np.array(capacity, dtype=np.int64)


def _loads(chosen: Ints, area: Ints, caps: Ints) -> Ints:
    """Milliseconds for which each model is fully busy."""
    sums = np.zeros(len(caps), dtype=np.int64)
    np.add.at(sums, chosen, area[np.arange(len(chosen)), chosen])
    return sums // caps


def _end(chosen: Ints, times: Ints, area: Ints, caps: Ints) -> int:
    """No schedule of this choice ends before this."""
    longest = int(times[np.arange(len(chosen)), chosen].max(initial=0))
    return max(longest, int(_loads(chosen, area, caps).max(initial=0)))


def _priced(times: Ints, area: Ints, caps: Ints) -> Ints:
    best, least = np.zeros(len(area), dtype=np.int64), -1
    for _, _, _, chosen in _auction(times, area, caps):
        end = _end(chosen, times, area, caps)
        if least < 0 or end < least:
            best, least = chosen, end
    return best


def _auction(times: Ints, area: Ints, caps: Ints) -> Iterator[tuple[Ints, Ints, int, Ints]]:
    """``(prices, areas, milliseconds per unit of these, what each gang then chooses)``, turn by turn."""
    prices = PRICE * PRICE // caps
    unit = max(int(area.max(initial=1)) // 10**8, 1)
    coarse = area // unit
    for turn in range(ROUNDS):
        chosen = np.argmin(coarse * prices, axis=1)
        yield prices, coarse, unit, chosen
        loads = _loads(chosen, area, caps)
        mean = max(int(loads.sum()) // len(caps), 1)
        step = 2 * PRICE // (4 + turn)
        change = np.clip(step * (loads - mean) // mean, -PRICE * 4 // 5, PRICE * 4)
        prices = np.clip(prices * (PRICE + change) // PRICE, 1, 10**10)


def _moved(chosen: Ints, times: Ints, area: Ints, caps: Ints) -> Ints:
    """Single gangs leave the fullest model, or change places with one elsewhere, while the fullest gets less full."""
    chosen = chosen.copy()
    for _ in range(MOVES_MAX):
        loads = _loads(chosen, area, caps)
        full = int(np.argmax(loads))
        case = (times, area, caps)
        change = _best_move(chosen, case, loads, full) or _best_swap(chosen, case, loads, full)
        if not change:
            break
        for row, model in change:
            chosen[row] = model
    return chosen


Change = tuple[tuple[int, int], ...]
"""``(gang, model)`` pairs; none: nothing helps."""


def _best_move(chosen: Ints, case: tuple[Ints, Ints, Ints], loads: Ints, full: int) -> Change:
    times, area, caps = case
    rows = np.flatnonzero(chosen == full)
    left = loads[full] - area[rows, full] // caps[full]
    there = loads + area[rows] // caps
    worst = np.maximum(np.maximum(there, left[:, None]), times[rows])
    worst[:, full] = loads[full]
    at = int(np.argmin(worst)) if worst.size else 0
    if not worst.size or int(worst.flat[at]) >= int(loads[full]):
        return ()
    return ((int(rows[at // len(caps)]), at % len(caps)),)


def _best_swap(chosen: Ints, case: tuple[Ints, Ints, Ints], loads: Ints, full: int) -> Change:
    times, area, caps = case
    best = int(loads[full])
    found: Change = ()
    rows = np.flatnonzero(chosen == full)[:SWAPPED_MAX]
    for other in range(len(caps)):
        mates = np.flatnonzero(chosen == other)[:SWAPPED_MAX]
        if other == full or not rows.size or not mates.size:
            continue
        here = loads[full] + (area[mates, full][None, :] - area[rows, full][:, None]) // caps[full]
        there = loads[other] + (area[rows, other][:, None] - area[mates, other][None, :]) // caps[other]
        worst = np.maximum(
            np.maximum(here, there), np.maximum(times[rows, other][:, None], times[mates, full][None, :])
        )
        at = int(np.argmin(worst))
        if int(worst.flat[at]) < best:
            best = int(worst.flat[at])
            row, mate = divmod(at, len(mates))
            found = ((int(rows[row]), other), (int(mates[mate]), full))
    return found


def least_end_ms(times_ms: Sequence[Sequence[int]], cards: Sequence[int], capacity: Sequence[int]) -> int:
    """No schedule ends before this, not even one that stops and moves gangs at will and for nothing.

    By weak duality: at any prices the work costs at least what all cards earn until the end.
    """
    times, area, caps = _arrays(times_ms, cards, capacity)
    best = int(times.min(axis=1).max(initial=0))
    for prices, coarse, unit, _ in _auction(times, area, caps):
        paid = int((coarse * prices).min(axis=1).sum())
        best = max(best, paid // int((prices * caps).sum()) * unit)
    return best
