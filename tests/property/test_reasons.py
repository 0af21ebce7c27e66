"""The reasons of a Wait are true: checked against a search that tries every way to place every rank.

The search below shares no code with ``scheduler.placement``; it is what the words of the reasons mean.
"""

from __future__ import annotations

import random
from dataclasses import fields, replace
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.model.job import Resources, Step
from scheduler.model.node import DeviceKind, Health, Lane, Node, NodeState
from scheduler.model.plan import ReasonKind, Start
from scheduler.placement.fit import capacity, demand_of, refusal
from scheduler.placement.view import NodeView
from tests.builders import FEATURES, Park, a_card, a_job, a_mig, a_node, a_step

TENANTS = ("a", "b")


class Room:
    """One node's free amounts, for trying."""

    def __init__(self, node: Node) -> None:
        split = {d.parent for d in node.devices if d.kind is DeviceKind.MIG}
        self.node = node
        self.cpu, self.memory = node.cpu_milli, node.memory_mib
        self.cards = {d.id: (d, 1_000, "") for d in node.devices if d.id not in split}

    def ways(self, step: Step, tenant: str):
        """Each way to put one rank here, as ``{device: thousandths}``."""
        ask, node = step.resources, self.node
        allowed = (
            node.state is NodeState.READY
            and node.lane in (Lane.ANY, Lane(step.lane))
            and all(taint in ask.tolerations for taint in node.taints)
            and all(label in node.labels for label in ask.labels)
            and self.cpu >= ask.cpu_milli
            and self.memory >= ask.memory_mib
        )
        if not allowed:
            return
        good = [key for key, (device, _, _) in self.cards.items() if self._matches(device, ask)]
        if ask.card_milli:
            for key in good:
                device, left, holder = self.cards[key]
                if holder in ("", tenant) and left >= ask.card_milli and not device.only_whole:
                    yield {key: ask.card_milli}
            return
        free = [key for key in good if self.cards[key][1] == 1_000]
        for chosen in combinations(free, ask.cards):
            islands = {self.cards[key][0].island or key for key in chosen}
            if not ask.same_island or len(islands) <= 1:
                yield dict.fromkeys(chosen, 1_000)

    @staticmethod
    def _matches(device, ask: Resources) -> bool:
        return (
            device.health is Health.OK
            and (device.kind is DeviceKind.MIG) == bool(ask.mig_profile)
            and (not ask.mig_profile or device.profile == ask.mig_profile)
            and (not ask.card_models or device.model in ask.card_models)
            and device.memory_mib >= ask.card_memory_mib
            and set(ask.features) <= set(FEATURES.get(device.model, ()))
        )

    def move(self, ask: Resources, devices: dict[str, int], tenant: str, sign: int) -> None:
        self.cpu += sign * ask.cpu_milli
        self.memory += sign * ask.memory_mib
        for key, milli in devices.items():
            device, left, _ = self.cards[key]
            left += sign * milli
            self.cards[key] = (device, left, tenant if left < 1_000 else "")


def can_place(rooms: list[Room], step: Step, tenant: str, ranks: int) -> bool:
    if not ranks:
        return True
    for room in rooms:
        for devices in list(room.ways(step, tenant)):
            room.move(step.resources, devices, tenant, -1)
            found = can_place(rooms, step, tenant, ranks - 1)
            room.move(step.resources, devices, tenant, 1)
            if found:
                return True
    return False


def rooms_now(park: Park) -> list[Room]:
    rooms = {node.name: Room(node) for node in park.engine.nodes()}
    for record in park.engine.leases():
        for allocation in record.lease.allocations:
            held = Resources(cpu_milli=allocation.cpu_milli, memory_mib=allocation.memory_mib)
            devices = dict.fromkeys(allocation.devices, allocation.card_milli or 1_000)
            rooms[allocation.node].move(held, devices, record.lease.tenant, -1)
    return list(rooms.values())


def without_illness(node: Node) -> Node:
    devices = tuple(replace(d, health=Health.OK) for d in node.devices)
    return replace(node, state=NodeState.READY, devices=devices, lane=Lane.ANY)  # it may move to another one


def expected_kinds(park: Park, step: Step, tenant: str) -> set[ReasonKind]:
    nodes = list(park.engine.nodes())
    if not can_place([Room(without_illness(node)) for node in nodes], step, tenant, step.ranks):
        return {ReasonKind.NEVER_FITS}
    if not can_place([Room(node) for node in nodes], step, tenant, step.ranks):
        others = any(node.lane not in (Lane.ANY, Lane(step.lane)) for node in nodes)
        return {ReasonKind.HEALTH, *([ReasonKind.CAPACITY] if others else [])}
    if not can_place(rooms_now(park), step, tenant, step.ranks):
        return {ReasonKind.CAPACITY}
    return {ReasonKind.ORDER}


