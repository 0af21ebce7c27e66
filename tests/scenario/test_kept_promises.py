"""What moved promised starts back in parks that have everything at once, each in the smallest park that shows it."""

from __future__ import annotations

from dataclasses import replace

from scheduler.model.event import JobCancelled
from scheduler.model.job import Slot
from scheduler.model.lease import AttemptState
from scheduler.model.plan import Preempt, Reserve
from scheduler.model.policy import Backfill, Policy, Preemption
from scheduler.model.queue import Queue
from tests.builders import Park, a_job, a_node, a_step, lines, started
from tests.scenario.test_deadlines import promise as promise_slot
from tests.scenario.test_films import promise as promise_tracks

SECOND = 1_000
CONSERVATIVE = Policy(backfill=Backfill.CONSERVATIVE)


def known(seconds: int, **changes: object):
    """A step whose owner says how long it takes, and never takes longer."""
    return a_step(run_ms_expected=seconds * SECOND, timeout_ms=seconds * SECOND, **changes)


def saving(seconds: int, **changes: object):
    """It leaves at once for who is promised its room, and loses five seconds."""
    return known(seconds, checkpoint_ms=5 * SECOND, grace_ms=0, **changes)


def conservative(*nodes) -> Park:
    park = Park(*nodes)
    park.policy = CONSERVATIVE
    return park


def serve(park: Park) -> list[str]:
    """A cycle; what it starts runs. Whom it stops."""
    plan = park.cycle()
    for attempt in started(plan):
        park.start(attempt)
    return [action.lease_id for action in plan.actions if isinstance(action, Preempt)]


def reserved_ms(park: Park, job_id: str) -> int:
    """The instant at which a job's start is promised."""
    return next(a.start_ms for a in park.plan().actions if isinstance(a, Reserve) and a.job_id == job_id)


def l3_is_told_to_leave_for_j3(park: Park) -> None:
    """Within a second, and for that j3 starts no later than was promised before."""
    promised_ms = reserved_ms(park, "j3")
    assert promised_ms - park.now_ms <= 1 * SECOND + 1
    assert serve(park) == ["l3"]
    assert reserved_ms(park, "j3") <= promised_ms


def test_who_is_stopped_and_ends_by_itself_before_its_grace_is_over_is_gone_then():
    park = conservative(a_node("n1", cards=1))
    park.submit(a_job(1, known(60, cards=1, grace_ms=10 * SECOND)))
    serve(park)
    park.wait(57 * SECOND)
    park.submit(a_job(2, known(100, cards=1), priority=90))
    stopping_ms = reserved_ms(park, "j2")
    assert serve(park) == ["l1"]
    assert stopping_ms == reserved_ms(park, "j2")
    park.policy = Policy(backfill=Backfill.CONSERVATIVE, preemption=Preemption.NEVER)
    assert stopping_ms == reserved_ms(park, "j2"), "nobody waits longer because somebody was stopped for him"


def test_who_is_stopping_but_goes_only_after_the_promised_start_makes_no_room_for_it():
    """j3 needs three of four cards: two become free, and j4 leaves in a second; j1 takes its grace."""
    park = conservative(a_node("n1", cards=4, cpus=32))
    park.submit(a_job(1, known(1_000, cards=1, grace_ms=60 * SECOND)), a_job(2, known(100, cards=2)))
    serve(park)
    park.submit(a_job(3, known(50, cards=3)), a_job(4, saving(5_000, cards=1)))
    serve(park)
    assert park.engine.lease("l3").lease.leaves_for == "j3"
    park.wait(90 * SECOND)
    park.tell(JobCancelled(at_ms=park.now_ms, job_id="j1", by="owner"))
    serve(park)
    assert park.engine.lease("l1").stopping
    park.wait(10 * SECOND)
    park.end("j2.work.0.a1")
    l3_is_told_to_leave_for_j3(park)


def test_a_node_that_is_closed_for_a_start_now_is_no_reason_to_forget_what_was_promised_there():
    """j5 was promised n3 behind the slot of j4, and may not start there before. j6 may run on n1 or n2 and was promised
    n1, j7 needs n2: what becomes free there is j7's.
    """
    park = conservative(a_node("n1", cards=1, cpus=2), a_node("n2", cards=1, cpus=8), a_node("n3", cards=2, cpus=32))
    park.submit(a_job(1, known(1_000, cards=1, cpus=8)), a_job(2, known(100, cards=1)))
    park.submit(a_job(3, known(300, cards=1, cpus=12)))
    serve(park)
    promise_slot(park, 4, 600, 4_000, cards=2, cpus=20)
    park.submit(a_job(5, known(800, cards=1, cpus=12), priority=60))
    park.submit(a_job(6, known(5_000, cards=1)), a_job(7, known(400, cards=1, cpus=8)))
    serve(park)
    promised = {job: park.job(job).steps[0].promised for job in ("j5", "j6", "j7")}
    assert [kept.places[0][0] for kept in promised.values()] == ["n3", "n1", "n2"]
    park.wait(10 * SECOND)
    park.end("j1.work.0.a1")
    assert started(park.plan()) == {"j7.work.0.a1": "n2"}


