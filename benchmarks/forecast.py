"""Are predicted starts true? Forecasts at submission on public traces, beside what happened in a simulated pool.

Printed for all starts and for those that were predicted to wait: a start at once is easy to predict. The anchor is what
users have today: the 5 to 95 % interval of the latest 200 waits of the same tenant and number of cards.
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import traces, training_traces
from benchmarks.forecast_world import Waiting, World
from benchmarks.results import Figure, show, write
from benchmarks.traces import Trace
from scheduler.model.job import JobRecord
from scheduler.queueing.calibration import Calibration, bounds
from scheduler.queueing.forecast import forecast
from scheduler.queueing.lifecycle import submitted
from scheduler.queueing.pool import Ask

RECENT = 200
RECENT_LEAST = 20
WARM_UP = 100
"""Forecasts before anything is counted: nothing was learned yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A trace, and one job in how many is forecast."""

    trace: Trace
    every: int


def cases(folder: Path) -> Mapping[str, Case]:
    """Three parks on which most jobs wait."""
    chronus = training_traces.chronus(folder)
    with_cards = tuple(job for job in chronus.jobs if job.steps[0].resources.cards)
    chronus = replace(chronus, jobs=with_cards, nodes=traces.uniform_nodes(140, 8, "P100"))
    philly = traces.philly(folder)
    return {
        "genai": Case(trace=traces.genai(folder, nodes=1, cards=2), every=8),
        "chronus": Case(trace=chronus, every=25),
        "philly": Case(trace=replace(philly, jobs=philly.jobs[:20_000]), every=40),
    }


class Score:
    """Forecasts as they are made, what was learned by then, and what happened."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._calibration = Calibration()
        self._records: dict[int, JobRecord] = {}
        self._past: dict[object, deque[int]] = defaultdict(lambda: deque(maxlen=RECENT))
        self.rows: dict[int, tuple[int, ...]] = {}
        """By job: 5, 50 and 95 % of the forecast, 5 and 95 % of past waits, and the wait, in milliseconds."""

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
        past = self._past[_class(world, at)]
        past = past if len(past) >= RECENT_LEAST else self._past[None]
        naive = np.percentile(past, (5, 95)) if past else (0, 0)
        self.rows[at] = (*bounds(self._calibration.corrected(raw)), *(int(wait) for wait in naive))

    def _began(self, world: World, at: int) -> None:
        wait = world.now_ms - world.trace.jobs[at].submitted_ms
        for key in (_class(world, at), None):
            self._past[key].append(wait)
        if at in self._records:
            started = replace(self._records[at], started_ms=max(world.now_ms, 1))
            self._calibration.put(self._records.pop(at), started)
            self.rows[at] = (*self.rows[at], wait)


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
        rows = np.array([row for _, row in sorted(score.rows.items()) if len(row) == 6][WARM_UP:], float)
        found += _figures(name, rows)
        waits = rows[rows[:, 2] > 0]
        found += _figures(f"{name}_waiting", waits)
        print(
            f"  {name}: {len(rows)} forecasts, {len(waits)} of them to wait; {(rows[:, 5] > 0).sum()} did", flush=True
        )
    return found


def _figures(name: str, rows: np.ndarray) -> list[Figure]:
    low, _, high, past_low, past_high, wait = rows.T
    covered = 100 * float(np.mean((low <= wait) & (wait <= high)))
    past = 100 * float(np.mean((past_low <= wait) & (wait <= past_high)))
    ratio = float(np.median(high - low)) / max(float(np.median(past_high - past_low)), 1.0)
    return [
        Figure(name=f"forecast_{name}_coverage_percent", runs=(covered,), anchors={"past waits": (past,)}),
        Figure(name=f"forecast_{name}_width_ratio", runs=(ratio,)),
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
