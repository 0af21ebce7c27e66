"""Readers of traces of trainings whose speed depends on cards and ranks, or that have deadlines."""

from __future__ import annotations

import ast
import gzip
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.traces import SECOND_MS, Trace, numbered, rows, training, uniform_nodes
from scheduler.model.job import Job, JobKind, Resources, Step, StepKind
from scheduler.model.node import Node
from scheduler.model.queue import Queue

MINUTE_MS = 60 * SECOND_MS
WHOLE = 1_000
GAVEL_PARK = (("v100", 8), ("p100", 16), ("k80", 24))
"""The physical cluster of Gavel (OSDI 2020), section 7.1."""
GAVEL_PER_NODE = 4


def gavel(folder: Path, *, trace: str = "max_min_fairness", spread: bool = True) -> Trace:
    """Gavel's physical-cluster traces: ``max_min_fairness``, ``minimize_makespan`` or ``small_test``.

    ``spread``: workers of one job may lie on any nodes, as Gavel's simulator counts them; else they share one node.
    A job without a measured throughput on a card model does not run there.
    """
    speeds = _gavel_throughputs(folder)
    jobs: list[Job] = []
    work_ms: dict[str, int] = {}
    path = folder / "gavel" / f"traces_physical_cluster_{trace}.trace"
    for at, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        kind, _, _, _, _, steps, workers, _, _, arrival = line.split("\t")
        cards = int(workers)
        rates = {model: rate for model, _ in GAVEL_PARK if (rate := speeds[model].get((kind, cards), 0.0)) > 0}
        fastest = max(rates.values())
        ask = Resources(
            cpu_milli=1_000, memory_mib=1_024, cards=1 if spread else cards, card_models=tuple(sorted(rates))
        )
        step = Step(
            name="train",
            kind=StepKind.TRAIN,
            ranks=cards if spread else 1,
            resources=ask,
            speeds=tuple(sorted((model, max(round(WHOLE * rate / fastest), 1)) for model, rate in rates.items())),
        )
        jobs.append(_job(f"gavel {at} {kind}", step, round(float(arrival) * SECOND_MS)))
        work_ms[jobs[-1].name] = max(round(int(steps) / fastest * SECOND_MS), 1)
    nodes = tuple(
        node
        for model, cards in GAVEL_PARK
        for node in uniform_nodes(cards // GAVEL_PER_NODE, GAVEL_PER_NODE, model, prefix=f"{model}-")
    )
    return _trace(f"gavel {trace}", nodes, jobs, work_ms)


def _gavel_throughputs(folder: Path) -> Mapping[str, Mapping[tuple[str, int], float]]:
    """Steps per second by card model, then by kind of job and number of workers, alone on its cards."""
    with gzip.open(folder / "gavel" / "physical_cluster_throughputs.json.gz", "rt", encoding="utf-8") as file:
        table = json.load(file)
    return {
        model: {ast.literal_eval(name): float(found["null"]) for name, found in table[model].items()}
        for model, _ in GAVEL_PARK
    }


ELASTICFLOW = {"elasticVpollux_e": ("T4", 16, 4), "philly_103959": ("A100", 32, 8)}
"""Card model, nodes and cards per node of each trace (Fig. 8 of ElasticFlow, ASPLOS 2023)."""


def elasticflow(folder: Path, *, trace: str = "elasticVpollux_e", elastic: bool = True) -> Trace:
    """ElasticFlow's deadline traces. Ranks are one card each, on any nodes.

    ``elastic``: from one card to the number that is fastest, at the measured speeds of 1, 2, 4, ... cards (numbers
    between have the speed of the next smaller one, as there they do not occur); else as many cards as the trace says.
    """
    model, nodes, per_node = ELASTICFLOW[trace]
    listed = list(rows(folder / "elasticflow" / f"{trace}.csv"))
    origin = min(int(row["submit_time"]) for row in listed)
    jobs: list[Job] = []
    work_ms: dict[str, int] = {}
    for row in listed:
        rates = _elasticflow_rates(folder, model, row["model_name"], row["batch_size"])
        asked, duration = int(row["num_gpu"]), float(row["duration"])
        most = max(rates, key=lambda cards: (rates[cards], -cards)) if elastic else asked
        step = Step(
            name="train",
            kind=StepKind.TRAIN,
            ranks=most,
            ranks_min=1 if elastic and most > 1 else 0,
            resources=Resources(cpu_milli=1_000, memory_mib=1_024, cards=1),
            scaling=_stairs(rates, most) if elastic else (),
        )
        job = _job(f"elasticflow {row['job_id']} {row['model_name']}", step, _since(row["submit_time"], origin))
        jobs.append(replace(job, deadline_ms=max(_since(row["ddl"], origin), 1)))
        work_ms[job.name] = max(round(duration * rates[asked] / rates[most] * SECOND_MS), 1)
    return _trace(f"elasticflow {trace}", uniform_nodes(nodes, per_node, model), jobs, work_ms)


def _elasticflow_rates(folder: Path, model: str, network: str, batch: str) -> dict[int, float]:
    """Iterations per second by number of cards, where it runs at all."""
    for row in rows(folder / "elasticflow" / f"throughputs_{model}" / f"{network}.csv"):
        if row["global_batch_size"] == batch:
            found = {int(name): float(cell) for name, cell in row.items() if name.isdigit() and cell}
            return {cards: rate for cards, rate in found.items() if rate > 0 and not math.isnan(rate)}
    raise ValueError(f"no throughputs of {network} with batch size {batch} on {model}")


def _stairs(rates: Mapping[int, float], most: int) -> tuple[tuple[int, int], ...]:
    """Scaling of an elastic gang that is worth measured numbers of ranks only."""
    points: dict[int, int] = {}
    before = 0
    for cards in sorted(rates):
        if cards > most:
            break
        speed = max(round(WHOLE * rates[cards] / rates[most]), 1)
        if before and cards - 1 not in rates:
            points[cards - 1] = before
        points[cards] = before = max(speed, before)
    return tuple(sorted(points.items()))


def chronus(folder: Path, *, per_queue: bool = True) -> Trace:
    """Chronus's Philly jobs with strict deadlines (and best-effort jobs without one): 30,940 jobs, 11 queues.

    Its times are minutes. Jobs that ask for no card get one processor.
    """
    jobs: list[Job] = []
    work_ms: dict[str, int] = {}
    queues: dict[str, Queue] = {}
    for row in rows(folder / "chronus" / "philly_mix1.csv.gz"):
        queue = row["user"] if per_queue else "default"
        queues.setdefault(queue, Queue(name=queue))
        submitted_ms = int(row["submit_time"]) * MINUTE_MS
        cards = int(row["num_gpu"])
        job = training(f"chronus {row['job_id']}", max(cards, 1), submitted_ms, queue=queue)
        if not cards:
            step = replace(job.steps[0], ranks=1, resources=Resources(cpu_milli=1_000, memory_mib=1_024))
            job = replace(job, steps=(step,))
        if row["best_effort"] == "0":
            job = replace(job, deadline_ms=submitted_ms + int(row["expect_time_list"]) * MINUTE_MS)
        jobs.append(job)
        work_ms[job.name] = max(int(row["duration"]) * MINUTE_MS, 1)
    trace = _trace("chronus mix1", uniform_nodes(64, 8, "P100", cpus=64), jobs, work_ms)
    return replace(trace, queues=tuple(queues[name] for name in sorted(queues)))


def _job(name: str, step: Step, submitted_ms: int) -> Job:
    return Job(
        id="",
        name=name,
        tenant="default",
        queue="default",
        kind=JobKind.TRAIN,
        steps=(step,),
        submitted_ms=submitted_ms,
    )


def _trace(name: str, nodes: tuple[Node, ...], jobs: list[Job], work_ms: Mapping[str, int]) -> Trace:
    given = numbered(jobs)
    return Trace(name=name, nodes=nodes, jobs=given, work_ms={job.id: work_ms[job.name] for job in given})


def _since(seconds: str, origin: int) -> int:
    return (int(seconds) - origin) * SECOND_MS
