import time
from dataclasses import replace

import pytest

from scheduler.engine import Engine
from scheduler.engine.apply import HANDLERS
from scheduler.model.codec import dumps
from scheduler.model.errors import Conflict, NotFound
from scheduler.model.event import (
    AttemptFinished,
    AttemptStarted,
    Event,
    JobCancelled,
    JobHeld,
    JobRetried,
    JobSubmitted,
    LeaseGranted,
    LeaseStopping,
    NodeLost,
    UsageSealed,
)
from scheduler.model.job import JobState
from scheduler.model.lease import AttemptState
from scheduler.model.node import Health, NodeState
from scheduler.model.policy import Policy
from scheduler.model.snapshot import Snapshot
from scheduler.model.usage import Bucket, UsageRecord
from tests.builders import Park, a_card, a_job, a_mig, a_node, a_step, granted, lines, reasons


def a_running_park(*steps, **node):
    park = Park(a_node("n1", **node))
    park.submit(a_job(1, *steps))
    park.cycle()
    return park


def test_every_kind_of_event_has_a_handler():
    assert set(HANDLERS) == set(Event.__args__)


def test_a_job_goes_through_its_whole_life():
    park = a_running_park(a_step("render", 3), a_step("encode", needs=("render",)))
    park.finish_all()
    assert park.job().state is JobState.SUCCEEDED
    assert not list(park.engine.leases())
    assert len(park.closed) == 4


def test_changes_hold_exactly_what_was_touched_and_a_closing_lease_one_last_time():
    park = a_running_park()
    park.start("j1.work.0.a1")
    park.engine.apply(AttemptFinished(at_ms=9_000, attempt_id="j1.work.0.a1", state=AttemptState.SUCCEEDED))
    changes = park.engine.take_changes()
    assert [job.job.id for job in changes.jobs] == ["j1"]
    assert [(lease.lease.id, lease.closed_ms) for lease in changes.leases] == [("l1", 9_000)]
    assert [attempt.state for attempt in changes.attempts] == [AttemptState.SUCCEEDED]
    assert (changes.nodes, changes.queues, changes.tenants) == ((), (), ())
    assert (changes.next_job, changes.next_lease, changes.at_ms) == (2, 2, 9_000)
    empty = park.engine.take_changes()
    assert (empty.jobs, empty.leases, empty.attempts) == ((), (), ())


def test_sealing_usage_changes_no_record_and_no_instant():
    park = a_running_park()
    before = park.engine.snapshot()
    record = UsageRecord(
        id="l1:0:free",
        lease_id="l1",
        job_id="j1",
        step="work",
        tenant="t",
        queue="q",
        start_ms=0,
        end_ms=1,
        bucket=Bucket.FREE,
    )
    park.engine.apply(UsageSealed(at_ms=10**9, record=record))
    assert park.engine.snapshot() == before


def test_repeated_facts_change_nothing():
    park = a_running_park(a_step(count=2))
    park.start("j1.work.0.a1")
    park.end("j1.work.0.a1", AttemptState.LOST)
    for event in list(park.journal):
        before = park.engine.snapshot()
        park.engine.apply(event)
        assert park.engine.snapshot() == before, event


@pytest.mark.parametrize(
    "event",
    [
        JobHeld(at_ms=0, job_id="j9"),
        JobRetried(at_ms=0, job_id="j1", step="nope"),
        AttemptStarted(at_ms=0, attempt_id="j1.work.0.a7"),
        AttemptStarted(at_ms=0, attempt_id="nonsense"),
        AttemptFinished(at_ms=0, attempt_id="j9.work.0.a1", state=AttemptState.LOST),
        LeaseStopping(at_ms=0, lease_id="l9", reason="x"),
        NodeLost(at_ms=0, node="n9", reason="x"),
    ],
)
def test_facts_about_what_never_was_are_refused_and_change_nothing(event):
    park = a_running_park()
    before = park.engine.snapshot()
    with pytest.raises(NotFound):
        park.engine.apply(event)
    assert park.engine.snapshot() == before


