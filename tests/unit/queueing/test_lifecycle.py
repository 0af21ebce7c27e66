from dataclasses import replace

import pytest

from scheduler.model.errors import Conflict, NotFound
from scheduler.model.event import AttemptFinished, LeaseStopping
from scheduler.model.job import JobState
from scheduler.model.lease import AttemptRecord, AttemptState, Lease, LeaseRecord
from scheduler.model.policy import MAX_LOST_ATTEMPTS
from scheduler.model.ranges import Ranges
from scheduler.queueing import lifecycle, tasks
from tests.builders import a_job, a_step

FAILED, LOST, DONE = AttemptState.FAILED, AttemptState.LOST, AttemptState.SUCCEEDED
CANCELLED, PREEMPTED, TIMED_OUT = AttemptState.CANCELLED, AttemptState.PREEMPTED, AttemptState.TIMED_OUT


def submit(*steps, held=False):
    return lifecycle.submitted(a_job(1, *steps), held=held)


def grant(record, index=0, step="work"):
    return lifecycle.granted(record, step, (index,), ("n1",), 10)


def finish(record, state, index=0, step="work", *, started_ms=20, reason="", first=True):
    attempt = AttemptRecord(
        id=f"j1.{step}.{index}.a1",
        lease_id="l1",
        job_id="j1",
        step=step,
        index=index,
        number=1,
        state=state,
        started_ms=started_ms,
        finished_ms=100,
        reason=reason,
    )
    run_ms = lifecycle.whole_run_ms(record, attempt, 1, frozenset()) if state is DONE else 0
    return lifecycle.task_finished(record, attempt, first_in_lease=first, run_ms=run_ms)


def test_a_job_waits_runs_and_succeeds():
    record = submit()
    assert record.state is JobState.WAITING
    record = grant(record)
    assert record.state is JobState.RUNNING
    record = finish(record, DONE)
    assert (record.state, record.finished_ms) == (JobState.SUCCEEDED, 100)


@pytest.mark.parametrize("state", [FAILED, TIMED_OUT])
def test_a_failure_uses_up_a_retry_and_the_last_one_fails_the_job(state):
    record = submit(a_step(retries=1), a_step("other", 5))
    record = finish(grant(record), state)
    assert record.state is JobState.WAITING
    record = finish(grant(record), state, reason="out of memory")
    assert record.state is JobState.FAILED
    assert "work.0" in record.reason
    assert "out of memory" in record.reason
    assert record.steps[1].cancelled == Ranges.span(0, 5)


def test_what_runs_in_a_failing_job_keeps_running_until_it_is_stopped():
    record = grant(grant(submit(a_step(count=3, retries=0))), 1)
    record = finish(record, FAILED)
    assert (record.state, record.failing) == (JobState.RUNNING, True)
    assert finish(record, DONE, index=1).state is JobState.FAILED
    assert finish(record, CANCELLED, index=1).steps[0].cancelled == Ranges.of((1, 2))


@pytest.mark.parametrize("state", [LOST, PREEMPTED, CANCELLED])
def test_ends_that_are_not_the_tasks_fault_make_it_wait_again(state):
    record = finish(grant(submit(a_step(retries=0))), state)
    assert record.state is JobState.WAITING
    assert not record.steps[0].failed.spans


def test_a_task_lost_too_often_fails():
    record = submit(a_step(retries=0))
    for _ in range(MAX_LOST_ATTEMPTS):
        record = finish(grant(record), LOST)
    assert record.state is JobState.WAITING
    record = finish(grant(record), LOST)
    assert record.state is JobState.FAILED
    assert "lost too often" in record.reason


def test_a_task_that_never_ran_is_not_blamed_for_the_loss_of_its_lease():
    record = submit(a_step(retries=0))
    for _ in range(MAX_LOST_ATTEMPTS + 5):
        record = finish(grant(record), LOST, started_ms=0, first=False)
    assert record.state is JobState.WAITING


def test_cancelling_ends_when_the_last_attempt_does():
    record = grant(submit(a_step(count=2)))
    record = lifecycle.cancelled(record, 50, "ann")
    assert record.state is JobState.CANCELLING
    assert record.steps[0].cancelled == Ranges.of((1,))
    record = finish(record, CANCELLED)
    assert (record.state, record.reason) == (JobState.CANCELLED, "cancelled by ann")


