"""Who may stop whom because of the order alone."""

from dataclasses import replace

import pytest

from scheduler.model.policy import Sort
from scheduler.queueing.precedence import LEAST_GAIN_MS, Standing, behind, least_behind

M = 60_000
ONE = Standing(cards=1_000, served_ms=10 * M, remaining_ms=30 * M, deadline_ms=0)


def stops(sort, mine, theirs):
    return behind(sort, theirs) > least_behind(sort, mine)


@pytest.mark.parametrize("sort", [Sort.SERVED, Sort.EXPECTED])
@pytest.mark.parametrize("field", ["served_ms", "remaining_ms"])
def test_twice_as_much_and_ten_minutes_more_is_needed(sort, field):
    moved = (sort is Sort.SERVED) == (field == "served_ms")
    least = 2 * getattr(ONE, field) + LEAST_GAIN_MS
    assert not stops(sort, ONE, replace(ONE, **{field: least}))
    assert stops(sort, ONE, replace(ONE, **{field: least + 1})) is moved


def test_card_time_counts_not_time():
    wide = replace(ONE, cards=4_000)
    assert stops(Sort.EXPECTED, ONE, wide)
    assert not stops(Sort.EXPECTED, wide, replace(ONE, remaining_ms=100 * M))


def test_a_nearer_deadline_is_enough_and_none_is_the_furthest():
    soon, late = replace(ONE, deadline_ms=5 * M), replace(ONE, deadline_ms=6 * M)
    assert stops(Sort.DEADLINE, soon, late)
    assert stops(Sort.DEADLINE, late, ONE)
    assert not any(stops(Sort.DEADLINE, *pair) for pair in ((late, soon), (soon, soon), (ONE, soon), (ONE, ONE)))


def test_age_stops_nobody():
    assert not stops(Sort.AGE, ONE, replace(ONE, served_ms=10**9, remaining_ms=10**9))
