"""Compiled: the ranking of nodes per shape, kept up to date by change log and tournament tree, and what is taken.

A shape looks again only at rows that changed since it was last asked; the root of its tree is the best row. What it
finds is what a scan of all rows finds: the order ``(cost, tie, rank)`` is total and every row's key is current.
"""

from __future__ import annotations

from numba import njit

from scheduler.placement.fragment import potential
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
    copies_of,
    count_islands,
    weigh,
)


@njit(cache=True)
def touch(rows, frag, r):  # type: ignore[no-untyped-def]
    """Row ``r`` has changed."""
    klass = rows.klass[r]
    if klass >= 0:
        rows.value[r] = potential(frag, klass, rows.slots[r], rows.free[r, 0], rows.free[r, 1], rows.milli[r])
    now = rows.clock[0]
    rows.log[now & (rows.log.shape[0] - 1)] = r
    rows.last[r] = now
    rows.clock[0] = now + 1


@njit(cache=True)
def touch_all(rows, frag, count):  # type: ignore[no-untyped-def]
    """All of the first ``count`` rows have changed."""
    for r in range(count):
        touch(rows, frag, r)


@njit(cache=True)
def shift(rows, frag, r, cpu, memory, scratch, slots, count, milli, tenant):  # type: ignore[no-untyped-def]
    """Take amounts and ``milli`` of each of the first ``count`` slots from row ``r``; negative amounts give back."""
    rows.free[r, 0] -= cpu
    rows.free[r, 1] -= memory
    rows.free[r, 2] -= scratch
    for i in range(count):
        d = slots[i]
        rows.milli[r, d] -= milli
        if milli > 0:
            rows.holder[r, d] = tenant
        if rows.milli[r, d] >= WHOLE:
            rows.holder[r, d] = 0
    touch(rows, frag, r)


@njit(cache=True)
def _winner(key, rank, a, b):  # type: ignore[no-untyped-def]
    if key[a, 0] != key[b, 0]:
        return a if key[a, 0] < key[b, 0] else b
    if key[a, 1] != key[b, 1]:
        return a if key[a, 1] < key[b, 1] else b
    return a if rank[a] <= rank[b] else b


@njit(cache=True)
def _weigh_row(rows, asks, ranks, frag, work, s, r):  # type: ignore[no-untyped-def]
    """Bring the shape's key and copies on one row up to date. Returns whether the key changed."""
    copies = copies_of(rows, asks, work, s, r)
    cost, tie = NOWHERE, 0
    if copies > 0:
        cost, tie = weigh(rows, asks, frag, work, s, r)
    ranks.total[s] += copies - ranks.copies[s, r]
    ranks.copies[s, r] = copies
    key = ranks.key[s]
    if key[r, 0] == cost and key[r, 1] == tie:
        return False
    key[r, 0] = cost
    key[r, 1] = tie
    return True


@njit(cache=True)
def _climb(key, rank, tree, r):  # type: ignore[no-untyped-def]
    """Row ``r`` has another key: play its matches again, up to where neither the winner nor its key changes."""
    size = tree.shape[0]
    i = (size + r) >> 1
    mine = r & ~1
    won = _winner(key, rank, mine, mine + 1)
    while True:
        if tree[i] == won and won != r:
            return
        tree[i] = won
        if i == 1:
            return
        won = _winner(key, rank, won, tree[i ^ 1])
        i >>= 1


@njit(cache=True)
def _grow_tree(key, rank, tree):  # type: ignore[no-untyped-def]
    size = tree.shape[0]
    for i in range(size - 1, 0, -1):
        if 2 * i >= size:
            tree[i] = _winner(key, rank, 2 * i - size, 2 * i - size + 1)
        else:
            tree[i] = _winner(key, rank, tree[2 * i], tree[2 * i + 1])


@njit(cache=True)
def refresh(rows, asks, ranks, frag, work, s):  # type: ignore[no-untyped-def]
    """Work every change into the shape's ranking."""
    now, seen, size = rows.clock[0], ranks.seen[s], rows.log.shape[0]
    if seen == now:
        return
    key, tree = ranks.key[s], ranks.tree[s]
    if seen < 0 or now - seen > size:
        if seen < 0:
            ranks.copies[s, :] = 0
            ranks.total[s] = 0
        for r in range(tree.shape[0]):
            _weigh_row(rows, asks, ranks, frag, work, s, r)
        _grow_tree(key, rows.rank, tree)
    else:
        for at in range(seen, now):
            r = rows.log[at & (size - 1)]
            if rows.last[r] == at and _weigh_row(rows, asks, ranks, frag, work, s, r):
                _climb(key, rows.rank, tree, r)
    ranks.seen[s] = now


