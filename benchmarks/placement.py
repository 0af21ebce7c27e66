"""B1: how much of the openb farm each policy fills, one pod at a time (Weng et al., ATC'23).

``figures`` is called by the engine's bench. By itself: ``python -P -m benchmarks.placement TRACES [--quick]``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import openb_baselines as baselines
from benchmarks.openb import LOADS_PERCENT, Farm, Ints, Trace, names, published, read_farm, read_trace
from benchmarks.openb_fill import Fill, fill
from benchmarks.results import Figure, show

SEEDS = tuple(range(42, 52))
STUDENT_95 = {3: 4.303, 10: 2.262}
"""Two-sided 95 % quantile of Student's t by number of seeds."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """One policy on one list: a row per seed."""

    percent: NDArray[np.float64]
    """[seed, load]: cards allocated."""
    gang_rejected_percent: float
    """8-card pods rejected of those arrived by 100 % load, all seeds together."""
    rejected: float
    """Mean pods with cards rejected by 100 % load."""

    @property
    def full(self) -> tuple[float, ...]:
        """Per seed at the last load."""
        return tuple(float(x) for x in self.percent[:, -1])


def runs(fills: Sequence[Fill]) -> Runs:
    """Put the seeds' runs together."""
    gangs = sum(f.gang_arrived for f in fills)
    return Runs(
        percent=np.array([f.percent for f in fills]),
        gang_rejected_percent=100.0 * sum(f.gang_rejected for f in fills) / max(gangs, 1),
        rejected=float(np.mean([f.rejected for f in fills])),
    )


def shuffled(farm: Farm, seed: int) -> Farm:
    """The order of nodes in the run of a seed, shared by all policies."""
    return farm.reordered(np.random.default_rng((seed, 1)).permutation(len(farm.klass)))


def orders(farm: Farm) -> list[Farm]:
    """The file's order, ten random ones, most cards first, least processors per card first."""
    have = farm.table[farm.klass]
    most_cards, least_cpu = np.argsort(-have[:, 2], kind="stable"), np.argsort(have[:, 0] / have[:, 2], kind="stable")
    return [farm, *(shuffled(farm, seed) for seed in SEEDS), farm.reordered(most_cards), farm.reordered(least_cpu)]


def order_range(policy: Callable[[Farm, Ints], Fill], farm: Farm, pods: Ints) -> float:
    """Greatest minus least allocation over the orders, at the load where they differ most."""
    percent = np.array([policy(o, pods).percent for o in orders(farm)])
    return float((percent.max(axis=0) - percent.min(axis=0)).max())


def compare(trace: Trace, farm: Farm, seeds: Sequence[int], policies: Sequence[int]) -> dict[str, Runs]:
    """Our policy, baselines by number and FGD with random ties, on the same arrivals and orders."""
    fills: dict[str, list[Fill]] = {}
    for seed in seeds:
        pods, nodes = trace.arrivals(seed, farm.total_milli), shuffled(farm, seed)
        fills.setdefault("shisuan", []).append(fill(trace, nodes, pods))
        for policy in policies:
            chance = policy == baselines.RANDOM
            run = baselines.run(policy, trace, nodes, pods, seed, random_ties=chance)
            fills.setdefault(baselines.NAMES[policy], []).append(run)
        if len(policies) > 1:
            run = baselines.run(baselines.FGD, trace, nodes, pods, seed, random_ties=True)
            fills.setdefault("FGD, random ties", []).append(run)
    return {name: runs(each) for name, each in fills.items()}


def least_gain(ours: Runs, peer: Runs) -> tuple[float, int]:
    """Lower end of the paired 95 % interval of ours - peer in percentage points, at the load where it is least."""
    gain = ours.percent - peer.percent
    low = gain.mean(axis=0) - STUDENT_95[len(gain)] * gain.std(axis=0, ddof=1) / np.sqrt(len(gain))
    return float(low.min()), LOADS_PERCENT[int(low.argmin())]


def table(name: str, results: dict[str, Runs], folder: Path) -> None:
    """Print allocation by load, the published values beside it."""
    seeds = len(results["shisuan"].full)
    print(f"\nopenb {name}: cards allocated in percent at load {LOADS_PERCENT}, mean of {seeds} seeds")
    for policy, r in results.items():
        theirs = published(folder, name, policy)
        shown = " ".join(f"{x:6.2f}" for x in r.percent.mean(axis=0))
        known = f"  published {' '.join(f'{x:.2f}' for x in theirs.mean(axis=0))}" if len(theirs) else ""
        print(f"  {policy:<17} {shown}  8-card pods rejected {r.gang_rejected_percent:5.2f} %{known}")


def figures(traces: Path, quick: bool) -> list[Figure]:
    """The figures of B1; ``quick`` takes three seeds and two lists."""
    folder = traces / "openb"
    farm = read_farm(folder)
    seeds = SEEDS[:3] if quick else SEEDS
    found: list[Figure] = []
    for name in list(names(folder))[: 2 if quick else None]:
        trace = read_trace(folder, name)
        policies = range(len(baselines.NAMES)) if name == "default" else (baselines.FGD,)
        results = compare(trace, farm, seeds, policies)
        table(name, results, folder)
        found += _figures(name, results, folder)
        if name == "default":
            pods = trace.arrivals(seeds[0], farm.total_milli)
            swing = order_range(lambda o, p, t=trace: baselines.run(baselines.FGD, t, o, p), farm, pods)
            ours = order_range(lambda o, p, t=trace: fill(t, o, p), farm, pods)
            found.append(Figure(name="openb_order_range_pp", runs=(ours,), bound=0.1, anchors={"fgd": (swing,)}))
    return found


def _figures(name: str, results: dict[str, Runs], folder: Path) -> list[Figure]:
    ours, fgd = results["shisuan"], results[baselines.NAMES[baselines.FGD]]
    suffix = "" if name == "default" else f"_{name}"
    low, load = least_gain(ours, fgd)
    print(f"  least paired gain over FGD, lower end at 95 %: {low:+.2f} pp, at load {load} %")
    anchors = {policy: r.full for policy, r in results.items() if policy != "shisuan"}
    anchors["published FGD"] = tuple(published(folder, name, baselines.NAMES[baselines.FGD])[:, -1].tolist())
    bound = fgd.gang_rejected_percent + 0.5
    return [
        Figure(name=f"openb{suffix}_alloc_130_percent", runs=ours.full, anchors=anchors),
        Figure(name=f"openb{suffix}_least_gain_over_fgd_pp", runs=(low,), least=-0.1),
        Figure(
            name=f"openb{suffix}_gpu8_rejected_percent",
            runs=(ours.gang_rejected_percent,),
            bound=bound,
            anchors={"fgd": (fgd.gang_rejected_percent,)},
        ),
    ]


def alone(description: str, measure: Callable[[Path, bool], list[Figure]], argv: Sequence[str] | None) -> None:
    """A part of the bench by itself: ``TRACES [--quick]``; prints tables and figures."""
    words = argparse.ArgumentParser(description=description)
    words.add_argument("traces", type=Path)
    words.add_argument("--quick", action="store_true")
    chosen = words.parse_args(argv)
    show(measure(chosen.traces, chosen.quick))


def main(argv: Sequence[str] | None = None) -> None:
    """How full each policy fills the farm."""
    alone(str(__doc__), figures, argv)


if __name__ == "__main__":
    main()
