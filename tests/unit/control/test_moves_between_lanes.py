"""Nodes that the plan moves between lanes: the runtime is told, again after each return, until the node says so."""

from dataclasses import replace

import pytest

from scheduler.model.lease import AttemptState
from scheduler.model.node import Lane, NodeState
from tests.unit.control.world import NODE, World, step

POOL = replace(NODE, lane=Lane.POOL)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, nodes=(POOL,))
    yield made
    made.close()


def test_a_move_is_told_until_the_node_says_that_it_is_there(world):
    job = world.submit(step(lane=Lane.JOB.value, run_ms_expected=3_600_000))
    world.turn()
    assert world.workers.moves == [{POOL.name: Lane.JOB}]
    world.turn(3)
    assert len(world.workers.moves) == 1, "once is enough while the runtime stays"
    world.boot()
    assert world.workers.moves == [{POOL.name: Lane.JOB}] * 2, "another process may not have told it"
    assert world.workers.ran == []
    world.clock.now += 30_000
    world.workers.nodes[POOL.name] = replace(POOL, lane=Lane.JOB)
    world.workers.connect()
    world.turn(2)
    with world.cycle.state() as engine:
        (node,) = engine.nodes()
    assert (node.state, node.lane, node.moving_to, node.moved_ms) == (NodeState.READY, Lane.JOB, None, 30_000)
    world.run_to_end(job)
    assert [a.state for a in world.store.attempts(job)] == [AttemptState.SUCCEEDED]
