"""Cards that a plan cuts into other MIG instances for who waits."""

from dataclasses import replace

import pytest

from scheduler.engine import Engine
from scheduler.model import codec
from scheduler.model.event import NodeSeen
from scheduler.model.layout import CUTTING, after_cut, layout_of
from scheduler.model.node import Device, Health, MigPlace, Node
from scheduler.model.plan import ChangeKind, GiveUpRecut, Recut, Start
from scheduler.model.policy import Policy
from scheduler.model.snapshot import Snapshot
from tests.builders import Park, a_job, a_node, a_step

MODEL = "H100-SXM-80GB"
EVERY_MS = 600_000
POLICY = Policy(recut_every_ms=EVERY_MS)
HOUR = 3_600_000


def bare(card: str = "GPU-1") -> Device:
    return Device(
        id=card, model=MODEL, memory_mib=81_559, mig_on=True, health=Health.QUARANTINED, health_reason="not cut"
    )


def cut(*places: tuple[int, str], card: str = "GPU-1") -> tuple[Device, ...]:
    """The devices of a card that is cut so."""
    return after_cut((bare(card),), card, tuple(MigPlace(start=at, profile=name) for at, name in sorted(places)))


def a_park(*devices: Device, policy: Policy = POLICY, **node: object) -> Park:
    park = Park(a_node(cpus=64, memory_mib=262_144, devices=devices, **node))
    park.policy = policy
    return park


def asks(number: int, profile: str, count: int = 1, instances: int = 1, **step: object):
    resources = {"cards": instances, "mig_profile": profile}
    return a_job(number, a_step(count=count, resources=resources, **{"run_ms_expected": HOUR} | step))


def done(park: Park, change: Recut) -> None:
    """The node reports the card as it was to be."""
    node = park.engine.node(change.node)
    fresh = tuple(replace(d, health=Health.OK, health_reason="") for d in node.devices)
    devices = after_cut(fresh, change.card, change.layout)
    park.see(Node(name=node.name, cpu_milli=node.cpu_milli, memory_mib=node.memory_mib, devices=devices))


def recuts(plan) -> list[Recut]:
    return [action for action in plan.actions if isinstance(action, Recut)]


def started(plan) -> list[str]:
    return [d for a in plan.actions if isinstance(a, Start) for held in a.lease.allocations for d in held.devices]


def is_the_same_afresh(park: Park) -> None:
    """The engine that lived, one from its snapshot and one from its journal plan the same."""
    journal = codec.decode(
        tuple[NodeSeen, ...], codec.encode(tuple(e for e in park.journal if isinstance(e, NodeSeen)))
    )
    assert journal == tuple(e for e in park.journal if isinstance(e, NodeSeen))
    fresh = Engine.from_snapshot(park.engine.snapshot())
    replayed = Engine.from_snapshot(Snapshot())
    for event in park.journal:
        replayed.apply(event)
    plans = [engine.plan(park.now_ms, park.policy) for engine in (park.engine, fresh, replayed)]
    assert plans[0] == plans[1] == plans[2]


def test_the_cheapest_cut_makes_room_and_the_job_starts_on_what_the_node_reports():
    park = a_park(*cut((0, "4g.40gb"), (4, "2g.20gb"), (6, "1g.10gb")))
    park.submit(asks(1, "1g.20gb"))
    (change,) = recuts(park.cycle())
    kept = (MigPlace(start=0, profile="4g.40gb"), MigPlace(start=4, profile="2g.20gb"))
    assert change.layout == (*kept, MigPlace(start=6, profile="1g.20gb"))
    is_the_same_afresh(park)
    assert park.cycle().actions == (), "it is under way"
    is_the_same_afresh(park)
    park.wait(9_000)
    done(park, change)
    (ended,) = park.engine.node("n1").cuts
    assert (ended.ended_ms - ended.since_ms, ended.problem) == (9_000, "")
    (device,) = started(park.cycle())
    assert "1g.20gb" in device
    is_the_same_afresh(park)


def test_what_goes_takes_no_work_and_what_stays_does():
    park = a_park(*cut((0, "3g.40gb"), (4, "3g.40gb")))
    park.submit(asks(1, "1g.20gb"))
    assert recuts(park.cycle())
    sick = [d for d in park.engine.node("n1").devices if d.health_reason == CUTTING]
    assert [d.profile for d in sick] == ["3g.40gb"]
    park.submit(asks(2, "3g.40gb", count=2))
    (held,) = started(park.cycle())
    assert held not in {d.id for d in sick}
    park.see(a_node(cpus=64, memory_mib=262_144, devices=cut((0, "3g.40gb"), (4, "3g.40gb"))))  # as before the cut
    assert started(park.cycle()) == [], "the node's own word does not bring back what goes"
    assert {d.id for d in park.engine.node("n1").devices if d.health_reason == CUTTING} == {d.id for d in sick}


def test_nothing_under_a_lease_goes():
    park = a_park(*cut((0, "7g.80gb")))
    park.submit(asks(1, "7g.80gb"))
    assert started(park.cycle())
    park.submit(asks(2, "1g.10gb"))
    assert recuts(park.cycle()) == []
    (wait,) = park.plan().waits
    assert wait.reasons[0].resource != "recut"
    park.end("j1.work.0.a1")
    assert [c.layout[-1].profile for c in recuts(park.cycle())] == ["1g.10gb"]