def test_a_job_that_finished_everything_before_the_stop_arrived_has_succeeded():
    record = lifecycle.cancelled(grant(submit()), 50, "ann")
    assert finish(record, DONE).state is JobState.SUCCEEDED


def test_a_failure_of_a_cancelled_job_is_not_retried():
    record = lifecycle.cancelled(grant(submit()), 50, "ann")
    assert finish(record, FAILED).state is JobState.CANCELLED


def test_holding_twice_and_releasing_twice_is_harmless():
    record = lifecycle.held(submit(), 5)
    assert record.state is JobState.HELD
    assert lifecycle.held(record, 6) is record
    free = lifecycle.released(record, 7)
    assert free.state is JobState.WAITING
    assert lifecycle.released(free, 8) is free


def test_a_held_job_keeps_what_runs():
    assert lifecycle.held(grant(submit(a_step(count=2))), 5).state is JobState.RUNNING


@pytest.mark.parametrize("verb", [lifecycle.held, lambda r, at: lifecycle.cancelled(r, at, "ann")])
def test_verbs_on_a_finished_job_are_refused(verb):
    done = finish(grant(submit()), DONE)
    with pytest.raises(Conflict, match="succeeded"):
        verb(done, 200)


def test_cancelling_twice_is_harmless():
    record = lifecycle.cancelled(submit(), 5, "ann")
    assert lifecycle.cancelled(record, 6, "ann") is record


def test_retry_runs_failed_tasks_and_what_was_cancelled_behind_them():
    record = submit(a_step("render", 2, retries=0), a_step("encode", needs=("render",)))
    record = finish(grant(record, 0, "render"), FAILED, step="render")
    assert record.steps[1].cancelled == Ranges.of((0,))
    again = lifecycle.retried(record, 200, "render")
    assert [step.waiting for step in again.steps] == [Ranges.of((0, 1)), Ranges.of((0,))]
    assert (again.state, again.reason, again.finished_ms, again.failing) == (JobState.WAITING, "", 0, False)


def test_retry_of_one_task_leaves_other_failures_and_ends_as_failed_again():
    record = grant(grant(submit(a_step(count=2, retries=0))), 1)
    record = finish(finish(record, FAILED), FAILED, index=1)
    again = lifecycle.retried(record, 200, "work", (0,))
    assert again.steps[0].waiting == Ranges.of((0,))
    assert finish(grant(again), DONE).state is JobState.FAILED


def test_retry_of_a_step_behind_a_broken_one_is_refused():
    record = submit(a_step("render", retries=0), a_step("encode", needs=("render",)))
    record = finish(grant(record, 0, "render"), FAILED, step="render")
    with pytest.raises(Conflict, match="step encode of job j1"):
        lifecycle.retried(record, 200, "encode")


def test_retry_of_what_succeeded_is_refused_and_of_an_unknown_step_not_found():
    done = finish(grant(submit()), DONE)
    with pytest.raises(Conflict):
        lifecycle.retried(done, 200)
    with pytest.raises(NotFound, match=r"it has: work"):
        lifecycle.retried(done, 200, "render")


def film():
    """Two frames and their film, all done."""
    record = submit(a_step("render", 2), a_step("encode", needs=("render",)))
    for step, index in (("render", 0), ("render", 1), ("encode", 0)):
        record = finish(grant(record, index, step), DONE, index, step)
    return record


def test_redo_runs_what_succeeded_and_everything_behind_it():
    again = lifecycle.retried(film(), 200, "render", (1,), redo=True)
    assert again.state is JobState.WAITING
    assert [step.waiting for step in again.steps] == [Ranges.of((1,)), Ranges.of((0,))]
    assert [step.succeeded for step in again.steps] == [Ranges.of((0,)), Ranges()]
    assert [step.redone for step in again.steps] == [((1, 2),), ((0, 2),)]
    assert [tasks.stale_before(again.steps[0], index) for index in (0, 1)] == [0, 2]
    assert tasks.tries(again.steps[0], 1) == (1, 0), "the next attempt is the second"