@njit(cache=True)
def best(ranks, s):  # type: ignore[no-untyped-def]
    """The best row of a fresh ranking; -1 when the shape fits nowhere."""
    r = ranks.tree[s, 1]
    return r if ranks.copies[s, r] > 0 else -1


@njit(cache=True)
def scan(rows, asks, frag, work, s):  # type: ignore[no-untyped-def]
    """The best row by weighing every row again, without any cache: what ``best`` must equal."""
    found, cost, tie = -1, NOWHERE, NOWHERE
    for r in range(rows.klass.shape[0]):
        if copies_of(rows, asks, work, s, r) == 0:
            continue
        c, t = weigh(rows, asks, frag, work, s, r)
        if c < cost or (c == cost and (t < tie or (t == tie and rows.rank[r] < rows.rank[found]))):
            found, cost, tie = r, c, t
    return found


@njit(cache=True)
def take(rows, asks, frag, work, s, r, tenant):  # type: ignore[no-untyped-def]
    """Take one copy of the shape from a row it fits on; its slots are the first ``PICKED`` of ``work.pick``."""
    weigh(rows, asks, frag, work, s, r)
    ask = asks.ask[s]
    milli = ask[MILLI] if ask[MILLI] > 0 else WHOLE
    holder = tenant if ask[TENANT] == 0 else ask[TENANT]
    shift(rows, frag, r, ask[0], ask[1], ask[2], work.pick, work.state[PICKED], milli, holder)


@njit(cache=True)
def place(rows, asks, ranks, frag, work, s, tenant, catch_up):  # type: ignore[no-untyped-def]
    """Take one copy from the best row, which is returned (-1: none). ``catch_up``: let one other shape catch up.

    Catching up in turn bounds the changes any shape has to work in, and so how long one decision can take.
    """
    refresh(rows, asks, ranks, frag, work, s)
    r = best(ranks, s)
    if catch_up:
        turn = work.state[TURN]
        refresh(rows, asks, ranks, frag, work, turn)
        work.state[TURN] = turn + 1 if turn + 1 < work.state[LIVE] else 0
    if r >= 0:
        take(rows, asks, frag, work, s, r, tenant)
    return r


@njit(cache=True)
def place_many(rows, asks, ranks, frag, work, s, tenant, nodes, slots):  # type: ignore[no-untyped-def]
    """Place one copy after the other, as many as ``nodes`` is long; how many found a place.

    Rows go to ``nodes``, the slots of copy ``i`` to ``slots[i]``.
    """
    for i in range(nodes.shape[0]):
        refresh(rows, asks, ranks, frag, work, s)
        r = best(ranks, s)
        if r < 0:
            return i
        take(rows, asks, frag, work, s, r, tenant)
        nodes[i] = r
        for j in range(work.state[PICKED]):
            slots[i, j] = work.pick[j]
    return nodes.shape[0]


@njit(cache=True)
def nearest(rows, asks, work, s, best_row, best_have, counts):  # type: ignore[no-untyped-def]
    """Why rows that the shape would fit on if they were empty take no copy now, by the first condition they fail.

    Conditions, in the order of ``fit.refusal``: cards, island, cpu, memory, scratch. Per condition: the row that has
    most (then by rank of its name), what it has, and how many rows fail there. ``counts`` begin at 0.
    """
    for r in range(rows.klass.shape[0]):
        klass = rows.klass[r]
        if klass < 0 or not asks.empty[s, klass] or copies_of(rows, asks, work, s, r) > 0:
            continue
        stage, have = _lack(rows, asks, work, s, r)
        row = best_row[stage]
        if counts[stage] == 0 or have > best_have[stage] or (have == best_have[stage] and rows.rank[r] < rows.rank[row]):
            best_row[stage], best_have[stage] = r, have
        counts[stage] += 1


@njit(cache=True)
def _lack(rows, asks, work, s, r):  # type: ignore[no-untyped-def]
    """The first condition a row fails, and what it has of it."""
    ask, slots = asks.ask[s], rows.slots[r]
    group = asks.group[s, rows.klass[r]]
    if ask[MILLI] > 0:
        most = 0
        for d in range(slots):
            if group[d] > 0 and (rows.holder[r, d] == 0 or rows.holder[r, d] == ask[TENANT]):
                most = max(most, rows.milli[r, d])
        if most < ask[MILLI]:
            return 0, most
    elif ask[CARDS] > 0:
        free = count_islands(rows, group, work.count, r, slots)
        if free < ask[CARDS]:
            return 0, free
        most = 0
        for island in range(1, slots + 1):
            most = max(most, work.count[island])
        if ask[SAME_ISLAND] > 0 and most < ask[CARDS]:
            return 1, most
    for i in range(3):
        if ask[i] > 0 and rows.free[r, i] < ask[i]:
            return 2 + i, rows.free[r, i]
    return 2, rows.free[r, 0]
