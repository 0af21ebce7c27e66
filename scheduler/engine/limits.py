"""Limits that hold whatever is free, as sentences with the numbers."""

from __future__ import annotations

from scheduler.engine.guard import Promise
from scheduler.model.job import Step
from scheduler.model.plan import Reason, ReasonKind
from scheduler.placement.fit import thousandths
from scheduler.queueing.quota import Block, Rule


def parallel_reason(step: Step) -> Reason:
    """The step runs as many tasks at once as it may."""
    message = f"runs at most {step.max_parallel} tasks at once, as its job file says"
    return Reason(kind=ReasonKind.PARALLEL_LIMIT, message=message)


def licence_reason(name: str, needed: int, free: int) -> Reason:
    """Too few seats of a licence are free."""
    message = f"needs {needed} seats of licence {name}; {max(free, 0)} are free"
    return Reason(kind=ReasonKind.LICENCE, resource=name, message=message)


def needed_reason(job_id: str, in_ms: int) -> Reason:
    """Somebody ahead, whose start is promised, could not start beside it."""
    message = f"would use up a limit that job {job_id} needs, which is expected to start in {max(0, in_ms) // 1000} s"
    return Reason(kind=ReasonKind.RESERVATION, resource=job_id, message=message)


def seat_reason(seat: Promise, now_ms: int) -> Reason:
    """A place is kept for the step and is not free yet."""
    in_s = max(0, seat.start_ms - now_ms) // 1_000
    message = f"its place on {', '.join(seat.nodes)} is kept for it and is expected to be free in {in_s} s"
    return Reason(kind=ReasonKind.RESERVATION, resource=seat.job_id, message=message)


def slot_reason(slot: Promise, now_ms: int) -> Reason:
    """It has a promised slot, which has not begun."""
    in_s = max(0, slot.start_ms - now_ms) // 1000
    message = f"its slot begins in {in_s} s on {', '.join(slot.nodes)}, which keeps its deadline"
    return Reason(kind=ReasonKind.RESERVATION, resource=slot.job_id, message=message)


def quota_reason(block: Block) -> Reason:
    """A block of the queue tree as a sentence with the numbers."""
    name = f"queue {block.queue}" if block.queue else "the farm"
    show = {"cpu": "vCPU", "memory": "MiB of memory", "card": "cards", "mig": "MIG instances"}.get(block.resource, "")
    if block.rule is Rule.JOBS:
        message = f"{name} runs {block.held} jobs at once, as many as it may"
    else:
        asked, held, most, kept = (
            thousandths(n) if block.resource != "memory" else str(n)
            for n in (block.asked, block.held, block.most, block.kept)
        )
        message = f"asks for {asked} {show} more; {name} holds {held} of at most {most}"
        message += f", and other queues keep {kept} for themselves" if block.kept else ""
    return Reason(kind=ReasonKind.QUOTA, resource=block.queue or block.resource, message=message)
