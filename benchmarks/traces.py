"""Readers of public traces: each gives nodes and jobs of our model, and the truth about run times.

``folder`` is where the trace files lie, as ``TRACES=`` names it. Job ids are given in order of submission.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from scheduler.model.job import Job, JobKind, Resources, Step, StepKind
from scheduler.model.node import Device, Node
from scheduler.model.queue import Queue
from scheduler.model.units import WHOLE_CARD_MILLI

CARDS_PER_NODE = 8
SECOND_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A park and what was asked of it."""

    name: str
    nodes: tuple[Node, ...]
    jobs: tuple[Job, ...]
    work_ms: Mapping[str, int]
    """By job id: milliseconds one task takes with all ranks on the fastest card it may use."""
    queues: tuple[Queue, ...] = (Queue(name="default"),)
    info: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By job id: further columns of the trace."""


def open_text(path: Path) -> io.TextIOBase:
    """A text file, unpacked on the way when its name ends in ``.gz``."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")  # type: ignore[return-value]
    return path.open(encoding="utf-8", newline="")


def rows(path: Path) -> Iterator[dict[str, str]]:
    """Lines of a CSV file."""
    with open_text(path) as file:
        yield from csv.DictReader(file)


def uniform_nodes(count: int, cards: int, model: str, *, prefix: str = "n", cpus: int = 96) -> tuple[Node, ...]:
    """Equal nodes with ``cards`` cards each, on one NVLink island."""
    width = len(str(max(count - 1, 0)))
    return tuple(_node(f"{prefix}{at:0{width}}", cards, model, cpus) for at in range(count))


def _node(name: str, cards: int, model: str, cpus: int) -> Node:
    devices = tuple(
        Device(id=f"GPU-{name}-{index}", model=model, index=index, memory_mib=80_000, island=name)
        for index in range(cards)
    )
    return Node(name=name, cpu_milli=cpus * 1_000, memory_mib=1_000_000, devices=devices)


