"""Gangs that are steered towards an objective: each stop leads somewhere, and none goes on for ever."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from scheduler.engine.aim import STAY_LEAST_MS, STAY_RESTARTS
from scheduler.model.event import AttemptFinished, LeaseGranted, LeaseStopping
from scheduler.model.policy import Objective, Policy
from scheduler.simulation.loop import Simulation
from scheduler.simulation.scenario import Scenario
from scheduler.simulation.workload import Workload
from tests.builders import a_job, a_node, a_step

MINUTE = 60_000
RESTART = 60_000
COMPLETION = Policy(objective=Objective.COMPLETION)


class Restless(AssertionError):
    """Plan after plan at one instant, each with stops."""


def played(scenario):
    """The run and its events. Raises Restless instead of going on for ever."""
    plans = Counter()

    def watch(_, plan):
        plans[plan.now_ms] += 1
        if plans[plan.now_ms] > 50:
            raise Restless(plan)

    simulation = Simulation(scenario, watch=watch, keep=True)
    return simulation.run(), simulation.events


def a_scenario(nodes, jobs, minutes, policy=COMPLETION, **truth):
    work_ms = {job: round(m * MINUTE) for job, m in minutes.items()}
    told = [replace(j, steps=(replace(j.steps[0], run_ms_expected=work_ms[j.id]),)) for j in jobs]
    return Scenario(policy=policy, truth=Workload(work_ms=work_ms, **truth), nodes=nodes, jobs=told)


def a_gang(number, at_minute=0, ranks=1, **fields):
    step = a_step(cards=1, ranks=ranks, checkpoint_ms=MINUTE, restart_ms=RESTART, grace_ms=30_000, **fields)
    return a_job(number, step, submitted_ms=round((1 + at_minute) * MINUTE))


def a_mixed_park(seed):
    """Fast, middling and slow cards, and more gangs of nearly one size than they hold."""
    rng = random.Random(seed)
    nodes = [
        a_node(f"{model}{at}", cards=4, cpus=16, model=model) for model in ("fast", "mid", "slow") for at in (0, 1)
    ]
    jobs, minutes, at = [], {}, 0.0
    for number in range(1, 25):
        speeds = (("fast", 1_000), ("mid", rng.randrange(500, 1_000)), ("slow", rng.randrange(80, 300)))
        jobs.append(a_gang(number, at, rng.choice((1, 1, 2, 4)), speeds=speeds))
        minutes[f"j{number}"] = rng.uniform(90, 110)
        at += rng.uniform(0, 8)
    return nodes, jobs, minutes


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("objective", [Objective.COMPLETION, Objective.MAKESPAN])
def test_gangs_of_like_size_do_not_change_places_for_ever(objective, seed):
    nodes, jobs, minutes = a_mixed_park(seed)
    run, events = played(a_scenario(nodes, jobs, minutes, Policy(objective=objective), stop_ms=0))
    assert all(job.finished_ms for job in run.jobs)
    granted = {e.lease.id: (e.lease.job_id, e.at_ms) for e in events if isinstance(e, LeaseGranted)}
    ends = [(*granted[e.lease_id], e) for e in events if isinstance(e, LeaseStopping)]
    stops = [(job, began, e.at_ms) for job, began, e in ends if e.for_job == job]  # others make room for who is next
    assert stops, "nothing was moved: the park is too large to say anything"
    least = max(STAY_LEAST_MS, STAY_RESTARTS * RESTART)
    assert all(stopped - began >= least for _, began, stopped in stops)
    by_job = [sorted(s for j, _, s in stops if j == job.id) for job in jobs]
    assert all(later - earlier >= least for times in by_job for earlier, later in pairwise(times))


@pytest.mark.parametrize("seed", [1, 4, 10, 15])  # parks in which a deadline is too near to wait
def test_deadlines_that_cannot_wait_stop_no_gang_for_ever(seed):
    rng = random.Random(seed)
    jobs, minutes, at = [], {}, 0.0
    for number in range(1, 30):
        ranks, minutes[f"j{number}"] = rng.choice((1, 2, 4, 8)), rng.choice((2, 5, 40, 200))
        job = a_gang(number, at, ranks, ranks_min=rng.choice((0, 1)) if ranks > 1 else 0)
        due_ms = job.submitted_ms + round((minutes[job.id] * rng.uniform(1.05, 4) + 1) * MINUTE)
        jobs.append(replace(job, deadline_ms=due_ms if rng.random() < 0.8 else 0))
        at += rng.choice((0, 0, 1, 10))
    nodes = [a_node(f"n{at}", cards=4, cpus=16) for at in range(4)]
    run, events = played(a_scenario(nodes, jobs, minutes, stop_ms=0))
    assert all(job.finished_ms for job in run.jobs)
    granted = {e.lease.id: e.at_ms for e in events if isinstance(e, LeaseGranted)}
    stays = [e.at_ms - granted[e.lease_id] for e in events if isinstance(e, LeaseStopping)]
    assert min(stays) < max(STAY_LEAST_MS, STAY_RESTARTS * RESTART)
    assert max(job.preempted for job in run.jobs) < 20


def test_a_deadline_is_met_where_its_owner_was_too_hopeful():
    """Two cards are enough for the hour that was said, all four for the 78 minutes that it takes."""
    jobs = [a_gang(1, ranks=2), replace(a_gang(2, 1, ranks=4, ranks_min=2), deadline_ms=132 * MINUTE)]
    scenario = a_scenario([a_node("n1", cards=4, cpus=16)], jobs, {"j1": 300, "j2": 78})
    said = replace(scenario.jobs[1], steps=(replace(scenario.jobs[1].steps[0], run_ms_expected=60 * MINUTE),))
    run, _ = played(replace(scenario, jobs=[scenario.jobs[0], said]))
    assert run.jobs[1].finished_ms <= 132 * MINUTE


def test_what_is_stopped_to_move_goes_where_it_was_to_go():
    nodes = [a_node("f", cards=1, model="fast"), a_node("s", cards=1, model="slow")]
    speeds = (("fast", 1_000), ("slow", 200))
    jobs = [a_gang(1, speeds=speeds), a_gang(2, speeds=speeds)]
    _, events = played(a_scenario(nodes, jobs, {"j1": 20, "j2": 100}))
    (stop,) = [e for e in events if isinstance(e, LeaseStopping)]
    assert (stop.for_job, stop.place) == ("j2", ("fast", 1)), "the slow card is left when the fast one is free"
    last = [e.lease for e in events if isinstance(e, LeaseGranted)][-1]
    assert (last.job_id, last.allocations[0].node) == ("j2", "f")


def test_a_move_is_remembered_until_the_next_start():
    nodes = [a_node("f", cards=1, model="fast"), a_node("s", cards=1, model="slow")]
    speeds = (("fast", 1_000), ("slow", 200))
    jobs = [a_gang(1, speeds=speeds), a_gang(2, speeds=speeds)]
    simulation = Simulation(a_scenario(nodes, jobs, {"j1": 20, "j2": 100}))
    seen = []

    def watch(engine, _):
        seen.append(engine.job("j2").steps[0].goes_on if engine.job("j2") else None)

    simulation._watch = watch
    simulation.run()
    assert ("fast", 1) in seen
    assert simulation.engine.job("j2").steps[0].goes_on is None


def test_nobody_else_is_stopped_while_the_first_is_still_going():
    nodes = [a_node(f"n{at}", cards=1) for at in range(3)]
    jobs = [*(a_gang(number) for number in (1, 2, 3)), a_gang(4, 30), a_gang(5, 30.1)]
    minutes = {"j1": 600, "j2": 610, "j3": 620, "j4": 10, "j5": 700}
    _, events = played(a_scenario(nodes, jobs, minutes, stop_ms=30_000))
    early = [e for e in events if isinstance(e, LeaseStopping) and e.at_ms < 39 * MINUTE]
    assert len(early) == 1, "one short gang needs one card, also while that is being vacated"
    started = [e for e in events if isinstance(e, LeaseGranted) and e.lease.job_id == "j4"]
    assert started[0].at_ms == 31 * MINUTE + 30_000


def test_run_times_are_learned_at_full_speed_and_with_the_work_that_checkpoints_kept():
    nodes = [a_node("f", cards=1, model="fast"), a_node("s", cards=1, model="slow")]
    speeds = (("fast", 1_000), ("slow", 200))
    jobs = [a_gang(1, speeds=speeds), a_gang(2, speeds=speeds)]
    simulation = Simulation(a_scenario(nodes, jobs, {"j1": 20, "j2": 100}), keep=True)
    simulation.run()
    ends = [e for e in simulation.events if isinstance(e, AttemptFinished) and e.attempt_id.startswith("j2")]
    assert len(ends) == 2, "it went on on the fast card"
    assert simulation.engine.job("j2").steps[0].run_ms_mean == pytest.approx(100 * MINUTE, rel=0.001)
    (slow,) = [a_gang(1, speeds=speeds)]
    alone = Simulation(a_scenario(nodes[1:], [slow], {"j1": 20}))
    alone.run()
    assert alone.engine.job("j1").steps[0].run_ms_mean == pytest.approx(20 * MINUTE, rel=0.001)


def crumbs(rest_minutes, wide_minutes, **fields):
    """Two nodes of four cards, each with one small gang left after half an hour, and then a gang of a whole node."""
    nodes = [a_node(f"n{at}", cards=4, cpus=16) for at in range(2)]
    small = [replace(a_gang(number), **(fields if number in {4, 8} else {})) for number in range(1, 9)]
    wide = a_step(cards=4, checkpoint_ms=MINUTE, restart_ms=RESTART)
    jobs = [*small, a_job(9, wide, submitted_ms=32 * MINUTE)]
    minutes = {f"j{number}": 30 if number not in {4, 8} else 31 + rest_minutes for number in range(1, 9)}
    run, events = played(a_scenario(nodes, jobs, {**minutes, "j9": wide_minutes}, stop_ms=0))
    stops = [e for e in events if isinstance(e, LeaseStopping)]
    started = {e.lease.job_id: e.lease for e in events if isinstance(e, LeaseGranted)}
    return run, stops, started


def test_a_small_gang_moves_where_a_large_one_would_find_its_cards_on_no_node():
    run, (stop,), started = crumbs(600, 20)
    assert (stop.at_ms, stop.for_job in {"j4", "j8"}) == (32 * MINUTE, True)
    assert "another node" in stop.reason
    assert started["j9"].granted_ms == started[stop.for_job].granted_ms == 32 * MINUTE
    assert started["j4"].allocations[0].node == started["j8"].allocations[0].node != started["j9"].allocations[0].node
    assert {job.id: job.preempted for job in run.jobs if job.preempted} == {stop.for_job: 1}


def test_nobody_moves_who_is_nearly_done_or_has_a_deadline():
    _, stops, started = crumbs(0.9, 20)
    assert not stops, "it would lose a minute, and the large gang waits for less"
    assert started["j9"].granted_ms < 33 * MINUTE
    _, stops, started = crumbs(600, 20, deadline_ms=700 * MINUTE)
    assert not [e for e in stops if e.for_job in {"j4", "j8"} and "another node" in e.reason]
