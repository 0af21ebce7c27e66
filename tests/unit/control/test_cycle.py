import json
from dataclasses import replace
from itertools import pairwise

import pytest

from scheduler.control.observe import NOT_THERE, REMIND_MS
from scheduler.control.replay import first_difference
from scheduler.control.settings import Limits
from scheduler.model.errors import Conflict, NotFound
from scheduler.model.event import AttemptsSeen, JobCancelled
from scheduler.model.job import JobState
from scheduler.model.lease import AttemptState
from scheduler.model.measured import DeviceUse, Measured, MeasuredBy, RankUse
from scheduler.model.order import Report, ReportKind
from tests.unit.control.world import CARDS, NODE, OPERATOR, RIVAL, STUDIO, World, step


def test_a_submitted_task_is_ordered_in_the_same_cycle(world):
    job = world.submit()
    assert world.workers.ran == [f"{job}.run.0.a1"]


def test_a_task_that_ran_is_recorded_and_its_reports_acknowledged(world):
    job = world.submit()
    assert world.run_to_end(job).state is JobState.SUCCEEDED
    assert world.workers.unacknowledged == {}


def test_usage_covers_the_lease_without_gap(world):
    job = world.submit(step(count=3))
    world.run_to_end(job)
    records = world.store.usage(job_id=job)
    for lease in world.store.leases(job_id=job):
        parts = sorted((r.start_ms, r.end_ms) for r in records if r.lease_id == lease.lease.id)
        assert parts[0][0] == lease.lease.granted_ms
        assert parts[-1][1] == lease.closed_ms
        assert all(a[1] == b[0] for a, b in pairwise(parts))


def test_what_a_worker_measured_is_recorded_shown_and_told_as_evidence(world):
    job = world.submit()
    (attempt,) = world.workers.ran
    card = DeviceUse(device="GPU-0", samples=2, gpu_milli=500, series_milli=(None, 500))
    use = RankUse(node="n1", source=MeasuredBy.NVML, cpu_ms=700, until_ms=(900, 1_800), cpu_series_milli=(1, 2),
                  rss_series_mib=(3, 4), devices=(card,))  # fmt: skip
    world.workers.begin(attempt)
    world.clock.now += 2_000
    world.workers.finish(attempt, measured=Measured(ranks=(use,)))
    world.turn(2)
    assert world.store.attempt(attempt).measured == Measured(ranks=(use,))
    (view,) = world.service.attempts(OPERATOR, job)
    assert (view["measured"]["source"], view["measured"]["cpu_ms"], view["measured"]["gpu_milli"]) == ("nvml", 700, 500)
    assert view["measured"]["ranks"][0]["devices"][0]["series_milli"] == [None, 500]
    evidence = json.loads(world.store.usage(job_id=job)[-1].evidence)
    assert (evidence["source"], evidence["attempts"][0]["measured"]["cpu_ms"]) == ("nvml", 700)
    assert first_difference(world.store) == ""


def test_steps_run_in_order_of_their_needs(world):
    job = world.submit(step("first"), step("second", needs=("first",)))
    world.run_to_end(job)
    assert world.workers.ran == [f"{job}.first.0.a1", f"{job}.second.0.a1"]


def test_repeated_and_reordered_reports_change_nothing(world):
    job = world.submit()
    attempt = world.workers.ran[0]
    world.workers.finish(attempt)
    world.workers.begin(attempt)
    world.workers.finish(attempt, AttemptState.FAILED)
    world.turn()
    seen = len(list(world.store.journal()))
    world.workers.begin(attempt)
    world.workers.finish(attempt)
    world.turn()
    assert world.job(job).state is JobState.SUCCEEDED
    assert len(list(world.store.journal())) == seen
    assert world.workers.unacknowledged == {}


def test_reports_of_attempts_that_never_were_are_acknowledged(world):
    world.workers.finish("j99.run.0.a1")
    world.workers.finish("nonsense")
    world.turn()
    assert world.workers.unacknowledged == {}


