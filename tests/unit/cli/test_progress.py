from scheduler.cli.progress import Pace, step_state
from tests.unit.cli.conftest import job, step


def seen(pace, now_ms, **counts):
    return pace.see(job(steps=[step(count=10, **counts)]), now_ms)[0]


def test_nothing_is_promised_before_something_moved():
    pace = Pace()
    assert seen(pace, 0, waiting=10).eta_ms is None
    assert seen(pace, 5_000, running=2).eta_ms is None


def test_time_left_follows_the_pace_since_it_was_first_seen_running():
    pace = Pace()
    seen(pace, 1_000, running=2, succeeded=2)
    assert seen(pace, 11_000, running=2, succeeded=4).eta_ms == 30_000


def test_a_finished_step_has_no_time_left():
    pace = Pace()
    seen(pace, 0, running=1)
    assert seen(pace, 1_000, succeeded=10).eta_ms is None


def test_the_word_for_a_step_says_what_is_most_worth_knowing():
    assert step_state(step(succeeded=4)) == "succeeded"
    assert step_state(step(succeeded=1, running=1, failed=1)) == "running"
    assert step_state(step(failed=1, cancelled=3)) == "failed"
    assert step_state(step()) == "waiting"


def test_what_the_service_says_is_left_comes_first():
    pace = Pace()
    seen(pace, 0, running=2, eta_ms=40_000)
    assert seen(pace, 10_000, running=2, succeeded=4, eta_ms=12_000).eta_ms == 12_000
    assert seen(pace, 10_000, running=2, succeeded=4, eta_ms=0).eta_ms == 15_000
