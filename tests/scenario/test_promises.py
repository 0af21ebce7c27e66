"""Who is ahead keeps its start: promises, backfill, preemption, quotas, floors, lanes, as tables of plan lines."""

from __future__ import annotations

from dataclasses import replace

from scheduler.model.event import NodeSeen, QueueSet, ReservationSet
from scheduler.model.job import Together
from scheduler.model.lease import AttemptState
from scheduler.model.node import Lane, NodeState
from scheduler.model.plan import Preempt
from scheduler.model.policy import Backfill, Band, Floor, Policy, Preemption
from scheduler.model.queue import Queue, Reservation, ReservationKind
from tests.builders import Park, a_job, a_node, a_step, lines

SECOND = 1_000


def a_known(name: str = "work", seconds: int = 60, **changes: object):
    """A step whose owner says how long it takes, and has always been right."""
    return a_step(name, run_ms_expected=seconds * SECOND, **changes)


DEFAULT = (Queue(name="default"),)


def park_with(policy: Policy, *nodes, queues=DEFAULT) -> Park:
    park = Park(*nodes, queues=queues)
    park.policy = policy
    return park


def test_what_ends_before_a_promised_start_fills_the_drain_and_what_does_not_waits():
    park = park_with(Policy(), a_node("n1", cards=2, cpus=16), a_node("n2", cards=2, cpus=16))
    park.submit(a_job(1, a_known(cards=2, seconds=1_000)))
    park.cycle()
    park.submit(
        a_job(2, a_known(ranks=2, cards=2, seconds=600)),
        a_job(3, a_known(cards=1, seconds=5_000)),
        a_job(4, a_known(cards=1, seconds=100)),
    )
    told = lines(park.cycle())
    assert told[0] == "start j4.work.0.a1 on n2[0]"
    assert told[1].startswith("reserve j2.work on n1 n2 at ")
    assert told[2:] == ["wait #1 j2.work x1 capacity:ranks", "wait #2 j3.work x1 reservation:j2"]


def test_without_backfill_nothing_passes_who_does_not_fit():
    park = park_with(Policy(backfill=Backfill.NONE), a_node("n1", cards=2), a_node("n2", cards=2))
    park.submit(a_job(1, a_step(cards=2)), a_job(2, a_step(ranks=2, cards=2)), a_job(3))
    assert lines(park.plan())[1:] == ["wait #1 j2.work x1 order", "wait #2 j3.work x1 order"]


def test_with_any_backfill_small_work_can_keep_a_gang_waiting():
    park = park_with(Policy(backfill=Backfill.ANY), a_node("n1", cards=2), a_node("n2", cards=2))
    park.submit(a_job(1, a_step(cards=1)), a_job(2, a_step(ranks=2, cards=2)), a_job(3, a_step(cards=1)))
    assert [line for line in lines(park.plan()) if line.startswith("start")] == [
        "start j1.work.0.a1 on n1[0]",
        "start j3.work.0.a1 on n1[1]",
    ]


def test_conservative_backfill_keeps_every_start_ahead():
    park = park_with(Policy(backfill=Backfill.CONSERVATIVE), a_node("n1", cards=4, cpus=16))
    park.submit(a_job(1, a_known(cards=3, seconds=1_000)))
    park.cycle()
    park.submit(
        a_job(2, a_known(cards=4, seconds=100)),
        a_job(3, a_known(cards=3, seconds=100)),
        a_job(4, a_known(cards=1, seconds=5_000)),
    )
    told = lines(park.plan())
    assert [line.rsplit(" ", 1)[0] for line in told[:2]] == ["reserve j2.work on n1 at", "reserve j3.work on n1 at"]
    assert told[-1] == "wait #3 j4.work x1 reservation:j2"


def test_cards_of_who_is_stopped_without_grace_are_nobodys_in_that_plan():
    park = park_with(Policy(backfill=Backfill.CONSERVATIVE), a_node("n1", cards=2, cpus=16))
    park.submit(a_job(1, a_known(cards=2, grace_ms=0)))
    park.cycle()
    park.submit(a_job(2, a_known(cards=1), priority=90), a_job(3, a_known(cards=1)))
    plan = park.cycle()
    assert lines(plan)[0] == "preempt l1"
    assert not [line for line in lines(plan) if line.startswith("start")]
    park.end("j1.work.0.a1", AttemptState.PREEMPTED)
    assert lines(park.cycle())[0].startswith("start j2.work.0.a1 on n1")


