"""Compiled: the ranking of nodes per shape, kept up to date by change log and blocks, and what is taken.

A shape looks again only at rows that changed since it was last asked. Rows are in blocks that know their least key; when
the row that has it gets worse, the block is looked through again, but only once it might have the best row of all. What
is found is what a scan of all rows finds: the order ``(cost, tie, rank)`` is total and every row's key is current.
"""

from __future__ import annotations

from scheduler.placement.compiled import entry, inlined, kernel
from scheduler.placement.kernels import (
    BLOCK,
    BLOCK_BITS,
    CARDS,
    LIVE,
    MILLI,
    NOWHERE,
    PICKED,
    SAME_ISLAND,
    TENANT,
    TURN,
    WHOLE,
    Asks,
    Core,
    Frag,
    Ints,
    Longs,
    Ranks,
    Rows,
    Work,
    appraise,
    copies_of,
    count_islands,
    weigh,
)


@inlined
def _touch(rows: Rows, frag: Frag, r: int) -> None:
    """Row ``r`` has changed."""
    appraise(rows, frag, r)
    now = rows.clock[0]
    rows.log[now & (rows.log.shape[0] - 1)] = r
    rows.last[r] = now
    rows.clock[0] = now + 1


@inlined
def _shift(
    rows: Rows, frag: Frag, work: Work, r: int, cpu: int, memory: int, scratch: int, count: int, milli: int, tenant: int
) -> None:
    rows.free[r, 0] -= cpu
    rows.free[r, 1] -= memory
    rows.free[r, 2] -= scratch
    for i in range(count):
        d = work.pick[i]
        rows.milli[r, d] -= milli
        if milli > 0:
            rows.holder[r, d] = tenant
        if rows.milli[r, d] >= WHOLE:
            rows.holder[r, d] = 0
    _touch(rows, frag, r)


@entry
def shift(core: Core, r: int, cpu: int, memory: int, scratch: int, count: int, milli: int, tenant: int) -> None:
    """Take amounts from row ``r``, and ``milli`` of each of the first ``count`` slots of ``work.pick``.

    Negative amounts give back; none at all only say that the row has changed.
    """
    _shift(core.rows, core.frag, core.work, r, cpu, memory, scratch, count, milli, tenant)


@inlined
def _set_key(ranks: Ranks, rank: Ints, s: int, r: int, cost: int, tie: int) -> None:
    """Row ``r`` has this key: its block's least key is this one, or as it was, or to be looked for."""
    key, least, b = ranks.key, ranks.least, r >> BLOCK_BITS
    if key[s, r, 0] == cost and key[s, r, 1] == tie:
        return
    key[s, r, 0], key[s, r, 1] = cost, tie
    row, c, t = ranks.best[s, b], least[s, b, 0], least[s, b, 1]
    if cost < c or (cost == c and (tie < t or (tie == t and row >= 0 and rank[r] < rank[row]))):
        least[s, b, 0], least[s, b, 1] = cost, tie
        ranks.best[s, b] = r
    elif row == r:
        ranks.best[s, b] = ~r


@inlined
def _search_block(ranks: Ranks, rank: Ints, s: int, b: int) -> None:
    """Look for the least key of a block."""
    key, won = ranks.key, b << BLOCK_BITS
    for r in range(won + 1, min(won + BLOCK, key.shape[1])):
        if key[s, r, 0] < key[s, won, 0] or (
            key[s, r, 0] == key[s, won, 0]
            and (key[s, r, 1] < key[s, won, 1] or (key[s, r, 1] == key[s, won, 1] and rank[r] < rank[won]))
        ):
            won = r
    ranks.best[s, b] = won
    ranks.least[s, b, 0], ranks.least[s, b, 1] = key[s, won, 0], key[s, won, 1]


