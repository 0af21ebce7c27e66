"""Cluster + jobs → expected plan lines: ``start ATTEMPT on NODE[cards]``, ``wait #POSITION JOB.STEP xTASKS why``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.model.node import Health, Lane, NodeState
from scheduler.model.plan import ChangeKind
from scheduler.model.queue import Queue
from tests.builders import Park, a_job, a_mig, a_node, a_step, lines

TWO_QUEUES = (Queue(name="a"), Queue(name="b"))

SCENARIOS = {
    "a cpu task avoids the node with cards": (
        [a_node("gpu", cpus=4, cards=2), a_node("plain", cpus=8)],
        [a_job(1)],
        ["start j1.work.0.a1 on plain"],
    ),
    "a cpu task goes to the tightest node": (
        [a_node("big", cpus=8), a_node("small", cpus=2)],
        [a_job(1, a_step(cpus=2))],
        ["start j1.work.0.a1 on small"],
    ),
    "one card goes to the node with the fewest left over": (
        [a_node("eight", cpus=16, cards=8), a_node("two", cpus=16, cards=2)],
        [a_job(1, a_step(cards=1)), a_job(2, a_step(cards=8))],
        ["start j1.work.0.a1 on two[0]", "start j2.work.0.a1 on eight[0,1,2,3,4,5,6,7]"],
    ),
    "two cards share an NVLink island, and the tightest one": (
        [a_node("n1", cpus=16, cards=4, island=2)],
        [a_job(1, a_step(cards=1)), a_job(2, a_step(cards=2)), a_job(3, a_step(cards=1))],
        ["start j1.work.0.a1 on n1[0]", "start j2.work.0.a1 on n1[2,3]", "start j3.work.0.a1 on n1[1]"],
    ),
    "same_island waits although enough cards are free": (
        [a_node("n1", cpus=16, cards=2, island=1)],
        [a_job(1, a_step(cards=2, resources={"same_island": True})), a_job(2, a_step(cards=2))],
        ["start j2.work.0.a1 on n1[0,1]", "wait #1 j1.work x1 never_fits:island"],
    ),
    "fractions fill an opened card of the same tenant first": (
        [a_node("n1", cpus=16, cards=2)],
        [a_job(1, a_step(count=3, resources={"card_milli": 400}))],
        [
            "start j1.work.0.a1 on n1[0:400]",
            "start j1.work.1.a1 on n1[0:400]",
            "start j1.work.2.a1 on n1[1:400]",
        ],
    ),
    "sixteen halves on eight cards are two per card": (
        [a_node("n1", cpus=32, cards=8)],
        [a_job(1, a_step(count=17, resources={"card_milli": 500}))],
        [f"start j1.work.{i}.a1 on n1[{i // 2}:500]" for i in range(16)] + ["wait #1 j1.work x1 order"],
    ),
    "a card is never shared between tenants": (
        [a_node("n1", cpus=8, cards=1)],
        [
            a_job(1, a_step(resources={"card_milli": 300}), tenant="a"),
            a_job(2, a_step(resources={"card_milli": 300}), tenant="b"),
        ],
        ["start j1.work.0.a1 on n1[0:300]", "reserve j2.work on n1 at 603700", "wait #1 j2.work x1 order"],
    ),
    "a gang takes as few nodes as possible": (
        [a_node("n1", cpus=4, cards=2), a_node("n2", cpus=8, cards=4), a_node("n3", cpus=4, cards=1)],
        [a_job(1, a_step(ranks=5, cards=1))],
        ["start j1.work.0.a1 on n2[0] n2[1] n2[2] n2[3] n3[0]"],
    ),
    "a gang starts whole or not at all": (
        [a_node("n1", cpus=4, cards=2), a_node("n2", cpus=4, cards=2)],
        [a_job(1, a_step(cards=1), priority=90), a_job(2, a_step(ranks=4, cards=1))],
        ["start j1.work.0.a1 on n1[0]", "reserve j2.work on n1 n2 at 603700", "wait #1 j2.work x1 order"],
    ),
    "priority first, then age, within a queue": (
        [a_node("n1", cpus=1)],
        [a_job(1), a_job(2, priority=60), a_job(3, priority=60)],
        ["start j2.work.0.a1 on n1", "wait #1 j3.work x1 order", "wait #2 j1.work x1 order"],
    ),
    "two equal queues alternate": (
        [a_node("n1", cpus=4)],
        [a_job(1, a_step(count=10), queue="a"), a_job(2, a_step(count=10), queue="b")],
        [
            "start j1.work.0.a1 on n1",
            "start j2.work.0.a1 on n1",
            "start j1.work.1.a1 on n1",
            "start j2.work.1.a1 on n1",
            "wait #1 j1.work x8 order",
            "wait #2 j2.work x8 order",
        ],
    ),
    "small work passes a job that does not fit now": (
        [a_node("n1", cpus=4)],
        [a_job(1, a_step(cpus=3)), a_job(2, a_step(cpus=2)), a_job(3, a_step(cpus=1))],
        [
            "start j1.work.0.a1 on n1",
            "start j3.work.0.a1 on n1",
            "reserve j2.work on n1 at 603700",
            "wait #1 j2.work x1 order",
        ],
    ),
    "what can never run says so": (
        [a_node("n1", cpus=4, cards=8), a_node("n2", cpus=16)],
        [
            a_job(1, a_step(cards=9)),
            a_job(2, a_step(cards=1, resources={"card_models": ("L4",)})),
            a_job(3, a_step(cards=1, resources={"card_memory_mib": 200_000})),
            a_job(4, a_step(cards=1, resources={"features": ("nvenc:av1",)})),
            a_job(5, a_step(cpus=17)),
            a_job(6, a_step(resources={"labels": (("rack", "r1"),)})),
            a_job(7, a_step(ranks=3, cards=3)),
        ],
        [
            "wait #1 j1.work x1 never_fits:card",
            "wait #2 j2.work x1 never_fits:card_model",
            "wait #3 j3.work x1 never_fits:card_memory",
            "wait #4 j4.work x1 never_fits:feature",
            "wait #5 j5.work x1 never_fits:cpu",
            "wait #6 j6.work x1 never_fits:label",
            "wait #7 j7.work x1 never_fits:ranks",
        ],
    ),
    "a cordoned node is a matter of health": (
        [a_node("n1", cpus=4, state=NodeState.CORDONED, state_reason="new fan"), a_node("n2", cpus=1)],
        [a_job(1, a_step(cpus=2))],
        ["wait #1 j1.work x1 health:node"],
    ),
    "lanes, taints and labels bind": (
        [
            a_node("training", lane=Lane.JOB),
            a_node("hot", taints=("hot",)),
            a_node("here", cpus=1, lane=Lane.POOL, labels=(("rack", "r1"),)),
        ],
        [
            a_job(1, a_step(lane="job")),
            a_job(2, a_step(resources={"tolerations": ("hot",), "cpu_milli": 2_000})),
            a_job(3, a_step(resources={"labels": (("rack", "r1"),)})),
        ],
        ["start j1.work.0.a1 on training", "start j2.work.0.a1 on hot", "start j3.work.0.a1 on here"],
    ),
    "a MIG profile is met by an instance, and its card is not leased whole": (
        [a_node("n1", devices=(*a_node("n1", cards=1).devices, a_mig("n1", 0, 0)))],
        [a_job(1, a_step(cards=1)), a_job(2, a_step(cards=1, resources={"mig_profile": "1g.10gb"}))],
        ["start j2.work.0.a1 on n1[MIG-n1-0-0]", "wait #1 j1.work x1 never_fits:card"],
    ),
    "steps wait for what they need": (
        [a_node("n1")],
        [a_job(1, a_step("render", 2), a_step("encode", needs=("render",))), a_job(2, after=("j1",))],
        [
            "start j1.render.0.a1 on n1",
            "start j1.render.1.a1 on n1",
            "wait #0 j1.encode x1 dependency:render",
            "wait #0 j2.work x1 dependency:j1",
        ],
    ),
    "max_parallel bounds a step": (
        [a_node("n1")],
        [a_job(1, a_step(count=5, max_parallel=1))],
        ["start j1.work.0.a1 on n1", "wait #1 j1.work x4 parallel_limit"],
    ),
    "a chunk the user set is one lease": (
        [a_node("n1")],
        [a_job(1, a_step(count=5, chunk=3))],
        ["start j1.work.0.a1+2 on n1", "start j1.work.3.a1+1 on n1"],
    ),
    "an empty park says that no node has joined": ([], [a_job(1)], ["wait #1 j1.work x1 never_fits:node"]),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_plan(name):
    nodes, jobs, expected = SCENARIOS[name]
    park = Park(*nodes, queues=TWO_QUEUES)
    park.submit(*jobs)
    assert lines(park.plan()) == expected


def test_capacity_names_what_is_short():
    park = Park(a_node("n1", cpus=4, cards=2), a_node("n2", cpus=2))
    park.submit(a_job(1, a_step(cards=2, cpus=4)), a_job(2, a_step(cpus=2)))
    park.cycle()
    park.submit(a_job(3, a_step(cards=1)), a_job(4))
    assert lines(park.plan())[-2:] == ["wait #1 j3.work x1 capacity:card", "wait #2 j4.work x1 capacity:cpu"]
    messages = [wait.reasons[0].message for wait in park.plan().waits]
    assert messages == [
        "needs 1 card; n1 comes nearest and has 0 of 2 free: others hold the rest",
        "needs 1 vCPU; n1 comes nearest and has 0 of 4 free (2 nodes short of it): others hold the rest",
    ]


def test_a_retried_gang_moves_to_where_it_fits():
    park = Park(a_node("n1", cards=2), a_node("n2", cards=2))
    park.submit(a_job(1, a_step(ranks=2, cards=2)))
    assert lines(park.cycle()) == ["start j1.work.0.a1 on n1[0,1] n2[0,1]"]
    park.lose("n2")
    assert lines(park.cycle()) == ["wait #1 j1.work x1 health:node"]
    park.see(a_node("n3", cards=2))
    assert lines(park.cycle()) == ["start j1.work.0.a2 on n1[0,1] n3[0,1]"]


def test_cards_that_strangers_hold_are_nobodys_to_bring_back():
    """Two cards of four are theirs: a job of three waits for them, a job of two for the quarantined one."""
    healths = (Health.EXTERNAL, Health.EXTERNAL, Health.QUARANTINED, Health.OK)
    cards = tuple(
        replace(device, health=health, health_reason="held by default/jupyter" if health is Health.EXTERNAL else "")
        for device, health in zip(a_node("n1", cards=4).devices, healths, strict=True)
    )
    park = Park(a_node("n1", devices=cards))
    park.submit(a_job(1, a_step(cards=3)), a_job(2, a_step(cards=2)))
    three, two = (wait.reasons[0] for wait in park.plan().waits)
    assert (three.kind.value, three.resource) == ("capacity", "external")
    assert three.message == "2 of 4 cards of node n1 are held by something else than shisuan (held by default/jupyter)"
    assert two.kind.value == "health"
    said = "1 of 4 cards of node n1, where it would fit, are quarantined, and 2 held by something else than shisuan"
    assert two.message == said
    heal = [c for c in park.engine.changes("j2", "work", park.now_ms, park.policy) if c.kind is ChangeKind.HEAL]
    assert [change.names for change in heal] == [("n1/GPU-n1-2",)]
    assert not [c for c in park.engine.changes("j1", "work", park.now_ms, park.policy) if c.kind is ChangeKind.HEAL]


def test_a_node_of_strangers_beside_one_with_a_quarantined_card_is_called_what_it_is():
    """The quarantined card alone would be enough; nobody says that the other one is quarantined."""
    cards = [
        replace(a_node(name, cards=1).devices[0], health=health, health_reason=why)
        for name, health, why in (
            ("n1", Health.EXTERNAL, "held by default/jupyter"),
            ("n2", Health.QUARANTINED, "Xid 79"),
        )
    ]
    park = Park(*(a_node(f"n{at}", devices=(card,)) for at, card in enumerate(cards, start=1)))
    park.submit(a_job(1, a_step(cards=1)))
    ((wait,),) = (park.plan().waits,)
    assert [(reason.kind.value, reason.resource, reason.message) for reason in wait.reasons] == [
        (
            "capacity",
            "external",
            "1 of 1 cards of node n1, where it would fit, are held by something else than shisuan "
            "(held by default/jupyter)",
        ),
        ("health", "card", "1 of 1 cards of node n2, where it would fit, are quarantined (Xid 79)"),
    ]
