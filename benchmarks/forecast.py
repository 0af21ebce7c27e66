"""Are predicted starts true? Forecasts at submission on public traces, beside what happened in a simulated pool.

Printed for all starts and for those that were predicted to wait: a start at once is easy to predict. The anchor is the
historical interval of the job's class: 5 to 95 % of all earlier waits of the same tenant and number of cards. That of
the latest 200 of them is printed too; it is narrower and covers half of what it should.
"""

from __future__ import annotations

import sys
from bisect import insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import traces, training_traces
from benchmarks.forecast_world import Waiting, World
from benchmarks.results import Figure, show, write
from benchmarks.traces import Trace
from scheduler.model.job import Job, JobRecord
from scheduler.queueing.calibration import Calibration, bounds
from scheduler.queueing.forecast import forecast
from scheduler.queueing.histogram import quantile
from scheduler.queueing.lifecycle import submitted
from scheduler.queueing.pool import Ask

RECENT = 200
COLUMNS = 8
PAST_LEAST = 20
"""A class with fewer earlier waits is taken for all classes."""
COVERED_PERCENT = (85, 95)
WIDTH_RATIO = 0.5
WARM_UP = 100
"""Forecasts before anything is counted: nothing was learned yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A trace, and one job in how many is forecast."""

    trace: Trace
    every: int


def cases(folder: Path) -> Mapping[str, Case]:
    """Four parks on which about half of the jobs wait, or more."""
    chronus = training_traces.chronus(folder)
    with_cards = tuple(job for job in chronus.jobs if job.steps[0].resources.cards)
    chronus = replace(chronus, jobs=with_cards, nodes=traces.uniform_nodes(140, 8, "P100"))
    philly = traces.philly(folder)
    small = training_traces.elasticflow(folder, trace="philly_103959", elastic=False)
    small = replace(small, jobs=tuple(map(_on_one_node, small.jobs)), nodes=traces.uniform_nodes(4, 8, "A100"))
    return {
        "genai": Case(trace=traces.genai(folder, nodes=1, cards=2), every=8),
        "chronus": Case(trace=chronus, every=25),
        "philly": Case(trace=replace(philly, jobs=philly.jobs[:20_000]), every=40),
        "elasticflow": Case(trace=small, every=1),
    }


def _on_one_node(job: Job) -> Job:
    """Its ranks of one card each as cards of one rank."""
    step = job.steps[0]
    ranks, cards = traces.gang(step.ranks)
    return replace(job, steps=(replace(step, ranks=ranks, resources=replace(step.resources, cards=cards)),))


class Score:
    """Forecasts as they are made, what was learned by then, and what happened."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._calibration = Calibration()
        self._records: dict[int, JobRecord] = {}
        self._past: dict[object, list[int]] = defaultdict(list)
        """Earlier waits by class, sorted; of all under None."""
        self._latest: dict[object, list[int]] = defaultdict(list)
        self.rows: dict[int, tuple[int, ...]] = {}
        """By job, in ms: 5, 50 and 95 % of the forecast, 5 and 95 % of all past waits and of the latest, the wait."""

    def play(self) -> None:
        """The whole trace."""
        World(trace=self._case.trace).run(self._asked, self._began)

    def _asked(self, world: World, at: int, entry: Waiting) -> None:
        if at % self._case.every:
            return
        raw = forecast(world.pool(), Ask(ranks=entry.ranks, amount=entry.cards, estimate=entry.estimate), at)
        if not raw:
            return
        job = world.trace.jobs[at]
        job = replace(job, forecast_raw_ms=tuple(job.submitted_ms + wait for wait in bounds(raw)))
        self._records[at] = submitted(job, held=False)
        key = _class(world, at)
        key = key if len(self._past[key]) >= PAST_LEAST else None
        naive = (*_interval(self._past[key]), *_interval(sorted(self._latest[key][-RECENT:])))
        self.rows[at] = (*bounds(self._calibration.corrected(raw)), *naive)

    def _began(self, world: World, at: int) -> None:
        wait = world.now_ms - world.trace.jobs[at].submitted_ms
        for key in (_class(world, at), None):
            insort(self._past[key], wait)
            self._latest[key].append(wait)
        if at in self._records:
            started = replace(self._records[at], started_ms=max(world.now_ms, 1))
            self._calibration.put(self._records.pop(at), started)
            self.rows[at] = (*self.rows[at], wait)


def _interval(waits: Sequence[int]) -> tuple[int, int]:
    """5 and 95 % of sorted waits."""
    return (quantile(waits, 50), quantile(waits, 950)) if waits else (0, 0)


def _class(world: World, at: int) -> object:
    job = world.trace.jobs[at]
    return job.tenant, job.steps[0].ranks * job.steps[0].resources.cards


def figures(folder: Path, names: Sequence[str] = ()) -> list[Figure]:
    """Coverage and width on each trace."""
    found: list[Figure] = []
    for name, case in cases(folder).items():
        if names and name not in names:
            continue
        score = Score(case)
        score.play()
        rows = np.array([row for _, row in sorted(score.rows.items()) if len(row) == COLUMNS][WARM_UP:], float)
        found += _figures(name, rows, judged=True)
        waits = rows[rows[:, 2] > 0]
        found += _figures(f"{name}_waiting", waits, judged=False)
        print(
            f"  {name}: {len(rows)} forecasts, {len(waits)} of them to wait; {(rows[:, -1] > 0).sum()} did", flush=True
        )
    return found


def _figures(name: str, rows: np.ndarray, *, judged: bool) -> list[Figure]:
    """``judged``: against what was asked of all starts."""
    low, _, high, past_low, past_high, latest_low, latest_high, wait = rows.T

    def covered(least: np.ndarray, most: np.ndarray) -> float:
        return 100 * float(np.mean((least <= wait) & (wait <= most)))

    width, past, latest = (float(np.median(w)) for w in (high - low, past_high - past_low, latest_high - latest_low))
    anchors = {
        "earlier waits": (covered(past_low, past_high),),
        f"latest {RECENT}": (covered(latest_low, latest_high),),
    }
    least, bound = COVERED_PERCENT if judged else (None, None)
    figure = f"forecast_{name}"
    return [
        Figure(
            name=f"{figure}_coverage_percent", runs=(covered(low, high),), least=least, bound=bound, anchors=anchors
        ),
        Figure(name=f"{figure}_width_ratio", runs=(width / max(past, 1.0),), bound=WIDTH_RATIO if judged else None),
        Figure(name=f"{figure}_latest_width_ratio", runs=(width / max(latest, 1.0),)),
    ]


def main(argv: Sequence[str]) -> None:
    """``TRACES [NAME…]``: measure, print, keep."""
    if not argv:
        sys.exit("which folder are the traces in?")
    found = figures(Path(argv[0]), argv[1:])
    show(found)
    write("forecast", found)


if __name__ == "__main__":
    main(sys.argv[1:])
