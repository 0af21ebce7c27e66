"""Compiled: rows that are in the same state together, each state with a heap of its rows.

A shape costs the same on all rows in a state, so it is weighed once per state, whatever the number of nodes and of
changes: farms come back to the same states again and again. A row's state is its class, its free levels of cpu and
memory and what is free of its cards and who holds the rest, but for the order of slots that are alike.
"""

from __future__ import annotations

import numpy as np

from scheduler.placement.compiled import inlined, kernel
from scheduler.placement.fragment import card_mark, cards_mark, content, known_value, level, mixed
from scheduler.placement.kernels import (
    CPU,
    EMPTY,
    LEFT,
    LEFT_MOST,
    MEMORY,
    MIB_PER_CPU_MILLI,
    Frag,
    Ints,
    Longs,
    Rows,
    States,
)

FIRST, SECOND, PARENT = range(3)
"""Columns of ``Rows.links``."""
BIRTHS, USED, HAND, HELD = range(4)
"""Places in ``States.clock``."""
SPARE = 256
"""A state without rows is kept, as it may come back, until there are as many of them as of others and so many more."""


@inlined
def comes_before(order: Longs, rank: Ints, a: int, b: int) -> bool:
    """Whether row ``a`` goes before row ``b`` of the same state."""
    return bool(order[a] < order[b] or (order[a] == order[b] and rank[a] < rank[b]))


@kernel
def _merged(links: Ints, order: Longs, rank: Ints, a: int, b: int) -> int:
    """The root of two heaps made one (skew heaps: Sleator and Tarjan, 1986). The caller sets the root's parent."""
    if a < 0 or b < 0:
        return max(a, b)
    if comes_before(order, rank, b, a):
        a, b = b, a
    root = a
    while True:
        rest = links[a, SECOND]
        links[a, SECOND] = links[a, FIRST]
        if rest >= 0 and comes_before(order, rank, rest, b):
            rest, b = b, rest
        links[a, FIRST] = b
        links[b, PARENT] = a
        if rest < 0:
            return root
        a, b = b, rest


@inlined
def leave_state(rows: Rows, states: States, r: int) -> None:
    """Take a row out of its state."""
    links = rows.links
    if rows.state[r] < 0:
        return
    parent, heir = links[r, PARENT], _merged(links, rows.order, rows.rank, links[r, FIRST], links[r, SECOND])
    if heir >= 0:
        links[heir, PARENT] = parent
    if parent < 0:
        states.top[rows.state[r]] = heir
        if heir < 0:
            states.empty[rows.state[r]] = EMPTY
            states.clock[HELD] -= 1
    elif links[parent, FIRST] == r:
        links[parent, FIRST] = heir
    else:
        links[parent, SECOND] = heir
    links[r, :] = -1
    rows.state[r] = -1


@inlined
def join_state(rows: Rows, states: States, r: int) -> None:
    """Put a row back into the state that it left, or into another."""
    q, most, free = rows.state[r], states.most, rows.free
    if states.top[q] < 0:
        states.empty[q], most[q, CPU], most[q, MEMORY] = 0, 0, 0
        states.clock[HELD] += 1
    most[q, CPU], most[q, MEMORY] = max(most[q, CPU], free[r, CPU]), max(most[q, MEMORY], free[r, MEMORY])
    states.top[q] = root = _merged(rows.links, rows.order, rows.rank, states.top[q], r)
    rows.links[root, PARENT] = -1


@inlined
def enter_state(rows: Rows, states: States, frag: Frag, r: int) -> None:
    """Work out the state of a row that has changed and put it there."""
    leave_state(rows, states, r)
    mix, klass, cpu, memory = frag.mix, rows.klass[r], rows.free[r, CPU], rows.free[r, MEMORY]
    if klass < 0:
        return
    cards = cards_mark(mix, klass, rows.milli[r])
    rows.cards[r] = cards
    mark = np.int64(content(mix, klass, cpu, memory, cards) >> np.uint64(44))
    rows.order[r] = min(cpu * MIB_PER_CPU_MILLI + memory, LEFT_MOST) * LEFT + mark
    rows.level[r, CPU], rows.level[r, MEMORY] = level(mix, klass, CPU, cpu), level(mix, klass, MEMORY, memory)
    q = _state_of(rows, states, frag, r, _mark_of(rows, frag, r))
    rows.state[r], rows.value[r] = q, states.value[q]
    join_state(rows, states, r)


@inlined
def _mark_of(rows: Rows, frag: Frag, r: int) -> np.uint64:
    """A hash of the row's state."""
    klass, cards = rows.klass[r], np.uint64(0)
    for d in range(rows.slots[r]):
        milli = rows.milli[r, d]
        holder = rows.holder[r, d] if milli > 0 else 0
        cards += card_mark((holder << 20) + frag.alike[klass, d], milli)
    levels = (np.uint64(klass) << np.uint64(32)) + np.uint64((rows.level[r, CPU] << 16) + rows.level[r, MEMORY])
    return mixed(mixed(levels) ^ cards)


@inlined
def _state_of(rows: Rows, states: States, frag: Frag, r: int, mark: np.uint64) -> int:
    """The number of a state; a new one, or one that has no rows and becomes another, if it has none."""
    buckets = states.buckets
    bucket = np.int64(mark >> np.uint64(32)) & (buckets.shape[0] - 1)
    q = buckets[bucket]
    while q >= 0:
        if states.mark[q] == mark:
            return int(q)
        q = states.chain[q]
    q = _vacant(states)
    states.mark[q], states.chain[q], buckets[bucket], states.top[q] = mark, buckets[bucket], q, -1
    klass = rows.klass[r]
    states.klass[q], states.slots[q], states.cards[q] = klass, rows.slots[r], rows.cards[r]
    for d in range(rows.milli.shape[1]):
        states.milli[q, d], states.holder[q, d] = rows.milli[r, d], rows.holder[r, d]
    cpu, memory = rows.level[r, CPU], rows.level[r, MEMORY]
    states.level[q, CPU], states.level[q, MEMORY] = cpu, memory
    states.value[q] = 0
    if frag.mix.amounts.shape[0] > 0:
        states.value[q] = known_value(frag.mix, frag.memo, klass, cpu, memory, rows.milli[r], rows.cards[r])
    birth = states.clock[BIRTHS]
    states.born[q], states.log[birth & (states.log.shape[0] - 1)] = birth, q
    states.clock[BIRTHS] = birth + 1
    return q


@inlined
def _vacant(states: States) -> int:
    """A number that no row is in: an unused one, or the next of those kept. There are more numbers than rows."""
    clock = states.clock
    if clock[USED] < min(2 * clock[HELD] + SPARE, states.top.shape[0]):
        clock[USED] += 1
        return int(clock[USED] - 1)
    q = clock[HAND]
    while states.top[q] >= 0:
        q = q + 1 if q + 1 < clock[USED] else 0
    clock[HAND] = q + 1 if q + 1 < clock[USED] else 0
    bucket = np.int64(states.mark[q] >> np.uint64(32)) & (states.buckets.shape[0] - 1)
    at = states.buckets[bucket]
    if at == q:
        states.buckets[bucket] = states.chain[q]
    else:
        while states.chain[at] != q:
            at = states.chain[at]
        states.chain[at] = states.chain[q]
    return int(q)
