"""All rollouts of a node side by side, and all scarce shapes: one lane of a vector instruction each.

Same result as ``fragment`` filling one series after the other (a property test holds the two together) at an eighth of
the time: the loops over lanes have no branches, and 16 lanes of 16 bits are one register. It serves classes of at most
eight device slots on which every draw and every scarce shape may use every slot.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.placement.compiled import inlined, kernel
from scheduler.placement.mix import FEW_BITS, LANE_NEVER, PARTS, RECIPROCAL_BITS, ROLLOUTS, Mix

SLOTS = 8
CPU, MEMORY = SLOTS * ROLLOUTS, (SLOTS + 1) * ROLLOUTS
"""Where in the scratch space the lanes keep what is left; room on slot d begins at d x ROLLOUTS."""
SCRATCH = (SLOTS + 2) * ROLLOUTS
NEVER, NOTHING, ONE = np.int16(LANE_NEVER), np.int16(0), np.int16(1)
Row = NDArray[np.signedinteger[Any]]
Shorts = NDArray[np.int16]


class Lanes(NamedTuple):
    """What of the mix is about one class: few enough arrays to hand over."""

    cards: Shorts
    """``Mix.lanes``"""
    gangs: Shorts
    """``Mix.gang_lanes``"""
    is_gang: NDArray[np.bool_]
    """``Mix.gangs``"""
    caps: NDArray[np.int32]
    reciprocals: NDArray[np.int32]
    price: NDArray[np.int64]


@inlined
def lanes_of(mix: Mix, klass: int) -> Lanes:
    """The part of the mix about a class."""
    kept = mix.kept
    return Lanes(
        mix.lanes[klass],
        mix.gang_lanes[klass],
        mix.gangs[klass],
        kept.caps[klass],
        kept.reciprocals[klass],
        kept.price[klass],
    )


@inlined
def filled_in_lanes(asks: Lanes, room: Shorts, cpu: int, memory: int, free: Row) -> int:
    """Thousandths of cards that all rollouts together take; cpu and memory in levels. ``room``: SCRATCH places."""
    lanes = room.shape[0] // (SLOTS + 2)  # not a constant, or the loops over lanes are unrolled and not vectorised
    idle = 0
    for d in range(SLOTS):
        idle += free[d]
        milli = np.int16(free[d])
        for k in range(lanes):
            room[d * ROLLOUTS + k] = milli
    cpu_left, memory_left = np.int16(cpu * PARTS), np.int16(memory * PARTS)
    for k in range(lanes):
        room[CPU + k] = cpu_left
        room[MEMORY + k] = memory_left
    for draw in range(asks.cards.shape[0]):
        if asks.is_gang[draw]:
            _take_gangs(asks.gangs[draw], room, lanes)
        _take_cards(asks.cards[draw], room, lanes)
    left = 0
    for i in range(SLOTS * ROLLOUTS):
        left += room[i]
    return idle * ROLLOUTS - left


@kernel
def _take_cards(asks: Shorts, room: Shorts, lanes: int) -> None:
    """One draw of one card in each lane: from the fullest slot that has room, the first of equals."""
    for k in range(lanes):
        cpu, memory = room[CPU + k], room[MEMORY + k]
        cpu_each, memory_each, milli = asks[k], asks[ROLLOUTS + k], asks[2 * ROLLOUTS + k]
        best = NEVER
        for d in range(SLOTS):
            left = room[d * ROLLOUTS + k]
            best = left if (left >= milli) & (left < best) else best
        fits = (best < NEVER) & (cpu_each <= cpu) & (memory_each <= memory)
        room[CPU + k] = cpu - (cpu_each if fits else NOTHING)
        room[MEMORY + k] = memory - (memory_each if fits else NOTHING)
        due = milli if fits else NOTHING
        for d in range(SLOTS):
            left = room[d * ROLLOUTS + k]
            part = due if left == best else NOTHING
            room[d * ROLLOUTS + k] = left - part
            due = np.int16(due - part)


@kernel
def _take_gangs(asks: Shorts, room: Shorts, lanes: int) -> None:
    """One draw of several whole cards in each lane: the first slots that are free."""
    for k in range(lanes):
        cpu, memory = room[CPU + k], room[MEMORY + k]
        cpu_each, memory_each, milli = asks[k], asks[ROLLOUTS + k], asks[2 * ROLLOUTS + k]
        cards, free = asks[3 * ROLLOUTS + k], NOTHING
        for d in range(SLOTS):
            free = np.int16(free + (ONE if room[d * ROLLOUTS + k] >= milli else NOTHING))
        fits = (free >= cards) & (cpu_each <= cpu) & (memory_each <= memory)
        room[CPU + k] = cpu - (cpu_each if fits else NOTHING)
        room[MEMORY + k] = memory - (memory_each if fits else NOTHING)
        due = cards if fits else NOTHING
        for d in range(SLOTS):
            left = room[d * ROLLOUTS + k]
            takes = (left >= milli) & (due > NOTHING)
            room[d * ROLLOUTS + k] = left - (milli if takes else NOTHING)
            due = np.int16(due - (ONE if takes else NOTHING))


@inlined
def used_in_lanes(room: Shorts, kind: int, amount: int) -> int:
    """The most parts of an amount that a rollout took in the last ``filled_in_lanes``; ``kind``: CPU or MEMORY."""
    least = NEVER
    for k in range(ROLLOUTS):
        least = min(least, room[kind + k])
    return int(amount * PARTS - least)


@inlined
def kept_in_lanes(asks: Lanes, cpu: int, memory: int, free: Row) -> int:
    """The price of the copies of scarce shapes that still fit; cpu and memory in levels."""
    caps, cards, copies = asks.caps, asks.reciprocals[0], asks.reciprocals[1]
    price, total = asks.price, 0
    f0, f1, f2, f3 = max(free[0], 0), max(free[1], 0), max(free[2], 0), max(free[3], 0)
    f4, f5, f6, f7 = max(free[4], 0), max(free[5], 0), max(free[6], 0), max(free[7], 0)
    for s in range(price.shape[0]):
        each = cards[s]
        fits = ((f0 * each) >> RECIPROCAL_BITS) + ((f1 * each) >> RECIPROCAL_BITS)
        fits += ((f2 * each) >> RECIPROCAL_BITS) + ((f3 * each) >> RECIPROCAL_BITS)
        fits += ((f4 * each) >> RECIPROCAL_BITS) + ((f5 * each) >> RECIPROCAL_BITS)
        fits += ((f6 * each) >> RECIPROCAL_BITS) + ((f7 * each) >> RECIPROCAL_BITS)
        fits = (fits * copies[s]) >> FEW_BITS
        total += min(fits, caps[0, cpu, s], caps[1, memory, s]) * price[s]
    return total
