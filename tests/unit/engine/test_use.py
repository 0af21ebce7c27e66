"""What closes leaves behind in the records: use, service, kept work, preemptions; and gangs of fewer ranks."""

from dataclasses import replace

import pytest

from scheduler.engine import Engine
from scheduler.model.errors import Conflict
from scheduler.model.lease import Allocation, AttemptState
from scheduler.model.queue import QueueUse
from tests.builders import FEATURES, Park, a_job, a_node, a_step, granted, stopping


def a_running_park(*steps, **node):
    park = Park(a_node("n1", **node))
    park.submit(a_job(1, *steps))
    park.cycle()
    return park


def test_a_lease_counts_for_its_queue_when_it_closes():
    park = a_running_park(a_step(cards=2, memory_mib=100), cards=2)
    assert park.engine.snapshot().uses == ()
    park.start("j1.work.0.a1")
    park.wait(10_000)
    park.end("j1.work.0.a1")
    assert park.engine.snapshot().uses == (QueueUse(name="default", at_ms=11_000, used=(10_000, 1_000, 20_000, 0)),)
    assert park.job().steps[0].served_ms == 10_000


def test_a_preempted_attempt_keeps_its_work_and_success_forgets_it():
    park = a_running_park(a_step(cards=1, speeds=(("H100", 500),)), cards=1)
    park.start("j1.work.0.a1")
    park.wait(9_000)
    park.tell(stopping("l1", park.now_ms))
    park.end("j1.work.0.a1", AttemptState.PREEMPTED, checkpoint_ms=7_000)
    done = park.job().steps[0]
    assert (done.worked, done.preempted, done.served_ms) == (((0, 3_000),), 1, 9_000)
    park.cycle()
    park.run("j1.work.0.a2")
    done = park.job().steps[0]
    assert (done.worked, done.preempted, done.served_ms) == ((), 1, 19_000)


def test_its_owners_own_stop_is_no_preemption_by_the_park():
    park = a_running_park()
    park.start("j1.work.0.a1")
    park.tell(replace(stopping("l1", park.now_ms), charged=True))
    park.end("j1.work.0.a1", AttemptState.PREEMPTED)
    assert park.job().steps[0].preempted == 0


def test_of_a_lease_with_several_tasks_each_counts_once():
    park = a_running_park(a_step(count=3, chunk=3))
    for index in range(3):
        park.run(f"j1.work.{index}.a1", 1_000)
    assert park.job().steps[0].served_ms == 3_000
    assert park.engine.snapshot().uses[0].used[0] == 3_000


def an_elastic_grant(ranks, *, ranks_min=2):
    """A grant of a gang of 4 with only ``ranks`` allocations."""
    park = Park(*(a_node(f"n{i}", cards=1) for i in range(4)))
    park.submit(a_job(1, a_step(cards=1, ranks=4, ranks_min=ranks_min)))
    (event,) = granted(park.plan())
    allocations = event.lease.allocations[:ranks]
    return park, replace(event, lease=replace(event.lease, allocations=allocations))


def test_a_gang_of_fewer_ranks_counts_for_what_it_has():
    park, grant = an_elastic_grant(2)
    park.tell(grant)
    park.start("j1.work.0.a1")
    park.wait(8_000)
    park.end("j1.work.0.a1", AttemptState.LOST, checkpoint_ms=5_000)
    done = park.job().steps[0]
    assert (done.served_ms, done.worked) == (16_000, ((0, 2_000),))
    assert park.engine.snapshot().uses[0].used[2] == 2 * 8_000


@pytest.mark.parametrize(("ranks", "ranks_min"), [(1, 2), (3, 0), (5, 2)])
def test_a_grant_with_too_few_or_too_many_ranks_is_refused(ranks, ranks_min):
    park, grant = an_elastic_grant(4, ranks_min=ranks_min)
    allocations = (*grant.lease.allocations, Allocation(node="n0"))[:ranks]
    with pytest.raises(Conflict, match="allocations for 4 ranks"):
        park.tell(replace(grant, lease=replace(grant.lease, allocations=allocations)))


def test_an_engine_from_the_records_holds_what_the_one_that_grew_holds():
    park = a_running_park(a_step(count=3, cpus=2), a_step("b", 2, cpus=3))
    park.run("j1.work.0.a1", 5_000)
    park.cycle()
    grown, fresh = park.engine, Engine.from_snapshot(park.engine.snapshot(), features=FEATURES)
    assert grown.snapshot() == fresh.snapshot()
    assert grown._state.held == fresh._state.held
    assert grown._state.held_since == fresh._state.held_since
    again = Engine.from_snapshot(Park().engine.snapshot(), features=FEATURES)
    for event in park.journal:
        again.apply(event)
    assert again.snapshot() == grown.snapshot()


def test_an_elastic_gang_is_possible_where_its_least_number_of_ranks_fits():
    park = Park(*(a_node(f"n{i}", cards=1) for i in range(2)))
    assert park.engine.impossible(a_job(1, a_step(cards=1, ranks=4, ranks_min=2))) == ()
    assert park.engine.impossible(a_job(1, a_step(cards=1, ranks=4)))
    park.submit(a_job(1, a_step(cards=1, ranks=4, ranks_min=2)))
    (grant,) = granted(park.cycle())
    assert len(grant.lease.allocations) == 2
