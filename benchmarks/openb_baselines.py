"""The policies that FGD's authors compare (ATC'23, section 6), re-implemented under the same loop and rules as ours.

FGD keeps its real details: typical pods up to 95 % of the list, those without cards included, scores rounded to
``int(100 * sigmoid)``, and ties that go to the first node in order, or to a random one as in the stock scheduler.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import numpy as np
from numba import njit

from benchmarks.openb import SLOTS, WHOLE_MILLI, Farm, Ints, Trace
from benchmarks.openb_fill import Fill, Nodes, empty, judge, occupy

FGD, BEST_FIT, DOT_PRODUCT, PACKING, CLUSTERING, RANDOM = range(6)
NAMES = ("06-FGD", "05-BestFit", "02-DotProd", "04-GpuPacking", "03-GpuClustering", "01-Random")
"""As the published results spell them."""
TYPICAL_PERCENT = 95
CPU_SCALE, CARD_SCALE = 128_000, 8 * WHOLE_MILLI
"""The authors normalise by 128 cores and 8 cards."""
NEVER = 1 << 40


class Typical(NamedTuple):
    """FGD's typical pods."""

    amounts: Ints
    """[pod, 3]: cpu_milli, cards, card_milli."""
    allowed: Ints
    """[pod, class]: whether the card model suits."""
    weight: Ints
    """Share of each."""


def typical(trace: Trace, farm: Farm) -> Typical:
    """The most frequent (cpu, cards, milli, model) up to 95 % of pods."""
    slots = trace.slots(farm)
    counts: Counter[tuple[int, int, int, tuple[bool, ...]]] = Counter()
    for row in trace.pods.tolist():
        cpu, _, cards, milli = trace.table[row].tolist()
        counts[cpu, cards, milli, tuple((slots[row] != 0).tolist())] += 1
    kept, seen = [], 0
    for shape, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        kept.append((shape, n))
        seen += n
        if seen * 100 >= TYPICAL_PERCENT * len(trace.pods):
            break
    return Typical(
        amounts=np.array([shape[:3] for shape, _ in kept], np.int64),
        allowed=np.array([shape[3] for shape, _ in kept], np.int64),
        weight=np.array([n / seen for _, n in kept]),
    )


def run(policy: int, trace: Trace, farm: Farm, pods: Ints, seed: int = 0, *, random_ties: bool = False) -> Fill:
    """One run of a baseline on the farm in the order given."""
    slots, pick = trace.slots(farm), typical(trace, farm)
    placed = _fill(policy, random_ties, seed, pick, empty(farm), trace.table, slots, pods)
    return judge(trace, farm, pods, placed)


@njit(cache=True)
def fragment(pick: Typical, klass: int, cpu: int, free: Ints) -> float:
    """F of FGD: the free thousandths that a typical pod cannot use, averaged over typical pods."""
    idle, total = 0, 0.0
    for d in range(SLOTS):
        idle += free[d]
    if idle == 0:
        return 0.0
    for t in range(pick.weight.shape[0]):
        need, cards, milli = pick.amounts[t]
        fitting, small = 0, 0
        for d in range(SLOTS):
            if free[d] >= milli:
                fitting += 1
            else:
                small += free[d]
        usable = cards > 0 and need <= cpu and pick.allowed[t, klass] != 0 and fitting >= cards
        total += pick.weight[t] * (small if usable else idle)
    return total


@njit(cache=True)
def _sigmoid(before: float, after: float) -> int:
    return int(100.0 / (1.0 + math.exp(-(before - after) / WHOLE_MILLI)))


@njit(cache=True)
def _fitting(free: Ints, cards: int, milli: int, mask: int) -> int:
    """The slots a pod takes when the fullest that fit are taken first, -1 when it does not fit."""
    taken = 0
    for _ in range(cards):
        best = -1
        for d in range(SLOTS):
            able = free[d] >= milli and (mask >> d) & 1 and not (taken >> d) & 1
            if able and (best < 0 or free[d] < free[best]):
                best = d
        if best < 0:
            return -1
        taken |= 1 << best
    return taken


@njit(cache=True)
def _fgd(pick: Typical, before: float, klass: int, cpu: int, free: Ints, milli: int, first: int) -> tuple[int, int]:  # noqa: PLR0917
    """FGD's score with ``cpu`` left after placing, and the slots. A shared card is chosen by score, first of equals."""
    room = free.copy()
    if milli == WHOLE_MILLI or first == 0:
        for d in range(SLOTS):
            room[d] -= milli * ((first >> d) & 1)
        return _sigmoid(before, fragment(pick, klass, cpu, room)), first
    best, most = 0, -1
    for d in range(SLOTS):
        if free[d] >= milli:
            room[d] -= milli
            points = _sigmoid(before, fragment(pick, klass, cpu, room))
            room[d] += milli
            if points > most:
                best, most = 1 << d, points
    return most, best


