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


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One task, waiting or running."""

    cards: int
    """Card thousandths of all its ranks; at least 1."""
    served_ms: int
    """How long it has run so far, over all attempts."""
    remaining_ms: int
    """Expected."""
    deadline_ms: int
    """0: none."""


def ahead(sort: Sort, mine: Standing, theirs: Standing) -> bool:
    """Whether ``mine``, waiting, is so far ahead of ``theirs``, running, that stopping it gains."""
    if sort is Sort.SERVED:
        return theirs.served_ms * theirs.cards > MARGIN * mine.served_ms * mine.cards + LEAST_GAIN_MS * mine.cards
    if sort is Sort.EXPECTED:
        return theirs.remaining_ms * theirs.cards > MARGIN * mine.remaining_ms * mine.cards + LEAST_GAIN_MS * mine.cards
    if sort is Sort.DEADLINE:
        return mine.deadline_ms > 0 and (not theirs.deadline_ms or theirs.deadline_ms > mine.deadline_ms)
    return False
