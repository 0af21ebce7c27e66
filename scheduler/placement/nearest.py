"""Compiled: which rows come nearest to taking a shape, and what they lack."""

from __future__ import annotations

from scheduler.placement.compiled import called, kernel
from scheduler.placement.core import Core, core_at
from scheduler.placement.kernels import CARDS, MILLI, SAME_ISLAND, TENANT, Longs, copies_of, count_islands


@called
def nearest(address: int, s: int, best_row: Longs, best_have: Longs, counts: Longs) -> None:
    """Why rows that the shape would fit on if they were empty take no copy now, by the first condition they fail.

    Conditions, in the order of ``fit.refusal``: cards, island, cpu, memory, scratch. Per condition: the row that has
    most (then by rank of its name), what it has, and how many rows fail there. ``counts`` begin at 0.
    """
    core = core_at(address)
    rows, asks = core.rows, core.asks
    for r in range(rows.klass.shape[0]):
        klass = rows.klass[r]
        if klass < 0 or not asks.empty[s, klass] or copies_of(rows, asks, core.work, s, r) > 0:
            continue
        stage, have = _lack(core, s, r)
        row = best_row[stage]
        if (
            counts[stage] == 0
            or have > best_have[stage]
            or (have == best_have[stage] and rows.rank[r] < rows.rank[row])
        ):
            best_row[stage], best_have[stage] = r, have
        counts[stage] += 1


@kernel
def _lack(core: Core, s: int, r: int) -> tuple[int, int]:
    """The first condition a row fails, and what it has of it."""
    rows, asks, work = core.rows, core.asks, core.work
    ask, slots, klass = asks.ask[s], rows.slots[r], rows.klass[r]
    if ask[MILLI] > 0:
        most = 0
        for d in range(slots):
            if asks.group[s, klass, d] > 0 and (rows.holder[r, d] == 0 or rows.holder[r, d] == ask[TENANT]):
                most = max(most, rows.milli[r, d])
        if most < ask[MILLI]:
            return 0, most
    elif ask[CARDS] > 0:
        free = count_islands(rows, asks, work, s, r)
        if free < ask[CARDS]:
            return 0, free
        most = 0
        for island in range(1, slots + 1):
            most = max(most, work.islands[island])
        if ask[SAME_ISLAND] > 0 and most < ask[CARDS]:
            return 1, most
    for i in range(3):
        if ask[i] > 0 and rows.free[r, i] < ask[i]:
            return 2 + i, rows.free[r, i]
    return 2, rows.free[r, 0]
