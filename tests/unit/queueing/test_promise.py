import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.queueing.promise import probability

HOUR = 3_600_000
times = st.lists(st.integers(0, 10 * HOUR), min_size=1, max_size=20)


def test_without_failures_it_is_the_part_of_waits_and_runs_that_fit():
    assert probability((0, HOUR), (HOUR, 3 * HOUR), 2 * HOUR) == 500
    assert probability((0,), (HOUR,), HOUR) == 1_000
    assert probability((0,), (HOUR,), HOUR - 1) == 0
    assert probability((), (HOUR,), HOUR) == 0


@given(times, times, st.integers(0, 30 * HOUR), st.floats(0, 2), st.sampled_from((0, 60_000, HOUR)))
def test_it_is_a_probability_that_time_helps_and_failures_hurt(waits, runs, limit, failures, lost):
    def p(limit_ms=limit, per_hour=failures):
        return probability(waits, runs, limit_ms, failures_per_hour=per_hour, lost_ms=lost, restart_ms=60_000)

    assert 0 <= p() <= 1_000
    assert p(limit_ms=limit + HOUR) >= p() - 1
    assert p(per_hour=failures + 0.5) <= p() + 1


def ends_within(draw, wait, run, *, limit, per_hour, lost, restart=120_000):
    """One life of a job: its work done, with failures, by the limit."""
    now, done = wait, 0.0
    while now < limit:
        failure = draw.expovariate(per_hour) * HOUR if per_hour else float("inf")
        if failure >= run - done:
            return now + run - done <= limit
        done_then = done + failure
        done = done_then // lost * lost if lost else 0.0
        now += failure + restart
    return False


@pytest.mark.parametrize("per_hour", [0.02, 0.2, 0.5])
@pytest.mark.parametrize("lost", [0, 10 * 60_000])
@pytest.mark.parametrize("spare", [0.1, 0.5, 2.0])
def test_no_more_promises_break_than_were_to_be_expected(per_hour, lost, spare):
    draw = random.Random(1)
    waits = tuple(round(draw.lognormvariate(0, 0.7) * HOUR / 2) for _ in range(20))
    runs = tuple(round(draw.lognormvariate(0, 0.3) * 3 * HOUR) for _ in range(20))
    limit = round(max(waits) * 0.5 + 3 * HOUR * (1 + spare))
    p = probability(waits, runs, limit, failures_per_hour=per_hour, lost_ms=lost, restart_ms=120_000)
    lives = 4_000
    kept = sum(
        ends_within(draw, draw.choice(waits), draw.choice(runs), limit=limit, per_hour=per_hour, lost=lost)
        for _ in range(lives)
    )
    assert kept / lives >= p / 1_000 - 0.02
    assert kept / lives <= p / 1_000 + 0.12, "nor is it so careful that it says nothing"
