import numpy as np
import pytest

from scheduler.engine.core import moving
from scheduler.model.node import Lane, NodeState
from scheduler.model.plan import Convert
from scheduler.model.policy import Policy
from scheduler.model.queue import Queue
from scheduler.simulation.lanes import Lanes
from scheduler.simulation.loop import Simulation, simulate
from scheduler.simulation.measures import (
    cards_held,
    cards_offered,
    figures,
    percentile,
    share_error_permille,
    steps_of,
    tasks_waiting,
)
from scheduler.simulation.scenario import Scenario
from scheduler.simulation.workload import Workload
from tests.builders import Park, a_job, a_node, a_step

S = 1_000


def test_a_step_function_adds_up_changes_at_one_instant():
    steps = steps_of([(10, 2), (0, 1), (10, -3), (20, 5)])
    assert list(zip(steps.at_ms.tolist(), steps.values.tolist(), strict=True)) == [(0, 1), (10, 0), (20, 5)]
    assert steps.at(np.array([-1, 0, 9, 10, 25])).tolist() == [0, 1, 1, 0, 5]
    assert steps.area(0, 30) == 10 + 50
    assert steps.area(5, 22) == 5 + 10
    assert steps_of([]).area(0, 10) == 0
    assert steps_of([]).at(np.array([1, 2])).tolist() == [0, 0]


@pytest.mark.parametrize(("permille", "value"), [(0, 1), (500, 2), (501, 3), (990, 4), (1_000, 4)])
def test_percentiles_are_values_that_occur(permille, value):
    assert percentile([3, 1, 4, 2], permille) == value


def test_percentile_of_nothing():
    assert percentile([], 500) == 0


def test_figures_of_a_run_one_can_do_by_hand():
    """One card: 10 s, then 20 s; the second job came at 4 s and is due at 29 s, when it has not ended."""
    jobs = [a_job(1, a_step(cards=1)), a_job(2, a_step(cards=1), submitted_ms=4 * S, deadline_ms=29 * S)]
    truth = Workload(work_ms={"j1": 10 * S, "j2": 20 * S})
    run = simulate(Scenario(policy=Policy(), truth=truth, nodes=[a_node("n1", cards=1)], jobs=jobs))
    found = figures(run)
    assert (found.wait_mean_ms, found.wait_p99_ms) == (3 * S, 6 * S)
    assert (found.jct_mean_ms, found.makespan_ms) == (18 * S, 30 * S)
    assert (found.deadlines, found.deadlines_met) == (1, 0)
    assert (found.cards_busy_permille, found.cards_idle_ms) == (1_000, 0)
    assert cards_held(run.spans).area(0, 30 * S) == cards_offered(run).area(0, 30 * S) == 30 * S * 1_000
    assert tasks_waiting(run).at(np.array([0, 5 * S, 11 * S])).tolist() == [0, 1, 0]
    assert figures(run, [run.jobs[1]]).wait_mean_ms == 6 * S


def test_equal_weights_share_equally():
    queues = (Queue(name="a"), Queue(name="b", weight=300))
    jobs = [a_job(i, a_step(count=200, cards=1), queue="ab"[i - 1]) for i in (1, 2)]
    truth = Workload(work_ms={"j1": [S] * 200, "j2": [S] * 200})
    nodes = [a_node("n1", cards=8, cpus=8)]
    run = simulate(Scenario(policy=Policy(), truth=truth, nodes=nodes, queues=queues, jobs=jobs))
    assert share_error_permille(run, {"a": 100, "b": 300}, 0, 20 * S) <= 20
    assert share_error_permille(run, {"a": 100, "b": 100}, 0, 20 * S) >= 200


def test_a_node_changes_lanes_after_it_drained():
    park = Park(a_node("n1", cpus=1))
    park.submit(a_job(1))
    park.cycle()
    lanes, action = Lanes(seed=1, cost_ms=(20 * S, 120 * S)), Convert(node="n1", lane=Lane.JOB, cost_ms=60 * S)
    assert lanes.begin(action)
    assert not lanes.begin(action)
    park.see(moving(next(iter(park.engine.nodes())), action, park.now_ms))
    assert list(lanes.drained(park.engine, park.now_ms)) == []
    park.run("j1.work.0.a1")
    (seen,) = lanes.drained(park.engine, park.now_ms)
    assert 20 * S <= seen.at_ms - park.now_ms <= 120 * S
    assert (seen.node.lane, seen.node.state) == (Lane.JOB, NodeState.READY)
    again = Lanes(seed=1, cost_ms=(20 * S, 120 * S))
    again.begin(action)
    assert list(again.drained(park.engine, park.now_ms)) == [seen]


def test_a_full_plan_goes_on_at_once():
    jobs = [a_job(1, a_step(count=5))]
    policy = Policy(starts_per_cycle=2)
    truth = Workload(work_ms={"j1": [S] * 5})
    simulation = Simulation(Scenario(policy=policy, truth=truth, nodes=[a_node("n1", cpus=8)], jobs=jobs))
    run = simulation.run()
    assert {span.granted_ms for span in run.spans} == {0}
    assert len(run.spans) == 5
