"""Compiled: which row is best for a shape, and what is taken.

A shape knows its key on every state that rows were ever in (``states``). The least key of a state with rows names the
states, and their heaps the row. What is found is what a scan of all rows finds: the order by key, then by what is left,
content and name is total, and a key says nothing about cpu, memory and scratch, which are looked at row by row.
"""

from __future__ import annotations

from scheduler.placement.compiled import entry, inlined, kernel
from scheduler.placement.kernels import (
    CARDS,
    COST_BITS,
    EMPTY,
    LIVE,
    MILLI,
    NOWHERE,
    PICKED,
    SAME_ISLAND,
    TENANT,
    TIE_MOST,
    TURN,
    UNKNOWN,
    WHOLE,
    Asks,
    Core,
    Frag,
    Ints,
    Longs,
    Ranks,
    Rows,
    States,
    Work,
    copies_of,
    count_islands,
    fits,
    weigh,
)
from scheduler.placement.states import (
    BIRTHS,
    USED,
    comes_before,
    enter_state,
    join_state,
    leave_state,
)

BLOCK = 64
"""States whose least key is looked for together."""


@inlined
def _touch(rows: Rows, states: States, frag: Frag, r: int) -> None:
    """Row ``r`` has changed."""
    enter_state(rows, states, frag, r)
    now = rows.clock[0]
    rows.log[now & (rows.log.shape[0] - 1)] = r
    rows.last[r] = now
    rows.clock[0] = now + 1


