"""The engine in the simulator starts every job when a plain simulator of the same rules does."""

import random

import pytest

from benchmarks.plain import RULES, asks_of, starts
from benchmarks.simulate import POLICIES, scenario
from benchmarks.traces import Trace, numbered, philly, training, uniform_nodes
from scheduler.simulation.loop import simulate
from tests.traces import traces


def made(seed, jobs=150, nodes=3, sizes=(1, 1, 1, 2, 4, 8, 16)):
    """A short, crowded trace."""
    rng = random.Random(seed)
    given = numbered(training(f"job {i}", rng.choice(sizes), rng.randrange(0, 600) * 1_000) for i in range(jobs))
    work_ms = {job.id: rng.randrange(1, 300) * 1_000 + int(job.id[1:]) for job in given}
    return Trace(name="made", nodes=uniform_nodes(nodes, 8, "P100", cpus=64), jobs=given, work_ms=work_ms)


def same(trace, rule):
    rank, skip = RULES[rule]
    expected = starts(asks_of(trace), len(trace.nodes), rank, skip=skip)
    run = simulate(scenario(trace, POLICIES[rule]))
    assert {job.id: job.granted_ms for job in run.jobs} == expected
    assert all(job.jct_ms == job.wait_ms + trace.work_ms[job.id] for job in run.jobs)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("rule", ["fifo-strict", "fifo"])
def test_a_crowded_trace(rule, seed):
    same(made(seed, sizes=(8, 16)), rule)


@pytest.mark.parametrize("rule", ["fifo-strict", "fifo"])
def test_a_crowded_trace_of_small_jobs(rule):
    """On which node a small job goes is the engine's own choice, so only the sums must be near each other."""
    trace = made(3)
    rank, skip = RULES[rule]
    expected = starts(asks_of(trace), len(trace.nodes), rank, skip=skip)
    run = simulate(scenario(trace, POLICIES[rule]))
    assert sum(job.granted_ms for job in run.jobs) == pytest.approx(sum(expected.values()), rel=0.05)


def test_some_of_philly_on_two_nodes():
    whole = philly(traces("philly"), start="2017-10-05 08:00:00", end="2017-10-05 10:00:00", nodes=2)
    small = [job for job in whole.jobs if job.steps[0].ranks <= 2]
    jobs = numbered(small)
    work_ms = {job.id: whole.work_ms[before.id] for job, before in zip(jobs, small, strict=True)}
    trace = Trace(name="philly", nodes=whole.nodes, jobs=jobs, work_ms=work_ms)
    for rule in ("fifo-strict", "fifo"):
        same(trace, rule)
