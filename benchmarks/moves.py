"""B1b: openb filled one pod at a time, with moves: a pod that fits nowhere may have others moved out of its way.

The product's planner (``scheduler.placement.defrag``) finds the moves; a pod costs 1 to move, whatever it is. At most
1 % of the pods that were placed by then are ever moved. By itself: ``python -P -m benchmarks.moves TRACES [--quick]``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.openb import SLOTS, WHOLE_MILLI, Farm, Ints, PodShape, Trace, read_farm, read_trace
from benchmarks.openb_fill import Fill, Nodes, advance, empty, judge, note, nothing_known, occupy, value_all
from benchmarks.placement import SEEDS, Ours, shuffled
from benchmarks.results import Figure, show
from scheduler.model.job import Resources
from scheduler.model.lease import Allocation
from scheduler.model.node import Device, Node
from scheduler.placement.defrag import Goal, Rearrangement, rearrange
from scheduler.placement.fit import Demand
from scheduler.placement.room import Mover
from scheduler.placement.view import NodeView

MOVED_PERMILLE = 10
GAIN_MILLI = 250
"""Thousandths of cards that a moved pod must bring: fewer moves are then left for what gains more."""
TENANT = "t"


@dataclass
class Park:
    """One run: the farm as arrays, which the compiled loop fills, and as views, on which moves are planned."""

    ours: Ours
    farm: Farm
    pods: Ints
    moved: set[int] = field(default_factory=set)
    """Pods that were moved at least once."""
    moves: int = 0
    seconds: float = 0.0
    """Of processor time, spent on planning moves."""
    hopeless: set[int] = field(default_factory=set)
    """Shapes for which no moves were found; tried again after the next moves."""

    def run(self) -> Fill:
        """Fill the farm."""
        trace, farm, pods = self.ours.trace, self.farm, self.pods
        nodes, slots = empty(farm), trace.slots(farm)
        known = nothing_known(len(trace.table), len(farm.klass), 2 * len(pods))
        where, taken = np.full(len(pods), -1, np.int64), np.zeros(len(pods), np.int64)
        value_all(self.ours.mix, self.ours.memo, nodes, known)
        views: dict[str, NodeView] | None = None
        at, seen = 0, 0
        while True:
            rest = (known, trace.table, slots, pods, at, where, taken, True)
            at = advance(self.ours.mix, self.ours.memo, nodes, *rest)
            if at >= len(pods):
                return judge(trace, farm, pods, (where, taken))
            if views is None:
                views = {self._name(n): NodeView.empty(self._node(n)) for n in range(len(farm.klass))}
            for p in range(seen, at):
                if where[p] >= 0:
                    held = self._held(p, int(where[p]), int(taken[p]))
                    views[held.node] = views[held.node].take(held, TENANT)
            seen = at + 1
            found = self._moves(views, nodes, at, where, taken)
            if found is not None:
                for n in self._make(views, nodes, found, at, where, taken):
                    note(self.ours.mix, self.ours.memo, nodes, known, n)
            at += 1

    def _moves(
        self, views: dict[str, NodeView], nodes: Nodes, at: int, where: Ints, taken: Ints
    ) -> Rearrangement | None:
        """Moves for pod ``at`` that are worth it and within the budget."""
        shape = int(self.pods[at])
        placed = int((where[:at] >= 0).sum())
        left = placed * MOVED_PERMILLE // 1_000 - len(self.moved)
        size = int(self.ours.trace.table[shape, 2] * self.ours.trace.table[shape, 3])
        most = min(left, size // GAIN_MILLI)
        if most < 1 or shape in self.hopeless:
            return None
        began = time.process_time()
        movers = [
            Mover(
                lease_id=f"{p:06d}",
                tenant=TENANT,
                demand=self._demands[int(self.pods[p])],
                allocations=(self._held(p, int(where[p]), int(taken[p])),),
                price=1,
            )
            for p in range(at)
            if where[p] >= 0
        ]
        goal = Goal(demand=self._demands[shape], tenant=TENANT)
        found = rearrange(views, movers, goal, {}, lambda demand: self._rooms(nodes, demand))
        self.seconds += time.process_time() - began
        if found is None or found.price > most:
            self.hopeless.add(shape)
            return None
        return found

    def _make(  # noqa: PLR0917
        self, views: dict[str, NodeView], nodes: Nodes, found: Rearrangement, at: int, where: Ints, taken: Ints
    ) -> list[int]:
        """Make the moves and place the pod; the nodes that changed."""
        table, changed = self.ours.trace.table, set[int]()
        new = [(int(move.lease_id), move.places[0]) for move in found.moves]
        for p, _ in new:
            held = self._held(p, int(where[p]), int(taken[p]))
            views[held.node] = views[held.node].give_back(held)
            occupy(nodes, where[p], table[self.pods[p]], taken[p], -1)
            changed.add(int(where[p]))
        for p, place in (*new, (at, found.goal[0])):
            views[place.node] = views[place.node].take(place, TENANT)
            where[p] = int(place.node)
            taken[p] = sum(1 << int(device.rpartition("-")[2]) for device in place.devices)
            occupy(nodes, where[p], table[self.pods[p]], taken[p], 1)
            changed.add(int(where[p]))
        self.moved |= {p for p, _ in new}
        self.moves += len(new)
        self.hopeless.clear()
        assert (nodes.cpu >= 0).all()
        assert (nodes.free >= 0).all()
        return sorted(changed)

    def _name(self, n: int) -> str:
        return f"{n:05d}"

    def _node(self, n: int) -> Node:
        shape, name = self.farm.classes[self.farm.klass[n]], self._name(n)
        cards = tuple(Device(id=f"{name}-{d}", model=shape.model, index=d) for d in range(shape.cards))
        return Node(name=name, cpu_milli=shape.cpu_milli, memory_mib=shape.memory_mib, devices=cards)

    @cached_property
    def _demands(self) -> list[Demand]:
        return [self._demand(shape) for shape in range(len(self.ours.trace.shapes))]

    @cached_property
    def _shape_of(self) -> dict[Demand, int]:
        return {demand: shape for shape, demand in enumerate(self._demands)}

    def _rooms(self, nodes: Nodes, demand: Demand) -> list[str]:
        """Nodes where one more fits now, from the arrays."""
        shape = self._shape_of[demand]
        cpu, memory, cards, milli = self.ours.trace.table[shape].tolist()
        fits = (nodes.cpu >= cpu) & (nodes.memory >= memory)
        if cards:
            allowed = self.ours.trace.slots(self.farm)[shape][nodes.klass] > 0
            fits &= allowed & ((nodes.free >= milli).sum(axis=1) >= cards)
        return [self._name(n) for n in np.flatnonzero(fits).tolist()]

    def _demand(self, shape: int) -> Demand:
        pod: PodShape = self.ours.trace.shapes[shape]
        part = pod.card_milli if 0 < pod.card_milli < WHOLE_MILLI else 0
        ask = Resources(
            cpu_milli=pod.cpu_milli,
            memory_mib=pod.memory_mib,
            cards=0 if part else pod.cards,
            card_milli=part,
            card_models=pod.models if pod.cards else (),
        )
        return Demand(resources=ask, lane="pool", tenant=TENANT if part else "")

    def _held(self, p: int, n: int, mask: int) -> Allocation:
        ask, name = self._demands[int(self.pods[p])].resources, self._name(n)
        return Allocation(
            node=name,
            devices=tuple(f"{name}-{d}" for d in range(SLOTS) if mask >> d & 1),
            card_milli=ask.card_milli,
            cpu_milli=ask.cpu_milli,
            memory_mib=ask.memory_mib,
        )


def figures(traces: Path, quick: bool) -> list[Figure]:
    """The figures of B1b on the default list; ``quick`` takes one seed."""
    farm = read_farm(traces / "openb")
    trace: Trace = read_trace(traces / "openb", "default")
    ours = Ours.of(trace, farm)
    with_moves, without, shares = list[float](), list[float](), list[float]()
    for seed in SEEDS[:1] if quick else SEEDS:
        pods, nodes = trace.arrivals(seed, farm.total_milli), shuffled(farm, seed)
        without.append(float(ours(nodes, pods).percent[-1]))
        park = Park(ours=ours, farm=nodes, pods=pods)
        fill = park.run()
        placed = int((fill.node >= 0).sum())
        with_moves.append(float(fill.percent[-1]))
        shares.append(100.0 * len(park.moved) / placed)
        print(
            f"  seed {seed}: {without[-1]:.2f} % without moves, {with_moves[-1]:.2f} % with {park.moves} moves of "
            f"{len(park.moved)} pods of {placed} ({shares[-1]:.2f} %), planned in {park.seconds:.1f} s"
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
    """Print the figures."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("traces", type=Path)
    words.add_argument("--quick", action="store_true")
    chosen = words.parse_args(argv)
    show(figures(chosen.traces, chosen.quick))


if __name__ == "__main__":
    main()
