"""The smallest set of members that works, and how few trials find it.

More members usually work no worse, but not always: who ends or comes back also makes room for others ahead.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations
from math import comb

from scheduler.queueing.preempt import EXACT_MAX, Victim, choose

Works = Callable[[frozenset[str]], bool]
SETS_SURE = 128
"""Sets are tried one by one only where those that are smaller are no more than this: all below four of eight, or two of
a hundred. A part of them would prove nothing.
"""


def fewest(orders: Sequence[Sequence[str]], works: Works, most: int) -> frozenset[str]:
    """The smallest set that works where all smaller ones can be tried; else one from which nothing can be left out.

    ``orders``: all members, each time likely ones first; at most twelve are looked through by what more of them do.
    Empty: all together do not work, or more than ``most`` are needed.
    """
    works, members = cache(works), orders[0]
    chosen: frozenset[str] = frozenset()
    if len(members) <= EXACT_MAX:
        chosen = frozenset(choose([Victim(lease_id=name, cost=1) for name in members], works))
    else:
        for order in orders:
            chosen = _needed(order, works, len(chosen) - 1 if chosen else most) or chosen
    # Who ends or comes back also makes room for others ahead, so fewer may help where more do not.
    sizes = range(1, len(chosen))
    if sum(comb(len(members), size) for size in sizes) <= SETS_SURE:
        smaller = (frozenset(few) for size in sizes for few in combinations(members, size))
        return next(filter(works, smaller), chosen)
    for name in sorted(chosen):
        chosen = fewer if works(fewer := chosen - {name}) else chosen
    return chosen


def _needed(order: Sequence[str], works: Works, most: int) -> frozenset[str]:
    """What the first in ``order`` that work cannot do without, at most so many; empty: none, or more.

    Of the shortest run from the first on that works the last is needed. With it a shorter run is enough, the last of
    which is needed too, and so on. What is needed often lies near to each other, so the next is looked for from there.
    """
    needed: frozenset[str] = frozenset()
    end = len(order)

    def enough(count: int) -> bool:
        return works(needed.union(order[:count]))

    while len(needed) <= most and enough(end):
        if enough(0):
            return needed
        step = 1
        while enough(max(end - step, 0)):
            end, step = end - step, 2 * step
        least = max(end - step, 0) + 1
        end = least + bisect_left(range(least, end), True, key=enough) - 1
        needed |= {order[end]}
    return frozenset()