@pytest.mark.parametrize(("policy", "step"), [(Policy(), {}), (POLICY, {"run_ms_expected": 5_000})])
def test_without_a_rule_or_for_little_work_nothing_is_cut(policy, step):
    park = a_park(*cut((0, "7g.80gb")), policy=policy)
    park.submit(asks(1, "1g.10gb", **step))
    assert recuts(park.cycle()) == []


def test_one_cut_makes_room_for_all_that_wait_and_gain():
    park = a_park(bare("GPU-1"), bare("GPU-2"))
    park.submit(asks(1, "1g.10gb", count=9))
    changes = recuts(park.cycle())
    assert sorted(len(change.layout) for change in changes) == [2, 7]
    assert recuts(park.cycle()) == [], "what is coming is enough"


def test_instances_of_one_task_are_made_on_one_node_and_what_is_there_counts():
    park = a_park(*cut((0, "7g.80gb")), *cut((0, "1g.10gb"), (1, "3g.40gb"), card="GPU-2")[:1])
    park.submit(asks(1, "1g.10gb", instances=2))
    changes = recuts(park.cycle())
    assert [(c.card, [p.profile for p in c.layout]) for c in changes] == [("GPU-2", ["1g.10gb", "1g.10gb"])]


def test_a_card_rests_after_a_cut():
    park = a_park(*cut((0, "7g.80gb")))
    park.submit(asks(1, "1g.10gb"))
    (change,) = recuts(park.cycle())
    park.wait(5_000)
    done(park, change)
    ended_ms = park.now_ms
    assert started(park.cycle())
    park.submit(asks(2, "7g.80gb"))
    park.end("j1.work.0.a1")
    plan = park.cycle()
    assert recuts(plan) == []
    assert plan.wake_ms == ended_ms + EVERY_MS
    park.now_ms = plan.wake_ms
    (change,) = recuts(park.cycle())
    assert (change.layout, change.cost_ms) == ((MigPlace(start=0, profile="7g.80gb"),), 5_000)


def test_a_cut_that_is_not_confirmed_is_given_up_and_what_was_to_go_waits_for_the_nodes_word():
    park = a_park(*cut((0, "7g.80gb")))
    park.submit(asks(1, "1g.10gb"))
    assert recuts(park.cycle())
    plan = park.cycle()
    assert plan.wake_ms == park.now_ms + POLICY.recut_limit_ms
    park.now_ms = plan.wake_ms
    plan = park.cycle()
    (given_up,) = (action for action in plan.actions if isinstance(action, GiveUpRecut))
    assert "did not confirm" in given_up.reason
    is_the_same_afresh(park)
    (device,) = park.engine.node("n1").devices
    assert device.health is Health.QUARANTINED
    park.see(a_node(cpus=64, memory_mib=262_144, devices=cut((0, "7g.80gb"))))
    (device,) = park.engine.node("n1").devices
    assert device.health is Health.OK
    assert recuts(park.cycle()) == [], "it rests"


def test_a_node_that_refuses_ends_the_cut():
    park = a_park(*cut((0, "7g.80gb")))
    park.submit(asks(1, "1g.10gb"))
    (change,) = recuts(park.cycle())
    (begun,) = park.engine.node("n1").cuts
    park.wait(2_000)
    refused = replace(begun, since_ms=0, problem="in use")
    park.see(a_node(cpus=64, memory_mib=262_144, devices=cut((0, "7g.80gb")), cuts=(refused,)))
    (ended,) = park.engine.node("n1").cuts
    assert (ended.problem, ended.ended_ms, ended.layout) == ("in use", park.now_ms, change.layout)
    assert park.engine.node("n1").devices[0].health is Health.OK


def test_who_waits_is_told_of_the_cut_and_of_one_that_would_help():
    park = a_park(*cut((0, "7g.80gb")), policy=Policy())
    park.submit(asks(1, "1g.10gb"))
    park.cycle()
    (change,) = (c for c in park.engine.changes("j1", "work", park.now_ms, park.policy) if c.kind is ChangeKind.RECUT)
    assert (change.target, change.names) == ("n1", ("GPU-1",))
    assert "1g.10gb" in change.message
    park.policy = POLICY
    (reason,) = park.plan().waits[0].reasons
    assert (reason.resource, "is to be cut" in reason.message) == ("recut", True)
    park.cycle()
    (reason,) = park.plan().waits[0].reasons
    assert (reason.resource, "is being cut" in reason.message) == ("recut", True)


def test_a_job_is_possible_where_a_card_can_be_cut_for_it():
    park = a_park(*cut((0, "7g.80gb")))
    small, strange = asks(1, "1g.10gb"), asks(1, "4g.24gb")
    assert park.engine.impossible(small)
    assert not park.engine.impossible(small, recut=True)
    assert park.engine.impossible(strange, recut=True)


def test_a_card_whose_instances_do_not_say_where_they_lie_is_left_alone():
    (device,) = cut((0, "7g.80gb"))
    park = a_park(replace(device, slice_start=-1))
    park.submit(asks(1, "1g.10gb"))
    assert recuts(park.cycle()) == []
    assert layout_of((replace(device, slice_start=-1),), "GPU-1") is None
