"""B4: placement decisions per second on one core, by the policy of the placement bench, beside a full scan.

The openb farm (repeated to the size asked for) is filled to half with its default list, all shapes of which take part;
what is measured are the decisions after that: find the best node for one pod among all, choose devices, take them, and
renew what depends on it. No sampling, no batching: one call of the public API per pod. Times are the thread's own
processor time, so that a busy machine does not count. Compiling and the first look at each shape come before.

The same decisions are then made by weighing every node each time; they must be equal, or the bench fails.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.openb import Farm, Trace, read_farm, read_trace
from benchmarks.openb_fill import placer_of
from benchmarks.results import Figure
from scheduler.placement.placer import Placer

SEED = 42
LEAST = {1_213: 100_000.0, 10_000: 50_000.0}
P99_MICROSECONDS = 100.0
SCANNED = {1_213: 2_000, 5_000: 600, 10_000: 300, 100_000: 30}
"""Decisions compared with a full scan, by nodes."""
MEASURED_MOST, RUNS = 3_000, 3
BYTES_PER_NODE = 12
"""A scan must read at least cpu, memory and cards of each node, as 32-bit integers."""


def figures(traces: Path, sizes: Sequence[int] = (1_213, 5_000, 10_000, 100_000)) -> list[Figure]:
    """All figures of the bench. ``traces`` is the folder that has openb in it."""
    farm, trace = read_farm(traces / "openb"), read_trace(traces / "openb", "default")
    return [figure for size in sizes for figure in _measured(farm, trace, size)]


def _measured(farm: Farm, trace: Trace, size: int) -> list[Figure]:
    placer, arrivals = filled(farm, trace, size)
    rates: list[float] = []
    microseconds: list[float] = []
    for _ in range(RUNS):
        count = min(MEASURED_MOST, len(arrivals) // 8)
        rates.append(_rate(placer.place, [arrivals.pop() for _ in range(count)]))
        microseconds += _latencies(placer.place, [arrivals.pop() for _ in range(count)])
    scanned = [arrivals.pop() for _ in range(SCANNED.get(size, 100))]
    scan_rate = compared(placer, scanned)
    anchors = {"full_scan": (scan_rate,), "bytes_scanned_floor": (1e6 / floor_microseconds(size),)}
    p50, p99 = np.percentile(microseconds, (50, 99)).tolist()
    return [
        Figure(name=f"decisions_per_second_{size}", runs=tuple(rates), least=LEAST.get(size), anchors=anchors),
        Figure(name=f"decision_p50_microseconds_{size}", runs=(p50,)),
        Figure(name=f"decision_p99_microseconds_{size}", runs=(p99,), bound=P99_MICROSECONDS),
    ]


def filled(farm: Farm, trace: Trace, size: int) -> tuple[Placer, list[int]]:
    """A farm of that many nodes, half full, and the shapes of the pods that come next, last first."""
    order = np.random.default_rng(SEED).permutation(size)
    placer, numbers = placer_of(trace, farm.reordered(order % len(farm.klass)))
    for number in numbers:
        placer.best(number)
    total = sum(len(node.devices) for node in placer.cluster.nodes) * 1_000
    sizes = (trace.table[:, 2] * trace.table[:, 3]).tolist()
    pods = np.random.default_rng(SEED).choice(trace.pods, size * 8).tolist()
    pods.reverse()
    asked = 0
    while asked < total // 2:
        pod = pods.pop()
        asked += sizes[pod]
        placer.place(numbers[pod])
    return placer, [numbers[pod] for pod in pods]


def _rate(place: Callable[[int], object], shapes: Sequence[int]) -> float:
    start = time.thread_time()
    for shape in shapes:
        place(shape)
    return len(shapes) / (time.thread_time() - start)


def _latencies(place: Callable[[int], object], shapes: Sequence[int]) -> list[float]:
    clock, found = time.thread_time_ns, []
    for shape in shapes:
        start = clock()
        place(shape)
        found.append((clock() - start) / 1_000)
    return found


def compared(placer: Placer, shapes: Sequence[int]) -> float:
    """Full scans per second, over decisions that the cache must find as well. Raises AssertionError if it does not."""
    cached, scanned, twin = hashlib.sha256(), hashlib.sha256(), placer.fork()
    for shape in shapes:
        twin.shape(placer.table.demands[shape])
        cached.update(repr(twin.place(shape)).encode())
    placer.scan(shapes[0])  # compiles it
    start = time.thread_time()
    for shape in shapes:
        row = placer.scan(shape)
        scanned.update(repr(None if row is None else placer.take(shape, row)).encode())
    seconds = time.thread_time() - start
    assert cached.hexdigest() == scanned.hexdigest(), "the cache decided otherwise than a full scan"
    return len(shapes) / seconds


def floor_microseconds(size: int) -> float:
    """Reading the bytes of one scan, at the speed this core reads them."""
    amounts = np.ones(size * BYTES_PER_NODE // 8, np.int64)
    repeats = max(20, 2_000_000 // size)
    amounts.max()
    start = time.thread_time()
    for _ in range(repeats):
        amounts.max()
    return (time.thread_time() - start) / repeats * 1e6