def gang(cards: int, per_node: int = CARDS_PER_NODE) -> tuple[int, int]:
    """``(ranks, cards per rank)``: up to a node's cards on one node, more on whole nodes."""
    return (1, cards) if cards <= per_node else (-(-cards // per_node), per_node)


def training(
    name: str, cards: int, submitted_ms: int, *, queue: str = "default", per_node: int = CARDS_PER_NODE
) -> Job:
    """A training of one step on whole cards, without an id. Its processors never bind."""
    ranks, each = gang(cards, per_node)
    ask = Resources(cpu_milli=each * 1_000, memory_mib=each * 1_024, cards=each)
    step = Step(name="train", kind=StepKind.TRAIN, ranks=ranks, resources=ask)
    return Job(
        id="",
        name=name,
        tenant=queue,
        queue=queue,
        kind=JobKind.TRAIN,
        steps=(step,),
        submitted_ms=submitted_ms,
    )


def numbered(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """In order of submission (equal instants keep their order), with ids."""
    ranked = sorted(jobs, key=lambda job: job.submitted_ms)
    return tuple(replace(job, id=f"j{number}") for number, job in enumerate(ranked, start=1))


def later(trace: Trace, ms: int) -> Trace:
    """The same, so much later. To the engine an instant of 0 is none: what starts then was never seen to start."""
    jobs = tuple(
        replace(job, submitted_ms=job.submitted_ms + ms, deadline_ms=job.deadline_ms and job.deadline_ms + ms)
        for job in trace.jobs
    )
    return replace(trace, jobs=jobs)


def with_step(jobs: Iterable[Job], change: Callable[[Job, Step], Step]) -> tuple[Job, ...]:
    """The jobs with each step replaced: estimates, checkpoints, elasticity."""
    return tuple(replace(job, steps=tuple(change(job, step) for step in job.steps)) for job in jobs)


def instant_ms(text: str) -> int:
    """``2017-10-09 07:01:55`` as UTC."""
    return int(datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()) * SECOND_MS


def philly(
    folder: Path,
    *,
    nodes: int = 72,
    start: str = "2017-10-01 00:00:00",
    end: str = "2017-12-01 00:00:00",
    every: int = 1,
) -> Trace:
    """The Philly pool: jobs submitted in ``[start, end)`` on one pool of 8-card nodes. ``every``: one job in so many.

    Jobs of up to 8 cards on one node, larger ones on whole nodes. Tenants are the trace's virtual clusters.
    """
    first_ms, last_ms = instant_ms(start), instant_ms(end)
    jobs: list[Job] = []
    run_ms: dict[str, int] = {}
    for at, row in enumerate(rows(folder / "philly" / "jobs_82k.csv.gz")):
        submitted_ms = instant_ms(row["timestamp"])
        if not first_ms <= submitted_ms < last_ms or at % every:
            continue
        job = training(f"philly {at}", int(row["num_gpus"]), submitted_ms)
        jobs.append(replace(job, tenant=row["cluster"]))
        run_ms[jobs[-1].name] = max(round(float(row["duration"]) * SECOND_MS), 1)
    given = numbered(jobs)
    return Trace(
        name="philly",
        nodes=uniform_nodes(nodes, CARDS_PER_NODE, "P100", cpus=64),
        jobs=given,
        work_ms={job.id: run_ms[job.name] for job in given},
    )


def genai(folder: Path, *, nodes: int = 4, cards: int = 8, card_milli: int = 0, limit: int = 0) -> Trace:
    """Image generation: one short task per request, on a whole card or on a fraction of one."""
    jobs: list[Job] = []
    run_ms: dict[str, int] = {}
    for at, row in enumerate(rows(folder / "genai" / "requests.csv.gz")):
        if limit and at >= limit:
            break
        if not row["exec_time_seconds"] or row["predict_status"] != "SUCCEED":
            continue
        ask = Resources(cpu_milli=1_000, memory_mib=1_024, cards=0 if card_milli else 1, card_milli=card_milli)
        step = Step(name="render", kind=StepKind.COMMAND, resources=ask, warm_key=row["checkpoint_model_version_id"])
        job = Job(
            id="",
            name=f"request {at}",
            tenant="default",
            queue="default",
            kind=JobKind.RENDER,
            steps=(step,),
            submitted_ms=instant_ms(row["gmt_create"]),
        )
        jobs.append(job)
        run_ms[job.name] = max(round(float(row["exec_time_seconds"]) * SECOND_MS), 1)
    given = numbered(jobs)
    return Trace(
        name="genai",
        nodes=uniform_nodes(nodes, cards, "A10", cpus=64),
        jobs=given,
        work_ms={job.id: run_ms[job.name] for job in given},
    )


def openb(folder: Path, *, pods: str = "default", limit: int = 0) -> Trace:
    """Alibaba's GPU cluster: pods as jobs of one task, created and deleted when the trace says.

    Pods without both instants are left out, and so are those deleted at their creation.
    """
    jobs: list[Job] = []
    run_ms: dict[str, int] = {}
    for row in rows(folder / "openb" / f"openb_pod_list_{pods}.csv"):
        if limit and len(jobs) >= limit:
            break
        if not row.get("creation_time") or not row.get("deletion_time"):
            continue
        run = int(row["deletion_time"]) - int(row["creation_time"])
        if run <= 0:
            continue
        step = Step(name="pod", kind=StepKind.COMMAND, resources=openb_resources(row))
        jobs.append(
            Job(
                id="",
                name=row["name"],
                tenant="default",
                queue="default",
                kind=JobKind.COMMAND,
                steps=(step,),
                submitted_ms=int(row["creation_time"]) * SECOND_MS,
            )
        )
        run_ms[row["name"]] = run * SECOND_MS
    given = numbered(jobs)
    return Trace(
        name=f"openb {pods}",
        nodes=openb_nodes(folder),
        jobs=given,
        work_ms={job.id: run_ms[job.name] for job in given},
    )


def openb_resources(row: Mapping[str, str]) -> Resources:
    """What a pod asks for."""
    cards, milli = int(row["num_gpu"]), int(row["gpu_milli"])
    shared = cards == 1 and milli < WHOLE_CARD_MILLI
    return Resources(
        cpu_milli=int(row["cpu_milli"]),
        memory_mib=int(row["memory_mib"]),
        cards=0 if shared else cards,
        card_milli=milli if shared else 0,
        card_models=tuple(sorted({model for model in (row.get("gpu_spec") or "").split("|") if model})),
    )


def openb_nodes(folder: Path) -> tuple[Node, ...]:
    """The 1,213 nodes with cards."""
    nodes: list[Node] = []
    for row in rows(folder / "openb" / "openb_node_list_gpu_node.csv"):
        name = row["sn"]
        devices = tuple(Device(id=f"{name}-{at}", model=row["model"], index=at) for at in range(int(row["gpu"])))
        nodes.append(
            Node(name=name, cpu_milli=int(row["cpu_milli"]), memory_mib=int(row["memory_mib"]), devices=devices)
        )
    return tuple(nodes)