def test_who_starts_earlier_than_promised_needs_no_room_beside_who_comes_after_it():
    """j3 was promised cards a and c from 1,000 s on, and j5 card b from 1,100 s. Then b is free: j4 leaves c."""
    park = conservative(a_node("n1", cards=3, cpus=32))
    park.submit(a_job(1, known(1_000, cards=1)), a_job(2, known(1_100, cards=1, cpus=2)))
    serve(park)
    park.submit(a_job(3, known(300, cards=2)), a_job(4, saving(5_000, cards=1)))
    serve(park)
    assert park.engine.lease("l3").lease.leaves_for == "j3"
    park.submit(a_job(5, known(2_000, cards=1)))
    serve(park)
    park.wait(200 * SECOND)
    park.end("j2.work.0.a1")
    l3_is_told_to_leave_for_j3(park)


def test_room_of_who_starts_later_may_still_be_held_when_those_who_leave_are_told():
    """j5 gets card b and four vCPUs when j2 has ended, in the middle of j3's run; j3 takes what j1 and j4 leave."""
    park = conservative(a_node("n1", cards=3, cpus=7))
    park.submit(a_job(1, known(1_000, cards=1)), a_job(2, known(1_100, cards=1, cpus=4)))
    serve(park)
    park.submit(a_job(3, known(2_000, cards=2, cpus=2)), a_job(4, saving(5_000, cards=1)))
    serve(park)
    assert park.engine.lease("l3").lease.leaves_for == "j3"
    park.submit(a_job(5, known(2_000, cards=1, cpus=4)))
    serve(park)
    assert reserved_ms(park, "j3") < reserved_ms(park, "j5") < reserved_ms(park, "j3") + 2_000 * SECOND
    park.wait(10 * SECOND)
    park.end("j1.work.0.a1")
    l3_is_told_to_leave_for_j3(park)


def test_who_leaves_is_told_where_only_a_slot_that_begins_during_the_start_needs_the_room():
    """j3 gets the cards of j1, and the slot of j5, in the middle of its run, those that j4 leaves for j3."""
    park = conservative(a_node("n1", cards=5, cpus=32))
    park.submit(a_job(1, known(100, cards=3)))
    serve(park)
    park.submit(a_job(3, known(500, cards=3)), a_job(4, saving(5_000, cards=2)))
    serve(park)
    slot = Slot(model="H100", ranks=1, start_ms=300 * SECOND, end_ms=510 * SECOND, nodes=("n1",))
    dated = a_job(5, known(200, cards=2), deadline_ms=900 * SECOND)
    park.submit(replace(dated, slot=slot, promise_permille=990))
    assert reserved_ms(park, "j3") <= 101 * SECOND
    park.wait(101 * SECOND)
    park.end("j1.work.0.a1")
    assert serve(park) == ["l2"]
    assert "j3.work.0.a1" in park.open_attempts(), "at once: the slot begins later"
    assert reserved_ms(park, "j5") == 300 * SECOND


def test_who_is_entitled_stops_nobody_where_those_who_leave_make_room_sooner():
    """When j2 ends the guarantee of its queue is j3's. j1 is cheaper to stop than j4, and takes its grace."""
    park = Park(
        a_node("n1", cards=3, cpus=32),
        queues=(Queue(name="film"), Queue(name="lab", weight=300, guaranteed=(0, 0, 2_000, 0))),
    )
    keen = known(5_000, cards=1, checkpoint_ms=1 * SECOND, grace_ms=10 * SECOND)
    park.submit(a_job(1, keen, queue="film"), a_job(2, known(100, cards=1), queue="lab"))
    serve(park)
    park.submit(a_job(3, known(500, cards=2), queue="lab", priority=60))
    serve(park)
    park.submit(a_job(4, saving(5_000, cards=1), queue="film"))
    serve(park)
    assert park.engine.lease("l3").lease.leaves_for == "j3"
    park.wait(54 * SECOND)
    park.end("j2.work.0.a1")
    promised_ms = reserved_ms(park, "j3")
    assert promised_ms <= park.now_ms + 1 * SECOND + 1
    assert serve(park) == ["l3"]
    park.wait(promised_ms - park.now_ms)
    park.end("j4.work.0.a1", AttemptState.PREEMPTED)
    serve(park)
    assert "j3.work.0.a1" in park.open_attempts()


def test_a_films_tasks_that_run_beside_its_tracks_take_no_new_ones():
    """The track on n1 begins and both tasks run on n2: it is kept in case one fails, and is nobody's reason to wait."""
    park = Park(a_node("n1", cards=1, cpus=16))
    park.submit(a_job(1, known(600, cards=1)))
    serve(park)
    [_] = promise_tracks(park, 2, 3_600 * SECOND, known(300, count=2, cards=1))
    park.wait(580 * SECOND)
    park.see(a_node("n2", cards=2, cpus=16))
    assert serve(park) == []
    assert park.open_attempts() == ["j1.work.0.a1", "j2.work.0.a1", "j2.work.1.a1"]
    park.wait(20 * SECOND)
    park.end("j1.work.0.a1")
    park.submit(a_job(3, known(50, cards=2), priority=60))
    park.wait(140 * SECOND)
    told = lines(park.plan())
    assert not [line for line in told if line.startswith("reserve j2")], told
    assert reserved_ms(park, "j3") <= 881 * SECOND, "when both have ended"
