"""A task that failed by its own fault waits before it is tried again, and nobody waits for it."""

from dataclasses import replace

import pytest

from scheduler.engine import Engine
from scheduler.model.errors import Conflict
from scheduler.model.event import JobCancelled, JobRetried
from scheduler.model.job import Slot
from scheduler.model.lease import AttemptState
from scheduler.model.plan import ChangeKind, Reserve
from scheduler.model.snapshot import Snapshot
from tests.builders import FEATURES, Park, a_job, a_node, a_step, reasons, started, stopping


def a_step_that_waits(count=1, **changes):
    return a_step(count=count, backoff_ms=10_000, backoff_max_ms=600_000, retries=3, **changes)


def a_failed_park(step=None, state=AttemptState.FAILED, **node):
    """``j1`` has run its first task's first attempt for a second, and that ended so."""
    park = Park(a_node("n1", **node))
    park.submit(a_job(1, step or a_step_that_waits()))
    park.cycle()
    park.run("j1.work.0.a1", 1_000, state)
    return park


def due_ms(park, index=0):
    return dict(park.job().steps[0].later)[index]


@pytest.mark.parametrize("state", [AttemptState.FAILED, AttemptState.TIMED_OUT])
def test_it_says_until_when_wakes_the_cycle_then_and_starts(state):
    park = a_failed_park(state=state)
    failed_ms, at_ms = park.now_ms, due_ms(park)
    assert failed_ms + 7_500 <= at_ms <= failed_ms + 10_000
    plan = park.cycle()
    assert not started(plan)
    assert plan.wake_ms == at_ms
    ((wait,),) = (plan.waits,)
    (reason,) = wait.reasons
    assert (wait.tasks, wait.position, reason.kind, reason.until_ms) == (1, 0, "backoff", at_ms)
    assert reason.message == f"task 0 failed and is tried again in {-(-(at_ms - failed_ms) // 1000)} s"
    park.now_ms = at_ms - 1
    assert not started(park.plan())
    park.now_ms = at_ms
    assert started(park.cycle()) == {"j1.work.0.a2": "n1"}
    assert park.job().steps[0].later == ()


def test_the_next_failure_makes_it_wait_twice_as_long():
    park = a_failed_park()
    park.now_ms = due_ms(park)
    park.cycle()
    park.run("j1.work.0.a2", 1_000, AttemptState.FAILED)
    assert park.now_ms + 15_000 <= due_ms(park) <= park.now_ms + 20_000


@pytest.mark.parametrize("state", [AttemptState.LOST, AttemptState.PREEMPTED])
def test_what_the_park_ended_starts_again_at_once(state):
    park = a_failed_park(state=state)
    assert park.job().steps[0].later == ()
    assert started(park.cycle()) == {"j1.work.0.a2": "n1"}


def test_what_was_being_stopped_and_lost_starts_at_once_too():
    park = Park(a_node("n1"))
    park.submit(a_job(1, a_step_that_waits()))
    park.cycle()
    park.start("j1.work.0.a1")
    park.tell(stopping("l1", park.now_ms))
    park.end("j1.work.0.a1", AttemptState.LOST)
    assert started(park.cycle()) == {"j1.work.0.a2": "n1"}


def test_a_job_from_before_there_was_a_backoff_starts_at_once():
    park = a_failed_park(a_step())
    assert started(park.cycle()) == {"j1.work.0.a2": "n1"}


def test_others_take_the_room_meanwhile_and_nothing_is_kept_for_it():
    gang = a_step_that_waits(ranks=2, cards=1)
    park = a_failed_park(gang, cards=2)
    park.submit(a_job(2, a_step(cards=2, run_ms_expected=3_600_000), priority=10))
    plan = park.cycle()
    assert started(plan) == {"j2.work.0.a1": "n1"}
    assert not any(isinstance(action, Reserve) for action in plan.actions)
    park.now_ms = due_ms(park)
    plan = park.plan()
    assert reasons(plan.waits)["j1.work"] != ["backoff"]
    assert [action.job_id for action in plan.actions if isinstance(action, Reserve)] == ["j1"]


