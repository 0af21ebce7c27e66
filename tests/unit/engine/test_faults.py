"""What speaks against a node, what does not, and how placement goes round it."""

from dataclasses import replace

import pytest

from scheduler.engine import Engine
from scheduler.model.event import EngineStarted
from scheduler.model.lease import AttemptState
from scheduler.model.node import Health, NodeState
from scheduler.model.policy import HEALTH_HALF_LIFE_MS, Policy
from scheduler.model.snapshot import Snapshot
from tests.builders import FEATURES, Park, a_job, a_node, a_step, started


def faults(park, name):
    node = park.engine.node(name)
    return node.faults_milli, node.fault_reason


def a_task_that_failed_on(park, count=1, **changes):
    """``j1``'s task failed once; the node where it did."""
    park.submit(a_job(1, a_step(cards=1, **changes)))
    (name,) = started(park.cycle()).values()
    park.run("j1.work.0.a1", 1_000, AttemptState.FAILED)
    return name


def elsewhere(park, name):
    """The next attempt starts on another node, because this one is cordoned meanwhile."""
    node = park.engine.node(name)
    park.see(replace(node, state=NodeState.CORDONED))
    park.cycle()
    park.see(node)


def two_nodes():
    return Park(a_node("n1", cards=2), a_node("n2", cards=2))


def test_a_task_that_failed_here_and_succeeds_elsewhere_speaks_against_the_node():
    park = two_nodes()
    first = a_task_that_failed_on(park)
    assert park.job().steps[0].suspects == ((0, first),)
    assert faults(park, first) == (0, "")
    elsewhere(park, first)
    park.run("j1.work.0.a2")
    assert faults(park, first) == (1_000, "task j1.work.0 failed here and succeeded elsewhere")
    assert faults(park, {"n1": "n2", "n2": "n1"}[first]) == (0, "")
    assert park.job().steps[0].suspects == ()


def test_one_that_succeeds_in_the_same_place_speaks_against_nobody():
    park = Park(a_node("n1", cards=2))
    a_task_that_failed_on(park)
    park.cycle()
    park.run("j1.work.0.a2")
    assert faults(park, "n1") == (0, "")


def test_one_that_fails_everywhere_speaks_against_its_job_alone():
    park = two_nodes()
    first = a_task_that_failed_on(park, retries=1)
    elsewhere(park, first)
    park.run("j1.work.0.a2", 1_000, AttemptState.FAILED)
    assert park.job().state == "failed"
    assert park.job().steps[0].suspects == ()
    assert {faults(park, name) for name in ("n1", "n2")} == {(0, "")}


def test_a_lost_node_and_a_quarantined_card_count_once_each():
    park = two_nodes()
    park.lose("n1")
    park.lose("n1")
    assert faults(park, "n1") == (1_000, "it was lost: no answer")
    bad = replace(a_node("n2", cards=2).devices[1], health=Health.QUARANTINED, health_reason="Xid 79")
    sick = a_node("n2", devices=(a_node("n2", cards=2).devices[0], bad))
    park.see(sick)
    park.see(sick)
    assert faults(park, "n2") == (1_000, "card 1 was quarantined (Xid 79)")
    park.see(a_node("n2", cards=2))
    assert faults(park, "n2")[0] == 1_000, "a node that comes back says nothing of its past"


@pytest.mark.parametrize("sick", ["n1", "n2"])
def test_of_nodes_that_are_alike_the_healthy_one_is_taken(sick):
    healthy = {"n1": "n2", "n2": "n1"}[sick]
    for cards in (0, 1):
        park = two_nodes()
        park.lose(sick)
        park.see(a_node(sick, cards=2))
        park.submit(a_job(1, a_step(cards=cards)))
        assert started(park.plan()) == {"j1.work.0.a1": healthy}
        park.policy = Policy(fault_permille=0)
        bare = Park(a_node("n1", cards=2), a_node("n2", cards=2))
        bare.submit(a_job(1, a_step(cards=cards)))
        assert started(park.plan()) == started(bare.plan()), "without a price the fault decides nothing"


def test_it_is_still_taken_when_nothing_else_is_left_and_preferred_again_when_all_is_forgotten():
    park = two_nodes()
    bare = two_nodes()
    bare.submit(a_job(1, a_step(cards=2)))
    (usual,) = started(bare.plan()).values()
    park.lose(usual)
    park.see(a_node(usual, cards=2))
    park.submit(a_job(1, a_step(count=2, cards=2)))
    assert sorted(started(park.plan()).values()) == ["n1", "n2"]
    assert started(park.plan())["j1.work.0.a1"] != usual
    park.wait(2 * HEALTH_HALF_LIFE_MS)
    assert started(park.plan())["j1.work.0.a1"] == usual


def test_a_fresh_engine_and_a_replay_place_the_same():
    park = two_nodes()
    first = a_task_that_failed_on(park)
    elsewhere(park, first)
    park.run("j1.work.0.a2")
    park.submit(a_job(2, a_step(cards=1)))
    again = Engine.from_snapshot(Snapshot(), features=FEATURES)
    for event in park.journal:
        again.apply(event)
    assert again.snapshot() == park.engine.snapshot()
    fresh = Engine.from_snapshot(park.engine.snapshot(), features=FEATURES)
    for at_ms in (park.now_ms, park.now_ms + 3 * HEALTH_HALF_LIFE_MS, park.now_ms):
        plans = [engine.plan(at_ms, park.policy) for engine in (park.engine, again, fresh)]
        assert plans[0] == plans[1] == plans[2]


def test_facts_of_an_earlier_engine_leave_the_records_that_they_left_then():
    park = two_nodes()
    park.tell(EngineStarted(at_ms=park.now_ms, engine=4, policy=Policy()))
    first = a_task_that_failed_on(park)
    elsewhere(park, first)
    park.run("j1.work.0.a2")
    park.lose("n1")
    assert {faults(park, name) for name in ("n1", "n2")} == {(0, "")}
    park.tell(EngineStarted(at_ms=park.now_ms, engine=5, policy=Policy()))
    park.lose("n2")
    assert faults(park, "n2") == (1_000, "it was lost: no answer")
