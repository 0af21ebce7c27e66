"""A node's faults through the cycle: recorded, shown, and not lost when the node speaks again."""

from scheduler.control.replay import first_difference
from scheduler.model.event import NodeLost, NodeSeen
from scheduler.model.policy import HEALTH_HALF_LIFE_MS
from tests.unit.control.world import NODE, OPERATOR


def test_operators_see_what_speaks_against_a_node_and_it_is_forgotten(world):
    world.workers.connect()
    world.turn()
    world.record(NodeLost(at_ms=world.clock.now, node="n1", reason="no answer"))
    lost_ms = world.cycle.now_ms()
    world.workers.connect()
    world.turn(2)
    (shown,) = world.operations.nodes(OPERATOR)
    assert (shown["state"], shown["faults_milli"], shown["fault_ms"]) == ("ready", 1_000, lost_ms)
    assert shown["fault_reason"] == "it was lost: no answer"
    seen = len(list(world.store.journal()))
    world.workers.connect()
    world.turn(2)
    again = [event for _, event in list(world.store.journal())[seen:] if isinstance(event, NodeSeen)]
    assert again == [], "a node that says the same as before is no new fact"
    assert first_difference(world.store) == ""
    world.clock.now += 12 * HEALTH_HALF_LIFE_MS
    (shown,) = world.operations.nodes(OPERATOR)
    assert (shown["faults_milli"], shown["fault_reason"], shown["fault_ms"]) == (0, "", 0)
    assert NODE.faults_milli == 0
