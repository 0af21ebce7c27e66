"""Whom a plan stops for whom, through the whole cycle: as few as needed, never below a guarantee, never in a circle."""

import random
from collections import Counter

import pytest

from scheduler.engine.evict import Evictor
from scheduler.model.job import JobState
from scheduler.model.lease import AttemptState
from scheduler.model.plan import Preempt
from scheduler.model.queue import Queue
from tests.builders import Park, a_job, a_node, a_step


def cards(n):
    return 0, 0, n * 1_000, 0


def most(n):
    return -1, -1, n * 1_000, -1


def a_park(*queues, nodes=2, size=8):
    return Park(*(a_node(f"n{i}", cpus=64, cards=size) for i in range(nodes)), queues=queues)


def fill(park, number, queue, count, **job):
    park.submit(a_job(number, a_step(count=count, cards=1, cpus=0), queue=queue, **job))
    park.cycle()
    for attempt_id in park.open_attempts():
        park.start(attempt_id)
    park.wait(60_000)


def stopped(plan):
    return [action.lease_id for action in plan.actions if isinstance(action, Preempt)]


def obey(park):
    """What was to stop has stopped."""
    for record in list(park.engine.leases()):
        if record.stopping:
            for attempt_id in record.lease.attempts:
                park.end(attempt_id, AttemptState.PREEMPTED)


def holds(park):
    held = Counter()
    for record in park.engine.leases():
        held[record.lease.queue] += len(record.lease.allocations)
    return held


def test_a_guarantee_is_got_back_with_as_many_stops_as_cards_are_needed():
    park = a_park(Queue(name="film", guaranteed=cards(8)), Queue(name="ai"))
    fill(park, 1, "ai", 16)
    park.submit(a_job(2, a_step(cards=3, cpus=0), queue="film"))
    assert len(stopped(park.cycle())) == 3
    assert stopped(park.cycle()) == [], "what is stopping already is enough"
    obey(park)
    park.cycle()
    assert park.job("j2").state is JobState.RUNNING
    assert holds(park) == {"ai": 13, "film": 1}
    assert stopped(park.cycle()) == [], "those it displaced do not take it back"


def test_nobody_is_reclaimed_below_its_own_guarantee():
    queues = (Queue(name="film", guaranteed=cards(8)), Queue(name="ai", guaranteed=cards(4)), Queue(name="lab"))
    park = a_park(*queues)
    park.submit(a_job(1, a_step(count=5, cards=1, cpus=0), queue="ai"))
    park.submit(a_job(2, a_step(count=11, cards=1, cpus=0), queue="lab"))
    park.cycle()
    assert holds(park) == {"ai": 5, "lab": 11}
    park.wait(60_000)  # ai's leases lose no more than lab's: only the guarantee protects them
    for number in range(3, 11):
        park.submit(a_job(number, a_step(cards=1, cpus=0), queue="film"))
    for _ in range(3):
        park.cycle()
        park.wait(1_000)
    obey(park)
    park.cycle()
    assert holds(park)["ai"] >= 4
    assert holds(park)["film"] == 8


def test_what_others_keep_for_themselves_does_not_stop_a_reclaim():
    queues = (
        Queue(name="film", guaranteed=cards(8)),
        Queue(name="live", guaranteed=cards(4), lends=most(0)),
        Queue(name="ai"),
    )
    park = a_park(*queues)
    fill(park, 1, "ai", 16)
    assert holds(park) == {"ai": 12}
    park.submit(a_job(2, a_step(count=3, cards=1, cpus=0), queue="film"))
    for _ in range(4):
        park.cycle()
        obey(park)
    assert holds(park)["film"] == 3
    assert holds(park)["ai"] + holds(park)["film"] <= 12, "live's cards stay free"


def test_at_its_limit_a_queue_stops_its_own_lower_class_for_a_higher_one():
    park = a_park(Queue(name="film", limit=most(4)))
    fill(park, 1, "film", 6, priority=30)
    assert holds(park) == {"film": 4}
    park.submit(a_job(2, a_step(cards=2, cpus=0), queue="film", priority=70))
    assert len(stopped(park.cycle())) == 2
    obey(park)
    park.cycle()
    assert park.job("j2").state is JobState.RUNNING
    assert park.job("j1").steps[0].preempted == 2


def test_a_step_that_may_not_be_stopped_is_not():
    park = a_park(Queue(name="film", guaranteed=cards(8)), Queue(name="ai"))
    park.submit(a_job(1, a_step(count=16, cards=1, cpus=0, preemptible=False), queue="ai"))
    park.cycle()
    park.submit(a_job(2, a_step(cards=1, cpus=0), queue="film"))
    assert stopped(park.cycle()) == []


def test_what_a_node_has_room_for_is_worked_out_once_for_the_same_ends_on_it(monkeypatch):
    park = a_park(Queue(name="film", guaranteed=cards(32)), Queue(name="ai"), nodes=4)
    fill(park, 1, "ai", 32)
    asked, after = Counter(), Evictor._after
    monkeypatch.setattr(Evictor, "_after", lambda self, *what: asked.update([what]) or after(self, *what))
    park.submit(a_job(2, a_step(cards=1, ranks=16, cpus=0), queue="film"))
    assert len(stopped(park.cycle())) == 16
    sets = {what: times for what, times in asked.items() if what[1]}
    assert len(sets) > 20, "the cheapest set is sought among many"
    assert set(sets.values()) == {1}


@pytest.mark.parametrize("seed", range(12))
def test_reclaims_and_priorities_come_to_rest(seed):
    rng = random.Random(seed)
    queues = [
        Queue(name="a", guaranteed=cards(4)),
        Queue(name="b", guaranteed=cards(4), lends=most(2)),
        Queue(name="c"),
    ]
    park = a_park(*queues)
    for number in range(1, 13):
        step = a_step(count=rng.randint(1, 6), cards=rng.choice((1, 1, 2, 4)), cpus=0)
        park.submit(a_job(number, step, queue=rng.choice("abc"), priority=rng.choice((30, 50, 70, 90))))
        park.cycle()
        park.wait(rng.randint(0, 30_000))
        obey(park)
    quiet = 0
    for _ in range(60):
        plan = park.cycle()
        quiet = 0 if plan.actions and any(not hasattr(a, "nodes") for a in plan.actions) else quiet + 1
        if quiet == 3:
            return
        obey(park)
        park.wait(1_000)
    raise AssertionError("leases stop each other for ever")
