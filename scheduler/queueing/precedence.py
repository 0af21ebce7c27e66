"""Whether a waiting task may stop a running one only because the order says so, with a margin against see-saws.

The margin is a factor of two, as between the queues of a multi-level feedback queue whose limits double (Tiresias,
Gu et al., NSDI 2019): what was stopped must fall behind by as much again before it may stop its stopper.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.model.policy import Sort

MARGIN = 2
LEAST_GAIN_MS = 600_000
"""Nothing is stopped for a gain of less than ten minutes of the whole gang: a stop costs about one."""


NEVER_MS = 1 << 62
"""Behind every deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One task, waiting or running."""

    cards: int
    """Card thousandths of all its ranks; at least 1."""
    served_ms: int
    """How long it has run so far, over all attempts, as if with all its ranks."""
    remaining_ms: int
    """Expected, with all its ranks on the fastest cards it may use."""
    deadline_ms: int
    """0: none."""


def behind(sort: Sort, task: Standing) -> int:
    """How far back a task is in the order: who has less is ahead. 0: the order moves nobody ahead."""
    if sort is Sort.SERVED:
        return task.served_ms * task.cards
    if sort is Sort.EXPECTED:
        return task.remaining_ms * task.cards
    if sort is Sort.DEADLINE:
        return task.deadline_ms or NEVER_MS
    return 0


def least_behind(sort: Sort, mine: Standing) -> int:
    """How far back a running task is, at least, that ``mine`` may stop: it must be further back than this."""
    own = behind(sort, mine)
    return own if sort is Sort.DEADLINE else MARGIN * own + LEAST_GAIN_MS * mine.cards
