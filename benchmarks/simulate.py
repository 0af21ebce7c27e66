"""One public trace under one or several policies of the real engine: a table, pictures, and the events as JSON lines.

``python -P -m benchmarks.simulate philly --traces DIR --policy fifo --policy shortest --days 7``
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

from benchmarks import traces, training_traces
from benchmarks.results import BUILD
from benchmarks.traces import Trace, with_step
from scheduler.model import codec
from scheduler.model.event import Event
from scheduler.model.policy import Backfill, Policy, Preemption, Sort
from scheduler.report import figures as words
from scheduler.report import gantt, simulated
from scheduler.simulation.loop import Simulation
from scheduler.simulation.measures import figures
from scheduler.simulation.outcome import Run
from scheduler.simulation.scenario import Scenario
from scheduler.simulation.workload import Workload

PLAIN = replace(Policy(), backfill=Backfill.ANY, preemption=Preemption.NEVER, age_gain_ms=0, usage_weight_permille=0)
POLICIES: Mapping[str, Policy] = {
    "ours": Policy(name="ours"),
    "fifo-strict": replace(PLAIN, name="fifo-strict", backfill=Backfill.NONE),
    "fifo": replace(PLAIN, name="fifo"),
    "easy": replace(PLAIN, name="easy", backfill=Backfill.EASY),
    "shortest": replace(PLAIN, name="shortest", sort=Sort.EXPECTED),
    "deadline": replace(PLAIN, name="deadline", sort=Sort.DEADLINE),
    "served": replace(PLAIN, name="served", sort=Sort.SERVED, preemption=Preemption.ALWAYS),
}
"""``shortest`` is told the true run times: an oracle. ``served`` is least attained service, which preempts."""
READERS: Mapping[str, Callable[[Path], Trace]] = {
    "philly": traces.philly,
    "genai": traces.genai,
    "openb": traces.openb,
    "gavel": training_traces.gavel,
    "gavel-makespan": lambda folder: training_traces.gavel(folder, trace="minimize_makespan"),
    "elasticflow": training_traces.elasticflow,
    "elasticflow-philly": lambda folder: training_traces.elasticflow(folder, trace="philly_103959"),
    "chronus": training_traces.chronus,
}
RESTART_MS = 60_000
"""Lost with every eviction, besides work since the last checkpoint."""
SMALL_PARK = 64
"""Cards up to which a Gantt chart shows each."""


def scenario(trace: Trace, policy: Policy, *, checkpoint_ms: int = 60_000, cycle_ms: int = 0) -> Scenario:
    """The trace under this policy, with our own cost of preemption."""
    jobs = with_step(trace.jobs, lambda _, step: replace(step, checkpoint_ms=checkpoint_ms, restart_ms=RESTART_MS))
    if policy.sort is Sort.EXPECTED:
        jobs = with_step(jobs, lambda job, step: replace(step, run_ms_expected=trace.work_ms[job.id]))
    return Scenario(
        policy=policy,
        truth=Workload(work_ms=trace.work_ms, stop_ms=0),
        nodes=trace.nodes,
        queues=trace.queues,
        jobs=jobs,
        begin_ms=jobs[0].submitted_ms if jobs else 0,
        cycle_ms=cycle_ms,
    )


def first_days(trace: Trace, days: float) -> Trace:
    """Jobs submitted within so many days of the first one; 0: all."""
    if not days:
        return trace
    end_ms = trace.jobs[0].submitted_ms + round(timedelta(days=days).total_seconds() * 1_000)
    return replace(trace, jobs=tuple(job for job in trace.jobs if job.submitted_ms < end_ms))


def write_events(events: Sequence[Event], file: Path) -> None:
    """A line of JSON per event, as the journal's codec has it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as out:
        for event in events:
            out.write(codec.dumps(event, tagged=True) + "\n")


def show(runs: Mapping[str, Run]) -> None:
    """A line per policy."""
    head = ("policy", "jobs", "jct mean s", "jct p99 s", "wait mean s", "wait p99 s", "makespan h")
    print(("{:<12}" + "{:>13}" * 10).format(*head, "deadlines", "preempted", "lost", "busy %"))
    for name, run in runs.items():
        f = figures(run)
        times = (f.jct_mean_ms, f.jct_p99_ms, f.wait_mean_ms, f.wait_p99_ms)
        due = f"{f.deadlines_met / f.deadlines:.3f}" if f.deadlines else "-"
        cells = (f.succeeded, *(round(t / 1_000) for t in times), f"{f.makespan_ms / 3_600_000:.2f}", due)
        print(
            ("{:<12}" + "{:>13}" * 10).format(
                name, *cells, f.preempted, words.duration(f.lost_ms), f.cards_busy_permille / 10
            )
        )


def pictures(trace: Trace, runs: Mapping[str, Run]) -> None:
    """All runs side by side; each run by card, or by kind of job where the park is large."""
    stem = trace.name.replace(" ", "-")
    print(simulated.draw(runs, BUILD / f"{stem}.png", f"{trace.name}: {len(trace.jobs):,} jobs"))
    small = sum(len(node.devices) for node in trace.nodes) <= SMALL_PARK
    for name, run in runs.items():
        file, title = BUILD / f"{stem}-{name}.png", f"{trace.name} under {name}"
        print(gantt.draw(simulated.timeline_of(run), file, title) if small else simulated.draw_kinds(run, file, title))


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, print, keep, draw."""
    asked = argparse.ArgumentParser(prog="python -P -m benchmarks.simulate")
    asked.add_argument("trace", choices=sorted(READERS))
    asked.add_argument("--traces", type=Path, required=True, help="folder of the public traces")
    asked.add_argument("--policy", action="append", choices=sorted(POLICIES), default=[])
    asked.add_argument("--days", type=float, default=0, help="only jobs of the first days; 0: all")
    asked.add_argument("--cycle-ms", type=int, default=0, help="least time between two plans")
    asked.add_argument("--events", type=Path, default=None, help="folder for the events as JSON lines")
    asked.add_argument("--no-pictures", action="store_true")
    given = asked.parse_args(argv)
    trace = first_days(READERS[given.trace](given.traces), given.days)
    runs: dict[str, Run] = {}
    for name in given.policy or ["ours", "fifo"]:
        simulation = Simulation(scenario(trace, POLICIES[name], cycle_ms=given.cycle_ms), keep=bool(given.events))
        runs[name] = simulation.run()
        if given.events:
            write_events(simulation.events, given.events / f"{given.trace}-{name}.jsonl")
    show(runs)
    BUILD.mkdir(parents=True, exist_ok=True)
    body = {name: asdict(figures(run)) for name, run in runs.items()}
    (BUILD / f"simulate-{given.trace}.json").write_text(json.dumps(body, indent=2, sort_keys=True) + "\n", "utf-8")
    if not given.no_pictures:
        pictures(trace, runs)


if __name__ == "__main__":
    main()
