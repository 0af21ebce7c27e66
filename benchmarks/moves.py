"""B1b: openb filled one pod at a time, with moves: a pod that fits nowhere may have others moved out of its way.

The product's planner (``scheduler.placement.defrag``) finds the moves; a pod costs 1 to move, whatever it is. At most
1 % of the pods that were placed by then are ever moved. By itself: ``python -P -m benchmarks.moves TRACES [--quick]``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.openb import Farm, Ints, Trace, read_farm, read_trace
from benchmarks.openb_fill import Fill, fill, judge, placer_of
from benchmarks.placement import SEEDS, alone, shuffled
from benchmarks.results import Figure
from scheduler.model.lease import Allocation
from scheduler.placement.defrag import Goal, Rearrangement, rearrange
from scheduler.placement.fit import Demand
from scheduler.placement.room import Mover
from scheduler.placement.view import NodeView

MOVED_PERMILLE = 10
GAIN_MILLI = 250
"""Thousandths of cards that a moved pod must bring: fewer moves are then left for what gains more."""
TENANT = "t"


class Park:
    """One run: the farm in the engine's placer, and as views, on which moves are planned."""

    def __init__(self, trace: Trace, farm: Farm, pods: Ints) -> None:
        self.trace, self.farm, self.pods = trace, farm, pods
        self.placer, self.numbers = placer_of(trace, farm)
        self.views = {node.name: NodeView.empty(node) for node in self.placer.cluster.nodes}
        self.held: dict[int, Allocation] = {}
        """By arrival, what it holds now."""
        self.moved: set[int] = set()
        """Arrivals that were moved at least once."""
        self.moves = 0
        self.seconds = 0.0
        """Of processor time, spent on planning moves."""
        self.hopeless: set[int] = set()
        """Shapes for which no moves were found; tried again after the next moves."""

    def run(self) -> Fill:
        """Fill the farm."""
        for at, shape in enumerate(self.pods.tolist()):
            number = self.numbers[shape]
            place = self.placer.place(number)
            if place is not None:
                self._seat(at, self.placer.allocation(number, *place))
            elif (found := self._moves(at, shape)) is not None:
                self._make(found, at)
        node, taken = np.full(len(self.pods), -1, np.int64), np.zeros(len(self.pods), np.int64)
        for at, held in self.held.items():
            node[at] = self.placer.cluster.row[held.node]
            taken[at] = sum(1 << int(device.rpartition("-")[2]) for device in held.devices)
        return judge(self.trace, self.farm, self.pods, (node, taken))

    def _moves(self, at: int, shape: int) -> Rearrangement | None:
        """Moves for an arrival that are worth it and within the budget."""
        left = len(self.held) * MOVED_PERMILLE // 1_000 - len(self.moved)
        size = int(self.trace.table[shape, 2] * self.trace.table[shape, 3])
        most = min(left, size // GAIN_MILLI)
        if most < 1 or shape in self.hopeless:
            return None
        began = time.process_time()
        movers = [
            Mover(lease_id=str(key), tenant=TENANT, demand=self._demand(key), allocations=(held,), price=1)
            for key, held in self.held.items()
        ]
        goal = Goal(demand=self._demand(at), tenant=TENANT)
        found = rearrange(self.views, movers, goal, {}, self._rooms)
        self.seconds += time.process_time() - began
        if found is None or found.price > most:
            self.hopeless.add(shape)
            return None
        return found

    def _make(self, found: Rearrangement, at: int) -> None:
        """Make the moves and place the arrival they are for."""
        new = [(int(move.lease_id), move.places[0]) for move in found.moves]
        for key, _ in new:
            held = self.held.pop(key)
            self.placer.give_back(held, TENANT)
            self.views[held.node] = self.views[held.node].give_back(held)
        for key, place in (*new, (at, found.goal[0])):
            self.placer.hold(place, TENANT)
            self._seat(key, place)
        self.moved |= {key for key, _ in new}
        self.moves += len(new)
        self.hopeless.clear()

    def _seat(self, at: int, place: Allocation) -> None:
        self.held[at] = place
        self.views[place.node] = self.views[place.node].take(place, TENANT)

    def _demand(self, at: int) -> Demand:
        return self.placer.table.demands[self.numbers[self.pods[at]]]

    def _rooms(self, demand: Demand) -> list[str]:
        """Nodes where one more fits now."""
        copies = self.placer.copies_by_row(self.placer.shape(demand))
        return [self.placer.cluster.nodes[row].name for row in np.flatnonzero(copies).tolist()]


def figures(traces: Path, quick: bool) -> list[Figure]:
    """The figures of B1b on the default list; ``quick`` takes one seed."""
    farm = read_farm(traces / "openb")
    trace: Trace = read_trace(traces / "openb", "default")
    with_moves, without, shares = list[float](), list[float](), list[float]()
    for seed in SEEDS[:1] if quick else SEEDS:
        pods, nodes = trace.arrivals(seed, farm.total_milli), shuffled(farm, seed)
        without.append(float(fill(trace, nodes, pods).percent[-1]))
        park = Park(trace, nodes, pods)
        with_moves.append(float(park.run().percent[-1]))
        shares.append(100.0 * len(park.moved) / len(park.held))
        print(
            f"  seed {seed}: {without[-1]:.2f} % without moves, {with_moves[-1]:.2f} % with {park.moves} moves of "
            f"{len(park.moved)} pods of {len(park.held)} ({shares[-1]:.2f} %), planned in {park.seconds:.1f} s"
        )
    return [
        Figure(
            name="openb_alloc_130_moved_percent",
            runs=tuple(with_moves),
            least=97.0,
            anchors={"without moves": tuple(without)},
        ),
        Figure(name="openb_pods_moved_percent", runs=tuple(shares), bound=1.0),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """How much fuller moves make it."""
    alone(str(__doc__), figures, argv)


if __name__ == "__main__":
    main()
