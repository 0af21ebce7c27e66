"""A mixed farm: two studios' frame backlogs, transcodes with deadlines, and 64-card gangs that must drain a place.

Frames are cut into ``SLICES`` sample slices, tasks that one lease runs one after the other, as a render job with
``slices: 8, chunk: 8`` has them: a frame that is stopped loses the slice that runs. A gang's drain lasts from its
submission to its grant; its change of lanes comes behind that and is not counted as idle.

The engine's own policy beside FIFO, shortest first with oracle run times, strict priority, and placement alone; the
same park, jobs, run times and seed for all. Everything is generated: no trace is needed. With ``--traces DIR`` frames
take what Alibaba's image requests took (GenTD26). ``python -P -m benchmarks.mixed``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.results import BUILD, Figure, show, write
from benchmarks.traces import genai, numbered, uniform_nodes
from scheduler.model.job import Job, JobKind, Resources, Step, StepKind
from scheduler.model.policy import Backfill, Floor, Policy, Preemption, Sort
from scheduler.model.queue import Queue
from scheduler.report import simulated
from scheduler.simulation import measures
from scheduler.simulation.loop import simulate
from scheduler.simulation.measures import cards_held, percentile, tasks_waiting
from scheduler.simulation.outcome import Run, Span
from scheduler.simulation.scenario import Scenario, Script, Starting
from scheduler.simulation.workload import Workload

SECOND_MS, MINUTE_MS = 1_000, 60_000
NODES, CARDS = 16, 8
WHOLE = 1_000
GANG_NODES = 8
FRAMES = 30_000
"""Per studio: more than are ever done, so that both always wait."""
FRAME_MS = (20_000, 60_000)
SLICES = 8
"""Of a frame: sample slices of 2.5 to 7.5 s, tasks that one lease runs one after the other (``chunk: 8``)."""
TRANSCODE_MS = (20_000, 40_000)
SWITCH_MS = (20_000, 120_000)
"""A gang's nodes change lanes before it runs: its cards are held meanwhile."""
SETTLED_MS = 5 * MINUTE_MS
"""Shares are looked at once the farm has filled."""
WEIGHTS = {"film-a": 200, "film-b": 100}
QUEUES = (
    *(Queue(name=name, weight=weight) for name, weight in WEIGHTS.items()),
    Queue(name="media", weight=100),
    Queue(name="ai", weight=400),
)
FLOORS = (Floor(kind=JobKind.RENDER.value, permille=200), Floor(kind=JobKind.TRANSCODE.value, permille=20))
OURS = Policy(name="ours", floors=FLOORS)
PLAIN = replace(Policy(), backfill=Backfill.ANY, preemption=Preemption.NEVER, age_gain_ms=0, usage_weight_permille=0)
FIFO = replace(PLAIN, name="fifo", backfill=Backfill.NONE)
SHORTEST = replace(PLAIN, name="shortest", sort=Sort.EXPECTED)
PRIORITY = replace(PLAIN, name="priority")
PLACEMENT = replace(PLAIN, name="placement")
"""No order but age, nothing kept for anybody: only where, never when."""