def test_an_idle_cycle_writes_nothing_and_plans_nothing(world, monkeypatch):
    before = len(list(world.store.journal()))
    monkeypatch.setattr(world.cycle._engine, "plan", None)
    world.turn(3)
    assert len(list(world.store.journal())) == before


def test_nothing_starts_while_the_runtime_is_down(world):
    world.workers.mail.append(Report(kind=ReportKind.RUNTIME_DOWN, message="the bridge died"))
    world.turn()
    job = world.submit()
    assert world.workers.ran == []
    world.workers.connect()
    world.turn()
    assert world.workers.ran == [f"{job}.run.0.a1"]


def test_time_of_a_report_is_held_between_grant_and_now(world):
    world.submit()
    attempt = world.workers.ran[0]
    granted = world.open_leases()[0].lease.granted_ms
    world.clock.now += 5_000
    world.workers.say(Report(kind=ReportKind.STARTED, attempt_id=attempt, at_ms=1))
    world.workers.say(Report(kind=ReportKind.FINISHED, attempt_id=attempt, state=AttemptState.SUCCEEDED, at_ms=10**15))
    world.turn()
    record = world.store.attempt(attempt)
    assert (record.started_ms, record.finished_ms) == (granted, world.clock.now)


def test_the_service_clock_never_goes_back(world):
    world.submit()
    world.clock.now -= 60_000
    job = world.submit()
    assert world.job(job).job.submitted_ms >= 1_000_000
    instants = [event.at_ms for _, event in world.store.journal()]
    assert instants == sorted(instants)


def test_a_lost_node_ends_its_attempts_and_they_run_again_elsewhere(world):
    job = world.submit()
    world.workers.begin(world.workers.ran[0])
    world.turn()
    world.workers.mail.append(Report(kind=ReportKind.NODE_GONE, node="n1", message="no heartbeat"))
    world.turn()
    assert world.store.attempt(f"{job}.run.0.a1").state is AttemptState.LOST
    assert world.job(job).state is JobState.WAITING
    world.workers.known.clear()
    world.workers.connect()
    world.turn()
    assert world.workers.ran[-1] == f"{job}.run.0.a2"
    assert world.run_to_end(job).state is JobState.SUCCEEDED


def test_time_after_the_last_sign_of_life_is_free_when_lost(world):
    job = world.submit()
    attempt = world.workers.ran[0]
    world.workers.begin(attempt)
    world.turn()
    world.clock.now += 10_000
    world.workers.mail.append(Report(kind=ReportKind.PROGRESS, attempt_id=attempt, at_ms=world.clock.now))
    world.turn()
    alive = world.clock.now
    world.clock.now += 50_000
    world.workers.mail.append(Report(kind=ReportKind.NODE_GONE, node="n1"))
    world.turn()
    charged = [r for r in world.store.usage(job_id=job) if r.bucket.value == "held_charged"]
    free = [r for r in world.store.usage(job_id=job) if r.free_reason == "lost"]
    assert [r.end_ms for r in charged] == [alive]
    assert [(r.start_ms, r.end_ms) for r in free] == [(alive, world.clock.now)]


def test_a_lease_the_agent_forgot_is_lost_when_it_had_begun(world):
    job = world.submit()
    world.workers.begin(world.workers.ran[0])
    world.turn()
    world.workers.known.clear()
    world.workers.inventory("n1", "studio")
    world.turn()
    assert world.store.attempt(f"{job}.run.0.a1").state is AttemptState.LOST


def test_an_order_that_never_arrived_is_repeated(world):
    world.workers.deaf = True
    job = world.submit()
    world.workers.deaf = False
    world.workers.inventory("n1", "studio")
    world.turn()
    assert world.workers.ran == [f"{job}.run.0.a1"]


def test_an_inventory_of_another_tenant_says_nothing_about_this_lease(world):
    job = world.submit()
    world.workers.begin(world.workers.ran[0])
    world.turn()
    world.workers.mail.append(Report(kind=ReportKind.INVENTORY, node="n1", tenant="rival", leases=()))
    world.turn()
    assert world.job(job).state is JobState.RUNNING


