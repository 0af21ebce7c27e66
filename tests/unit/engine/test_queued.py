"""What of a job waits, remembered between plans."""

import pytest

from scheduler.engine.queued import Queued
from scheduler.model.policy import Policy, Sort
from scheduler.queueing import lifecycle
from scheduler.queueing.rank import rank_key
from tests.builders import a_job, a_step

DAY = 24 * 3_600_000


def test_remembered_ranks_are_those_of_the_instant_and_the_policy():
    record = lifecycle.submitted(a_job(7, a_step("one"), a_step("two"), deadline_ms=99 * DAY), held=False)
    queued = Queued.of(record)
    by_age, by_deadline = Policy(), Policy(sort=Sort.DEADLINE)
    for policy in (by_age, by_deadline, by_age):
        for now_ms in (0, DAY - 1, DAY, 3 * DAY, 2 * DAY, 900 * DAY, 5):  # a what-if may look ahead and come back
            expected = tuple(rank_key(record, 7, position, now_ms, policy) for position in (0, 1))
            assert queued.ranks(now_ms, policy) == expected


@pytest.mark.parametrize("now_ms", [0, 3 * DAY])
def test_ranks_are_worked_out_once_while_nothing_changes(now_ms: int):
    queued, policy = Queued.of(lifecycle.submitted(a_job(7, a_step("one")), held=False)), Policy()
    assert queued.ranks(now_ms, policy) is queued.ranks(now_ms + 1, policy)