@inlined
def _first(ranks: Ranks, rank: Ints, s: int) -> int:
    """The row with the least key. A block that might have it and must be looked through is."""
    least, best = ranks.least, ranks.best
    while True:
        won = 0
        for b in range(1, least.shape[1]):
            if least[s, b, 0] < least[s, won, 0] or (
                least[s, b, 0] == least[s, won, 0]
                and (
                    least[s, b, 1] < least[s, won, 1]
                    or (
                        least[s, b, 1] == least[s, won, 1]
                        and best[s, won] >= 0
                        and (best[s, b] < 0 or rank[best[s, b]] < rank[best[s, won]])
                    )
                )
            ):
                won = b
        if best[s, won] >= 0:
            return best[s, won]
        _search_block(ranks, rank, s, won)


@kernel
def _weigh(rows: Rows, asks: Asks, frag: Frag, work: Work, s: int, r: int) -> tuple[int, int]:
    """``weigh``, compiled once for all but the hottest place."""
    return weigh(rows, asks, frag, work, s, r)


@kernel
def _refresh(rows: Rows, asks: Asks, ranks: Ranks, frag: Frag, work: Work, s: int) -> None:
    """Work every change into the shape's keys."""
    now, seen, size = rows.clock[0], ranks.seen[s], rows.log.shape[0]
    if seen < 0 or now - seen > size:
        for r in range(rows.klass.shape[0]):
            ranks.key[s, r, 0], ranks.key[s, r, 1] = _weigh(rows, asks, frag, work, s, r)
        for b in range(ranks.best.shape[1]):
            _search_block(ranks, rows.rank, s, b)
    else:
        for at in range(seen, now):
            r = rows.log[at & (size - 1)]
            if rows.last[r] == at:
                cost, tie = weigh(rows, asks, frag, work, s, r)
                _set_key(ranks, rows.rank, s, r, cost, tie)
    ranks.seen[s] = now


@kernel
def _best(rows: Rows, asks: Asks, ranks: Ranks, frag: Frag, work: Work, s: int) -> int:
    """The best row of a shape; -1: none."""
    _refresh(rows, asks, ranks, frag, work, s)
    r = _first(ranks, rows.rank, s)
    return r if ranks.key[s, r, 0] != NOWHERE else -1


@entry
def count(core: Core, s: int) -> None:
    """Work every change into the shape's copies. Placing does not need them."""
    _count(core.rows, core.asks, core.ranks, core.work, s)


@kernel
def _count(rows: Rows, asks: Asks, ranks: Ranks, work: Work, s: int) -> None:
    now, seen, size = rows.clock[0], ranks.counted[s], rows.log.shape[0]
    is_new = seen < 0 or now - seen > size
    if is_new:
        ranks.copies[s, :] = 0
        ranks.total[s] = 0
    for at in range(0 if is_new else seen, rows.klass.shape[0] if is_new else now):
        r = at if is_new else rows.log[at & (size - 1)]
        if is_new or rows.last[r] == at:
            copies = copies_of(rows, asks, work, s, r)
            ranks.total[s] += copies - ranks.copies[s, r]
            ranks.copies[s, r] = copies
    ranks.counted[s] = now


@entry
def decide(core: Core, s: int, tenant: int, row: int, count: int, lag: int) -> int:
    """Take ``count`` copies, each from the row that is best then (or from ``row`` if it is not negative).

    Rows go to ``work.nodes``, the slots of copy ``i`` to ``work.slots[i]``. Returns how many found a place; for a
    ``count`` of 0, the best row (-1: none). ``lag``: with each copy, one other shape works in what has changed if that
    is more than so many changes (0: never); this bounds how long one decision can take.
    """
    return _decide(core.rows, core.asks, core.ranks, core.frag, core.work, s, tenant, row, count, lag)


@kernel
def _decide(
    rows: Rows, asks: Asks, ranks: Ranks, frag: Frag, work: Work, s: int, tenant: int, row: int, count: int, lag: int
) -> int:
    if count == 0:
        return _best(rows, asks, ranks, frag, work, s)
    for i in range(count):
        r = row if row >= 0 else _best(rows, asks, ranks, frag, work, s)
        if lag > 0 and row < 0:
            _catch_up(rows, asks, ranks, frag, work, lag)
        if r < 0:
            return i
        _weigh(rows, asks, frag, work, s, r)
        picked, part, ask = work.state[PICKED], asks.ask[s, MILLI], asks.ask
        work.nodes[i] = r
        for j in range(picked):
            work.slots[i, j] = work.pick[j]
        milli, holder = (part, ask[s, TENANT]) if part > 0 else (WHOLE, tenant)
        _shift(rows, frag, work, r, ask[s, 0], ask[s, 1], ask[s, 2], picked, milli, holder)
    return count


