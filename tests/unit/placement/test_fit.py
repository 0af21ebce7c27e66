import pytest

from scheduler.model.job import Resources
from scheduler.model.lease import Allocation
from scheduler.model.node import Health, Lane, NodeState
from scheduler.placement.fit import Demand, capacity, refusal
from scheduler.placement.view import NodeView
from tests.builders import FEATURES, a_card, a_mig, a_node

NODE = a_node("n1", cpus=4, memory_mib=8_192, scratch_mib=1_000, cards=4, island=2)


def ask(tenant="", lane="pool", **resources):
    return Demand(resources=Resources(**{"cpu_milli": 1_000, "memory_mib": 512, **resources}), lane=lane, tenant=tenant)


def fits(node, demand):
    return capacity(NodeView.empty(node), demand, FEATURES)


@pytest.mark.parametrize(
    ("resources", "copies"),
    [
        ({}, 4),
        ({"cpu_milli": 1_500}, 2),
        ({"cpu_milli": 0, "memory_mib": 4_096}, 2),
        ({"scratch_mib": 400}, 2),
        ({"cards": 1}, 4),
        ({"cards": 3}, 1),
        ({"cards": 3, "same_island": True}, 0),
        ({"cards": 2, "same_island": True}, 2),
        ({"card_milli": 400, "cpu_milli": 100}, 8),
        ({"card_milli": 600, "cpu_milli": 100}, 4),
        ({"cards": 1, "card_memory_mib": 81_000}, 4),
        ({"cards": 1, "card_memory_mib": 81_001}, 0),
        ({"cards": 1, "features": ("nvdec:hevc-4:2:2",)}, 4),
        ({"cards": 1, "features": ("rt",)}, 0),
    ],
)
def test_copies_on_an_empty_node(resources, copies):
    assert fits(NODE, ask(**resources)) == copies


REFUSALS = {
    "lane": (a_node(lane=Lane.JOB), ask(), "needs lane pool", "serves lane job"),
    "label": (a_node(labels=(("rack", "r2"),)), ask(labels=(("rack", "r1"),)), "needs label rack=r1", "has rack=r2"),
    "taint": (a_node(taints=("hot",)), ask(), "needs a toleration for taint hot", "has that taint"),
    "node": (
        a_node(state=NodeState.CORDONED, state_reason="new fan"),
        ask(),
        "needs a ready node",
        "is cordoned (new fan)",
    ),
    "card_model": (NODE, ask(cards=1, card_models=("L4", "L40S")), "needs card model L4 or L40S", "has 4 H100"),
    "card_memory": (
        NODE,
        ask(cards=1, card_memory_mib=90_000),
        "needs 90000 MiB on each card",
        "has at most 81000 MiB",
    ),
    "feature": (NODE, ask(cards=1, features=("rt",)), "needs cards with rt", "has 4 H100 without it"),
    "card": (NODE, ask(cards=9), "needs 9 cards", "has 4"),
    "island": (
        NODE,
        ask(cards=3, same_island=True),
        "needs 3 cards in one NVLink island",
        "has at most 2 free in one",
    ),
    "mig_profile": (
        a_node(devices=(a_mig("n1", 0, 0),)),
        ask(cards=1, mig_profile="3g.40gb"),
        "needs MIG profile 3g.40gb",
        "has 1 1g.10gb",
    ),
    "cpu": (NODE, ask(cpu_milli=4_500), "needs 4.5 vCPU", "has 4"),
    "memory": (NODE, ask(memory_mib=9_000), "needs 9000 MiB memory", "has 8192"),
    "scratch": (NODE, ask(scratch_mib=2_000), "needs 2000 MiB scratch", "has 1000"),
}


@pytest.mark.parametrize("resource", REFUSALS)
def test_a_refusal_names_the_resource_and_the_numbers(resource):
    node, demand, need, have = REFUSALS[resource]
    found = refusal(NodeView.empty(node), demand, FEATURES)
    assert (found.resource, found.need, found.have) == (resource, need, have)


def test_quarantined_cards_do_not_count_and_say_why():
    sick = a_card("n1", health=Health.QUARANTINED, health_reason="Xid 79")
    found = refusal(NodeView.empty(a_node(devices=(sick,))), ask(cards=1), FEATURES)
    assert (found.resource, found.have, found.health) == ("card", "has 1 such, quarantined (Xid 79)", True)


def test_a_fraction_never_shares_a_card_with_another_tenant():
    held = Allocation(node="n1", devices=("GPU-n1-0",), card_milli=300)
    view = NodeView.empty(a_node(cards=1)).take(held, "studio-a")
    assert capacity(view, ask("studio-a", card_milli=300), FEATURES) == 2
    assert capacity(view, ask("studio-b", card_milli=300), FEATURES) == 0
    found = refusal(view, ask("studio-b", card_milli=300), FEATURES)
    assert found.have == "has at most 0 of a card free for this tenant"


def test_a_card_that_is_given_away_whole_takes_no_parts_and_says_so():
    whole, shared = a_card("n1", only_whole=True), a_card("n1", 1)
    part = ask("t", card_milli=300, cpu_milli=100)
    assert [fits(a_node(devices=d), part) for d in ((whole,), (shared,), (whole, shared))] == [0, 3, 3]
    assert fits(a_node(devices=(whole, shared)), ask(cards=1)) == 2
    for others in ((), (a_card("n1", 1, health=Health.QUARANTINED),)):
        found = refusal(NodeView.empty(a_node(devices=(whole, *others))), part, FEATURES)
        assert (found.resource, found.need) == ("card", "needs 0.3 of a card")
        assert found.health == bool(others)
    assert "whole only" in refusal(NodeView.empty(a_node(devices=(whole,))), part, FEATURES).have


def test_a_node_that_shrank_under_its_leases_takes_nothing():
    view = NodeView.empty(a_node(cpus=1)).take(Allocation(node="n1", cpu_milli=4_000), "t")
    assert capacity(view, ask(), FEATURES) == 0
    assert refusal(view, ask(), FEATURES).have == "has 0 of 1 free"