def random_node(rng: random.Random, name: str) -> Node:
    devices = tuple(
        a_card(
            name,
            i,
            rng.choice(("H100", "L4")),
            rng.choice((24_000, 81_000)),
            island=rng.choice(("", f"{name}-x", f"{name}-x")),
            health=rng.choice((*[Health.OK] * 5, Health.QUARANTINED)),
            only_whole=rng.random() < 0.2,
        )
        for i in range(rng.choice((0, 1, 2, 4)))
    )
    if devices and rng.random() < 0.3:
        devices = (*devices, a_mig(name, 0, 0), a_mig(name, 0, 1))
    return a_node(
        name,
        cpus=rng.choice((1, 2, 4)),
        memory_mib=rng.choice((1_024, 4_096)),
        devices=devices,
        lane=rng.choice((Lane.ANY, Lane.ANY, Lane.ANY, Lane.JOB)),
        taints=rng.choice(((), (), (), ("hot",))),
        labels=rng.choice(((), (("rack", "r1"),))),
        state=rng.choice((*[NodeState.READY] * 5, NodeState.CORDONED, NodeState.LOST)),
    )


def random_step(rng: random.Random, name: str = "work") -> Step:
    cards = rng.choice((0, 0, 1, 1, 2, 3))
    ask = Resources(
        cpu_milli=rng.choice((0, 500, 1_000, 2_000)),
        memory_mib=rng.choice((0, 512, 2_048)),
        cards=cards,
        card_milli=0 if cards else rng.choice((0, 300, 600)),
        card_models=rng.choice(((), (), ("H100",), ("L4", "H100"))),
        card_memory_mib=rng.choice((0, 0, 40_000)),
        mig_profile="1g.10gb" if cards and rng.random() < 0.2 else "",
        features=rng.choice(((), (), (), ("rt",))),
        labels=rng.choice(((), (), (("rack", "r1"),))),
        tolerations=rng.choice(((), ("hot",))),
        same_island=rng.random() < 0.3,
    )
    return a_step(name, ranks=rng.choice((1, 1, 2, 3)), resources={f.name: getattr(ask, f.name) for f in fields(ask)})


def a_busy_park(rng: random.Random) -> Park:
    park = Park(*(random_node(rng, f"n{i}") for i in range(rng.choice((1, 2, 3)))))
    for number in range(1, rng.choice((2, 4, 8))):
        park.submit(a_job(number, random_step(rng), tenant=rng.choice(TENANTS)))
    park.cycle()
    return park


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_each_wait_tells_the_truth_about_never_health_capacity_and_order(seed):
    rng = random.Random(seed)
    park = a_busy_park(rng)
    number = len(list(park.engine.jobs())) + 1
    for probe in range(number, number + 4):
        park.submit(a_job(probe, random_step(rng), tenant=rng.choice(TENANTS)))
    for wait in park.plan().waits:
        job = park.job(wait.job_id).job
        wanted = expected_kinds(park, job.steps[0], job.tenant)
        kinds = {reason.kind for reason in wait.reasons}
        if wanted == {ReasonKind.ORDER} and kinds == {ReasonKind.RESERVATION}:
            continue  # it is free, but kept for someone ahead: tests/property/test_promises.py looks into that
        assert kinds
        assert kinds <= wanted, (wait, job)
        if any(reason.resource == "lane" for reason in wait.reasons):
            assert {reason.kind for reason in wait.reasons if reason.resource == "lane"} == {ReasonKind.CAPACITY}


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_could_be_placed_is_placed_when_nobody_is_ahead(seed):
    rng = random.Random(seed)
    park = a_busy_park(rng)
    tenant, step = rng.choice(TENANTS), random_step(rng)
    job = a_job(1, step, tenant=tenant, priority=100)
    first_in_line = not any(isinstance(action, Start) for action in park.plan().actions)
    plan = park.engine.trial(job, park.now_ms, park.policy)
    if first_in_line:
        starts = [action for action in plan.actions if isinstance(action, Start)]
        assert bool(starts) == can_place(rooms_now(park), step, tenant, step.ranks)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_impossible_says_exactly_what_no_healthy_empty_inventory_could_run(seed):
    rng = random.Random(seed)
    nodes = [random_node(rng, f"n{i}") for i in range(2)]
    step, tenant = random_step(rng), "a"
    found = Park(*nodes).engine.impossible(a_job(1, step, tenant=tenant))
    possible = can_place([Room(without_illness(node)) for node in nodes], step, tenant, step.ranks)
    assert [name for name, _ in found] == ([] if possible else ["work"])


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_node_refuses_exactly_what_it_has_no_room_for(seed):
    rng = random.Random(seed)
    park = a_busy_park(rng)
    for view in park.engine._state.nodes.values():
        for tenant in TENANTS:
            demand = demand_of(random_step(rng), tenant)
            assert (refusal(view, demand, FEATURES) is None) == (capacity(view, demand, FEATURES) > 0)
            shrunk = NodeView.empty(replace(view.node, cpu_milli=0))
            assert (refusal(shrunk, demand, FEATURES) is None) == (capacity(shrunk, demand, FEATURES) > 0)
