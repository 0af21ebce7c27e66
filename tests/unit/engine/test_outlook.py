from dataclasses import replace

import pytest

from tests.builders import Park, a_job, a_node, a_step

MINUTE = 60_000


def minutes(park, job_id="j1", step="work"):
    question = park.engine.outlook(job_id, step, park.now_ms, park.policy)
    found = question and question.answer()
    return found and tuple((at - park.now_ms) / MINUTE for at in found.start_ms)


def a_busy_park(run=10, **node):
    park = Park(a_node("n1", **node))
    park.submit(a_job(1, a_step(cards=node.get("cards", 0), run_ms_expected=run * MINUTE)))
    park.cycle()
    park.start("j1.work.0.a1")
    return park


def test_what_fits_and_is_first_starts_now():
    park = Park(a_node(cards=4))
    park.submit(a_job(1, a_step(cards=2)))
    assert minutes(park) == (0, 0, 0)


def test_what_waits_starts_when_the_lease_before_it_ends():
    park = a_busy_park(cards=4)
    park.submit(a_job(2, a_step(cards=2)))
    low, middle, high = minutes(park, "j2")
    assert low < 10 < high
    assert middle == pytest.approx(10, rel=0.25)
    park.wait(6 * MINUTE)
    assert minutes(park, "j2")[1] < middle


def test_it_waits_for_those_ahead_of_it_too_but_not_for_what_takes_other_things():
    park = a_busy_park(cards=4)
    park.submit(a_job(2, a_step(cards=4, run_ms_expected=30 * MINUTE)), a_job(3, a_step(cards=4)))
    assert minutes(park, "j3")[1] == pytest.approx(40, rel=0.25)
    park.submit(a_job(4, a_step(cpus=2)))
    assert minutes(park, "j4") == (0, 0, 0)


def test_nobody_can_say_when_it_waits_for_something_else_or_never_fits():
    park = a_busy_park(cards=4)
    park.submit(a_job(2, a_step("a", cards=1), a_step("b", needs=("a",))), a_job(3, a_step(cards=9)))
    park.submit(a_job(4), held=True)
    assert minutes(park, "j2", "b") is None
    assert minutes(park, "j3") is None
    assert minutes(park, "j4") is None


def test_a_deadline_gets_a_probability_and_the_one_that_would_be_met():
    park = a_busy_park(cards=4)
    step = a_step(cards=4, run_ms_expected=20 * MINUTE)

    def asked(after_minutes):
        deadline_ms = park.now_ms + after_minutes * MINUTE
        return park.engine.expected(a_job(2, step, deadline_ms=deadline_ms), park.now_ms, park.policy).answer()

    assert asked(15).permille < 100
    assert 200 < asked(30).permille < 800
    assert asked(120).permille > 950
    sure = (asked(15).sure_ms - park.now_ms) / MINUTE
    assert asked(sure).permille == pytest.approx(900, abs=60)
    assert park.engine.expected(a_job(2, step), park.now_ms, park.policy).answer().permille == -1


def test_a_forecast_is_a_function_of_the_records():
    park = a_busy_park(cards=4)
    park.submit(a_job(2, a_step(cards=2)))
    fresh = park.engine.from_snapshot(park.engine.snapshot())
    assert fresh.outlook("j2", "work", park.now_ms, park.policy) == park.engine.outlook(
        "j2", "work", park.now_ms, park.policy
    )


def test_starts_correct_the_forecasts_that_come_after():
    park = a_busy_park(cards=4)
    raw = tuple(park.now_ms + at * MINUTE for at in (8, 10, 12))
    for number in range(2, 150):
        park.submit(a_job(number, a_step(cpus=0, memory_mib=0), forecast_raw_ms=raw))
        record = park.job(f"j{number}")
        park.engine._state.put_job(replace(record, started_ms=record.job.submitted_ms + 30 * MINUTE))
    late = a_job(150, a_step(cards=4))
    found = park.engine.expected(late, park.now_ms, park.policy).answer()
    assert found.start_ms[1] > found.raw_ms[1]