@njit(cache=True)
def _classic(policy: int, width: int, cpu: int, free: Ints, pod: Ints, mask: int, kinds: Ints) -> int:  # noqa: PLR0917
    """Score of the others, higher is better. ``width`` is the node's cards, ``kinds`` its pods by size class."""
    need, cards, milli = pod[0], pod[2], pod[3]
    idle, whole = 0, 0
    for d in range(SLOTS):
        idle += free[d]
        whole += free[d] == WHOLE_MILLI
    if policy == BEST_FIT:
        return int(100 * (1.0 - 0.5 * (cpu - need) / CPU_SCALE - 0.5 * (idle - cards * milli) / CARD_SCALE))
    if policy == DOT_PRODUCT:
        product = cpu / CPU_SCALE * need / CPU_SCALE + idle / CARD_SCALE * cards * milli / CARD_SCALE
        return int(100 * (1.0 - 0.5 * product))
    if policy == RANDOM or cards == 0:
        return 0
    if policy == PACKING:
        for d in range(SLOTS):
            if (mask >> d) & 1 and free[d] < WHOLE_MILLI:
                return 3000 - free[d]
        return (2000 if whole < width else 1000) - 100 * whole
    own = cards if milli == WHOLE_MILLI else 0
    others = kinds.sum() - kinds[own]
    return 2000 * (kinds[own] > 0) - 1000 * (others > 0) - idle // 100


@njit(cache=True)
def _fill(  # noqa: PLR0917 - compiled
    policy: int, random_ties: bool, seed: int, pick: Typical, nodes: Nodes, table: Ints, slots: Ints, pods: Ints
) -> tuple[Ints, Ints]:  # fmt: skip
    """One pod after the other; a score is renewed where the node has changed since the shape was last asked for."""
    np.random.seed(seed)
    shapes, count, arrivals = table.shape[0], nodes.klass.shape[0], pods.shape[0]
    points, masks = np.zeros((shapes, count), np.int64), np.zeros((shapes, count), np.int64)
    fragments, kinds = np.zeros(count), np.zeros((count, SLOTS + 1), np.int64)
    widths = (nodes.free > 0).sum(axis=1)
    seen, log, placed = np.full(shapes, -1, np.int64), np.zeros(arrivals, np.int64), 0
    where, taken = np.full(arrivals, -1, np.int64), np.zeros(arrivals, np.int64)
    for n in range(count):
        fragments[n] = fragment(pick, nodes.klass[n], nodes.cpu[n], nodes.free[n])
    for p in range(arrivals):
        s = pods[p]
        need, memory, cards, milli = table[s]
        for i in range(max(seen[s], 0), count if seen[s] < 0 else placed):
            n = i if seen[s] < 0 else log[i]
            k, free, mask = nodes.klass[n], nodes.free[n], slots[s, nodes.klass[n]]
            first = _fitting(free, cards, milli, mask)
            points[s, n], masks[s, n] = -NEVER, first
            if mask == 0 or first < 0 or need > nodes.cpu[n] or memory > nodes.memory[n]:
                continue
            if policy == FGD:
                points[s, n], masks[s, n] = _fgd(pick, fragments[n], k, nodes.cpu[n] - need, free, milli, first)
            else:
                points[s, n] = _classic(policy, widths[n], nodes.cpu[n], free, table[s], first, kinds[n])
        seen[s] = placed
        best = _most(points[s], random_ties)
        if best < 0:
            continue
        where[p], taken[p] = best, masks[s, best]
        occupy(nodes, best, table[s], taken[p])
        fragments[best] = fragment(pick, nodes.klass[best], nodes.cpu[best], nodes.free[best])
        kinds[best, cards if milli == WHOLE_MILLI else 0] += cards > 0
        log[placed] = best
        placed += 1
    return where, taken


@njit(cache=True)
def _most(points: Ints, random_ties: bool) -> int:
    """The node with most points, the first of equals or a random one; -1 for none."""
    best, most, equals = -1, -NEVER, 0
    for n in range(points.shape[0]):
        if points[n] > most:
            best, most, equals = n, points[n], 1
        elif random_ties and best >= 0 and points[n] == most:
            equals += 1
            if np.random.randint(equals) == 0:
                best = n
    return best
