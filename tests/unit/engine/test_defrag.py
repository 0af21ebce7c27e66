"""Moves that make room: what is proposed and at what price, who is left alone, and how it is carried out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.model.event import SeatKept
from scheduler.model.job import Seat
from scheduler.model.lease import AttemptState
from scheduler.model.plan import Keep, Preempt, ReasonKind, Start
from scheduler.model.policy import Policy, Preemption
from tests.builders import Park, a_job, a_node, a_step, granted, lines, started

HOUR = 3_600_000


def a_park(**step):
    """Two nodes of two cards, each with a card held by a long task (j1 on n1, j3 on n2) and a card free."""
    step = {"cards": 1, "run_ms_expected": 2 * HOUR, "checkpoint_ms": 60_000, "restart_ms": 5_000} | step
    park = Park(a_node("n1", cpus=16, cards=2), a_node("n2", cpus=16, cards=2))
    for number in (1, 2, 3):
        park.submit(a_job(number, a_step(**step)))
        park.cycle()
        park.start(f"j{number}.work.0.a1")
    park.wait(90_000)
    park.end("j2.work.0.a1")
    assert {r.lease.job_id: r.lease.allocations[0].node for r in park.engine.leases()} == {"j1": "n1", "j3": "n2"}
    return park


def pair(number, **changes):
    """A job that needs a whole node."""
    return a_job(number, a_step(cards=2, run_ms_expected=HOUR), **changes)


def propose(park, job_id=""):
    return park.engine.rearrangements(park.now_ms, park.policy, job_id)


def carry_out(park, proposal):
    for action in proposal.actions:
        park.tell(*park.engine.events_of(replace(park.plan(), actions=(action,), waits=())))


def test_the_cheapest_lease_moves_and_its_price_is_what_it_loses():
    park = a_park()
    park.submit(pair(4))
    park.cycle()
    (found,) = propose(park)
    (move,) = found.moves
    assert (found.job_id, move.lease_id, move.nodes, move.to) == ("j4", "l1", ("n1",), ("n2",))
    # 90 s since its start, a checkpoint every minute: 30 s are lost and 5 s go by until it has caught up.
    assert (move.lost_ms, found.price, found.bound) == (35_000, 35_000_000, 35_000_000)
    assert found.nodes == ("n1",)
    assert found.gain == 2_000 * found.sooner_ms
    assert propose(park, "j4") == (found,)
    assert propose(park, "j1") == ()


def test_nothing_moves_by_itself_without_a_rule():
    park = a_park()
    park.submit(pair(4))
    park.wait(HOUR)
    assert not any(isinstance(action, Keep | Preempt) for action in park.plan().actions)


@pytest.mark.parametrize(("permille", "moves"), [(1_000, True), (1_000_000, False)])
def test_a_rule_moves_what_gains_enough(permille, moves):
    park = a_park()
    park.policy = Policy(defragment_permille=permille)
    park.submit(pair(4))
    stops = [action for action in park.plan().actions if isinstance(action, Preempt)]
    assert bool(stops) is moves
    assert all((s.lease_id, s.for_job) == ("l1", "j4") and "goes on on n2" in s.reason for s in stops)


def test_what_moved_goes_on_at_its_seat_and_nobody_else_takes_the_room():
    park = a_park()
    park.submit(pair(4))
    park.cycle()
    (found,) = propose(park)
    carry_out(park, found)
    assert park.engine.lease("l1").stopping
    assert not park.engine.lease("l1").stop_charged
    park.submit(a_job(5, a_step(cards=1, run_ms_expected=HOUR)))  # would take the free card of either node
    plan = park.cycle()
    assert started(plan) == {}
    assert propose(park) == ()  # one rearrangement at a time
    (wait,) = [wait for wait in plan.waits if wait.job_id == "j4"]
    assert "kept for it" in wait.reasons[0].message
    park.wait(3_000)
    park.end("j1.work.0.a1", AttemptState.PREEMPTED, checkpoint_ms=park.now_ms - 1)
    assert started(park.cycle()) == {"j1.work.0.a2": "n2", "j4.work.0.a1": "n1"}
    assert park.job("j1").steps[0].preempted == 1
    assert not any(step.seats for job in ("j1", "j4") for step in park.job(job).steps)


def test_a_seat_nobody_took_in_time_is_everybodys_again():
    park = a_park()
    park.submit(pair(4))
    (found,) = propose(park)
    carry_out(park, found)
    park.submit(a_job(5, a_step(cards=1, run_ms_expected=60_000)))
    assert started(park.cycle()) == {}
    assert park.plan().wake_ms <= found.until_ms
    park.wait(found.until_ms - park.now_ms)
    assert "j5.work.0.a1" in started(park.cycle())


@pytest.mark.parametrize(
    ("step", "policy"),
    [({"preemptible": False}, Policy()), ({}, Policy(preemption=Preemption.NEVER)), ({}, Policy(preempted_max=0))],
)
def test_who_may_not_be_stopped_is_not_moved(step, policy):
    park = a_park(**step)
    park.policy = policy
    park.submit(pair(4))
    assert propose(park) == ()


def test_no_moves_where_waiting_is_as_quick():
    park = a_park(run_ms_expected=91_000, grace_ms=120_000)
    park.submit(pair(4))
    assert propose(park) == ()


def test_a_seat_on_a_node_that_is_gone_holds_nobody_up():
    park = a_park()
    park.submit(a_job(4, a_step(cards=1)), held=True)
    park.tell(SeatKept(at_ms=park.now_ms, job_id="j4", step="work", seat=Seat(nodes=("n9",), until_ms=2 * HOUR)))
    park.submit(a_job(5, a_step(cards=1)))
    assert started(park.cycle()) == {"j5.work.0.a1": "n1"}


def test_only_a_lease_that_sits_there_takes_a_seat():
    park = Park(a_node("n1", cpus=1), a_node("n2", cpus=1), a_node("n3", cpus=1))
    park.submit(a_job(1, a_step(count=3)))
    seat = Seat(nodes=("n2",), until_ms=2 * HOUR)
    park.tell(SeatKept(at_ms=park.now_ms, job_id="j1", step="work", seat=seat))
    first, second, third = granted(park.plan())
    assert first.lease.allocations[0].node == "n2", "seats come first"
    park.tell(replace(second, lease=replace(second.lease, id="l1", attempts=first.lease.attempts)))
    assert park.job().steps[0].seats == (seat,)
    assert len({grant.lease.allocations[0].node for grant in (first, second, third)}) == 3


def test_the_same_fact_twice_is_one_seat():
    park = a_park()
    park.submit(pair(4))
    fact = SeatKept(at_ms=park.now_ms, job_id="j4", step="work", seat=Seat(nodes=("n1",), until_ms=2 * HOUR))
    park.tell(fact, fact)
    assert len(park.job("j4").steps[0].seats) == 1
    assert any("j4" in line for line in lines(park.plan()))


def test_a_lease_that_would_take_the_seat_of_another_of_its_step_waits_and_says_so():
    park = Park(*(a_node(f"n{i}", cpus=1) for i in (1, 2, 3)))
    park.submit(a_job(1, a_step(run_ms_expected=60_000)))
    assert started(park.cycle()) == {"j1.work.0.a1": "n1"}
    park.submit(a_job(2, a_step(count=2, ranks=2, run_ms_expected=HOUR)))
    seat = Seat(nodes=("n1", "n2"), until_ms=2 * HOUR)
    park.tell(SeatKept(at_ms=park.now_ms, job_id="j2", step="work", seat=seat))
    plan = park.plan()
    assert started(plan) == {}, "both of its nodes that are free would not be back in time"
    (reason,) = plan.waits[0].reasons
    assert (reason.kind, reason.resource) == (ReasonKind.RESERVATION, "j2")
    assert reason.message == "its place on n1, n2 is kept for it and is expected to be free in 60 s"


def test_nobody_is_moved_for_who_was_not_looked_at_whether_it_is_to_be_said_why_or_not():
    park = a_park()
    park.policy = Policy(defragment_permille=1_000, starts_per_cycle=1)
    park.submit(a_job(4, a_step(count=2)))
    park.submit(pair(5))
    told, mine = (park.engine.plan(park.now_ms, park.policy, waits=waits) for waits in (False, True))
    assert [type(action) for action in mine.actions] == [Start]
    assert (told.actions, told.wake_ms) == (mine.actions, mine.wake_ms)
    park.cycle()
    park.cycle()
    assert any(isinstance(action, Preempt) for action in park.cycle().actions), "its turn comes with the next cycle"
