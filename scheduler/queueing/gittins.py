"""Who is likely to be done soon, when nobody said how long anything takes: the Gittins index.

Of a task that has run for some time and of which only the distribution of run times is known, the index is the least,
over all horizons, of the time it is expected to use until it ends or the horizon passes, per probability that it ends
(Gittins 1989; for schedulers of trainings: Tiresias, NSDI 2019, section 4). Least first minimises the mean completion
time on one machine. It falls back to attained service where the distribution has no more to say.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


def index_ms(atoms: Sequence[int], elapsed_ms: int) -> int:
    """The index of a task that ran ``elapsed_ms`` and goes on. ``atoms``: equally likely run times, sorted.

    Beyond all of them it is the time already run, as for a heavy tail; never less than 1.
    """
    left = [atom - elapsed_ms for atom in atoms[bisect_right(atoms, elapsed_ms) :]]
    count = len(left)
    if not count:
        return max(elapsed_ms, 1)
    sums = accumulate(left)
    used = ((total + (count - at) * atom) // at for at, (total, atom) in enumerate(zip(sums, left, strict=True), 1))
    return max(min(used), 1)
