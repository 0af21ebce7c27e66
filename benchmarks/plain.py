"""A simulator that is too plain to be wrong, to hold ours to: whole cards, equal nodes, no preemption.

Jobs of up to a node's cards go to the node with the fewest free cards that holds them, larger ones to whole free nodes;
ties go to the first node. ``python -P -m benchmarks.plain DIR`` prints the Philly pool's figures beside those that
were measured with another implementation of the same rules.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.traces import CARDS_PER_NODE, Trace, philly

MEASURED = {"fifo-strict": (108_192, 96_711), "fifo": (19_629, 8_149), "shortest": (14_035, 2_555)}
"""Mean completion time and mean wait in seconds."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A job as plain as it gets."""

    id: str
    submitted_ms: int
    cards: int
    run_ms: int


def asks_of(trace: Trace) -> list[Ask]:
    """The jobs of a trace of one-step trainings."""
    return [
        Ask(job.id, job.submitted_ms, job.steps[0].ranks * job.steps[0].resources.cards, trace.work_ms[job.id])
        for job in trace.jobs
    ]


def starts(asks: Sequence[Ask], nodes: int, rank: Callable[[Ask], tuple[int, ...]], *, skip: bool) -> dict[str, int]:
    """When each job starts. ``skip``: who does not fit lets others pass; else everybody waits behind the first."""
    free = [CARDS_PER_NODE] * nodes
    queue: list[tuple[tuple[int, ...], int]] = []
    ends: list[tuple[int, int, list[tuple[int, int]]]] = []
    found: dict[str, int] = {}
    at = 0
    while at < len(asks) or ends:
        arrival_ms = asks[at].submitted_ms if at < len(asks) else ends[0][0]
        now_ms = min(arrival_ms, ends[0][0]) if ends else arrival_ms
        while ends and ends[0][0] == now_ms:
            for node, cards in heapq.heappop(ends)[2]:
                free[node] += cards
        while at < len(asks) and asks[at].submitted_ms == now_ms:
            queue.append((rank(asks[at]), at))
            at += 1
        queue.sort()
        left: list[tuple[tuple[int, ...], int]] = []
        hopeless = 10**9
        for position, entry in enumerate(queue):
            ask = asks[entry[1]]
            place = _place(free, ask.cards) if ask.cards < hopeless else []
            if place:
                for node, cards in place:
                    free[node] -= cards
                found[ask.id] = now_ms
                heapq.heappush(ends, (now_ms + ask.run_ms, entry[1], place))
            elif skip:
                hopeless = min(hopeless, ask.cards)
                left.append(entry)
            else:
                left += queue[position:]
                break
        queue = left
    return found


def _place(free: Sequence[int], cards: int) -> list[tuple[int, int]]:
    """Nodes and cards on each; empty when it does not fit."""
    if cards <= CARDS_PER_NODE:
        fitting = [(left, node) for node, left in enumerate(free) if left >= cards]
        return [(min(fitting)[1], cards)] if fitting else []
    whole = [node for node, left in enumerate(free) if left == CARDS_PER_NODE]
    needed = -(-cards // CARDS_PER_NODE)
    return [(node, CARDS_PER_NODE) for node in whole[:needed]] if len(whole) >= needed else []


RULES: dict[str, tuple[Callable[[Ask], tuple[int, ...]], bool]] = {
    "fifo-strict": (lambda ask: (), False),
    "fifo": (lambda ask: (), True),
    "shortest": (lambda ask: (ask.run_ms,), True),
}


def main(argv: Sequence[str]) -> None:
    """The pool's figures."""
    trace = philly(Path(argv[0]))
    asks = asks_of(trace)
    print(f"{'rule':<12}{'jct s':>10}{'measured':>10}{'wait s':>10}{'measured':>10}")
    for name, (rank, skip) in RULES.items():
        began = starts(asks, len(trace.nodes), rank, skip=skip)
        wait = sum(began[ask.id] - ask.submitted_ms for ask in asks) / len(asks) / 1_000
        jct = wait + sum(ask.run_ms for ask in asks) / len(asks) / 1_000
        print(f"{name:<12}{jct:>10.0f}{MEASURED[name][0]:>10}{wait:>10.0f}{MEASURED[name][1]:>10}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
