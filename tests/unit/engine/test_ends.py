from dataclasses import replace

import pytest

from scheduler.engine.candidates import candidate_of
from scheduler.engine.ends import OVERDUE_MS, estimate_of, left_ms
from scheduler.engine.state import State
from scheduler.model.event import LeaseStopping
from scheduler.model.job import StepRecord
from tests.builders import FEATURES, Park, a_job, a_node, a_step, stopping

MINUTE = 60_000


def left(park, after_ms=0, permille=500, lease_id=None, worked=()):
    state = State(park.engine.snapshot(), FEATURES)
    record = next(reversed(state.leases.values())) if lease_id is None else state.leases[lease_id]
    job = state.jobs[record.lease.job_id]
    steps = tuple(replace(s, worked=worked) if s.name == record.lease.step else s for s in job.steps)
    state.put_job(replace(job, steps=steps))
    known = estimate_of(state, record.lease.job_id, record.lease.step)
    return left_ms(state, record, park.now_ms + after_ms, known, permille)


def a_park(*steps):
    park = Park(a_node(cpus=1))
    park.submit(a_job(1, *steps))
    park.cycle()
    return park


def test_a_grown_state_has_learned_what_a_fresh_one_reads_from_the_records():
    park = Park(a_node(cpus=4))
    park.submit(a_job(1, a_step("a", 6), a_step("b", 3, needs=("a",))), a_job(2, a_step(run_ms_expected=5)))
    park.finish_all()
    grown, fresh = park.engine._state, State(park.engine.snapshot(), FEATURES)
    assert grown.durations == fresh.durations
    assert grown.durations.classes


def test_a_lease_ends_when_what_its_owner_said_has_passed():
    park = a_park(a_step(run_ms_expected=10 * MINUTE))
    assert left(park) == pytest.approx(10 * MINUTE, rel=0.02)
    park.start("j1.work.0.a1")
    assert left(park, 5 * MINUTE) == pytest.approx(5 * MINUTE, rel=0.2)
    assert left(park, 90 * MINUTE) == 90 * MINUTE, "a wrong expectation grows"
    assert left(park, 5 * MINUTE, 900) > left(park, 5 * MINUTE)


def test_a_lease_of_several_tasks_ends_after_the_last():
    park = a_park(a_step(count=4, chunk=4, run_ms_expected=10 * MINUTE))
    assert left(park) == pytest.approx(40 * MINUTE, rel=0.02)
    park.run("j1.work.0.a1", 10 * MINUTE)
    park.start("j1.work.1.a1")
    assert left(park) == pytest.approx(30 * MINUTE, rel=0.02)


def test_a_resumed_task_catches_up_and_then_has_only_the_rest_to_run():
    park = a_park(a_step(run_ms_expected=10 * MINUTE, restart_ms=MINUTE))
    park.start("j1.work.0.a1")
    assert left(park, worked=((0, 5 * MINUTE),)) == MINUTE + left(park, 5 * MINUTE)
    assert left(park, 2 * MINUTE, worked=((0, 5 * MINUTE),)) == left(park, 6 * MINUTE)


def test_a_lease_that_is_being_stopped_ends_within_its_grace():
    park = a_park(a_step(run_ms_expected=10 * MINUTE, grace_ms=7_000))
    park.tell(stopping("l1", park.now_ms))
    assert left(park) == 7_000


def test_tasks_of_a_step_that_ran_shorter_than_said_are_believed():
    park = a_park(a_step(count=9, run_ms_expected=10 * MINUTE))
    for index in range(4):
        park.run(f"j1.work.{index}.a1", MINUTE)
        park.cycle()
    assert park.job().steps[0] != StepRecord(name="work")
    assert left(park) == pytest.approx(MINUTE, rel=0.05)


def test_a_task_that_is_to_resume_lasts_as_long_as_it_will_when_it_runs():
    park = Park(a_node(cpus=1))
    park.submit(a_job(1, a_step(run_ms_expected=10 * MINUTE, restart_ms=MINUTE)))
    state = State(park.engine.snapshot(), FEATURES)
    record = state.jobs["j1"]
    record = replace(record, steps=(replace(record.steps[0], worked=((0, 5 * MINUTE),)),))
    fresh = candidate_of(state, state.jobs["j1"], 0, park.now_ms, park.policy)
    again = candidate_of(state, record, 0, park.now_ms, park.policy)
    assert again.likely_ms == fresh.likely_ms - 5 * MINUTE + MINUTE
    assert again.run_ms == fresh.run_ms - 5 * MINUTE + MINUTE


def test_the_grace_of_a_stop_counts_from_the_stop():
    park = a_park(a_step(run_ms_expected=10 * MINUTE, grace_ms=10_000))
    park.start("j1.work.0.a1")
    park.tell(LeaseStopping(at_ms=park.now_ms, lease_id="l1", reason="by hand"))
    assert left(park) == 10_000
    assert left(park, 4_000) == 6_000
    assert left(park, 10_000) == 1
    assert left(park, 11_000) == OVERDUE_MS, "it is about to go, and nobody looks every millisecond"
