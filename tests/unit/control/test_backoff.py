"""A failed task's back-off through the whole cycle: told, waited for without any event, skipped, and replayed."""

from scheduler.control.replay import first_difference
from scheduler.model.lease import AttemptState
from tests.unit.control.world import STUDIO, step


def a_failure(world):
    """A job whose task has failed once, and when it may start again."""
    job = world.submit(step(backoff_ms=10_000, backoff_max_ms=600_000))
    world.turn()
    attempt = f"{job}.run.0.a1"
    world.workers.begin(attempt)
    world.clock.now += 1_000
    world.workers.finish(attempt, AttemptState.FAILED)
    world.turn(2)
    ((_, at_ms),) = world.job(job).steps[0].later
    return job, at_ms


def test_the_cycle_starts_it_when_it_is_due_though_nothing_else_happens(world):
    job, at_ms = a_failure(world)
    (wait,) = world.service.explain(STUDIO, job, is_full=True)
    (reason,) = wait["reasons"]
    assert (reason["kind"], reason["until_ms"]) == ("backoff", at_ms)
    assert wait["start_ms"][:2] == [at_ms, at_ms]
    assert wait["changes"] == [f"retry step run of job {job}: what failed is then tried again at once"]
    world.clock.now = at_ms - 1
    world.turn(3)
    assert world.open_leases() == ()
    world.clock.now = at_ms
    world.turn()
    assert [record.lease.attempts for record in world.open_leases()] == [(f"{job}.run.0.a2",)]
    assert first_difference(world.store) == ""


def test_a_service_that_starts_anew_knows_it(world):
    job, at_ms = a_failure(world)
    world.boot()
    world.turn(3)
    assert dict(world.job(job).steps[0].later) == {0: at_ms}
    assert world.open_leases() == ()
    world.clock.now = at_ms
    world.turn(2)
    assert [record.lease.attempts for record in world.open_leases()] == [(f"{job}.run.0.a2",)]


def test_its_owner_may_skip_it(world):
    job, _ = a_failure(world)
    world.in_thread(lambda: world.service.retry(STUDIO, job))
    world.turn()
    assert [record.lease.attempts for record in world.open_leases()] == [(f"{job}.run.0.a2",)]
    assert first_difference(world.store) == ""
