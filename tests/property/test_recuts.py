"""Farms of MIG cards under a rule that cuts them: nothing is destroyed under a lease, and every plan is a function."""

import random

import pytest

from scheduler.engine import Engine
from scheduler.ledger.conservation import buckets, error, inventory
from scheduler.model.event import LeaseGranted, NodeSeen
from scheduler.model.layout import after_cut, layout_under_way, under_way
from scheduler.model.node import Device, NodeLayout
from scheduler.model.policy import Policy
from scheduler.model.snapshot import Snapshot
from scheduler.model.usage import Bucket
from scheduler.simulation.loop import Simulation
from scheduler.simulation.scenario import Scenario
from scheduler.simulation.workload import Workload
from tests.builders import a_job, a_node, a_step

PROFILES = ("1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")
S = 1_000
POLICY = Policy(recut_every_ms=120 * S, recut_ms=10 * S, relayout_ms=30 * S)


def farm(seed: int):
    """``(nodes, jobs, ms by job)``"""
    rng = random.Random(seed)
    nodes = []
    for at in range(2):
        cards = [Device(id=f"GPU-{at}-{c}", model="H100-SXM-80GB", mig_on=True) for c in range(2)]
        devices = tuple(d for card in cards for d in after_cut((card,), card.id, ()))
        nodes.append(a_node(f"n{at}", cpus=32, memory_mib=262_144, devices=devices))
    jobs, ms = [], {}
    for number in range(1, 15):
        run_ms = rng.randrange(30, 400) * S
        ask = {"cards": rng.choice((1, 1, 1, 2)), "mig_profile": rng.choice(PROFILES)}
        step = a_step(count=rng.randrange(1, 5), resources=ask, run_ms_expected=run_ms)
        jobs.append(a_job(number, step, submitted_ms=rng.randrange(600) * S))
        ms[f"j{number}"] = run_ms
    return tuple(nodes), tuple(sorted(jobs, key=lambda job: job.submitted_ms)), ms


LAYOUTS = (
    NodeLayout(name="all-1g", profiles=(("1g.10gb", 14),), cards=2),
    NodeLayout(name="balanced", profiles=(("1g.10gb", 4), ("2g.20gb", 2), ("3g.40gb", 2)), cards=2),
    NodeLayout(name="halves", profiles=(("3g.40gb", 4),), cards=2),
    NodeLayout(name="whole", profiles=(("", 2),), cards=2),
)


def laid_farm(seed: int):
    """The same work, and whole cards, on nodes that are cut as a whole."""
    rng = random.Random(seed)
    _, jobs, ms = farm(seed)
    nodes = []
    for at in range(3):
        cards = tuple(Device(id=f"GPU-{at}-{c}", model="H100-SXM-80GB", memory_mib=81_559) for c in range(2))
        nodes.append(a_node(f"n{at}", cpus=32, memory_mib=262_144, devices=cards, layouts=LAYOUTS, layout="whole"))
    asks = [{"cards": 1, "mig_profile": rng.choice(("1g.10gb", "2g.20gb", "3g.40gb", ""))} for _ in jobs]
    steps = [
        a_step(count=job.steps[0].count, resources=a, run_ms_expected=ms[job.id] * 5)
        for job, a in zip(jobs, asks, strict=True)
    ]
    jobs = tuple(
        a_job(n, step, submitted_ms=j.submitted_ms)
        for n, (j, step) in enumerate(zip(jobs, steps, strict=True), start=1)
    )
    return tuple(nodes), jobs, {job.id: job.steps[0].run_ms_expected for job in jobs}


def played(seed: int, made=farm):
    nodes, jobs, ms = made(seed)
    jobs = tuple(a_job(n, *job.steps, submitted_ms=job.submitted_ms) for n, job in enumerate(jobs, start=1))
    ms = {job.id: job.steps[0].run_ms_expected for job in jobs}
    truth = Workload(work_ms=ms)
    simulation = Simulation(Scenario(policy=POLICY, truth=truth, nodes=nodes, jobs=jobs, until_ms=7_200 * S), keep=True)
    simulation.run()
    return simulation


@pytest.mark.parametrize("seed", range(6))
def test_what_is_held_stays_and_plans_are_functions_of_facts(seed):
    simulation = played(seed)
    live, cuts, used = Engine.from_snapshot(Snapshot()), 0, set[str]()
    for number, event in enumerate(simulation.events):
        if isinstance(event, NodeSeen):
            there = {device.id for device in event.node.devices}
            for record in live.leases_on(event.node.name):
                for held in record.lease.allocations:
                    assert held.node != event.node.name or there.issuperset(held.devices), "destroyed under a lease"
        if isinstance(event, LeaseGranted):
            for held in event.lease.allocations:
                node = live.node(held.node)
                going = under_way(node)
                for device in node.devices:
                    if device.id in held.devices and device.parent in going:
                        places = {(p.start, p.profile) for p in going[device.parent]}
                        assert (device.slice_start, device.profile) in places, "granted though it goes"
                    if device.id in held.devices:
                        used.add(device.profile)
        live.apply(event)
        cuts += isinstance(event, NodeSeen) and any(cut.since_ms == event.at_ms for cut in event.node.cuts)
        if number % 7 == 0:
            now_ms = live.now_ms + 1_000
            assert live.plan(now_ms, POLICY) == Engine.from_snapshot(live.snapshot()).plan(now_ms, POLICY)
    assert cuts >= 3
    assert len(used) >= 3
    assert live.snapshot() == simulation.engine.snapshot()


@pytest.mark.parametrize("seed", range(6))
def test_a_whole_node_is_cut_with_nobody_on_it_and_plans_are_functions_of_facts(seed):
    simulation = played(seed, laid_farm)
    live, used = Engine.from_snapshot(Snapshot()), set[str]()
    for number, event in enumerate(simulation.events):
        if isinstance(event, NodeSeen) and layout_under_way(event.node):
            assert not live.leases_on(event.node.name), "cut under a lease"
        if isinstance(event, LeaseGranted):
            for held in event.lease.allocations:
                node = live.node(held.node)
                assert not layout_under_way(node), "granted though its node is cut"
                used |= {device.profile for device in node.devices if device.id in held.devices}
        live.apply(event)
        if number % 7 == 0:
            now_ms = live.now_ms + 1_000
            assert live.plan(now_ms, POLICY) == Engine.from_snapshot(live.snapshot()).plan(now_ms, POLICY)
    assert len(used) >= 2
    assert live.snapshot() == simulation.engine.snapshot()
    end_ms = 7_200 * S
    rows = buckets(inventory(simulation.events), (), 0, end_ms)
    assert error(rows, 0, end_ms) == 0
    assert sum(row[Bucket.SWITCHING] for row in rows.values()) > 0


def test_a_card_that_is_being_cut_counts_as_switching():
    simulation = played(1)
    end_ms = 7_200 * S
    rows = buckets(inventory(simulation.events), (), 0, end_ms)
    assert error(rows, 0, end_ms) == 0
    assert sum(row[Bucket.SWITCHING] for row in rows.values()) > 0
