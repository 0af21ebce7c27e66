"""Compile what plans are made with, once after an installation: Numba keeps it on disk, beside the sources."""

from __future__ import annotations

from scheduler.engine.core import Engine
from scheduler.model.event import JobSubmitted, NodeLost, NodeSeen
from scheduler.model.job import Job, JobKind, Resources, Step, StepKind
from scheduler.model.node import Device, Node
from scheduler.model.policy import Policy
from scheduler.model.snapshot import Snapshot

ASKS = (
    Resources(),
    Resources(cards=1),
    Resources(card_milli=500),
    Resources(cards=2, same_island=True),
    Resources(cards=9),
)


def warm() -> None:
    """Make a small plan that needs every kernel. Takes two minutes the first time, then about two seconds."""
    engine = Engine.from_snapshot(Snapshot())
    for name in ("a", "b"):
        devices = tuple(Device(id=f"{name}{at}", model="any", memory_mib=1, island=name) for at in range(4))
        node = Node(name=name, cpu_milli=8_000, memory_mib=8_000, devices=devices, rack=name)
        engine.apply(NodeSeen(at_ms=0, node=node))
    for number in range(1, 130):  # the demand mix is learned from blocks of jobs
        ask, ranks = ASKS[number % len(ASKS)], 1 + number % 3
        step = Step(name="s", kind=StepKind.COMMAND, ranks=ranks, resources=ask)
        job = Job(id=f"j{number}", name="", tenant="t", queue="q", kind=JobKind.COMMAND, steps=(step,), submitted_ms=0)
        engine.apply(JobSubmitted(at_ms=0, job=job))
    for _ in range(2):
        for event in engine.events_of(engine.plan(0, Policy())):
            engine.apply(event)
    for record in list(engine.jobs()):
        question = engine.outlook(record.job.id, "s", 0, Policy())
        if question is not None and question.pool is not None:
            question.answer()
            break
    engine.apply(NodeLost(at_ms=0, node="b", reason=""))
    engine.plan(0, Policy())


if __name__ == "__main__":
    warm()