def test_a_promise_far_ahead_counts_on_nodes_that_are_closed_for_a_start_now():
    """Both policies: n1 is closed for who would start now, and open again when n2 is free too."""
    for backfill in (Backfill.EASY, Backfill.CONSERVATIVE):
        park = park_with(Policy(backfill=backfill), a_node("n1", cards=1), a_node("n2", cards=1))
        window = Reservation(name="w", kind=ReservationKind.MAINTENANCE, nodes=("n1",), start_ms=50_000, end_ms=90_000)
        park.tell(ReservationSet(at_ms=park.now_ms, reservation=window))
        park.submit(a_job(1, a_known(cards=1, seconds=1_000, resources={"labels": ()})))
        park.cycle()
        park.submit(a_job(2, a_known(ranks=2, cards=1, seconds=100)))
        told = [line for line in lines(park.plan()) if line.startswith("reserve j2")]
        assert [line.rsplit(" ", 1)[0] for line in told] == ["reserve j2.work on n1 n2 at"]


def test_nobody_is_stopped_for_a_gang_whose_ranks_would_be_in_two_racks():
    for together, stopped in ((Together.RACK, 0), (Together.ANYWHERE, 2)):
        nodes = [a_node("a1", cards=1, rack="a"), a_node("b1", cards=1, rack="b")]
        park = park_with(Policy(), *nodes, a_node("a2", cards=1, rack="a", state=NodeState.CORDONED))
        park.submit(a_job(1, a_step(cards=1)), a_job(2, a_step(cards=1)))
        park.cycle()
        park.submit(a_job(3, a_step(ranks=2, cards=1, together=together), priority=90))
        assert len([line for line in lines(park.plan()) if line.startswith("preempt")]) == stopped


def test_a_guarantee_is_taken_back_from_who_borrowed_it():
    queues = (Queue(name="film", guaranteed=(0, 0, 2_000, 0)), Queue(name="ai"))
    park = park_with(Policy(), a_node("n1", cards=2, cpus=16), queues=queues)
    park.submit(a_job(1, a_step(cards=1, count=2), queue="ai"))
    park.cycle()
    park.wait(10_000)
    park.submit(a_job(2, a_step(cards=1), queue="film"))
    told = lines(park.plan())
    assert [line.split()[0] for line in told] == ["preempt", "reserve", "wait"]
    park.tell(*park.engine.events_of(park.plan()))
    assert not [line for line in lines(park.plan()) if line.startswith("preempt")], "one is enough"
    stopped = next(r for r in park.engine.leases() if r.stopping)
    park.end(stopped.lease.attempts[0], AttemptState.PREEMPTED)
    assert lines(park.cycle())[0].startswith("start j2.work.0.a1 on n1")


def test_a_class_of_priority_preempts_in_its_queue_and_only_there():
    queues = (Queue(name="film"), Queue(name="ai"))
    park = park_with(Policy(), a_node("n1", cards=1), queues=queues)
    park.submit(a_job(1, a_step(cards=1), queue="ai"))
    park.cycle()
    park.submit(a_job(2, a_step(cards=1), queue="ai", priority=90))
    assert lines(park.plan())[0] == "preempt l1"
    never = replace(park.policy, preemption=Preemption.NEVER)
    assert not [a for a in park.engine.plan(park.now_ms, never).actions if isinstance(a, Preempt)]
    park.submit(a_job(3, a_step(cards=1), queue="film", priority=90))
    assert not [line for line in lines(park.plan()) if line.startswith("preempt")], "film would take what is freed"


def test_nobody_is_stopped_where_it_would_not_help():
    park = park_with(Policy(), a_node("n1", cards=1), a_node("n2", cards=1))
    park.submit(a_job(1, a_step(cards=1)), a_job(2, a_step(cards=1, preemptible=False)))
    park.cycle()
    park.submit(a_job(3, a_step(ranks=2, cards=1), priority=90))
    assert not [line for line in lines(park.plan()) if line.startswith("preempt")]


def test_limits_licences_and_budgets_say_so():
    queues = (Queue(name="film", limit=(-1, -1, 1_000, -1)), Queue(name="ai"))
    policy = Policy(licences=(("nuke", 1),), unfunded=("poor",))
    park = park_with(policy, a_node("n1", cards=4, cpus=16), queues=queues)
    park.submit(
        a_job(1, a_step(cards=1, count=2), queue="film"),
        a_job(2, a_step(count=2, resources={"licences": (("nuke", 1),)}), queue="ai"),
        a_job(3, tenant="poor", queue="ai"),
    )
    told = lines(park.plan())
    assert sorted(told) == [
        "start j1.work.0.a1 on n1[0]",
        "start j2.work.0.a1 on n1",
        "wait #0 j3.work x1 budget:poor",
        "wait #1 j2.work x1 licence:nuke",
        "wait #2 j1.work x1 quota:film",
    ]


def test_a_floor_goes_first_until_it_is_reached():
    policy = Policy(floors=(Floor(kind="TranscodeJob", permille=250),))
    park = park_with(policy, a_node("n1", cards=4, cpus=16))
    park.submit(
        a_job(1, a_step(cards=1, count=9)), a_job(2, a_step(cards=1, count=9), kind="TranscodeJob", priority=10)
    )
    started = [line.split()[1] for line in lines(park.plan()) if line.startswith("start")]
    assert started == ["j2.work.0.a1", "j1.work.0.a1", "j1.work.1.a1", "j1.work.2.a1"]


