"""How much of a node's idle cards the demand of tomorrow cannot use: the node-local potential that placement keeps small.

Weng et al., "Beware of Fragmentation", USENIX ATC 2023, section 4. All amounts are integers, so a sum does not depend
on its order. The potential is a function of the node's class and of what is free on it, so it is worked out once per
such state and looked up by a hash of it afterwards; nodes of one class pass through the same states again and again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, uint64
from numpy.typing import NDArray

CPU, MEMORY, CARDS, MILLI = range(4)
MEMO_SLOTS = 1 << 18
"""States kept; 4 MiB. A power of two."""


class Frag(NamedTuple):
    """The demand mix as arrays: T demands, C classes of nodes, D device slots."""

    ask: NDArray[np.int64]
    """``[T, 4]``: cpu, memory, cards, thousandths that each card must have free."""
    weight: NDArray[np.int64]
    """``[T]``, millionths."""
    fit: NDArray[np.uint8]
    """``[T, C, D]``: the slot suits the demand and the node admits it."""
    memo_state: NDArray[np.uint64]
    """Hash of the state whose potential is kept in this place; 0: none."""
    memo_value: NDArray[np.int64]


@njit(cache=True, _nrt=False)
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


@njit(cache=True, forceinline=True, _nrt=False)
def stir(x):  # type: ignore[no-untyped-def]
    """A 64-bit hash of an integer (the finaliser of splitmix64)."""
    x = uint64(x) * uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> uint64(27))) * uint64(0x94D049BB133111EB)
    return x ^ (x >> uint64(31))


@njit(cache=True, forceinline=True, _nrt=False)
def stir_slot(kind, milli):  # type: ignore[no-untyped-def]
    """What one device adds to the hash of its node: a sum over devices, so that equal devices may change places."""
    return stir(kind * 1_024 + milli + 1)


@njit(cache=True, forceinline=True, _nrt=False)
def known_potential(frag, klass, slots, cpu, memory, milli, devices):  # type: ignore[no-untyped-def]
    """``potential`` from the memo, where it is put if it was not there. ``devices``: sum of their hashes."""
    if frag.weight.shape[0] == 0:
        return 0
    state = stir(uint64(cpu) ^ stir(uint64(memory) ^ stir(uint64(klass) ^ devices))) | uint64(1)
    at = (state >> uint64(20)) & uint64(frag.memo_state.shape[0] - 1)
    if frag.memo_state[at] != state:
        frag.memo_value[at] = potential(frag, klass, slots, cpu, memory, milli)
        frag.memo_state[at] = state
    return frag.memo_value[at]
