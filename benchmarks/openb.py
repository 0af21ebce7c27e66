"""Reads the openb trace (Alibaba cluster-trace-gpu-v2023, as FGD, ATC'23, uses it) and makes an experiment's arrivals.

Procedure of the FGD paper (section 6.2) and its simulator: pods sorted by name, shuffled by the seed, then re-draws
from the list until 130 % of the cards are asked for. The seeds' streams are NumPy's, not Go's.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
LOADS_PERCENT = (80, 90, 95, 100, 110, 130)
WHOLE_MILLI = 1000
SLOTS = 8


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PodShape:
    """What a pod asks for; ``models`` empty means any card."""

    cpu_milli: int
    memory_mib: int
    cards: int
    card_milli: int
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class NodeShape:
    """What a node has."""

    model: str
    cards: int
    cpu_milli: int
    memory_mib: int


@dataclass(frozen=True, kw_only=True)
class Farm:
    """The nodes, in the order given: ``klass[i]`` is the row of ``classes`` of node i."""

    classes: tuple[NodeShape, ...]
    klass: Ints

    @cached_property
    def total_milli(self) -> int:
        """Thousandths of cards of all nodes."""
        return int(WHOLE_MILLI * self.table[self.klass, 2].sum())

    @cached_property
    def table(self) -> Ints:
        """[class, 3]: cpu_milli, memory_mib, cards."""
        return np.array([(c.cpu_milli, c.memory_mib, c.cards) for c in self.classes], np.int64)

    def reordered(self, order: Ints) -> Farm:
        """The same nodes in another order (names go with places, so this draws names anew)."""
        return Farm(classes=self.classes, klass=self.klass[order])


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A pod list: ``pods[i]`` is the row of ``shapes`` of the i-th pod by name."""

    name: str
    shapes: tuple[PodShape, ...]
    pods: Ints

    @cached_property
    def table(self) -> Ints:
        """[shape, 4]: cpu_milli, memory_mib, cards, card_milli."""
        return np.array([(s.cpu_milli, s.memory_mib, s.cards, s.card_milli) for s in self.shapes], np.int64)

    def slots(self, farm: Farm) -> Ints:
        """[shape, class]: the bitmask of device slots a shape may use; 0 where the card model is another."""
        rows = [
            [(1 << c.cards) - 1 if not s.models or c.model in s.models else 0 for c in farm.classes]
            for s in self.shapes
        ]
        return np.array(rows, np.int64)

    def arrivals(self, seed: int, total_milli: int) -> Ints:
        """Rows of ``shapes`` in order of arrival, up to 130 % of ``total_milli``."""
        rng = np.random.default_rng(seed)
        first = self.pods.copy()
        rng.shuffle(first)
        sizes = (self.table[:, 2] * self.table[:, 3]).tolist()
        each, limit = self.table[:, 3].tolist(), total_milli * LOADS_PERCENT[-1] // 100
        asked, drawn = sum(sizes[s] for s in first.tolist()), []
        while True:
            shape = int(self.pods[rng.integers(len(self.pods))])
            if asked + each[shape] > limit:
                return np.concatenate([first, np.array(drawn, np.int64)])
            asked += sizes[shape]
            drawn.append(shape)


def read_farm(folder: Path) -> Farm:
    """The 1,213 GPU nodes in the order of the file."""
    with (folder / "openb_node_list_gpu_node.csv").open(encoding="utf-8", newline="") as file:
        nodes = [
            NodeShape(
                model=row["model"],
                cards=int(row["gpu"]),
                cpu_milli=int(row["cpu_milli"]),
                memory_mib=int(row["memory_mib"]),
            )
            for row in csv.DictReader(file)
        ]
    classes = tuple(sorted(set(nodes)))
    at = {c: row for row, c in enumerate(classes)}
    return Farm(classes=classes, klass=np.array([at[n] for n in nodes], np.int64))


def read_trace(folder: Path, name: str) -> Trace:
    """The pod list ``openb_pod_list_NAME.csv``."""
    with (folder / f"openb_pod_list_{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["name"])
    shapes = [_shape(row) for row in rows]
    distinct = tuple(sorted(set(shapes)))
    at = {s: row for row, s in enumerate(distinct)}
    return Trace(name=name, shapes=distinct, pods=np.array([at[s] for s in shapes], np.int64))


def _shape(row: dict[str, str]) -> PodShape:
    cards = int(row["num_gpu"])
    return PodShape(
        cpu_milli=int(row["cpu_milli"]),
        memory_mib=int(row["memory_mib"]),
        cards=cards,
        card_milli=int(row["gpu_milli"]) if cards else 0,
        models=tuple(sorted({m for m in (row.get("gpu_spec") or "").split("|") if m})),
    )


def names(folder: Path) -> Sequence[str]:
    """The pod lists in the folder, ``default`` first."""
    found = [p.stem.removeprefix("openb_pod_list_") for p in folder.glob("openb_pod_list_*.csv")]
    return sorted(found, key=lambda name: (name != "default", name))


def published(folder: Path, name: str, policy: str) -> Ints:
    """[seed, load]: the authors' allocation in percent (``policy`` as the file spells it, such as ``06-FGD``)."""
    with (folder / "expected_allocation_percent.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            [float(row[f"at_load_{load}"]) for load in LOADS_PERCENT]
            for row in csv.DictReader(file)
            if row["workload"] == f"openb_pod_list_{name}" and row["policy"] == policy
        ]
    return np.array(rows)