def test_a_frame_done_again_is_done_and_may_be_done_a_third_time():
    record = lifecycle.retried(film(), 200, "render", (1,), redo=True)
    record = finish(grant(record, 1, "render"), DONE, 1, "render")
    assert record.steps[1].waiting == Ranges.of((0,))
    record = finish(grant(record, 0, "encode"), DONE, 0, "encode")
    assert record.state is JobState.SUCCEEDED
    third = lifecycle.retried(record, 300, "render", redo=True)
    assert third.steps[0].redone == ((0, 2), (1, 3))
    assert third.steps[1].redone == ((0, 3),)


def test_redo_takes_failed_tasks_along():
    record = submit(a_step(count=2, retries=0))
    record = finish(finish(grant(grant(record), 1), DONE, 0), FAILED, 1)
    again = lifecycle.retried(record, 200, "work", redo=True)
    assert again.steps[0].waiting == Ranges.of((0, 1))
    assert again.steps[0].redone == ((0, 2),)


def test_redo_is_refused_while_the_film_of_it_is_made_and_without_a_step():
    record = submit(a_step("render"), a_step("encode", needs=("render",)))
    record = grant(finish(grant(record, 0, "render"), DONE, 0, "render"), 0, "encode")
    with pytest.raises(Conflict, match="step encode runs on what would be made again"):
        lifecycle.retried(record, 200, "render", redo=True)
    with pytest.raises(Conflict, match="needs the step"):
        lifecycle.retried(film(), 200, redo=True)


def test_a_retried_part_does_not_leave_steps_waiting_for_ever():
    steps = (a_step("c", needs=("b",)), a_step("b", needs=("a",)), a_step("a", 2, retries=0))
    record = grant(grant(submit(*steps), 0, "a"), 1, "a")
    record = finish(finish(record, FAILED, 0, "a"), FAILED, 1, "a")
    again = lifecycle.retried(record, 200, "a", (0,))
    done = finish(grant(again, 0, "a"), DONE, 0, "a")
    assert done.state is JobState.FAILED


def leased(**changes):
    attempt = AttemptRecord(id="j1.work.0.a1", lease_id="l1", job_id="j1", step="work", index=0, number=1)
    return replace(attempt, **changes)


def ended(state, **changes):
    return AttemptFinished(at_ms=0, attempt_id="j1.work.0.a1", state=state, **changes)


def test_attempts_start_once_and_end_once():
    running = lifecycle.attempt_started(leased(), 10)
    assert (running.state, running.started_ms) == (AttemptState.RUNNING, 10)
    assert lifecycle.attempt_started(running, 20) is running
    done = lifecycle.attempt_finished(running, ended(DONE, exit_code=0, outputs=("a.exr",)), 30)
    assert (done.finished_ms, done.heartbeat_ms, done.outputs) == (30, 30, ("a.exr",))
    assert lifecycle.attempt_finished(done, ended(FAILED), 40) is done


def test_a_lost_attempt_keeps_its_last_sign_of_life():
    running = lifecycle.attempt_seen(lifecycle.attempt_started(leased(), 10), 25)
    assert lifecycle.attempt_seen(running, 20) is running
    assert lifecycle.attempt_finished(running, ended(LOST), 90).heartbeat_ms == 25


def test_running_is_no_end():
    with pytest.raises(Conflict):
        lifecycle.attempt_finished(leased(), ended(AttemptState.RUNNING), 10)


def test_a_lease_closes_with_its_last_attempt():
    lease = LeaseRecord(
        lease=Lease(
            id="l1",
            job_id="j1",
            step="work",
            tenant="t",
            queue="q",
            allocations=(),
            attempts=("x", "y"),
            granted_ms=1,
        )
    )
    one = leased(state=DONE, finished_ms=30)
    assert lifecycle.lease_after(lease, (one, leased())) is lease
    assert lifecycle.lease_after(lease, (one, leased(state=LOST, finished_ms=50))).closed_ms == 50
    stopping = lifecycle.lease_stopping(lease, LeaseStopping(at_ms=5, lease_id="l1", reason="preempted", charged=True))
    assert (stopping.stopping, stopping.stop_reason, stopping.stop_charged) == (True, "preempted", True)
    assert lifecycle.lease_stopping(stopping, LeaseStopping(at_ms=6, lease_id="l1", reason="late")) is stopping
