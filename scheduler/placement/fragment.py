"""How much of a node's idle cards the demand of tomorrow cannot use: the node-local potential that placement keeps small.

Weng et al., "Beware of Fragmentation", USENIX ATC 2023, section 4. All amounts are integers, so a sum does not depend
on its order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

CPU, MEMORY, CARDS, MILLI = range(4)


class Frag(NamedTuple):
    """The demand mix as arrays: T demands, C classes of nodes, D device slots."""

    ask: NDArray[np.int64]
    """``[T, 4]``: cpu, memory, cards, thousandths that each card must have free."""
    weight: NDArray[np.int64]
    """``[T]``, millionths."""
    fit: NDArray[np.uint8]
    """``[T, C, D]``: the slot suits the demand and the node admits it."""


@njit(cache=True)
def potential(frag, klass, slots, cpu, memory, milli):  # type: ignore[no-untyped-def]
    """Idle thousandths of cards, each weighted with the share of demand that cannot use it: in billionths of a card."""
    idle = 0
    for d in range(slots):
        idle += milli[d]
    if idle == 0:
        return 0
    total = 0
    for t in range(frag.weight.shape[0]):
        usable, count = 0, 0
        if frag.ask[t, CPU] <= cpu and frag.ask[t, MEMORY] <= memory:
            least = frag.ask[t, MILLI]
            for d in range(slots):
                if milli[d] >= least and frag.fit[t, klass, d]:
                    usable += milli[d]
                    count += 1
            if count < frag.ask[t, CARDS]:
                usable = 0
        total += frag.weight[t] * (idle - usable)
    return total
