"""How long a failed task waits: doubling, capped, spread, and the same at every replay."""

import pytest

from scheduler.queueing.backoff import backoff_ms
from tests.builders import a_step

STEP = a_step(backoff_ms=10_000, backoff_max_ms=600_000)


@pytest.mark.parametrize(("failures", "whole_s"), [(1, 10), (2, 20), (3, 40), (6, 320), (7, 600), (8, 600), (500, 600)])
def test_it_doubles_up_to_its_cap_and_leaves_out_a_quarter_at_most(failures, whole_s):
    waits = [backoff_ms(STEP, f"j1.work.{index}", failures) for index in range(200)]
    assert all(whole_s * 750 <= wait <= whole_s * 1_000 for wait in waits)
    # Spread over that quarter: 200 waits fall into all of its ten parts.
    assert len({(wait - whole_s * 750) * 10 // (whole_s * 250 + 1) for wait in waits}) == 10


def test_the_same_task_waits_as_long_at_every_replay_and_another_time_after_its_next_failure():
    assert backoff_ms(STEP, "j1.work.0", 3) == backoff_ms(STEP, "j1.work.0", 3) == 32_821
    shares = {backoff_ms(STEP, "j1.work.0", n) * 1_000 // (10_000 << n - 1) for n in range(1, 6)}
    assert len(shares) == 5


def test_without_a_backoff_or_a_failure_nothing_waits():
    assert backoff_ms(a_step(), "j1.work.0", 5) == 0
    assert backoff_ms(STEP, "j1.work.0", 0) == 0


def test_without_a_cap_it_goes_on_doubling():
    assert backoff_ms(a_step(backoff_ms=1_000), "j1.work.0", 21) >= 750 << 20
