"""Compiled: which row is best for a shape, and what is taken.

A shape knows its key on every state that rows were ever in (``states``). The least key of a state with rows names the
states, and their heaps the row. What is found is what a scan of all rows finds: the order by key, then by what is left,
content and name is total, and a key says nothing about cpu, memory and scratch, which are looked at row by row.
"""

from __future__ import annotations

from scheduler.placement.compiled import called, inlined, kernel
from scheduler.placement.core import Core, core_at, layout_read
from scheduler.placement.kernels import (
    COST_BITS,
    CPU,
    EMPTY,
    LIVE,
    MEMORY,
    MILLI,
    NOWHERE,
    PICKED,
    TENANT,
    TIE_MOST,
    TURN,
    UNKNOWN,
    WHOLE,
    Ints,
    Longs,
    copies_of,
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
MASK_SLOTS = 8
"""Device slots of a place that ``place`` puts into its result."""
NO_PLACE, IN_WORK = -1, -2


@inlined
def _touch(core: Core, r: int) -> None:
    """Row ``r`` has changed."""
    rows = core.rows
    enter_state(rows, core.states, core.frag, r)
    now = rows.clock[0]
    rows.log[now & (rows.log.shape[0] - 1)] = r
    rows.last[r] = now
    rows.clock[0] = now + 1


@inlined
def _shift(core: Core, r: int, cpu: int, memory: int, scratch: int, count: int, milli: int, tenant: int) -> None:
    rows, pick = core.rows, core.work.pick
    rows.free[r, 0] -= cpu
    rows.free[r, 1] -= memory
    rows.free[r, 2] -= scratch
    for i in range(count):
        d = pick[i]
        rows.milli[r, d] -= milli
        if milli > 0:
            rows.holder[r, d] = tenant
        if rows.milli[r, d] >= WHOLE:
            rows.holder[r, d] = 0
    _touch(core, r)


@called
def layout() -> int:
    """What these kernels were compiled for: for ``core.address_of``."""
    return layout_read()


@called
def shift(address: int, r: int, cpu: int, memory: int, scratch: int, count: int, milli: int, tenant: int) -> None:
    """Take amounts from row ``r``, and ``milli`` of each of the first ``count`` slots of ``work.pick``.

    Negative amounts give back; none at all only say that the row has changed.
    """
    _shift(core_at(address), r, cpu, memory, scratch, count, milli, tenant)


@called
def leave(address: int, r: int) -> None:
    """Row ``r`` is about to have another name or node: take it out of its state until it is shifted."""
    core = core_at(address)
    leave_state(core.rows, core.states, r)


@kernel
def _weigh(core: Core, s: int, r: int) -> int:
    """``weigh`` of a row."""
    return weigh(core.rows, core.asks, core.frag, core.work, s, r)


@inlined
def _hear(core: Core, s: int) -> None:
    """The shape hears of every state that is new to it."""
    states, ranks = core.states, core.ranks
    now, seen, size = states.clock[BIRTHS], ranks.seen[s], states.log.shape[0]
    is_new = seen < 0 or now - seen > size
    for at in range(0 if is_new else seen, states.clock[USED] if is_new else now):
        q = at if is_new else states.log[at & (size - 1)]
        if is_new or states.born[q] == at:
            ranks.key[s, q] = UNKNOWN
    ranks.seen[s] = now


@inlined
def _least(key: Longs, empty: Longs, least: Longs) -> int:
    """The least key of states that have rows, and by block in ``least``."""
    all_least = NOWHERE
    for b in range(key.shape[0] // BLOCK):
        least[b] = mine = _least_of(key, empty, b)
        all_least = min(all_least, mine)
    return all_least


@inlined
def _least_of(key: Longs, empty: Longs, b: int) -> int:
    """The least key of a block."""
    least, key, empty = NOWHERE, key[b * BLOCK :], empty[b * BLOCK :]
    for i in range(BLOCK):
        least = min(least, key[i] + empty[i])
    return least


@inlined
def _least_above(key: Longs, empty: Longs, b: int, bound: int) -> int:
    """The least key of a block that is more than ``bound``."""
    least, key, empty = NOWHERE, key[b * BLOCK :], empty[b * BLOCK :]
    for i in range(BLOCK):
        mine = key[i] + empty[i]
        least = min(least, mine if mine > bound else NOWHERE)
    return least


@kernel
def _learn(core: Core, s: int) -> int:
    """Weigh the shape on every state that has rows and was not weighed yet. Returns ``_least``."""
    _hear(core, s)
    states, work, used = core.states, core.work, _used(core)
    key, empty, by_block = core.ranks.key[s, :used], states.empty[:used], work.least
    least = _least(key, empty, by_block)
    if least != UNKNOWN:
        return least
    least = NOWHERE
    for b in range(used // BLOCK):
        if by_block[b] == UNKNOWN:
            count, unknown = 0, work.unknown
            for q in range(b * BLOCK, b * BLOCK + BLOCK):
                unknown[count] = q
                count += key[q] + empty[q] == UNKNOWN
            for i in range(count):
                q = unknown[i]
                key[q] = weigh(states, core.asks, core.frag, work, s, q)
            by_block[b] = _least_of(key, empty, b)
        least = min(least, by_block[b])
    return least


@inlined
def _used(core: Core) -> int:
    """States in use, in whole blocks."""
    return -(-core.states.clock[USED] // BLOCK) * BLOCK


@inlined
def _first(core: Core, s: int, q: int) -> int:
    """The first row of a state on which the shape fits; -1: none."""
    asks, states = core.asks, core.states
    if asks.ask[s, CPU] > states.most[q, CPU] or asks.ask[s, MEMORY] > states.most[q, MEMORY]:
        return -1
    r = states.top[q]
    return r if fits(core.rows, asks, s, r) else _look(core, s, q)


@kernel
def _look(core: Core, s: int, q: int) -> int:
    """Likewise by looking through its heap. If there is none, it is known what its rows have at most."""
    rows, asks, states, stack = core.rows, core.asks, core.states, core.work.stack
    links, order, rank, free, most = rows.links, rows.order, rows.rank, rows.free, states.most
    depth, found, cpu, memory = 1, -1, 0, 0
    stack[0] = states.top[q]
    while depth > 0:
        depth -= 1
        r = stack[depth]
        if found >= 0 and not comes_before(order, rank, r, found):
            continue
        if fits(rows, asks, s, r):
            found = r
            continue
        cpu, memory = max(cpu, free[r, CPU]), max(memory, free[r, MEMORY])
        for side in range(2):
            if links[r, side] >= 0:
                stack[depth] = links[r, side]
                depth += 1
    if found < 0:
        most[q, CPU], most[q, MEMORY] = cpu, memory
    return found


@kernel
def _best(core: Core, s: int) -> int:
    """The best row of a shape; -1: none."""
    least = _learn(core, s)
    rows, states, used = core.rows, core.states, _used(core)
    key, empty, by_block = core.ranks.key[s, :used], states.empty[:used], core.work.least
    while least < EMPTY // 2:
        found, after = -1, NOWHERE
        for b in range(used // BLOCK):
            if by_block[b] != least:
                continue
            for q in range(b * BLOCK, b * BLOCK + BLOCK):
                if key[q] + empty[q] == least:
                    r = _first(core, s, q)
                    if r >= 0 and (found < 0 or comes_before(rows.order, rows.rank, r, found)):
                        found = r
        if found >= 0:
            return found
        for b in range(used // BLOCK):
            if by_block[b] == least:
                by_block[b] = _least_above(key, empty, b, least)
            after = min(after, by_block[b])
        least = after
    return -1


@called
def room(address: int, s: int, key: Longs) -> None:
    """Cost and tie of the shape by row, into ``key``."""
    core = core_at(address)
    _learn(core, s)
    rows, asks, keys = core.rows, core.asks, core.ranks.key[s]
    for r in range(key.shape[0]):
        key[r, 0], key[r, 1] = NOWHERE, 0
        mine = keys[rows.state[r]] if rows.state[r] >= 0 and fits(rows, asks, s, r) else NOWHERE
        if mine != NOWHERE:
            key[r, 0], key[r, 1] = mine >> COST_BITS, ((mine & TIE_MOST) << 48) + rows.order[r]


@called
def count(address: int, s: int) -> None:
    """Work every change into the shape's copies. Placing does not need them."""
    core = core_at(address)
    rows, ranks = core.rows, core.ranks
    now, seen, size = rows.clock[0], ranks.counted[s], rows.log.shape[0]
    is_new = seen < 0 or now - seen > size
    if is_new:
        ranks.copies[s, :] = 0
        ranks.total[s] = 0
    for at in range(0 if is_new else seen, rows.klass.shape[0] if is_new else now):
        r = at if is_new else rows.log[at & (size - 1)]
        if is_new or rows.last[r] == at:
            copies = copies_of(rows, core.asks, core.work, s, r)
            ranks.total[s] += copies - ranks.copies[s, r]
            ranks.copies[s, r] = copies
    ranks.counted[s] = now


@called
def place(address: int, s: int, tenant: int, row: int, lag: int) -> int:
    """``decide`` for one copy, with the place in the result: 256 times the row, and the mask of slots.

    NO_PLACE if there is none; IN_WORK if the slots are not a mask of eight, in order: look into ``work``.
    """
    core = core_at(address)
    if _decide(core, s, tenant, row, 1, lag) == 0:
        return NO_PLACE
    work, mask, after = core.work, 0, 0
    for i in range(work.state[PICKED]):
        slot = work.pick[i]
        if slot < after or slot >= MASK_SLOTS:
            return IN_WORK
        mask |= 1 << slot
        after = slot + 1
    return (work.nodes[0] << MASK_SLOTS) + mask


@called
def decide(address: int, s: int, tenant: int, row: int, count: int, lag: int) -> int:
    """Take ``count`` copies, each from the row that is best then (or from ``row`` if it is not negative).

    Rows go to ``work.nodes``, the slots of copy ``i`` to ``work.slots[i]``. Returns how many found a place; for a
    ``count`` of 0, the best row (-1: none). ``lag``: with each copy, one other shape learns the states that are new to
    it if those are more than so many (0: never); this bounds how long one decision can take.
    """
    return _decide(core_at(address), s, tenant, row, count, lag)


@kernel
def _decide(core: Core, s: int, tenant: int, row: int, count: int, lag: int) -> int:
    work, ask = core.work, core.asks.ask[s]
    for i in range(max(count, 1)):
        r = row if row >= 0 else _best(core, s)
        if count == 0:
            return r
        if lag > 0 and row < 0:
            _catch_up(core, lag)
        if r < 0:
            return i
        _weigh(core, s, r)
        picked, part = work.state[PICKED], ask[MILLI]
        work.nodes[i] = r
        for j in range(picked):
            work.slots[i, j] = work.pick[j]
        milli, holder = (part, ask[TENANT]) if part > 0 else (WHOLE, tenant)
        _shift(core, r, ask[0], ask[1], ask[2], picked, milli, holder)
    return count


@inlined
def _catch_up(core: Core, lag: int) -> None:
    """Let the next shape in turn learn, if more than ``lag`` states are new to it."""
    state = core.work.state
    turn = state[TURN]
    if core.states.clock[BIRTHS] - core.ranks.seen[turn] > lag:
        _learn(core, turn)
    state[TURN] = turn + 1 if turn + 1 < state[LIVE] else 0


@called
def best_but(address: int, s: int, barred: Ints, saved: Ints) -> int:
    """The best row that is none of ``barred`` (each once); -1: none. ``saved``: scratch, a place per barred row."""
    core = core_at(address)
    rows, states = core.rows, core.states
    for i in range(barred.shape[0]):
        saved[i] = rows.state[barred[i]]
        leave_state(rows, states, barred[i])
    found = _best(core, s)
    for i in range(barred.shape[0]):
        if saved[i] >= 0:
            rows.state[barred[i]] = saved[i]
            join_state(rows, states, barred[i])
    return found


@called
def scan(address: int, s: int) -> int:
    """The best row by weighing every row again, without states or keys: what ``decide`` must find. -1: none."""
    core = core_at(address)
    rows, asks = core.rows, core.asks
    found, least = -1, NOWHERE
    for r in range(rows.klass.shape[0]):
        if rows.klass[r] >= 0 and fits(rows, asks, s, r):
            key = _weigh(core, s, r)
            if key < least or (key == least and key != NOWHERE and comes_before(rows.order, rows.rank, r, found)):
                found, least = r, key
    return found
