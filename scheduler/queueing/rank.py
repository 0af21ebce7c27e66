"""Who goes first among the jobs of one queue."""

from __future__ import annotations

from scheduler.model.job import JobRecord, Resources, Step, StepRecord
from scheduler.model.policy import Policy, Sort
from scheduler.model.units import WHOLE_CARD_MILLI

Rank = tuple[int, int, int, int]
"""``(-priority, by Policy.sort, job number, step number)``: least first."""

LAST = 1 << 62
"""Behind every instant and every amount of work: no deadline, or nothing known."""
CPU_PER_CARD = 16
"""A card weighs as much as this many vCPUs where the two must be compared: about what machines have per card."""


def rank_key(
    record: JobRecord, number: int, position: int, now_ms: int, policy: Policy, *, work: int | None = None
) -> Rank:
    """Rank of the job's step at ``position``. ``number``: the job's.

    ``work``: what the job is expected to take still, for Sort.EXPECTED; None: :func:`expected_work` says.
    """
    return -aged_priority(record, now_ms, policy), sorted_by(record, policy.sort, work), number, position


def aged_priority(record: JobRecord, now_ms: int, policy: Policy) -> int:
    """The job's priority with what waiting adds to it."""
    if policy.age_gain_ms <= 0:
        return record.job.priority
    gained = (now_ms - record.job.submitted_ms) // policy.age_gain_ms
    return record.job.priority + (min(policy.age_gain_max, gained) if gained > 0 else 0)


def ages_ms(record: JobRecord, now_ms: int, policy: Policy) -> int:
    """When :func:`aged_priority` says something else than now, at the earliest."""
    if policy.age_gain_ms <= 0:
        return LAST
    gained = max((now_ms - record.job.submitted_ms) // policy.age_gain_ms, 0)
    return record.job.submitted_ms + (gained + 1) * policy.age_gain_ms


def expected_work(record: JobRecord) -> int:
    """Card-thousandths x ms that the job's unfinished tasks are expected to take; LAST when a step is unknown."""
    total = 0
    for step, done in zip(record.job.steps, record.steps, strict=True):
        left = len(done.waiting) + len(done.running)
        task_ms = expected_ms(step, done)
        if left and not task_ms:
            return LAST
        kept = sum(ms for _, ms in done.worked)
        total += max(0, left * task_ms - kept) * weight_milli(step.resources) * step.ranks
    return min(total, LAST)


def expected_ms(step: Step, done: StepRecord) -> int:
    """What one task takes: as measured, else as its owner expects; 0: not known."""
    return done.run_ms_mean if done.run_count else step.run_ms_expected


def weight_milli(resources: Resources) -> int:
    """Thousandths of a card that one rank counts for; work without cards counts by its vCPUs."""
    cards = resources.card_milli or resources.cards * WHOLE_CARD_MILLI
    return max(cards, resources.cpu_milli // CPU_PER_CARD, 1)


def sorted_by(record: JobRecord, sort: Sort, work: int | None = None) -> int:
    """The second part of the ranks of its steps. ``work``: see :func:`rank_key`."""
    if sort is Sort.DEADLINE:
        return record.job.deadline_ms or LAST
    if sort is Sort.EXPECTED:
        return expected_work(record) if work is None else work
    if sort is Sort.SERVED:
        pairs = zip(record.job.steps, record.steps, strict=True)
        return sum(done.served_ms * weight_milli(step.resources) for step, done in pairs)
    return 0