@dataclass(frozen=True, slots=True)
class Farm:
    """What a run's true times are: the same for every policy."""

    seed: int
    frames_ms: tuple[int, ...] = ()
    """Empty: evenly within ``FRAME_MS``."""

    def work_ms(self, job: Job, step: Step, index: int) -> int:
        """Of one task, drawn from what names it."""
        if job.kind is JobKind.TRAIN:
            return step.run_ms_expected
        if job.kind is JobKind.RENDER:
            return -(-self._frame_ms(job, index // SLICES) // SLICES)
        draw = np.random.default_rng([self.seed, int(job.id[1:]), index])
        return int(draw.integers(TRANSCODE_MS[0], TRANSCODE_MS[1] + 1))

    def _frame_ms(self, job: Job, frame: int) -> int:
        draw = np.random.default_rng([self.seed, int(job.id[1:]), frame])
        if self.frames_ms:
            return self.frames_ms[int(draw.integers(len(self.frames_ms)))]
        return int(draw.integers(FRAME_MS[0], FRAME_MS[1] + 1))

    def script(self, starting: Starting) -> Script:
        """As its work says; a gang's nodes switch lanes first."""
        script = Workload(work_ms=self.work_ms, stop_ms=2 * SECOND_MS).script(starting)
        if starting.job.kind is not JobKind.TRAIN:
            return script
        draw = np.random.default_rng([self.seed, int(starting.job.id[1:]), starting.number])
        return replace(script, start_ms=int(draw.integers(SWITCH_MS[0], SWITCH_MS[1] + 1)))


def jobs(hours: float, seed: int, *, one_queue: bool, priorities: bool, told: Farm | None) -> tuple[Job, ...]:
    """Everything that is asked for. ``told``: with true run times as their owners' expectations."""
    end_ms = int(hours * 60 * MINUTE_MS)
    made = [_frames(queue) for queue in WEIGHTS]
    draw = np.random.default_rng([seed, 1])
    at_ms = 0
    while at_ms < end_ms - 10 * MINUTE_MS:
        at_ms += int(draw.exponential(30 * SECOND_MS)) + 1
        made.append(_transcode(at_ms, int(draw.integers(1, 9))))
    made += [_gang(at_ms) for at_ms in range(20 * MINUTE_MS, end_ms - 20 * MINUTE_MS, 30 * MINUTE_MS)]
    rank = {JobKind.RENDER: 30, JobKind.TRAIN: 50, JobKind.TRANSCODE: 70}
    if priorities:
        made = [replace(job, priority=rank[job.kind]) for job in made]
    if one_queue:
        made = [replace(job, queue="default") for job in made]
    given = numbered(made)
    if told is None:
        return given
    return tuple(
        replace(job, steps=(replace(s, run_ms_expected=told.work_ms(job, s, 0)),)) for job in given for s in job.steps
    )


def _frames(queue: str) -> Job:
    step = Step(
        name="frames",
        kind=StepKind.RENDER,
        count=FRAMES * SLICES,
        chunk=SLICES,
        resources=_ask(cards=1),
        grace_ms=2 * SECOND_MS,
    )
    return _job(JobKind.RENDER, "film", queue, step, 0)


def _transcode(at_ms: int, chunks: int) -> Job:
    step = Step(
        name="chunks", kind=StepKind.CHUNK, count=chunks, resources=_ask(card_milli=250), grace_ms=2 * SECOND_MS
    )
    return replace(_job(JobKind.TRANSCODE, "clip", "media", step, at_ms), deadline_ms=at_ms + 3 * MINUTE_MS)


def _gang(at_ms: int) -> Job:
    step = Step(
        name="train",
        kind=StepKind.TRAIN,
        ranks=GANG_NODES,
        resources=_ask(cards=CARDS),
        run_ms_expected=12 * MINUTE_MS,
        checkpoint_ms=MINUTE_MS,
        restart_ms=MINUTE_MS,
    )
    return _job(JobKind.TRAIN, "model", "ai", step, at_ms)


def _ask(*, cards: int = 0, card_milli: int = 0) -> Resources:
    return Resources(cpu_milli=2_000 * max(cards, 1), memory_mib=4_096, cards=cards, card_milli=card_milli)


def _job(kind: JobKind, name: str, queue: str, step: Step, at_ms: int) -> Job:
    return Job(id="", name=name, tenant="park", queue=queue, kind=kind, steps=(step,), submitted_ms=at_ms)


def scenario(policy: Policy, farm: Farm, hours: float) -> Scenario:
    """The farm under one policy. All but our own know one queue only."""
    plain = policy.name != OURS.name
    asked = jobs(
        hours,
        farm.seed,
        one_queue=plain,
        priorities=policy.name == PRIORITY.name,
        told=farm if policy.sort is Sort.EXPECTED else None,
    )
    return Scenario(
        policy=policy,
        truth=farm,
        nodes=uniform_nodes(NODES, CARDS, "L40S", cpus=64),
        queues=(Queue(name="default"),) if plain else QUEUES,
        jobs=asked,
        cycle_ms=SECOND_MS,
        until_ms=int(hours * 60 * MINUTE_MS),
        seed=farm.seed,
    )


def drain_bound_ms(run: Run, gang: Span, submitted_ms: int) -> int:
    """When the gang could start if nothing else started from its submission on."""
    busy_until = {node.name: submitted_ms for node in run.nodes}
    for span in run.spans:
        if span.granted_ms <= submitted_ms < span.closed_ms and span.lease_id != gang.lease_id:
            for node in span.nodes:
                busy_until[node] = max(busy_until[node], span.closed_ms)
    return sorted(busy_until.values())[GANG_NODES - 1] - submitted_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """From a gang's submission to its grant."""

    wait_ms: int
    late_ms: int
    """Beyond the bound."""
    idle_permille: int
    """Of the farm's card time in it: held by nobody."""
    place_idle_permille: int
    """Likewise of the cards that the gang then gets."""


def drains(run: Run) -> list[Drain]:
    """Of every gang that started."""
    found: list[Drain] = []
    for job in run.jobs:
        first = next((span for span in run.spans if span.job_id == job.id), None)
        if job.kind != JobKind.TRAIN.value or first is None:
            continue
        mine = frozenset(first.devices)
        before = [span for span in run.spans if span.granted_ms < job.granted_ms and span.closed_ms > job.submitted_ms]
        place = [replace(s, card_milli=_milli_on(s, mine)) for s in before if not mine.isdisjoint(s.devices)]
        idle, place_idle = (
            WHOLE - cards_held(spans).area(job.submitted_ms, job.granted_ms) // max(cards * job.wait_ms, 1)
            for spans, cards in ((before, NODES * CARDS), (place, len(mine)))
        )
        found.append(
            Drain(
                wait_ms=job.wait_ms,
                late_ms=max(job.wait_ms - drain_bound_ms(run, first, job.submitted_ms), 0),
                idle_permille=idle,
                place_idle_permille=place_idle,
            )
        )
    return found


def _milli_on(span: Span, devices: frozenset[str]) -> int:
    """Thousandths of these cards that a lease holds."""
    return span.card_milli * sum(device in devices for device in span.devices) // len(span.devices)


def lost_percent(run: Run, found: Sequence[Drain]) -> float:
    """Work of frames that was stopped and must be done again, of the card time of all drains."""
    lost_ms = sum(job.lost_ms for job in run.jobs if job.kind != JobKind.TRAIN.value)
    return 100 * lost_ms / max(NODES * CARDS * sum(drain.wait_ms for drain in found), 1)


def share_error_permille(run: Run) -> int:
    """Of the two studios that always wait: distance of their parts of the card time from their weights."""
    spans = {queue: [s for s in run.spans if s.queue == queue] for queue in WEIGHTS}
    held = {queue: cards_held(found).area(SETTLED_MS, run.end_ms) for queue, found in spans.items()}
    total, weights = max(sum(held.values()), 1), sum(WEIGHTS.values())
    return max(abs(WHOLE * held[queue] // total - WHOLE * weight // weights) for queue, weight in WEIGHTS.items())


def below_floor_permille(run: Run, kind: JobKind, permille: int) -> int:
    """Part of the time, in thousandths, in which the kind waited and held less than its floor."""
    mine = {job.id for job in run.jobs if job.kind == kind.value}
    at_ms = np.arange(SETTLED_MS, run.end_ms, 5 * SECOND_MS, dtype=np.int64)
    held = cards_held(s for s in run.spans if s.job_id in mine).at(at_ms)
    waits = np.zeros(len(at_ms), dtype=bool)
    for job in run.jobs:
        if job.id in mine and kind is not JobKind.RENDER:
            waits |= (at_ms >= job.submitted_ms + 2 * SECOND_MS) & (
                at_ms < (job.granted_ms if job.was_granted else run.end_ms)
            )
    waits |= kind is JobKind.RENDER
    least = NODES * CARDS * permille
    return int(WHOLE * np.mean(waits & (held < least))) if len(at_ms) else 0


def measure(run: Run, policy: Policy) -> list[Figure]:
    """The run's figures, named after the policy."""
    drained = drains(run)
    gangs = sum(job.kind == JobKind.TRAIN.value for job in run.jobs)
    clips = [job for job in run.jobs if job.kind == JobKind.TRANSCODE.value]
    due = [job for job in clips if job.deadline_ms <= run.end_ms]
    ours = policy.name == OURS.name
    waits_ms = [(job.granted_ms if job.was_granted else run.end_ms) - job.submitted_ms for job in clips]
    gangs_ms = [
        (j.granted_ms if j.was_granted else run.end_ms) - j.submitted_ms
        for j in run.jobs
        if j.kind == JobKind.TRAIN.value
    ]
    found = {
        "gang_wait_seconds": (max(gangs_ms, default=0) / SECOND_MS, None),
        "gang_late_seconds": (max((d.late_ms for d in drained), default=0) / SECOND_MS, 5.0 if ours else None),
        "gangs_not_started": (gangs - len(drained), 0.0 if ours else None),
        "drain_idle_percent": (max((d.idle_permille for d in drained), default=0) / 10, 5.0 if ours else None),
        "drain_place_idle_percent": (max((d.place_idle_permille for d in drained), default=0) / 10, None),
        "drain_lost_percent": (lost_percent(run, drained), None),
        "share_error_percent": (share_error_permille(run) / 10, 2.0) if ours else None,
        "frames_below_floor_percent": (below_floor_permille(run, JobKind.RENDER, 200) / 10, 0.5 if ours else None),
        "clips_below_floor_percent": (below_floor_permille(run, JobKind.TRANSCODE, 20) / 10, 0.5 if ours else None),
        "clip_deadlines_missed_percent": (100 * sum(not job.met_deadline for job in due) / max(len(due), 1), None),
        "clip_wait_p99_seconds": (percentile(waits_ms, 990) / SECOND_MS, None),
        "cards_busy_percent": (measures.figures(run).cards_busy_permille / 10, None),
    }
    return [
        Figure(name=f"{policy.name}_{name}", runs=(float(value[0]),), bound=value[1])
        for name, value in found.items()
        if value is not None
    ]


def figures(hours: float = 1.5, seed: int = 1) -> list[Figure]:
    """The figures of the engine's own policy and of the others, on generated run times."""
    farm = Farm(seed, ())
    policies = (OURS, FIFO, SHORTEST, PRIORITY, PLACEMENT)
    return [row for policy in policies for row in measure(simulate(scenario(policy, farm, hours)), policy)]


def main(argv: Sequence[str] | None = None) -> None:
    """Run every policy on the same farm; print, keep, draw."""
    asked = argparse.ArgumentParser(prog="python -P -m benchmarks.mixed")
    asked.add_argument("--hours", type=float, default=1.5)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--traces", type=Path, default=None)
    asked.add_argument("policies", nargs="*", default=[p.name for p in (OURS, FIFO, SHORTEST, PRIORITY, PLACEMENT)])
    given = asked.parse_args(argv)
    known = {p.name: p for p in (OURS, FIFO, SHORTEST, PRIORITY, PLACEMENT)}
    frames_ms = tuple(genai(given.traces).work_ms.values()) if given.traces else ()
    farm = Farm(given.seed, frames_ms)
    runs: dict[str, Run] = {}
    found: list[Figure] = []
    for name in given.policies:
        print(f"{name} …", flush=True)
        runs[name] = simulate(scenario(known[name], farm, given.hours))
        part = measure(runs[name], known[name])
        show(part)
        found += part
    write("mixed", found, notes={"hours": given.hours, "seed": given.seed, "tasks_waiting": _waiting(runs)})
    print(simulated.draw(runs, BUILD / "mixed.png", "A mixed farm under several policies"))
    for name, run in runs.items():
        print(simulated.draw_kinds(run, BUILD / f"mixed-{name}.png", f"Who held the cards: {name}"))


def _waiting(runs: dict[str, Run]) -> dict[str, int]:
    return {name: int(max(tasks_waiting(run).values, default=0)) for name, run in runs.items()}


if __name__ == "__main__":
    main()
