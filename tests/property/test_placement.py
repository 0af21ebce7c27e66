"""Placement on arrays against what its words mean: full scans, fresh clusters, objects, and the laws of a cluster."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.model.job import Resources
from scheduler.model.node import Health, NodeState
from scheduler.placement.cluster import Cluster
from scheduler.placement.fit import Demand, capacity, refusal
from scheduler.placement.future import allocate
from scheduler.placement.placer import Placer
from scheduler.placement.search import Search
from scheduler.placement.shapes import Shapes
from scheduler.placement.wanted import NOTHING, wanted_of
from tests.builders import FEATURES, a_node
from tests.property.test_reasons import TENANTS, random_node, random_step

SEEDS = st.integers(0, 2**32)


def a_demand(rng):
    step = random_step(rng)
    tenant = rng.choice(TENANTS) if step.resources.card_milli else ""
    return Demand(resources=step.resources, lane=step.lane, tenant=tenant)


def a_mix(rng, demands):
    return wanted_of([(demand, rng.randrange(1, 20)) for demand in demands]) if rng.random() < 0.7 else NOTHING


def a_farm(rng, most=12):
    """A placer over random nodes, its shapes, and a mix of some of them."""
    demands = list(dict.fromkeys(a_demand(rng) for _ in range(8)))
    placer = Placer(Cluster(), a_mix(rng, demands), FEATURES)
    for i in range(rng.randrange(1, most)):
        placer.set_node(random_node(rng, f"n{i}"))
    return placer, [placer.shape(demand) for demand in demands]


def live(rng, placer, shapes, steps):
    """Random placements, endings and changes of nodes; yields before each placement."""
    held = []
    for _ in range(steps):
        happens = rng.random()
        if happens < 0.65:
            shape, tenant = rng.choice(shapes), placer.cluster.tenant(rng.choice(TENANTS))
            yield shape
            place = placer.place(shape, tenant)
            if place is not None:
                held.append((shape, place))
        elif happens < 0.9 and held:
            placer.release(*held.pop(rng.randrange(len(held))))
        elif happens < 0.95:
            node = rng.choice(placer.cluster.nodes)
            sick = tuple(replace(d, health=rng.choice(tuple(Health))) for d in node.devices)
            placer.set_node(replace(node, devices=sick, state=rng.choice(tuple(NodeState))))
        else:
            placer.set_node(random_node(rng, f"m{placer.cluster.count}"))


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS)
def test_each_decision_is_that_of_a_full_scan(seed):
    rng = random.Random(seed)
    placer, shapes = a_farm(rng)
    for shape in live(rng, placer, shapes, 60):
        assert placer.best(shape) == placer.scan(shape)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_rankings_hold_what_views_say(seed):
    rng = random.Random(seed)
    placer, shapes = a_farm(rng)
    for _ in live(rng, placer, shapes, 30):
        shape = rng.choice(shapes)
        demand = placer.table.demands[shape]
        views = [placer.cluster.view(row) for row in range(placer.cluster.count)]
        copies = [capacity(view, demand, FEATURES) for view in views]
        assert placer.room(shape)[0].tolist() == copies
        assert placer.copies(shape) == sum(copies)
        best = placer.best(shape)
        assert (best is None) == (not any(copies))


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_the_nearest_refusals_are_those_of_all_views(seed):
    rng = random.Random(seed)
    placer, shapes = a_farm(rng)
    for shape in live(rng, placer, shapes, 25):
        demand = placer.table.demands[shape]
        nearest = placer.nearest(shape)
        best, count = {}, Counter()
        for row, node in enumerate(placer.cluster.nodes):
            view = placer.cluster.view(row)
            is_possible = placer.table.asks.empty[shape, placer.cluster.rows.klass[row]]
            no = refusal(view, demand, FEATURES)
            if no is None or not is_possible:
                continue
            count[no.resource] += 1
            key = (-no.stage, -no.amount, node.name, row)
            best[no.resource] = min(best.get(no.resource, key), key)
        wanted = [(key[3], count[resource]) for resource, key in sorted(best.items(), key=lambda entry: entry[1])]
        assert nearest == wanted


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_a_cluster_grown_by_events_decides_as_one_made_whole_in_any_order_of_nodes(seed):
    rng = random.Random(seed)
    placer, shapes = a_farm(rng)
    for _ in live(rng, placer, shapes, 40):
        pass
    other = Placer(Cluster(), placer.wanted, FEATURES)
    rows = list(range(placer.cluster.count))
    rng.shuffle(rows)
    for row in rows:
        other.set_node(placer.cluster.nodes[row])
    for row in rows:
        there = other.cluster.row[placer.cluster.nodes[row].name]
        other.cluster.rows.free[there] = placer.cluster.rows.free[row]
        for device, (milli, tenant) in placer.cluster.held(row).items():
            other.cluster.hold(there, device, milli, tenant)
        other.set_node(placer.cluster.nodes[row])
    for shape in rng.choices(shapes, k=40):
        demand = placer.table.demands[shape]
        mine, theirs = placer.place(shape), other.place(number := other.shape(demand))
        assert (mine is None) == (theirs is None)
        if mine and theirs:
            assert placer.allocation(shape, *mine) == other.allocation(number, *theirs)


def decisions(placer, shapes, rng, *, by_scan):
    """A hash of 400 decisions, found by the cache or by looking at every node each time."""
    found = hashlib.sha256()
    held = []
    for _ in range(400):
        shape = rng.choice(shapes)
        if by_scan:
            row = placer.scan(shape)
            place = None if row is None else placer.take(shape, row)
        else:
            place = placer.place(shape)
        found.update(repr(place).encode())
        if place is not None:
            held.append((shape, place))
        if len(held) > 30:
            placer.release(*held.pop(rng.randrange(len(held))))
    return found.hexdigest()


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_the_hash_of_decisions_is_that_of_full_scans(seed):
    cached, scanned = (
        decisions(*a_farm(random.Random(seed), most=30), random.Random(seed), by_scan=by_scan)
        for by_scan in (False, True)
    )
    assert cached == scanned


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_nothing_is_ever_held_twice_and_everything_comes_back(seed):
    rng = random.Random(seed)
    placer, shapes = a_farm(rng)
    begin = [placer.cluster.view(row) for row in range(placer.cluster.count)]
    held = []
    for _ in range(80):
        if held and rng.random() < 0.3:
            placer.release(*held.pop(rng.randrange(len(held))))
        elif place := placer.place(shape := rng.choice(shapes)):
            held.append((shape, place))
        used = Counter()
        for shape, (row, slots) in held:
            ask = placer.table.demands[shape].resources
            used[row, "cpu"] += ask.cpu_milli
            used[row, "memory"] += ask.memory_mib
            for slot in slots:
                used[row, slot] += ask.card_milli or 1_000
        for row, node in enumerate(placer.cluster.nodes):
            assert used[row, "cpu"] <= node.cpu_milli
            assert used[row, "memory"] <= node.memory_mib
        assert all(amount <= 1_000 for (_, what), amount in used.items() if isinstance(what, int))
    for entry in held:
        placer.release(*entry)
    assert [placer.cluster.view(row) for row in range(placer.cluster.count)] == begin


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_many_at_once_are_what_one_after_the_other_gives(seed):
    rng = random.Random(seed)
    real = Shapes(FEATURES)
    for i in range(rng.randrange(1, 9)):
        real.set_node(random_node(rng, f"n{i}"))
    real.set_mix(a_mix(rng, [a_demand(rng) for _ in range(5)]))
    demand, count, tenant = a_demand(rng), rng.randrange(60), rng.choice(TENANTS)
    one, many = Search(real), Search(real)
    singles = [allocation for _ in range(count) for allocation in one.place(demand, 1, tenant)]
    assert list(many.place_many(demand, count, tenant)) == singles
    assert one.nodes == many.nodes


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_sixteen_halves_on_eight_cards_are_two_per_card(seed):
    rng = random.Random(seed)
    nodes = rng.choice(
        (
            [a_node("n1", cpus=64, cards=8)],
            [a_node(f"n{i}", cpus=8, cards=1) for i in range(8)],
            [a_node("a", cpus=32, cards=4), a_node("b", cpus=64, cards=4, island=2)],
        )
    )
    real = Shapes(FEATURES)
    for node in nodes:
        real.set_node(node)
    half = Demand(resources=Resources(card_milli=500), lane="pool", tenant="t")
    real.set_mix(a_mix(rng, [half, *(a_demand(rng) for _ in range(4))]))
    trial = Search(real)
    if rng.random() < 0.5:
        placed = trial.place_many(half, 16, "t")
    else:
        placed = [allocation for _ in range(16) for allocation in trial.place(half, 1, "t")]
    assert Counter(Counter(allocation.devices for allocation in placed).values()) == {2: 8}


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_a_gang_never_splits(seed):
    rng = random.Random(seed)
    real = Shapes(FEATURES)
    for i in range(rng.randrange(1, 6)):
        real.set_node(replace(random_node(rng, f"n{i}"), rack=rng.choice(("", "r1", "r2"))))
    trial, demand, ranks = Search(real), a_demand(rng), rng.randrange(2, 7)
    before, room = dict(trial.nodes), trial.copies(demand)
    placed = trial.place(demand, ranks, demand.tenant or "t")
    assert len(placed) == (ranks if room >= ranks else 0)
    if not placed:
        assert trial.nodes == before


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS)
def test_with_no_mix_the_arrays_choose_the_devices_that_views_choose(seed):
    rng = random.Random(seed)
    demands = list(dict.fromkeys(a_demand(rng) for _ in range(6)))
    placer = Placer(Cluster(), NOTHING, FEATURES)
    placer.set_node(replace(random_node(rng, "n1"), cpu_milli=16_000, memory_mib=65_536))
    for _ in range(12):
        demand, view = rng.choice(demands), placer.cluster.view(0)
        place = placer.place(shape := placer.shape(demand), placer.cluster.tenant(demand.tenant or "a"))
        assert (place is not None) == bool(capacity(view, demand, FEATURES))
        if place is not None:
            assert placer.allocation(shape, *place) == allocate(view, demand, FEATURES)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_what_is_barred_is_as_if_it_were_not_there(seed):
    rng = random.Random(seed)
    placer, shapes = a_farm(rng)
    for shape in live(rng, placer, shapes, 25):
        rows = [row for row in range(placer.cluster.count) if rng.random() < 0.5]
        before = placer.best(shape)
        found = placer.best_but(shape, np.array(rows, np.int32))
        copies, key = placer.room(shape)
        left = [
            (int(key[row, 0]), int(key[row, 1]), node.name, row)
            for row, node in enumerate(placer.cluster.nodes)
            if copies[row] and row not in rows
        ]
        assert found == min(left, default=(0, 0, "", None))[3]
        assert placer.best(shape) == before


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_a_node_that_was_never_there_leaves_no_trace(seed):
    rng = random.Random(seed)
    placer, shapes = a_farm(rng)
    for _ in live(rng, placer, shapes, 15):
        pass
    name = rng.choice([node.name for node in placer.cluster.nodes])
    views = {node.name: placer.cluster.view(row) for row, node in enumerate(placer.cluster.nodes) if node.name != name}
    placer.drop_node(name)
    assert {node.name: placer.cluster.view(row) for row, node in enumerate(placer.cluster.nodes)} == views
    for shape in shapes:
        assert placer.best(shape) == placer.scan(shape)
        assert placer.copies(shape) == sum(
            capacity(view, placer.table.demands[shape], FEATURES) for view in views.values()
        )


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_equal_nodes_go_by_name_whoever_left(seed):
    rng = random.Random(seed)
    placer = Placer(Cluster(), NOTHING, FEATURES)
    for i in rng.sample(range(12), 12):
        placer.set_node(a_node(f"n{i:02}"))
    shape = placer.shape(Demand(resources=Resources(cpu_milli=1_000), lane="pool"))
    while placer.cluster.count > 1:
        best = placer.best(shape)
        assert best == placer.scan(shape)
        assert placer.cluster.nodes[best].name == min(placer.cluster.row)
        placer.drop_node(rng.choice([*placer.cluster.row]))