def test_a_job_id_is_given_once():
    park = a_running_park()
    with pytest.raises(Conflict, match="next is j2"):
        park.engine.apply(JobSubmitted(at_ms=0, job=a_job(1, priority=3)))
    assert park.engine.next_job_id() == "j2"


def test_a_device_is_never_granted_twice():
    park = Park(a_node("n1", cards=1))
    park.submit(a_job(1, a_step(count=2, cards=1)))
    (first,) = granted(park.plan())
    park.tell(first)
    second = replace(first.lease, id="l2", attempts=("j1.work.1.a1",))
    with pytest.raises(Conflict, match="GPU-n1-0 is held"):
        park.engine.apply(LeaseGranted(at_ms=5_000, lease=second))


def test_a_task_is_never_granted_twice():
    park = a_running_park(a_step(count=2, cpus=8))
    lease = replace(park.engine.lease("l1").lease, id="l2")
    with pytest.raises(Conflict, match="not the next attempt"):
        park.engine.apply(LeaseGranted(at_ms=5_000, lease=lease))


def test_a_cancelled_job_is_stopped_once_and_ends_with_its_attempts():
    park = a_running_park(a_step(count=9))
    park.start("j1.work.0.a1")
    park.tell(JobCancelled(at_ms=park.now_ms, job_id="j1", by="ann"))
    assert lines(park.cycle()) == [f"stop l{i}" for i in range(1, 9)]
    assert lines(park.cycle()) == []
    for attempt in park.open_attempts():
        park.end(attempt, AttemptState.CANCELLED)
    assert park.job().state is JobState.CANCELLED


def test_a_failed_task_stops_what_else_runs_of_its_job():
    park = a_running_park(a_step(count=9, retries=0))
    park.run("j1.work.0.a1", state=AttemptState.FAILED)
    assert lines(park.cycle()) == [f"stop l{i}" for i in range(2, 9)]
    for attempt in park.open_attempts():
        park.end(attempt, AttemptState.CANCELLED)
    assert park.job().state is JobState.FAILED


def test_a_chunk_goes_on_after_a_failure_and_closes_with_its_last_task():
    park = a_running_park(a_step(count=3, chunk=3))
    park.run("j1.work.0.a1")
    park.run("j1.work.1.a1", state=AttemptState.FAILED)
    assert park.engine.lease("l1") is not None
    park.run("j1.work.2.a1")
    assert park.engine.lease("l1") is None
    assert lines(park.cycle()) == ["start j1.work.1.a2 on n1"]


def test_short_tasks_are_leased_together_once_measured():
    park = Park(a_node("n1", cpus=2))
    park.submit(a_job(1, a_step(count=100)))
    for _ in range(2):
        park.cycle()
        for attempt in park.open_attempts():
            park.run(attempt, ms=10)
    assert lines(park.cycle())[:2] == ["start j1.work.4.a1+47 on n1", "start j1.work.52.a1+47 on n1"]


def test_a_device_that_vanished_under_a_lease_stays_in_quarantine_until_it_ends():
    park = a_running_park(a_step(cards=1), cards=2)
    park.see(a_node("n1", devices=(a_card("n1", 1),)))
    gone = [d for node in park.engine.nodes() for d in node.devices if d.id == "GPU-n1-0"]
    assert [d.health for d in gone] == [Health.QUARANTINED]
    park.run("j1.work.0.a1")
    park.see(a_node("n1", devices=(a_card("n1", 1),)))
    assert [d.id for node in park.engine.nodes() for d in node.devices] == ["GPU-n1-1"]


def test_impossible_names_the_step_and_counts_what_is_out_for_health():
    park = Park(a_node("n1", cards=8, state=NodeState.CORDONED))
    found = park.engine.impossible(a_job(1, a_step("fits", cards=8), a_step("never", cards=9)))
    assert [(step, reason.resource) for step, reason in found] == [("never", "card")]
    assert found[0][1].message == (
        "needs 9 cards; n1 comes nearest and has 8: no node could run it (cards in the cluster: 8 H100)"
    )


