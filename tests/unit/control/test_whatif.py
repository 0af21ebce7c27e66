"""Recorded history simulated again: unchanged it gives the recorded starts, changed it says what would be."""

import random

import pytest

from scheduler.control import whatif
from scheduler.control.whatif import Changes
from scheduler.model.errors import InvalidInput
from scheduler.model.event import EngineStarted, LeaseGranted
from scheduler.model.lease import AttemptState
from scheduler.model.order import Report, ReportKind
from scheduler.model.policy import Policy, Sort
from tests.builders import FEATURES, Park, a_job, a_node
from tests.property.life import Life
from tests.unit.control.world import NODE, OPERATOR, World, step

NOTHING = Changes()


def asked(park, changes=NOTHING, **more):
    started = EngineStarted(at_ms=0, engine=whatif.VERSION, policy=park.policy)
    return whatif.ask([started, *park.journal], changes, features=FEATURES, **more)


def lived(seed, steps):
    """A park after a random life in which, as in the service, a plan follows what happens."""
    life = Life(seed)
    for _ in range(steps):
        life.step()
        life.cycle()
    return life.park


def same(answer):
    assert answer.recorded.grants
    assert (answer.identical, answer.difference) == (len(answer.recorded.grants), "")


@pytest.fixture
def busy():
    """One core, three jobs of 10 s each that came 1 s apart, in two queues."""
    park = Park(a_node("n1", cpus=1))
    for number in (1, 2, 3):
        park.submit(a_job(number, queue="default" if number < 3 else "other", deadline_ms=24_000))
        park.cycle()
        park.wait(1_000)
    for _ in range(3):
        park.run(park.open_attempts()[0], ms=10_000)
        park.cycle()
    return park


def test_unchanged_it_is_what_was_recorded(busy):
    answer = asked(busy)
    same(answer)
    assert answer.recorded.planned_alike == 3
    recorded = [busy.job(f"j{n}").finished_ms for n in (1, 2, 3)]
    assert [job.finished_ms for job in answer.before.jobs] == recorded


def test_one_more_node_lets_the_second_job_start_at_once(busy):
    answer = asked(busy, Changes(add_nodes=(("n1", 1),)))
    same(answer)
    waits = {job.id: job.wait_ms for job in answer.after.jobs}
    assert waits["j2"] == 0
    assert answer.before.jobs[1].wait_ms > 0
    assert {node for span in answer.after.spans for node in span.nodes} == {"n1", "n1-copy1"}
    seen = whatif.view(answer)
    assert seen["after"]["deadlines_met"] > seen["before"]["deadlines_met"]
    assert seen["queues"]["default"]["after"]["wait_mean_ms"] < seen["queues"]["default"]["before"]["wait_mean_ms"]
    assert [moved["job_id"] for moved in seen["jobs"]] == ["j2", "j3"]


def test_without_its_only_node_nothing_starts(busy):
    answer = asked(busy, Changes(without_nodes=("n1",)))
    assert answer.after.spans == ()


def test_another_policy(busy):
    answer = asked(busy, Changes(policy={"starts_per_cycle": "1", "sort": "deadline"}))
    assert whatif.changed_policy(Policy(), {"sort": "deadline"}).sort is Sort.DEADLINE
    assert answer.after.jobs


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (Changes(add_nodes=(("n7", 1),)), "unknown node 'n7'"),
        (Changes(without_nodes=("nx",)), "valid: n1"),
        (Changes(add_nodes=(("n1", 0),)), "must be 1 or more"),
        (Changes(policy={"sortt": "age"}), "did you mean 'sort'"),
        (Changes(policy={"sort": "random"}), "cannot be 'random'"),
        (Changes(policy={"chunk_max": "many"}), "cannot be 'many'"),
    ],
)
def test_what_cannot_be_is_refused(busy, changes, text):
    with pytest.raises(InvalidInput, match=text):
        asked(busy, changes)


def test_a_part_of_the_history_begins_with_what_ran_then(busy):
    answer = asked(busy, since_ms=20_000)
    same(answer)
    assert len(answer.recorded.grants) == 1
    assert {job.finished_ms for job in answer.before.jobs} == {24_000, 34_000}


@pytest.mark.parametrize("seed", range(6))
def test_a_random_life_is_given_again(seed):
    park = lived(seed, 100)
    for since_ms in (0, park.now_ms // 2):
        answer = asked(park, since_ms=since_ms)
        same(answer)
        assert answer.dropped == ()


@pytest.mark.parametrize("seed", range(2))
def test_a_random_life_with_other_nodes_is_simulated_without_a_slip(seed):
    answer = asked(lived(200 + seed, 80), Changes(add_nodes=(("gpu1", 2),), without_nodes=("cpu1",)))
    assert "gpu1-copy2" in {node.name for node in answer.after.nodes}


def test_what_a_real_service_recorded_is_given_again(tmp_path):
    """Through the whole cycle: late reports, a runtime that is down, failures, a node that is lost, verbs."""
    world = World(tmp_path, nodes=(NODE, a_node("n2", cpus=2)))
    rng = random.Random(7)
    try:
        jobs = [world.submit(step(count=rng.randrange(1, 5)), step("more", needs=("run",))) for _ in range(6)]
        world.workers.say(Report(kind=ReportKind.RUNTIME_DOWN))
        jobs += [world.submit(step(count=3))]
        world.clock.now += 5_000
        world.workers.connect()
        _work(world, rng, jobs)
        events = [event for _, event in world.store.journal()]
    finally:
        world.close()
    assert sum(isinstance(event, LeaseGranted) for event in events) > 20
    answer = whatif.ask(events, NOTHING, features={})
    assert answer.engine == whatif.VERSION
    same(answer)


def _work(world, rng, jobs):
    over = set()
    for turn in range(200):
        ready = [attempt for attempt in world.workers.ran if attempt not in over]
        for attempt in rng.sample(ready, min(len(ready), 2)):
            over.add(attempt)
            world.workers.begin(attempt)
            world.clock.now += rng.randrange(10, 3_000)
            began = world.clock.now
            world.clock.now += rng.randrange(0, 50)
            state = AttemptState.FAILED if rng.random() < 0.15 else AttemptState.SUCCEEDED
            world.workers.say(Report(kind=ReportKind.FINISHED, at_ms=began, attempt_id=attempt, state=state))
        if turn == 2:
            world.in_thread(lambda: world.service.cancel(OPERATOR, jobs[5]))
        if turn == 4:
            world.workers.say(Report(kind=ReportKind.NODE_GONE, node="n2", message="power"))
        world.turn(1)
        world.clock.now += rng.randrange(0, 20)
        if all(world.job(job).state.is_final for job in jobs):
            return


def test_the_journal_says_who_plans_from_when_on(tmp_path):
    world = World(tmp_path)
    try:
        world.turn(2)
        world.cycle.policy = Policy(name="other")
        world.turn(2)
        told = [event for _, event in world.store.journal() if isinstance(event, EngineStarted)]
    finally:
        world.close()
    assert [(event.engine, event.policy.name) for event in told] == [
        (whatif.VERSION, Policy().name),
        (whatif.VERSION, "other"),
    ]
