"""All rollouts of a node side by side, one lane of a vector instruction each.

Same result as ``fragment`` filling one series after the other (a property test holds the two together) at a quarter of
the time: the loop over lanes has no branches. It serves classes of at most eight device slots on which every draw may
use every slot; draws of several cards are taken lane by lane.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.placement.compiled import kernel
from scheduler.placement.mix import LANE_NEVER, ROLLOUTS, Mix

SLOTS = 8
CPU, MEMORY = SLOTS * ROLLOUTS, (SLOTS + 1) * ROLLOUTS
"""Where in the scratch space the lanes keep what is left; room on slot d begins at d x ROLLOUTS."""
SCRATCH = (SLOTS + 2) * ROLLOUTS
NEVER, NOTHING = np.int32(LANE_NEVER), np.int32(0)
Row = NDArray[np.signedinteger[Any]]


@kernel
def filled_in_lanes(mix: Mix, room: NDArray[np.int32], klass: int, cpu: int, memory: int, free: Row) -> int:
    """Thousandths of cards that all rollouts together take. ``room``: SCRATCH places."""
    lanes = room.shape[0] // (SLOTS + 2)  # not a constant, or the loops over lanes are unrolled and not vectorised
    idle = 0
    for d in range(SLOTS):
        idle += free[d]
        milli = np.int32(free[d])
        for k in range(lanes):
            room[d * ROLLOUTS + k] = milli
    cpu_left, memory_left = np.int32(min(cpu, 2**31 - 1)), np.int32(min(memory, 2**31 - 1))
    for k in range(lanes):
        room[CPU + k] = cpu_left
        room[MEMORY + k] = memory_left
    for draw in range(mix.lanes.shape[1]):
        if mix.gangs[klass, draw]:
            _take_gangs(mix, room, klass, draw)
        _take_cards(mix.lanes[klass, draw], room, lanes)
    left = 0
    for i in range(SLOTS * ROLLOUTS):
        left += room[i]
    return idle * ROLLOUTS - left


@kernel
def _take_cards(asks: NDArray[np.int32], room: NDArray[np.int32], lanes: int) -> None:
    """One draw of one card in each lane: from the fullest slot that has room, the first of equals."""
    for k in range(lanes):
        cpu, memory = room[CPU + k], room[MEMORY + k]
        cpu_each, memory_each = asks[k], asks[ROLLOUTS + k]
        milli = asks[2 * ROLLOUTS + k] if (cpu_each <= cpu) & (memory_each <= memory) else NEVER
        r0, r1, r2, r3 = room[k], room[ROLLOUTS + k], room[2 * ROLLOUTS + k], room[3 * ROLLOUTS + k]
        r4, r5, r6, r7 = room[4 * ROLLOUTS + k], room[5 * ROLLOUTS + k], room[6 * ROLLOUTS + k], room[7 * ROLLOUTS + k]
        best = r0 if r0 >= milli else NEVER
        best = r1 if (r1 >= milli) & (r1 < best) else best
        best = r2 if (r2 >= milli) & (r2 < best) else best
        best = r3 if (r3 >= milli) & (r3 < best) else best
        best = r4 if (r4 >= milli) & (r4 < best) else best
        best = r5 if (r5 >= milli) & (r5 < best) else best
        best = r6 if (r6 >= milli) & (r6 < best) else best
        best = r7 if (r7 >= milli) & (r7 < best) else best
        fits = best < NEVER
        room[CPU + k] = cpu - (cpu_each if fits else NOTHING)
        room[MEMORY + k] = memory - (memory_each if fits else NOTHING)
        due = milli if fits else NOTHING
        part = due if r0 == best else NOTHING
        room[k], due = r0 - part, due - part
        part = due if r1 == best else NOTHING
        room[ROLLOUTS + k], due = r1 - part, due - part
        part = due if r2 == best else NOTHING
        room[2 * ROLLOUTS + k], due = r2 - part, due - part
        part = due if r3 == best else NOTHING
        room[3 * ROLLOUTS + k], due = r3 - part, due - part
        part = due if r4 == best else NOTHING
        room[4 * ROLLOUTS + k], due = r4 - part, due - part
        part = due if r5 == best else NOTHING
        room[5 * ROLLOUTS + k], due = r5 - part, due - part
        part = due if r6 == best else NOTHING
        room[6 * ROLLOUTS + k], due = r6 - part, due - part
        room[7 * ROLLOUTS + k] = r7 - (due if r7 == best else NOTHING)


@kernel
def _take_gangs(mix: Mix, room: NDArray[np.int32], klass: int, draw: int) -> None:
    """The draws of several whole cards, lane by lane: the first slots that are free."""
    for k in range(ROLLOUTS):
        s = mix.draws[klass, k, draw]
        if s < 0 or mix.amounts[s, 2] <= 1:
            continue
        cpu, memory, cards, milli = mix.amounts[s, 0], mix.amounts[s, 1], mix.amounts[s, 2], mix.amounts[s, 3]
        free = 0
        for d in range(SLOTS):
            free += room[d * ROLLOUTS + k] >= milli
        if free < cards or cpu > room[CPU + k] or memory > room[MEMORY + k]:
            continue
        for d in range(SLOTS):
            if cards > 0 and room[d * ROLLOUTS + k] >= milli:
                room[d * ROLLOUTS + k] -= milli
                cards -= 1
        room[CPU + k] -= cpu
        room[MEMORY + k] -= memory
