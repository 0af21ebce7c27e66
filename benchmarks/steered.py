"""Deadlines and completion times of public traces through the real engine: its own cycle, placement and journal facts.

Nothing is fluid here: cards lie on nodes, a plan is made at every arrival and end and when the plan before says so, and
what is stopped loses a minute and the work since its last checkpoint (one a minute). All policies run on the same
engine in the same simulator; ``papers.py`` has the papers' own rules. ``python -P -m benchmarks.steered TRACES``.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.papers import least_makespan_hours
from benchmarks.results import Figure, show, write
from benchmarks.simulate import PLAIN, scenario
from benchmarks.traces import Trace, later, philly, with_step
from benchmarks.training_traces import elasticflow, gavel
from scheduler.model.event import JobCancelled
from scheduler.model.policy import Backfill, Objective, Policy, Preemption, Sort
from scheduler.simulation.loop import Simulation
from scheduler.simulation.measures import Figures, figures
from scheduler.simulation.scenario import Scenario

HOUR_MS, SECOND_MS = 3_600_000, 1_000
ALWAYS = replace(PLAIN, preemption=Preemption.ALWAYS, preempted_max=1_000_000)
PEERS: Mapping[str, Policy] = {
    "fifo": replace(PLAIN, name="fifo", backfill=Backfill.NONE),
    "edf": replace(ALWAYS, name="edf", sort=Sort.DEADLINE),
    "sjf": replace(ALWAYS, name="sjf", sort=Sort.EXPECTED),
    "las": replace(ALWAYS, name="las", sort=Sort.SERVED),
}
"""The engine's own orders; all but FIFO stop what runs for who is clearly ahead."""
DRAWS = range(1, 7)
"""Seeds of how wrong owners are, where they are."""
PHILLY_EVERY = 24
"""One job in so many of the Philly pool, on as many fewer nodes: the whole pool takes hours."""


def ours(objective: Objective) -> Policy:
    """The policy as shipped, but for its objective."""
    return Policy(name=objective.value, objective=objective)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A trace and what is asked of it."""

    figure: str
    trace: Trace
    objective: Objective
    measure: Callable[[Figures], float]
    known: bool = True
    """Whether owners say how long their jobs take; shortest first always knows."""
    wrong: float = 0.0
    """What they say is off by a factor whose logarithm has this deviation; shortest first is told the truth."""
    bound: float | None = None
    least: float | None = None
    anchors: Mapping[str, float]

    def run(self, policy: Policy, seed: int = 0) -> Figures:
        """The trace under a policy. ``seed``: of how wrong owners are."""
        made = scenario(later(self.trace, HOUR_MS), policy)
        knows = policy.sort is Sort.EXPECTED
        draw, off = random.Random(seed), 0.0 if knows else self.wrong
        work = self.trace.work_ms
        said = {key: max(1, round(ms * math.exp(draw.gauss(0, off)))) for key, ms in sorted(work.items())}
        told = self.known or knows
        jobs = with_step(made.jobs, lambda job, step: replace(step, run_ms_expected=said[job.id] if told else 0))
        return figures(Leaving(replace(made, jobs=jobs), work).run())

    def result(self) -> Figure:
        """Ours beside the peers on the same engine."""
        dated = any(job.deadline_ms for job in self.trace.jobs)
        anchors = {name: (value,) for name, value in self.anchors.items()}
        for name, policy in PEERS.items():
            if dated or name != "edf":
                anchors[name] = (self.measure(self.run(policy)),)
        draws = DRAWS if self.wrong else (0,)
        values = tuple(self.measure(self.run(ours(self.objective), seed)) for seed in draws)
        if not self.known:
            anchors["ours_told"] = (self.measure(replace(self, known=True).run(ours(self.objective))),)
        return Figure(name=self.figure, runs=values, bound=self.bound, least=self.least, anchors=anchors)


class Leaving(Simulation):
    """Jobs leave when even alone they could not meet their deadline any more, as in the papers' simulators."""

    def __init__(self, scenario: Scenario, work_ms: Mapping[str, int]) -> None:
        super().__init__(scenario)
        self._work_ms = work_ms
        self._dated = [job for job in scenario.jobs if job.deadline_ms]

    def _plan(self, rank: int) -> None:
        left = []
        for job in self._dated:
            record = self.engine.job(job.id)
            if record is None:
                left.append(job)
            elif not record.state.is_final:
                kept_ms = self._kept.get((job.id, job.steps[0].name, 0), 0)
                late = self.now_ms + self._work_ms[job.id] - kept_ms > job.deadline_ms
                if late and not record.steps[0].running.spans:
                    self._happen(JobCancelled(at_ms=self.now_ms, job_id=job.id, by="its owner"))
                else:
                    left.append(job)
        self._dated = left
        super()._plan(rank)


def cases(folder: Path) -> list[Case]:
    """All traces below a folder."""
    makespan = gavel(folder, trace="minimize_makespan")
    pool = philly(folder, nodes=72 // PHILLY_EVERY, every=PHILLY_EVERY)
    return [
        Case(
            figure="engine_deadline_met_elasticvpollux",
            trace=elasticflow(folder),
            objective=Objective.COMPLETION,
            measure=met,
            least=0.74,
            anchors={"elasticflow_published": 0.728},
        ),
        Case(
            figure="engine_deadline_met_elasticvpollux_owners_wrong",
            trace=elasticflow(folder),
            objective=Objective.COMPLETION,
            measure=met,
            wrong=0.2,
            anchors={},
        ),
        Case(
            figure="engine_deadline_met_philly103959",
            trace=elasticflow(folder, trace="philly_103959"),
            objective=Objective.COMPLETION,
            measure=met,
            least=0.92,
            anchors={"elasticflow_rerun": 0.910},
        ),
        Case(
            figure="engine_gavel_jct_hours",
            trace=gavel(folder),
            objective=Objective.COMPLETION,
            measure=lambda f: f.jct_mean_ms / HOUR_MS,
            bound=3.7,
            anchors={"gavel_las_perf_rerun": 3.82},
        ),
        Case(
            figure="engine_gavel_makespan_hours",
            trace=makespan,
            objective=Objective.MAKESPAN,
            measure=lambda f: f.makespan_ms / HOUR_MS,
            anchors={"gavel_makespan_perf_rerun": 17.40, "no_schedule_ends_before": least_makespan_hours(makespan)},
        ),
        Case(
            figure="engine_philly_sample_jct_seconds",
            trace=fitting(pool),
            objective=Objective.COMPLETION,
            measure=lambda f: f.jct_mean_ms / SECOND_MS,
            known=False,
            anchors={},
        ),
    ]


def met(found: Figures) -> float:
    """Part of the jobs with a deadline that ended by it."""
    return found.deadlines_met / found.deadlines


def fitting(trace: Trace) -> Trace:
    """Without jobs that need more cards than there are."""
    cards = sum(len(node.devices) for node in trace.nodes)
    jobs = tuple(job for job in trace.jobs if job.steps[0].ranks * job.steps[0].resources.cards <= cards)
    return replace(trace, jobs=jobs)


def results(folder: Path) -> list[Figure]:
    """All figures on the traces below a folder."""
    return [case.result() for case in cases(folder)]


def main() -> None:
    """Measure on the traces below a folder, or on those named behind it; print, keep."""
    names = sys.argv[2:]
    found = [case.result() for case in cases(Path(sys.argv[1])) if not names or case.figure in names]
    show(found)
    write("steered", found)


if __name__ == "__main__":
    main()