def test_what_runs_without_a_lease_is_stopped(world):
    world.workers.mail.append(Report(kind=ReportKind.INVENTORY, node="n1", tenant="studio", leases=("l77",)))
    world.turn()
    assert world.workers.stopped == ["l77"]


def test_an_order_nobody_answers_is_repeated_after_a_while(world):
    world.workers.deaf = True
    job = world.submit()
    world.workers.deaf = False
    world.turn()
    assert world.workers.ran == []
    world.clock.now += REMIND_MS
    world.turn()
    assert world.workers.ran == [f"{job}.run.0.a1"]


def test_a_lease_nobody_speaks_of_is_lost_in_the_end(world):
    world.workers.deaf = True
    job = world.submit()
    world.clock.now += world.limits.silence_ms
    world.turn()
    assert world.store.attempt(f"{job}.run.0.a1").state is AttemptState.LOST


@pytest.fixture
def hard_of_hearing(tmp_path):
    """A cycle hears of one end at a time."""
    made = World(tmp_path, limits=Limits(call_timeout_ms=5_000, ends_per_cycle=1))
    yield made
    made.close()


def test_more_ends_than_a_cycle_hears_come_with_the_next_ones_in_their_order(hard_of_hearing, monkeypatch):
    world, waits = hard_of_hearing, []
    job = world.submit(step(count=3))
    poll = world.workers.poll
    monkeypatch.setattr(world.workers, "poll", lambda timeout_ms: waits.append(timeout_ms) or poll(timeout_ms))
    for attempt in world.workers.ran[:]:
        world.workers.finish(attempt)
    world.workers.begin(world.workers.ran[2])  # it is over by then: nothing new
    left = []
    for _ in range(4):
        world.cycle.once(7)
        left.append((len(world.job(job).steps[0].succeeded), len(world.workers.unacknowledged)))
    assert left == [(1, 3), (2, 2), (3, 1), (3, 0)]
    assert waits == [7, 0, 0, 0]


def test_who_was_not_heard_yet_is_not_silent(hard_of_hearing):
    world = hard_of_hearing
    job = world.submit(step(count=3))
    for attempt in world.workers.ran[:]:
        world.workers.finish(attempt)
    world.clock.now += world.limits.silence_ms
    world.turn(3)
    assert world.job(job).state is JobState.SUCCEEDED
    assert world.workers.ran == [f"{job}.run.{index}.a1" for index in range(3)]


def test_a_node_that_does_not_come_back_with_the_runtime_is_lost(world):
    world.workers.nodes.clear()
    world.boot()
    world.clock.now += world.limits.silence_ms
    world.turn()
    with world.cycle.state() as engine:
        assert [n.state.value for n in engine.nodes()] == ["lost"]


def test_a_node_that_the_runtime_does_not_name_when_it_comes_up_is_lost_at_once_with_what_it_carried(world):
    """Those that it names may be silent: they are waited for. Nothing is ordered where there is no node."""
    workers, other = world.workers, replace(NODE, name="n2")
    workers.nodes[other.name] = other
    workers.connect()
    world.turn()
    job = world.submit(step(count=5))  # four fill a node
    waits = f"{job}.run.1.a1"
    for attempt in workers.ran:
        if attempt != waits:
            workers.begin(attempt)
    world.turn()
    before = {a["id"]: a["node"] for a in world.service.attempts(OPERATOR, job)}
    gone = before[waits]
    assert set(before.values()) == {NODE.name, other.name}
    for forgotten in (workers.nodes, workers.known, workers.ran):
        forgotten.clear()
    (there,) = workers.there = tuple({NODE.name, other.name} - {gone})
    world.boot()
    after = {a["id"]: (a["state"], a["reason"]) for a in world.service.attempts(OPERATOR, job)}
    lost = ("lost", f"node {gone}: {NOT_THERE}")
    assert {key: after[key] for key in before} == {
        key: lost if node == gone else ("running", "") for key, node in before.items()
    }
    assert waits not in workers.ran
    with world.cycle.state() as engine:
        assert {n.name: n.state.value for n in engine.nodes()} == {gone: "lost", there: "ready"}