def test_impossible_lists_the_cards_there_are():
    park = Park(a_node("n1", cards=1), a_node("n2", cards=2, model="L4"), a_node("n3", devices=(a_mig("n3", 0, 0),)))
    ((_, reason),) = park.engine.impossible(a_job(1, a_step(cards=1, resources={"card_models": ("A100",)})))
    assert reason.message.endswith("(cards in the cluster: 1 H100, 1 H100/1g.10gb, 2 L4)")


def test_nothing_is_impossible_before_the_first_node_joined():
    assert Park().engine.impossible(a_job(1, a_step(cards=9))) == ()


def test_a_trial_shows_the_jobs_own_part_and_leaves_no_trace():
    park = Park(a_node("n1", cpus=2))
    park.submit(a_job(1, a_step(count=5)))
    before = park.engine.snapshot()
    first = park.engine.trial(a_job(77, priority=90), park.now_ms, park.policy)
    last = park.engine.trial(a_job(1), park.now_ms, park.policy)
    assert lines(first) == ["start j2.work.0.a1 on n1"]
    assert lines(last) == ["wait #2 j2.work x1 order"]
    assert park.engine.snapshot() == before


def test_explain_is_about_one_job():
    park = Park(a_node("n1", cpus=1))
    park.submit(a_job(1, a_step(count=2)), a_job(2), held=False)
    park.submit(a_job(3), held=True)
    assert reasons(park.engine.explain("j3", park.now_ms, park.policy)) == {"j3.work": ["held"]}
    with pytest.raises(NotFound):
        park.engine.explain("j9", park.now_ms, park.policy)


def test_a_cycle_grants_no_more_leases_than_the_policy_says():
    park = Park(a_node("n1"))
    park.policy = Policy(starts_per_cycle=2)
    park.submit(a_job(1, a_step(count=5)))
    assert lines(park.cycle())[2:] == ["wait #1 j1.work x3 order"]
    assert lines(park.cycle())[:2] == ["start j1.work.2.a1 on n1", "start j1.work.3.a1 on n1"]


def test_time_never_runs_backwards_in_a_plan():
    park = a_running_park()
    park.wait(5_000)
    park.start("j1.work.0.a1")
    assert park.engine.plan(0, park.policy).now_ms == park.now_ms


def test_a_step_with_a_warm_key_returns_to_its_last_node():
    for warm_key, node in (("", "tight"), ("scene", "roomy")):
        park = Park(a_node("roomy", cpus=4))
        park.submit(a_job(1, a_step(warm_key=warm_key)))
        park.cycle()
        park.see(a_node("tight", cpus=1))
        park.run("j1.work.0.a1", state=AttemptState.LOST)
        assert lines(park.cycle()) == [f"start j1.work.0.a2 on {node}"]


def test_a_hundred_thousand_tasks_cost_as_much_as_ten():
    """Compared with a small job in the same run, so that a slow machine does not matter."""

    def cycle_seconds(count):
        park = Park(a_node("n1", cpus=2))
        park.submit(a_job(1, a_step(count=count)))
        began = time.perf_counter()
        for _ in range(50):
            dumps(park.plan())
        return time.perf_counter() - began

    assert cycle_seconds(100_000) < 20 * cycle_seconds(10)


def test_a_snapshot_is_a_whole_engine():
    park = a_running_park(a_step(count=3))
    copy = Engine.from_snapshot(park.engine.snapshot())
    assert copy.snapshot() == park.engine.snapshot()
    assert copy.snapshot() != Snapshot()


def test_a_retried_job_is_as_old_as_it_was():
    park = Park(a_node("n1", cpus=1))
    park.submit(a_job(1, a_step(retries=0)), a_job(2), a_job(3))
    park.cycle()
    park.run("j1.work.0.a1", state=AttemptState.FAILED)
    park.tell(JobRetried(at_ms=park.now_ms, job_id="j1"))
    again = Engine.from_snapshot(park.engine.snapshot())
    assert lines(park.plan())[0] == "start j1.work.0.a2 on n1"
    assert list(park.engine._state.active) == list(again._state.active) == ["j1", "j2", "j3"]