def test_maintenance_drains_ahead_and_an_event_keeps_its_nodes():
    park = park_with(Policy(), a_node("n1"), queues=(Queue(name="film"), Queue(name="ai")))
    window = Reservation(
        name="live", kind=ReservationKind.EVENT, nodes=("n1",), start_ms=600_000, end_ms=900_000, queues=("film",)
    )
    park.tell(ReservationSet(at_ms=park.now_ms, reservation=window))
    park.submit(a_job(1, a_known(seconds=1_000), queue="ai"), a_job(2, a_known(seconds=60), queue="ai"))
    park.submit(a_job(3, a_known(seconds=1_000), queue="film"))
    plan = park.plan()
    assert sorted(lines(plan)) == [
        "reserve j1.work on n1 at 900000",
        "start j2.work.0.a1 on n1",
        "start j3.work.0.a1 on n1",
        "wait #1 j1.work x1 reservation:live",
    ]
    assert plan.wake_ms == 600_000


def test_a_price_band_opens_by_the_clock():
    park = park_with(Policy(bands=(Band(name="night", start_minute=22 * 60, end_minute=7 * 60),)), a_node("n1"))
    park.now_ms = 4 * 3_600_000  # noon at UTC+8
    park.submit(a_job(1, band="night"))
    plan = park.plan()
    assert lines(plan) == ["wait #0 j1.work x1 calendar:night"]
    assert plan.wake_ms == 14 * 3_600_000  # 22:00 at UTC+8
    park.now_ms = plan.wake_ms
    assert lines(park.plan()) == ["start j1.work.0.a1 on n1"]


def test_ranks_stay_together_where_their_job_says_so():
    nodes = [a_node("a1", cards=2, rack="a"), a_node("b1", cards=2, rack="b"), a_node("b2", cards=2, rack="b")]
    park = park_with(Policy(), *nodes)
    park.submit(a_job(1, a_step(ranks=2, cards=2, together=Together.RACK)), a_job(2, a_step(ranks=2, cards=1)))
    assert lines(park.cycle())[:2] == ["start j1.work.0.a1 on b1[0,1] b2[0,1]", "start j2.work.0.a1 on a1[0] a1[1]"]
    park = park_with(Policy(), a_node("a1", cards=2, rack="a"), a_node("b1", cards=2, rack="b"))
    park.submit(a_job(1, a_step(ranks=2, cards=2, together=Together.RACK)))
    assert lines(park.plan()) == ["wait #1 j1.work x1 never_fits:ranks"]


def test_an_elastic_gang_starts_with_what_there_is():
    park = park_with(Policy(), a_node("n1", cards=3, cpus=16))
    park.submit(a_job(1, a_step(ranks=4, ranks_min=2, cards=1)))
    assert lines(park.plan()) == ["start j1.work.0.a1 on n1[0] n1[1] n1[2]"]


def test_an_idle_node_moves_to_the_lane_where_work_waits_and_a_busy_one_drains():
    pool = [a_node(f"p{i}", cards=4, cpus=16, lane=Lane.POOL) for i in range(2)]
    park = park_with(Policy(), *pool)
    park.submit(a_job(1, a_known(cards=4, seconds=300)))
    park.cycle()
    park.submit(a_job(2, a_known(ranks=2, cards=4, seconds=3_600, lane="job")))
    told = lines(park.cycle())
    assert told[0].startswith("reserve j2.work on p0 p1 at ")
    assert told[1] == "wait #1 j2.work x1 capacity:lane capacity:lane"
    park.submit(a_job(3, a_known(cards=1, seconds=10_000)))
    assert [line for line in lines(park.cycle()) if line.startswith("start")] == []
    attempt = park.open_attempts()[0]
    park.run(attempt, ms=290_000)
    plan = park.cycle()
    assert [line for line in lines(plan) if line.startswith("convert")] == ["convert p0 to job", "convert p1 to job"]
    assert not [line for line in lines(park.plan()) if line.startswith("convert")], "a move is begun once"
    park.wait(45_000)
    for node in list(park.engine.nodes()):
        back = replace(node, lane=Lane.JOB, state=NodeState.READY, state_reason="", moving_to=None, moving_since_ms=0)
        park.tell(NodeSeen(at_ms=park.now_ms, node=back))
    assert lines(park.cycle())[0].startswith("start j2.work.0.a1 on p0")
    assert {node.moved_ms for node in park.engine.nodes()} == {45_000}


def test_a_queue_that_changes_counts_at_once():
    park = Park(a_node("n1", cards=2), queues=(Queue(name="film", limit=(-1, -1, 1_000, -1)),))
    park.submit(a_job(1, a_step(cards=1, count=2), queue="film"))
    park.cycle()
    park.tell(QueueSet(at_ms=park.now_ms, queue=Queue(name="film")))
    assert lines(park.plan()) == ["start j1.work.1.a1 on n1[1]"]