def test_a_node_this_start_does_not_declare_is_not_waited_for(world):
    world.workers.nodes.clear()
    world.declared = {"another"}
    world.boot()
    with world.cycle.state() as engine:
        assert [n.state.value for n in engine.nodes()] == ["lost"]


def test_simulated_cards_of_a_node_that_is_gone_mark_nothing(tmp_path):
    paper = replace(NODE, devices=(replace(CARDS[0], simulated=True),))
    world = World(tmp_path, nodes=(paper,))
    try:
        assert world.operations.status(OPERATOR)["simulated"]
        world.workers.nodes.clear()
        world.declared = set()
        world.boot()
        assert not world.operations.status(OPERATOR)["simulated"]
    finally:
        world.close()


def test_cancel_stops_what_runs(world):
    job = world.submit(step(count=2))
    for attempt in world.workers.ran:
        world.workers.begin(attempt)
    world.turn()
    world.ask(lambda engine, now_ms: ((JobCancelled(at_ms=now_ms, job_id=job, by="studio"),), None))
    world.turn()
    assert world.job(job).state is JobState.CANCELLED
    states = {a.state for a in world.store.attempts(job)}
    assert states == {AttemptState.CANCELLED}


def test_a_stop_that_was_recorded_but_not_delivered_is_repeated(world, monkeypatch):
    job = world.submit()
    world.workers.begin(world.workers.ran[0])
    world.turn()
    monkeypatch.setattr(world.workers, "stop", lambda *_: None)
    world.ask(lambda engine, now_ms: ((JobCancelled(at_ms=now_ms, job_id=job, by="studio"),), None))
    monkeypatch.undo()
    world.boot()
    world.turn()
    assert world.job(job).state is JobState.CANCELLED


def test_a_step_that_cannot_be_expanded_fails_with_a_reason_and_the_service_lives(world, monkeypatch):
    def broken(*_):
        raise ValueError("no such template")

    monkeypatch.setattr("pipelines.plan.order", broken)
    job = world.submit(step(retries=0))
    world.turn(2)
    record = world.job(job)
    assert record.state is JobState.FAILED
    assert "no such template" in record.reason


def test_progress_is_kept_in_memory_only(world):
    job = world.submit()
    attempt = world.workers.ran[0]
    world.workers.begin(attempt)
    world.workers.mail.append(Report(kind=ReportKind.PROGRESS, attempt_id=attempt, progress_milli=400, message="half"))
    world.turn()
    assert world.cycle.observer.progress[attempt].milli == 400
    seen = len(list(world.store.journal()))
    world.workers.mail.append(Report(kind=ReportKind.PROGRESS, attempt_id=attempt, progress_milli=500))
    world.turn()
    assert len(list(world.store.journal())) == seen
    world.run_to_end(job)
    assert world.cycle.observer.progress == {}
    assert world.cycle.observer.heartbeats == {}


def test_a_gang_has_an_order_per_rank_and_one_attempt(world):
    job = world.submit(step("gang", ranks=2))
    orders = [o for (_, _), o in sorted(world.workers.known.items())]
    assert [(o.rank, o.ranks) for o in orders] == [(0, 2), (1, 2)]
    assert {t.attempt_id for o in orders for t in o.tasks} == {f"{job}.gang.0.a1"}
    assert world.run_to_end(job).state is JobState.SUCCEEDED


def test_the_journal_replays_to_the_live_tables(world):
    world.run_to_end(world.submit(step("a", count=5), step("b", needs=("a",), ranks=2)))
    world.submit(step(count=3))
    assert first_difference(world.store) == ""


def test_replay_names_what_differs(world):
    job = world.submit()
    with world.cycle.state() as engine:
        unrecorded = replace(engine.job(job), reason="nobody recorded this")
        changes = replace(engine.take_changes(), jobs=(unrecorded,))
    world.store.commit(world.cycle._epoch, [], changes)
    assert first_difference(world.store).startswith("jobs: the journal gives")
    assert "nobody recorded this" in first_difference(world.store)