def test_other_tasks_of_its_step_go_on():
    park = Park(a_node("n1", cpus=2))
    park.submit(a_job(1, a_step_that_waits(count=4)))
    park.cycle()
    park.run("j1.work.0.a1", 1_000, AttemptState.FAILED)
    plan = park.cycle()
    assert started(plan) == {"j1.work.2.a1": "n1"}
    (wait,) = plan.waits
    assert (wait.tasks, wait.position) == (2, 1)
    assert [reason.kind for reason in wait.reasons] == ["order", "backoff"]
    park.end("j1.work.1.a1")
    plan = park.cycle()
    assert started(plan) == {"j1.work.3.a1": "n1"}
    (wait,) = plan.waits
    assert (wait.tasks, wait.position, [r.kind for r in wait.reasons]) == (1, 0, ["backoff"])
    assert plan.wake_ms == due_ms(park)


def test_of_several_the_first_that_is_due_is_named():
    park = Park(a_node("n1", cpus=3))
    park.submit(a_job(1, a_step_that_waits(count=3)))
    park.cycle()
    for index in range(3):
        park.run(f"j1.work.{index}.a1", 1_000, AttemptState.FAILED)
    first = min(dict(park.job().steps[0].later).values())
    ((wait,),) = (park.plan().waits,)
    assert wait.reasons[0].until_ms == park.plan().wake_ms == first
    assert wait.reasons[0].message.startswith("3 tasks failed and wait before they are tried again; the first, ")


def test_a_user_who_retries_does_not_wait():
    park = a_failed_park()
    tried = park.job().steps[0].attempts
    park.tell(JobRetried(at_ms=park.now_ms, job_id="j1"))
    assert park.job().steps[0].attempts == tried
    assert started(park.cycle()) == {"j1.work.0.a2": "n1"}
    with pytest.raises(Conflict, match="none that failed and waits"):
        park.tell(JobRetried(at_ms=park.now_ms, job_id="j1"))


def test_a_retry_of_one_task_hurries_that_one_only():
    park = Park(a_node("n1", cpus=2))
    park.submit(a_job(1, a_step_that_waits(count=2)))
    park.cycle()
    for index in range(2):
        park.run(f"j1.work.{index}.a1", 1_000, AttemptState.FAILED)
    with pytest.raises(Conflict):
        park.tell(JobRetried(at_ms=park.now_ms, job_id="j1", step="work", indices=(7,)))
    park.tell(JobRetried(at_ms=park.now_ms, job_id="j1", step="work", indices=(1,)))
    assert started(park.cycle()) == {"j1.work.1.a2": "n1"}


def test_the_change_that_starts_it_now_is_a_retry():
    park = a_failed_park()
    (change,) = park.engine.changes("j1", "work", park.now_ms, park.policy)
    assert (change.kind, change.target) == (ChangeKind.RETRY, "work")


def test_the_predicted_start_is_not_before_it_is_due():
    park = a_failed_park()
    found = park.engine.outlook("j1", "work", park.now_ms, park.policy).answer()
    assert found.start_ms[:2] == (due_ms(park),) * 2
    assert found.raw_ms == (due_ms(park),) * 3
    park.now_ms = due_ms(park)
    found = park.engine.outlook("j1", "work", park.now_ms, park.policy).answer()
    assert found.raw_ms == (park.now_ms,) * 3


def test_a_cancelled_job_forgets_it():
    park = a_failed_park()
    park.tell(JobCancelled(at_ms=park.now_ms, job_id="j1", by="owner"))
    assert park.job().steps[0].later == ()
    park.tell(JobRetried(at_ms=park.now_ms, job_id="j1"))
    assert started(park.cycle()) == {"j1.work.0.a2": "n1"}


def test_with_a_promised_deadline_it_does_not_wait():
    park = Park(a_node("n1"))
    slot = Slot(model="", ranks=1, start_ms=1_000, end_ms=500_000, nodes=("n1",))
    park.submit(a_job(1, a_step_that_waits(), deadline_ms=600_000, slot=slot))
    park.cycle()
    park.run("j1.work.0.a1", 1_000, AttemptState.FAILED)
    assert started(park.cycle()) == {"j1.work.0.a2": "n1"}


def test_a_journal_gives_the_same_instants_again_and_a_start_before_them_is_no_contradiction():
    """An earlier engine may have started it at once: what was recorded happened."""
    park = a_failed_park()
    park.cycle()
    again = Engine.from_snapshot(Snapshot(), features=FEATURES)
    for event in park.journal:
        again.apply(event)
    assert again.snapshot() == park.engine.snapshot()
    early = replace(park.job().job.steps[0], backoff_ms=0)
    other = a_failed_park(early)
    (grant,) = (e for e in other.engine.events_of(other.plan()))
    park.tell(grant)
    assert park.job().steps[0].later == ()