@inlined
def _shift(
    rows: Rows,
    states: States,
    frag: Frag,
    work: Work,
    r: int,
    cpu: int,
    memory: int,
    scratch: int,
    count: int,
    milli: int,
    tenant: int,
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
    _touch(rows, states, frag, r)


@entry
def shift(core: Core, r: int, cpu: int, memory: int, scratch: int, count: int, milli: int, tenant: int) -> None:
    """Take amounts from row ``r``, and ``milli`` of each of the first ``count`` slots of ``work.pick``.

    Negative amounts give back; none at all only say that the row has changed.
    """
    _shift(core.rows, core.states, core.frag, core.work, r, cpu, memory, scratch, count, milli, tenant)


@entry
def leave(core: Core, r: int) -> None:
    """Row ``r`` is about to have another name or node: take it out of its state until it is shifted."""
    leave_state(core.rows, core.states, r)


@kernel
def _weigh(rows: Rows, asks: Asks, frag: Frag, work: Work, s: int, r: int) -> int:
    """``weigh`` of a row."""
    return weigh(rows, asks, frag, work, s, r)


@inlined
def _hear(states: States, ranks: Ranks, s: int) -> None:
    """The shape hears of every state that is new to it."""
    now, seen, size = states.clock[BIRTHS], ranks.seen[s], states.log.shape[0]
    is_new = seen < 0 or now - seen > size
    for at in range(0 if is_new else seen, states.clock[USED] if is_new else now):
        q = at if is_new else states.log[at & (size - 1)]
        if is_new or states.born[q] == at:
            ranks.key[s, q] = UNKNOWN
    ranks.seen[s] = now


@inlined
def _least(states: States, work: Work, key: Longs) -> int:
    """The least key of states that have rows, and by block in ``work.least``."""
    used, empty, least = states.clock[USED], states.empty, NOWHERE
    for b in range((used + BLOCK - 1) // BLOCK):
        mine = NOWHERE
        for q in range(b * BLOCK, min(b * BLOCK + BLOCK, used)):
            mine = min(mine, key[q] + empty[q])
        work.least[b] = mine
        least = min(least, mine)
    return least


@kernel
def _learn(states: States, asks: Asks, ranks: Ranks, frag: Frag, work: Work, s: int) -> int:
    """Weigh the shape on every state that has rows and was not weighed yet. Returns ``_least``."""
    _hear(states, ranks, s)
    key, used = ranks.key[s], states.clock[USED]
    least = _least(states, work, key)
    if least != UNKNOWN:
        return least
    least = NOWHERE
    for b in range((used + BLOCK - 1) // BLOCK):
        if work.least[b] == UNKNOWN:
            mine = NOWHERE
            for q in range(b * BLOCK, min(b * BLOCK + BLOCK, used)):
                if key[q] + states.empty[q] == UNKNOWN:
                    key[q] = weigh(states, asks, frag, work, s, q)
                mine = min(mine, key[q] + states.empty[q])
            work.least[b] = mine
        least = min(least, work.least[b])
    return least


@kernel
def _first(rows: Rows, asks: Asks, work: Work, s: int, root: int) -> int:
    """The first row of a heap on which the shape fits; -1: none."""
    stack, links, depth, found = work.stack, rows.links, 1, -1
    stack[0] = root
    while depth > 0:
        depth -= 1
        r = stack[depth]
        if found >= 0 and not comes_before(rows, r, found):
            continue
        if fits(rows, asks, s, r):
            found = r
            continue
        for side in range(2):
            if links[r, side] >= 0:
                stack[depth] = links[r, side]
                depth += 1
    return found


@inlined
def _best(rows: Rows, states: States, asks: Asks, ranks: Ranks, frag: Frag, work: Work, s: int) -> int:
    """The best row of a shape; -1: none."""
    key, least = ranks.key[s], _learn(states, asks, ranks, frag, work, s)
    while least < EMPTY // 2:
        found, after = -1, NOWHERE
        for b in range((states.clock[USED] + BLOCK - 1) // BLOCK):
            if work.least[b] > least:
                after = min(after, work.least[b])
                continue
            work.least[b] = NOWHERE
            for q in range(b * BLOCK, min(b * BLOCK + BLOCK, states.clock[USED])):
                mine = key[q] + states.empty[q]
                if mine > least:
                    work.least[b] = min(work.least[b], mine)
                elif mine == least:
                    r = states.top[q]
                    if not fits(rows, asks, s, r):
                        r = _first(rows, asks, work, s, r)
                    if r >= 0 and (found < 0 or comes_before(rows, r, found)):
                        found = r
            after = min(after, work.least[b])
        if found >= 0:
            return found
        least = after
    return -1


@entry
def room(core: Core, s: int, key: Longs) -> None:
    """Cost and tie of the shape by row, into ``key``."""
    _learn(core.states, core.asks, core.ranks, core.frag, core.work, s)
    _room(core.rows, core.asks, core.ranks, s, key)


@kernel
def _room(rows: Rows, asks: Asks, ranks: Ranks, s: int, key: Longs) -> None:
    for r in range(key.shape[0]):
        key[r, 0], key[r, 1] = NOWHERE, 0
        mine = ranks.key[s, rows.state[r]] if rows.state[r] >= 0 and fits(rows, asks, s, r) else NOWHERE
        if mine != NOWHERE:
            key[r, 0], key[r, 1] = mine >> COST_BITS, ((mine & TIE_MOST) << 48) + rows.order[r]


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
    ``count`` of 0, the best row (-1: none). ``lag``: with each copy, one other shape learns the states that are new to
    it if those are more than so many (0: never); this bounds how long one decision can take.
    """
    return _decide(core.rows, core.states, core.asks, core.ranks, core.frag, core.work, s, tenant, row, count, lag)


@kernel
def _decide(
    rows: Rows,
    states: States,
    asks: Asks,
    ranks: Ranks,
    frag: Frag,
    work: Work,
    s: int,
    tenant: int,
    row: int,
    count: int,
    lag: int,
) -> int:
    for i in range(max(count, 1)):
        r = row if row >= 0 else _best(rows, states, asks, ranks, frag, work, s)
        if count == 0:
            return r
        if lag > 0 and row < 0:
            _catch_up(states, asks, ranks, frag, work, lag)
        if r < 0:
            return i
        _weigh(rows, asks, frag, work, s, r)
        picked, part, ask = work.state[PICKED], asks.ask[s, MILLI], asks.ask
        work.nodes[i] = r
        for j in range(picked):
            work.slots[i, j] = work.pick[j]
        milli, holder = (part, ask[s, TENANT]) if part > 0 else (WHOLE, tenant)
        _shift(rows, states, frag, work, r, ask[s, 0], ask[s, 1], ask[s, 2], picked, milli, holder)
    return count


@inlined
def _catch_up(states: States, asks: Asks, ranks: Ranks, frag: Frag, work: Work, lag: int) -> None:
    """Let the next shape in turn learn, if more than ``lag`` states are new to it."""
    turn = work.state[TURN]
    if states.clock[BIRTHS] - ranks.seen[turn] > lag:
        _learn(states, asks, ranks, frag, work, turn)
    work.state[TURN] = turn + 1 if turn + 1 < work.state[LIVE] else 0


@entry
def best_but(core: Core, s: int, barred: Ints, saved: Ints) -> int:
    """The best row that is none of ``barred`` (each once); -1: none. ``saved``: scratch, a place per barred row."""
    rows, states = core.rows, core.states
    for i in range(barred.shape[0]):
        saved[i] = rows.state[barred[i]]
        leave_state(rows, states, barred[i])
    found = _best(rows, states, core.asks, core.ranks, core.frag, core.work, s)
    for i in range(barred.shape[0]):
        if saved[i] >= 0:
            rows.state[barred[i]] = saved[i]
            join_state(rows, states, barred[i])
    return found


@entry
def scan(core: Core, s: int) -> int:
    """The best row by weighing every row again, without states or keys: what ``decide`` must find. -1: none."""
    return _scan(core.rows, core.asks, core.frag, core.work, s)


@kernel
def _scan(rows: Rows, asks: Asks, frag: Frag, work: Work, s: int) -> int:
    found, least = -1, NOWHERE
    for r in range(rows.klass.shape[0]):
        if rows.klass[r] >= 0 and fits(rows, asks, s, r):
            key = _weigh(rows, asks, frag, work, s, r)
            if key < least or (key == least and key != NOWHERE and comes_before(rows, r, found)):
                found, least = r, key
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