def test_signs_of_life_are_recorded_now_and_then(world):
    world.submit()
    attempt = world.workers.ran[0]
    world.workers.begin(attempt)
    world.turn()
    for _ in range(12):
        world.clock.now += 10_000
        world.workers.mail.append(Report(kind=ReportKind.PROGRESS, attempt_id=attempt, at_ms=world.clock.now))
        world.turn()
    recorded = [e for _, e in world.store.journal() if isinstance(e, AttemptsSeen)]
    assert len(recorded) == 4
    assert world.store.attempt(attempt).heartbeat_ms == world.clock.now
    world.boot()
    world.clock.now += 60_000
    world.workers.mail.append(Report(kind=ReportKind.NODE_GONE, node="n1"))
    world.turn()
    charged = [r.end_ms for r in world.store.usage() if r.bucket.value == "held_charged"]
    assert charged == [world.clock.now - 60_000]


def test_preempted_it_waits_again_uncounted_and_is_free_from_its_checkpoint_on(world):
    job = world.submit(step(retries=0))
    first = f"{job}.run.0.a1"
    world.workers.begin(first)
    world.turn()
    saved_ms = world.clock.now + 400
    world.workers.stop = lambda lease_ids, reason: world.workers.stopped.append((tuple(lease_ids), reason))
    world.in_thread(lambda: world.service.preempt(OPERATOR, job))
    (lease,) = world.open_leases()
    assert (lease.stopping, lease.stop_reason, lease.stop_charged) == (True, "preempted by an operator", False)
    assert world.workers.stopped == [((lease.lease.id,), "preempted by an operator")]
    world.clock.now += 1_000
    world.workers.finish(first, AttemptState.PREEMPTED, checkpoint_ms=saved_ms)
    world.turn()
    assert world.workers.ran == [first, f"{job}.run.0.a2"]
    assert world.store.attempt(first).checkpoint_ms == saved_ms
    parts = [(r.bucket.value, r.end_ms - r.start_ms) for r in world.store.usage(job_id=job)]
    assert parts == [("held_charged", 400), ("held_free", 600)]
    assert first_difference(world.store) == ""
    assert world.run_to_end(job).state is JobState.SUCCEEDED


def test_who_preempts_his_own_job_pays_to_its_end(world):
    job = world.submit()
    world.workers.begin(f"{job}.run.0.a1")
    world.turn()
    world.clock.now += 1_000
    world.in_thread(lambda: world.service.preempt(STUDIO, job, hold=True))
    world.turn()
    assert world.job(job).state is JobState.HELD
    assert {r.bucket.value for r in world.store.usage(job_id=job)} == {"held_charged"}
    assert world.store.attempt(f"{job}.run.0.a1").state is AttemptState.PREEMPTED
    world.in_thread(lambda: world.service.release(STUDIO, job))
    assert world.run_to_end(job).state is JobState.SUCCEEDED


def test_a_job_of_which_nothing_runs_cannot_be_preempted(world):
    job = world.submit(held=True)
    for caller, expected in ((STUDIO, Conflict), (RIVAL, NotFound)):
        with pytest.raises(expected):
            world.in_thread(lambda who=caller: world.service.preempt(who, job))


def test_a_service_that_dies_after_a_preemption_was_recorded_still_stops_it(world):
    job = world.submit()
    world.workers.begin(f"{job}.run.0.a1")
    world.turn()
    real_stop, world.workers.stop = world.workers.stop, lambda *_: None
    world.in_thread(lambda: world.service.preempt(OPERATOR, job))
    world.workers.stop = lambda lease_ids, reason: (world.workers.stopped.append(reason), real_stop(lease_ids, reason))
    world.boot()
    world.turn(2)
    assert "preempted by an operator" in world.workers.stopped
    assert world.store.attempt(f"{job}.run.0.a1").state is AttemptState.PREEMPTED
