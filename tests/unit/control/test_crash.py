"""The process dies between any two steps of a cycle; the next one goes on from the database."""

import random
from contextlib import suppress

import pytest

from scheduler.control.cycle import Cycle
from scheduler.control.replay import first_difference
from scheduler.model.errors import StaleEpoch
from scheduler.model.job import JobState
from scheduler.model.lease import AttemptState
from tests.unit.control.world import World, step

STEPS = ("_hear", "_obey", "_decide", "_expand", "_record", "_tell", "_answer")
STEPS_OF_JOB = (step("many", count=6), step("gang", ranks=2, needs=("many",)), step("last", needs=("gang",)))


class Died(BaseException):
    """Stands for kill -9."""


def die_at(monkeypatch, name, *, after, times):
    """Make the ``times``-th run of one step of any cycle die before or after its work."""
    real = getattr(Cycle, name)
    left = [times]

    def dying(self, *args):
        left[0] -= 1
        if left[0] == 0 and not after:
            raise Died
        found = real(self, *args)
        if left[0] == 0:
            raise Died
        return found

    monkeypatch.setattr(Cycle, name, dying)


def turn(world):
    """One cycle; a death is followed by a new control plane."""
    try:
        world.workers.do_everything()
        world.cycle.once(0)
        return False
    except Died:
        world.boot()
        return True


def assert_done_once(world, job):
    record = world.job(job)
    assert record.state is JobState.SUCCEEDED
    tasks = [(a.step, a.index) for a in world.store.attempts(job) if a.state is AttemptState.SUCCEEDED]
    assert sorted(tasks) == sorted((s.name, i) for s in record.job.steps for i in range(s.count))
    assert len(world.workers.ran) == len(set(world.workers.ran))
    assert world.workers.unacknowledged == {}
    assert_usage_gapless(world)
    assert first_difference(world.store) == ""


def assert_usage_gapless(world):
    records = world.store.usage()
    for lease in world.store.leases():
        parts = sorted((r.start_ms, r.end_ms) for r in records if r.lease_id == lease.lease.id)
        edges = [lease.lease.granted_ms, *(end for _, end in parts)]
        assert [start for start, _ in parts] == edges[:-1]
        assert edges[-1] == lease.closed_ms


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_every_task_finishes_once_whenever_the_service_dies(tmp_path, monkeypatch, name, after, times):
    world = World(tmp_path)
    job = world.submit(*STEPS_OF_JOB)
    die_at(monkeypatch, name, after=after, times=times)
    died = 0
    for _ in range(60):
        died += turn(world)
        if world.job(job).state.is_final and not world.workers.mail:
            break
    world.turn(2)
    assert died == 1
    assert_done_once(world, job)
    world.close()


@pytest.mark.parametrize("seed", range(20))
def test_dying_again_and_again_loses_nothing(tmp_path, monkeypatch, seed):
    dice = random.Random(seed)
    world = World(tmp_path)
    job = world.submit(*STEPS_OF_JOB)
    for _ in range(200):
        with monkeypatch.context() as patch:
            if dice.random() < 0.5:
                die_at(patch, dice.choice(STEPS), after=dice.random() < 0.5, times=dice.choice((1, 2)))
            with suppress(Died):
                turn(world)
        if world.job(job).state.is_final and not world.workers.mail:
            break
        if dice.random() < 0.3:
            world.boot()
    world.turn(2)
    assert_done_once(world, job)
    world.close()


@pytest.mark.parametrize("name", STEPS)
def test_it_is_the_same_on_both_databases(tmp_path, store_url, monkeypatch, name):
    world = World(tmp_path, store_url)
    job = world.submit(*STEPS_OF_JOB)
    die_at(monkeypatch, name, after=True, times=2)
    for _ in range(60):
        turn(world)
        if world.job(job).state.is_final and not world.workers.mail:
            break
    world.turn(2)
    assert_done_once(world, job)
    world.close()


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_verb_that_dies_may_be_sent_again(tmp_path, monkeypatch, name, after):
    world = World(tmp_path)
    die_at(monkeypatch, name, after=after, times=1)
    ids = []
    for _ in range(2):
        try:
            ids.append(world.submit(request_id="r1"))
        except Died:
            world.boot()
            monkeypatch.undo()
            known = world.store.job_of_request("studio", "r1")
            ids.append(known or world.submit(request_id="r1"))
            break
    with world.cycle.state() as engine:
        assert [r.job.id for r in engine.jobs()] == ids
    world.run_to_end(ids[0])
    world.close()


def test_a_second_service_makes_the_first_one_stop_before_it_writes(tmp_path):
    world = World(tmp_path)
    first = world.cycle
    world.boot()
    job = world.submit()
    world.cycle = first
    with pytest.raises(StaleEpoch):
        world.submit()
    assert [r.job.id for r in world.store.load().jobs] == [job]
    world.close()
