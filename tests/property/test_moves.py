"""Moves that make room, against every set of moves and every seat there is, and the laws they keep on large ones."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.model.job import Resources, Together
from scheduler.model.lease import Allocation
from scheduler.model.node import DeviceKind, Health
from scheduler.placement import defrag
from scheduler.placement.defrag import Goal, rearrange
from scheduler.placement.fit import Demand, admits, capacity
from scheduler.placement.future import allocate
from scheduler.placement.room import Mover
from scheduler.placement.view import NodeView, device_millis
from tests.builders import FEATURES, a_node

SEEDS = st.integers(0, 2**32)
TENANTS = ("a", "b")


def a_demand(rng, tenant):
    kind = rng.random()
    cpus = rng.choice((500, 1_000, 2_000))
    ask = Resources(cpu_milli=cpus, memory_mib=rng.choice((512, 4_096)))
    if kind < 0.4:
        ask = replace(ask, cards=rng.choice((1, 1, 2, 3)), same_island=rng.random() < 0.2)
    elif kind < 0.8:
        ask = replace(ask, card_milli=rng.choice((300, 500, 700)))
    if kind < 0.8 and rng.random() < 0.2:
        ask = replace(ask, card_models=(rng.choice(("H100", "L4")),))
    return Demand(resources=ask, lane="pool", tenant=tenant if ask.card_milli else "")


def a_cluster(rng, nodes, leases):
    """Nodes full of leases, and those that may move."""
    views = {}
    for i in range(nodes):
        cards = rng.randrange(0, 4)
        node = a_node(
            f"n{i}", cpus=rng.randrange(2, 7), memory_mib=16_384, cards=cards, model=rng.choice(("H100", "L4")),
            island=rng.choice((0, 2)), rack=rng.choice(("r0", "r1")),
        )  # fmt: skip
        if cards and rng.random() < 0.1:
            sick = replace(node.devices[0], health=Health.QUARANTINED)
            node = replace(node, devices=(sick, *node.devices[1:]))
        views[node.name] = NodeView.empty(node)
    movers = []
    for number in range(leases):
        tenant = rng.choice(TENANTS)
        demand, held = a_demand(rng, tenant), []
        for _ in range(rng.choice((1, 1, 1, 2))):
            names = [name for name in views if capacity(views[name], demand, FEATURES)]
            if names:
                name = rng.choice(names)
                held.append(allocate(views[name], demand, FEATURES))
                views[name] = views[name].take(held[-1], tenant)
        if held and rng.random() < 0.9:
            barred = frozenset(rng.sample(sorted(views), 1)) if rng.random() < 0.2 else frozenset()
            movers.append(
                Mover(
                    lease_id=f"l{number}", tenant=tenant, demand=demand, allocations=tuple(held),
                    price=rng.randrange(0, 5), barred=barred,
                )
            )  # fmt: skip
    tenant = rng.choice(TENANTS)
    goal = Goal(
        demand=a_demand(rng, tenant), tenant=tenant, ranks=rng.choice((1, 1, 2)),
        together=rng.choice(list(Together)), barred=frozenset({"n0"} if rng.random() < 0.1 else ()),
    )  # fmt: skip
    return views, movers, goal


def seats(view, demand, tenant):
    """Every way to sit on a node, device by device."""
    ask, node = demand.resources, view.node
    if not admits(node, demand) or view.cpu_milli < ask.cpu_milli or view.memory_mib < ask.memory_mib:
        return
    healthy = [
        d for d in node.devices
        if d.health is Health.OK and d.kind is DeviceKind.CARD and (not ask.card_models or d.model in ask.card_models)
    ]  # fmt: skip
    if ask.card_milli:
        for d in healthy:
            milli, holder = view.held.get(d.id, (0, tenant))
            if holder == tenant and milli + ask.card_milli <= 1_000:
                yield (d.id,)
        return
    free = [d for d in healthy if d.id not in view.held]
    for chosen in combinations(free, ask.cards):
        if not ask.same_island or len({d.island or d.id for d in chosen}) <= 1:
            yield tuple(sorted(d.id for d in chosen))


def fits(views, items):
    """Whether all items find seats: ``(demand, tenant, ranks, together, barred)``."""
    if not items:
        return True
    (demand, tenant, ranks, together, barred), *rest = items

    def seat(views, left, used):
        if not left:
            return fits(views, rest)
        for name in views:
            racks = {views[n].node.rack for n in (*used, name)}
            near = {Together.ANYWHERE: True, Together.RACK: len(racks) == 1, Together.NODE: len({*used, name}) == 1}
            if name in barred or not near[together]:
                continue
            for devices in seats(views[name], demand, tenant):
                ask = demand.resources
                held = Allocation(
                    node=name, devices=devices, card_milli=ask.card_milli, cpu_milli=ask.cpu_milli,
                    memory_mib=ask.memory_mib,
                )  # fmt: skip
                if seat({**views, name: views[name].take(held, tenant)}, left - 1, (*used, name)):
                    return True
        return False

    return seat(views, ranks, ())


def without(views, taken):
    views = dict(views)
    for mover in taken:
        for held in mover.allocations:
            views[held.node] = views[held.node].give_back(held)
    return views


def cheapest(views, movers, goal):
    """The price of the cheapest set of moves, by trying all; None: none helps."""
    sets = (chosen for count in range(len(movers) + 1) for chosen in combinations(movers, count))
    for chosen in sorted(sets, key=lambda c: (sum(m.price for m in c), len(c))):
        items = [(goal.demand, goal.tenant, goal.ranks, goal.together, goal.barred)]
        items += [(m.demand, m.tenant, len(m.allocations), m.together, m.barred) for m in chosen]
        if fits(without(views, chosen), items):
            return sum(m.price for m in chosen), len(chosen)
    return None


def check(views, movers, goal, found):
    """Each move finds its place free, nothing is held twice, and the goal fits in the end."""
    known = {mover.lease_id: mover for mover in movers}
    assert len({move.lease_id for move in found.moves}) == len(found.moves)
    views = without(views, [known[move.lease_id] for move in found.moves if move.stops_first])
    for move in found.moves:
        mover = known[move.lease_id]
        if not move.stops_first:
            views = without(views, [mover])
        views = taken(views, move.places, mover.demand, mover.tenant, mover.together, mover.barred)
        assert len(move.places) == len(mover.allocations)
    assert len(found.goal) == goal.ranks
    taken(views, found.goal, goal.demand, goal.tenant, goal.together, goal.barred)
    assert found.price == sum(known[move.lease_id].price for move in found.moves)
    assert found.bound <= found.price


def taken(views, places, demand, tenant, together, barred):  # noqa: PLR0917
    views = dict(views)
    for place in places:
        assert place.node not in barred
        assert place.devices in set(seats(views[place.node], demand, tenant)) or not place.devices
        assert capacity(views[place.node], demand, FEATURES) >= 1
        assert all(views[place.node].held.get(d, (0, ""))[0] + milli <= 1_000 for d, milli in device_millis(place))
        views[place.node] = views[place.node].take(place, tenant)
    if together is not Together.ANYWHERE:
        near = {p.node if together is Together.NODE else views[p.node].node.rack for p in places}
        assert len(near) == 1
    return views


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_small_instances_are_solved_at_the_least_price(seed):
    rng = random.Random(seed)
    views, movers, goal = a_cluster(rng, nodes=rng.randrange(1, 4), leases=rng.randrange(1, 6))
    least, found = cheapest(views, movers, goal), rearrange(views, movers, goal, FEATURES)
    if least is None:
        assert found is None
        return
    assert found is not None
    check(views, movers, goal, found)
    assert (found.price, len(found.moves)) == least
    assert found.bound == found.price


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_large_instances_keep_the_laws(seed):
    rng = random.Random(seed)
    views, movers, goal = a_cluster(rng, nodes=9, leases=rng.randrange(11, 30))
    found = rearrange(views, movers, goal, FEATURES)
    if found is not None:
        check(views, movers, goal, found)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_what_the_large_search_finds_is_no_cheaper_than_the_cheapest_and_its_bound_no_dearer(seed):
    rng = random.Random(seed)
    views, movers, goal = a_cluster(rng, nodes=rng.randrange(1, 4), leases=rng.randrange(1, 6))
    with mock.patch.object(defrag, "EXACT_NODES", 0):
        found = rearrange(views, movers, goal, FEATURES)
    if found is not None:
        check(views, movers, goal, found)
        least = cheapest(views, movers, goal)
        assert least is not None
        assert found.bound <= least[0] <= found.price


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_what_fits_moves_nobody_and_the_order_of_the_leases_changes_nothing(seed):
    rng = random.Random(seed)
    views, movers, goal = a_cluster(rng, nodes=rng.choice((3, 9)), leases=8)
    found = rearrange(views, movers, goal, FEATURES)
    shuffled = dict(sorted(views.items(), key=lambda _: rng.random()))
    assert rearrange(shuffled, rng.sample(movers, len(movers)), goal, FEATURES) == found
    if goal.ranks == 1 and any(capacity(v, goal.demand, FEATURES) for n, v in views.items() if n not in goal.barred):
        assert found is not None
        assert (found.moves, found.price) == ((), 0)
