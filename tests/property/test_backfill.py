"""A reserved start is never delayed by what starts before it: random clusters and queues through the whole simulator.

Run times are told truthfully and known exactly, so a reserved start is a promise: whoever was ahead when it was made
starts no later, however many small tasks, sliced frames and checkpointed trainings fill its place until then.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.model.plan import Reserve, Start
from scheduler.model.policy import Backfill, Policy
from scheduler.model.queue import Queue
from scheduler.queueing import durations
from scheduler.simulation.loop import Simulation
from scheduler.simulation.scenario import Scenario
from scheduler.simulation.workload import Workload
from tests.builders import a_job, a_node, a_step

S = 1_000


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """What owners say is what is expected, to the millisecond."""
    monkeypatch.setattr(durations, "NARROW", (1_000,) * 20)
    monkeypatch.setattr(durations, "SAMPLES_LEAST", 1 << 62)  # what was learned is kept in buckets 7 % wide


def a_park(seed):
    """``(nodes, jobs, milliseconds of each task by job)``: something runs, then a large job asks, then small ones."""
    random = Random(seed)
    nodes = [a_node(f"n{at}", cards=random.choice((2, 4)), cpus=64) for at in range(random.randint(1, 4))]
    cards = sum(len(node.devices) for node in nodes)
    steps = [_small(random) for _ in range(random.randint(2, cards))]
    at_s = [0] * len(steps)
    steps.append(_large(random, nodes))
    at_s.append(random.randint(1, 20))
    for _ in range(random.randint(3, 15)):
        at_s.append(at_s[-1] + random.choice((0, 0, 1, 7, 20)))
        steps.append(_small(random) if random.random() < 0.85 else _large(random, nodes))
    jobs = [
        a_job(number, step, submitted_ms=s * S)
        for number, (step, s) in enumerate(zip(steps, at_s, strict=True), start=1)
    ]
    return nodes, jobs, {job.id: job.steps[0].run_ms_expected for job in jobs}


def _small(random):
    kinds = ({}, {"chunk": random.choice((2, 4))}, {"checkpoint_ms": 5 * S, "restart_ms": random.choice((0, 2)) * S})
    return a_step(
        count=random.choice((1, 2, 8)),
        cards=random.choice((1, 1, 2)),
        run_ms_expected=random.choice((3, 10, 40, 90)) * S,
        grace_ms=random.choice((0, 1, 4)) * S,
        **random.choice(kinds),
    )


def _large(random, nodes):
    if random.random() < 0.5:
        return a_step(cards=len(nodes[0].devices), run_ms_expected=random.choice((20, 60)) * S)
    ranks = random.randint(2, max(2, len(nodes)))
    return a_step(ranks=ranks, cards=2, run_ms_expected=random.choice((20, 60)) * S)


def check(seed):
    nodes, jobs, work_ms = a_park(seed)
    random = Random(seed + 1)
    backfill = random.choice((Backfill.EASY, Backfill.CONSERVATIVE))
    policy = Policy(backfill=backfill, preempt_gap=100, age_gain_ms=0)
    first: dict[str, int] = {}
    started: dict[str, int] = {}

    def watch(engine, plan):
        heads = {wait.job_id for wait in plan.waits if wait.position == 1}
        for action in plan.actions:
            if isinstance(action, Reserve) and action.job_id in heads:
                first.setdefault(action.job_id, action.start_ms)
        for action in plan.actions:
            if isinstance(action, Start):
                started.setdefault(action.lease.job_id, plan.now_ms)

    truth = Workload(work_ms=work_ms)
    Simulation(
        Scenario(policy=policy, truth=truth, nodes=nodes, jobs=jobs, queues=(Queue(name="default"),)), watch=watch
    ).run()
    late = {key: (started.get(key), at_ms) for key, at_ms in first.items() if started.get(key, at_ms + 1) > at_ms}
    assert not late, f"seed {seed}: job to (started, reserved first) {late}"
    return len(first)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_reserved_start_is_never_delayed_by_backfill(seed):
    check(seed)


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@settings(max_examples=1_500, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_reserved_start_is_never_delayed_in_many_parks(seed):
    check(seed)
