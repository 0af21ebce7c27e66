"""How many very short tasks go into one lease."""

from __future__ import annotations

from scheduler.model.job import Step, StepRecord
from scheduler.model.policy import Policy


def chunk_size(step: Step, record: StepRecord, policy: Policy, slots: int) -> int:
    """Most tasks in one lease of ``step``, at least 1. ``slots``: leases of it that could run side by side.

    A gang takes one task. A size the user set is kept. Else tasks measured to be shorter than the target are taken
    together: as many as fill the target, at most ``chunk_max``, and never so many that a slot would stay idle.
    """
    if step.ranks > 1:
        return 1
    if step.chunk > 0:
        return step.chunk
    if record.run_count < policy.chunk_after or record.run_ms_mean <= 0:
        return 1
    short = policy.chunk_target_ms // record.run_ms_mean
    fair = -(-len(record.waiting) // max(slots, 1))
    return max(1, min(short, policy.chunk_max, fair))
