"""Orders that stop what runs: for whom, how often it is looked at, and never in a circle."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from scheduler.model.event import JobHeld, JobReleased, LeaseStopping
from scheduler.model.plan import Preempt
from scheduler.model.policy import Backfill, Policy, Preemption, Sort
from scheduler.simulation.loop import Simulation
from tests.builders import a_node
from tests.unit.simulation.test_objective import MINUTE, a_gang, a_mixed_park, a_scenario

ALWAYS = Policy(backfill=Backfill.ANY, preemption=Preemption.ALWAYS, preempted_max=1_000_000, age_gain_ms=0)


def ordered(sort):
    """A policy that stops what is far enough behind in an order, as often as it likes."""
    return replace(ALWAYS, sort=sort)


def played(scenario):
    """The run, its events, and how many plans were made at each instant."""
    plans = Counter()

    def watch(_, plan):
        plans[plan.now_ms] += 1
        assert plans[plan.now_ms] <= 30, "plan after plan at one instant"

    simulation = Simulation(scenario, watch=watch, keep=True)
    return simulation.run(), simulation.events, plans


@pytest.mark.parametrize("sort", [Sort.EXPECTED, Sort.SERVED, Sort.DEADLINE])
@pytest.mark.parametrize("seed", range(2))
def test_on_cards_of_many_speeds_nobody_is_stopped_by_whom_it_displaced(sort, seed):
    nodes, jobs, minutes = a_mixed_park(seed)
    rng = random.Random(seed)
    minutes = {job: m * rng.choice((0.2, 1, 3)) for job, m in minutes.items()}
    run, _, _ = played(a_scenario(nodes, jobs, minutes, ordered(sort), stop_ms=0))
    assert all(job.finished_ms for job in run.jobs)


def test_what_waits_counts_with_the_work_that_its_checkpoints_kept():
    """j1 has run for 80 of 100 minutes when j2 stops it, and is held until j3 (100 minutes) runs in its place."""
    nodes = [a_node("n", cards=1)]
    jobs = [a_gang(1), a_gang(2, 80), a_gang(3, 81)]
    scenario = a_scenario(nodes, jobs, {"j1": 100, "j2": 5, "j3": 100}, ordered(Sort.EXPECTED), stop_ms=0)
    held = JobHeld(at_ms=79 * MINUTE, job_id="j1")
    _, events, _ = played(replace(scenario, outside=[held, JobReleased(at_ms=95 * MINUTE, job_id="j1")]))
    stops = [(e.at_ms // MINUTE, e.for_job) for e in events if isinstance(e, LeaseStopping)]
    assert stops == [(81, "j2"), (95, "j1")], "20 minutes are less than half of 91, 100 would not be"


def test_what_runs_counts_with_the_work_that_earlier_attempts_kept():
    """j1 has 20 of 100 minutes left and runs again when j3 (15) comes: 20 is not twice 15 and ten minutes more."""
    nodes = [a_node("n", cards=1)]
    jobs = [a_gang(1), a_gang(2, 80), a_gang(3, 88)]
    _, events, _ = played(a_scenario(nodes, jobs, {"j1": 100, "j2": 5, "j3": 15}, ordered(Sort.EXPECTED), stop_ms=0))
    assert [e.for_job for e in events if isinstance(e, LeaseStopping)] == ["j2"]


@pytest.mark.parametrize(("sort", "most"), [(Sort.SERVED, 130), (Sort.DEADLINE, 25)])
def test_a_plan_is_made_anew_when_the_last_one_said_so_not_when_each_before_it_did(sort, most):
    nodes = [a_node("n", cards=1)]
    jobs = [a_gang(number, number * 0.37) for number in range(1, 11)]
    minutes = {f"j{number}": 10 for number in range(1, 11)}
    _, _, plans = played(a_scenario(nodes, jobs, minutes, ordered(sort), stop_ms=0))
    assert sum(plans.values()) <= most, "one a minute while somebody waits in an order that time changes, else none"


@pytest.mark.parametrize("sort", [Sort.EXPECTED, Sort.SERVED])
def test_until_a_plan_is_to_be_made_anew_none_would_do_anything(sort):
    nodes, jobs, minutes = a_mixed_park(3)
    rng = random.Random(3)
    minutes = {job: m * rng.choice((0.2, 1, 3)) for job, m in minutes.items()}
    policy, looked = ordered(sort), Counter()

    def watch(engine, plan):
        if plan.actions or not plan.waits:
            return
        for part in (0.3, 0.6, 0.99):
            at_ms = round(plan.now_ms + part * ((plan.wake_ms or plan.now_ms + 180 * MINUTE) - plan.now_ms))
            stops = [a for a in engine.plan(at_ms, policy).actions if isinstance(a, Preempt)]
            if at_ms >= plan.now_ms + MINUTE:
                looked[bool(plan.wake_ms)] += 1
                assert not stops, (
                    f"at {plan.now_ms / MINUTE:.1f}, wake {plan.wake_ms / MINUTE:.1f}, {at_ms / MINUTE:.1f}"
                )

    Simulation(a_scenario(nodes, jobs, minutes, policy, stop_ms=0), watch=watch).run()
    assert sum(looked.values()) >= 10
