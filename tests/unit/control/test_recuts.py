"""Cards that the plan cuts anew: the runtime is told, again after each return, until the node says what came of it."""

from dataclasses import replace

import pytest

from scheduler.model.job import Resources
from scheduler.model.layout import after_cut
from scheduler.model.lease import AttemptState
from scheduler.model.node import Device, MigPlace
from scheduler.model.policy import Policy
from tests.unit.control.world import NODE, World, step

CARD = "GPU-1"
BARE = Device(id=CARD, model="H100-SXM-80GB", mig_on=True)
WANTED = (MigPlace(start=6, profile="1g.10gb"),)


def cut_into(*layout):
    return replace(NODE, devices=after_cut((BARE,), CARD, layout))


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, nodes=(cut_into(MigPlace(start=0, profile="7g.80gb")),))
    made.cycle.policy = Policy(recut_every_ms=600_000)
    yield made
    made.close()


def submit(world):
    ask = Resources(cpu_milli=1_000, memory_mib=64, cards=1, mig_profile="1g.10gb")
    return world.submit(step(resources=ask, run_ms_expected=3_600_000))


def test_a_cut_is_told_until_the_node_shows_it_and_then_the_job_runs(world):
    job = submit(world)
    world.turn()
    assert world.workers.recuts == [{NODE.name: {CARD: WANTED}}]
    world.turn(3)
    assert len(world.workers.recuts) == 1, "once is enough while the node is there"
    world.boot()
    world.turn(2)
    assert world.workers.recuts[1:], "another process may not have told it"
    assert world.workers.ran == []
    world.clock.now += 7_000
    world.workers.nodes[NODE.name] = cut_into(*WANTED)
    world.workers.connect()
    world.turn(2)
    with world.cycle.state() as engine:
        (cut,) = engine.node(NODE.name).cuts
    assert (cut.ended_ms - cut.since_ms, cut.problem) == (7_000, "")
    told = len(world.workers.recuts)
    world.workers.connect()
    world.turn(2)
    assert len(world.workers.recuts) == told, "it is over"
    world.run_to_end(job)
    assert [a.state for a in world.store.attempts(job)] == [AttemptState.SUCCEEDED]
