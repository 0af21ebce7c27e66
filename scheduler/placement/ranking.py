"""Compiled: the ranking of nodes per shape, kept up to date by change log and tournament tree, and what is taken.

A shape looks again only at rows that changed since it was last asked; the root of its tree is the best row. What it
finds is what a scan of all rows finds: the order ``(cost, tie, rank)`` is total and every row's key is current.
"""

from __future__ import annotations

from scheduler.placement.compiled import entry, inlined, kernel
from scheduler.placement.kernels import (
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
def _winner(key: Longs, rank: Ints, s: int, a: int, b: int) -> int:
    if key[s, a, 0] != key[s, b, 0]:
        return a if key[s, a, 0] < key[s, b, 0] else b
    if key[s, a, 1] != key[s, b, 1]:
        return a if key[s, a, 1] < key[s, b, 1] else b
    return a if rank[a] <= rank[b] else b


@inlined
def _set_key(ranks: Ranks, s: int, r: int, cost: int, tie: int) -> bool:
    """Returns whether the key changed."""
    if ranks.key[s, r, 0] == cost and ranks.key[s, r, 1] == tie:
        return False
    ranks.key[s, r, 0] = cost
    ranks.key[s, r, 1] = tie
    return True


@kernel
def _weigh(rows: Rows, asks: Asks, frag: Frag, work: Work, s: int, r: int) -> tuple[int, int]:
    """``weigh``, compiled once for all but the hottest place."""
    return weigh(rows, asks, frag, work, s, r)


@inlined
def _weigh_row(rows: Rows, asks: Asks, ranks: Ranks, frag: Frag, work: Work, s: int, r: int) -> bool:
    """Bring the shape's copies and key on one row up to date. Returns whether the key changed."""
    copies = copies_of(rows, asks, work, s, r)
    ranks.total[s] += copies - ranks.copies[s, r]
    ranks.copies[s, r] = copies
    cost, tie = NOWHERE, 0
    if copies > 0:
        cost, tie = weigh(rows, asks, frag, work, s, r)
    return _set_key(ranks, s, r, cost, tie)


@inlined
def _climb(ranks: Ranks, rank: Ints, s: int, r: int) -> None:
    """Row ``r`` has another key: play its matches again, up to where neither the winner nor its key changes."""
    tree = ranks.tree
    i = (tree.shape[1] + r) >> 1
    mine = r & ~1
    won = _winner(ranks.key, rank, s, mine, mine + 1)
    while tree[s, i] != won or won == r:
        tree[s, i] = won
        if i == 1:
            break
        won = _winner(ranks.key, rank, s, won, tree[s, i ^ 1])
        i >>= 1


@kernel
def _refresh(rows: Rows, asks: Asks, ranks: Ranks, frag: Frag, work: Work, s: int) -> None:
    """Work every change into the shape's ranking."""
    now, seen, size = rows.clock[0], ranks.seen[s], rows.log.shape[0]
    is_new = seen < 0 or now - seen > size
    if seen < 0:
        ranks.copies[s, :] = 0
        ranks.total[s] = 0
    leaves = ranks.tree.shape[1]
    for at in range(0 if is_new else seen, leaves if is_new else now):
        r = at if is_new else rows.log[at & (size - 1)]
        if is_new or rows.last[r] == at:
            changed = _weigh_row(rows, asks, ranks, frag, work, s, r)
            if changed and not is_new:
                _climb(ranks, rows.rank, s, r)
    if is_new:
        for i in range(leaves - 1, 0, -1):
            a, b = 2 * i - leaves, 2 * i + 1 - leaves
            if a < 0:
                a, b = ranks.tree[s, 2 * i], ranks.tree[s, 2 * i + 1]
            ranks.tree[s, i] = _winner(ranks.key, rows.rank, s, a, b)
    ranks.seen[s] = now


@kernel
def _best(rows: Rows, asks: Asks, ranks: Ranks, frag: Frag, work: Work, s: int) -> int:
    """The best row of a shape; -1: none."""
    _refresh(rows, asks, ranks, frag, work, s)
    r = ranks.tree[s, 1]
    return r if ranks.copies[s, r] > 0 else -1


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
        if _set_key(ranks, s, r, NOWHERE, 0):
            _climb(ranks, rows.rank, s, r)
    r = ranks.tree[s, 1]
    found = r if ranks.key[s, r, 0] != NOWHERE else -1
    for i in range(barred.shape[0]):
        r = barred[i]
        if _set_key(ranks, s, r, saved[i, 0], saved[i, 1]):
            _climb(ranks, rows.rank, s, r)
    return found


@entry
def scan(core: Core, s: int) -> int:
    """The best row by weighing every row again, without any cache: what ``decide`` must find. -1: none."""
    return _scan(core.rows, core.asks, core.frag, core.work, s)


@kernel
def _scan(rows: Rows, asks: Asks, frag: Frag, work: Work, s: int) -> int:
    found, cost, tie = -1, NOWHERE, NOWHERE
    for r in range(rows.klass.shape[0]):
        if copies_of(rows, asks, work, s, r) > 0:
            c, t = _weigh(rows, asks, frag, work, s, r)
            if c < cost or (c == cost and (t < tie or (t == tie and rows.rank[r] < rows.rank[found]))):
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