@inlined
def _catch_up(rows: Rows, asks: Asks, ranks: Ranks, frag: Frag, work: Work, lag: int) -> None:
    """Let the next shape in turn work in what has changed, if that is more than ``lag`` changes."""
    turn = work.state[TURN]
    if rows.clock[0] - ranks.seen[turn] > lag:
        _refresh(rows, asks, ranks, frag, work, turn)
    work.state[TURN] = turn + 1 if turn + 1 < work.state[LIVE] else 0


@entry
def best_but(core: Core, s: int, barred: Ints, saved: Longs) -> int:
    """The best row that is none of ``barred`` (each once); -1: none. ``saved``: scratch, two places per barred row."""
    return _best_but(core.rows, core.asks, core.ranks, core.frag, core.work, s, barred, saved)


@kernel
def _best_but(rows: Rows, asks: Asks, ranks: Ranks, frag: Frag, work: Work, s: int, barred: Ints, saved: Longs) -> int:
    _refresh(rows, asks, ranks, frag, work, s)
    for i in range(barred.shape[0]):
        r = barred[i]
        saved[i, 0], saved[i, 1] = ranks.key[s, r, 0], ranks.key[s, r, 1]
        _set_key(ranks, rows.rank, s, r, NOWHERE, 0)
    r = _first(ranks, rows.rank, s)
    found = r if ranks.key[s, r, 0] != NOWHERE else -1
    for i in range(barred.shape[0]):
        _set_key(ranks, rows.rank, s, barred[i], saved[i, 0], saved[i, 1])
    return found


@entry
def scan(core: Core, s: int) -> int:
    """The best row by weighing every row again, without any cache: what ``decide`` must find. -1: none."""
    return _scan(core.rows, core.asks, core.frag, core.work, s)


@kernel
def _scan(rows: Rows, asks: Asks, frag: Frag, work: Work, s: int) -> int:
    found, cost, tie = -1, NOWHERE, NOWHERE
    for r in range(rows.klass.shape[0]):
        c, t = _weigh(rows, asks, frag, work, s, r)
        if c < cost or (c == cost and c != NOWHERE and (t < tie or (t == tie and rows.rank[r] < rows.rank[found]))):
            found, cost, tie = r, c, t
    return found


@entry
def nearest(core: Core, s: int, best_row: Longs, best_have: Longs, counts: Longs) -> None:
    """Why rows that the shape would fit on if they were empty take no copy now, by the first condition they fail.

    Conditions, in the order of ``fit.refusal``: cards, island, cpu, memory, scratch. Per condition: the row that has
    most (then by rank of its name), what it has, and how many rows fail there. ``counts`` begin at 0.
    """
    _nearest(core.rows, core.asks, core.work, s, best_row, best_have, counts)


@kernel
def _nearest(rows: Rows, asks: Asks, work: Work, s: int, best_row: Longs, best_have: Longs, counts: Longs) -> None:
    for r in range(rows.klass.shape[0]):
        klass = rows.klass[r]
        if klass < 0 or not asks.empty[s, klass] or copies_of(rows, asks, work, s, r) > 0:
            continue
        stage, have = _lack(rows, asks, work, s, r)
        row = best_row[stage]
        if (
            counts[stage] == 0
            or have > best_have[stage]
            or (have == best_have[stage] and rows.rank[r] < rows.rank[row])
        ):
            best_row[stage], best_have[stage] = r, have
        counts[stage] += 1


@kernel
def _lack(rows: Rows, asks: Asks, work: Work, s: int, r: int) -> tuple[int, int]:
    """The first condition a row fails, and what it has of it."""
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
