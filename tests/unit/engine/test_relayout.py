"""Whole nodes that a plan puts into another of their named layouts for who waits."""

from collections import Counter
from dataclasses import replace

import pytest

from scheduler.model.catalogue import nominal_mib
from scheduler.model.layout import CUTTING, laid_out, settled
from scheduler.model.node import CardCut, Device, Health, Node, NodeLayout, NodeState
from scheduler.model.plan import ChangeKind, GiveUpRecut, Reserve
from scheduler.model.policy import Backfill, Policy
from scheduler.placement.view import totals
from tests.builders import Park, a_job, a_node, a_step
from tests.unit.engine.test_recut import HOUR, asks, is_the_same_afresh, recuts, started

MODEL = "H100-SXM-80GB"
EVERY_MS = 600_000
POLICY = Policy(recut_every_ms=EVERY_MS)
LAYOUTS = (
    NodeLayout(name="all-1g", profiles=(("1g.10gb", 14),), cards=2),
    NodeLayout(name="all-disabled", profiles=(("", 2),), cards=2),
    NodeLayout(name="one-3g", profiles=(("", 1), ("3g.40gb", 2)), cards=2),
)


def slot(number: int, node: str = "n1", **fields: object) -> Device:
    """A card that is counted and not named."""
    fields = {"model": MODEL, "memory_mib": nominal_mib(MODEL), "index": number, "only_whole": True} | fields
    return Device(id=f"slot:{node}:nvidia.com/gpu:{number}", **fields)


def whole(name: str = "n1", **fields: object) -> Node:
    fields = {"layouts": LAYOUTS, "layout": "all-disabled", "devices": (slot(0, name), slot(1, name))} | fields
    return a_node(name, cpus=64, memory_mib=262_144, **fields)


def a_park(*nodes: Node, policy: Policy = POLICY):
    park = Park(*nodes)
    park.policy = policy
    return park


def cards(number: int, count: int = 1, *, each: int = 1, **step: object):
    """A job that asks for whole cards."""
    return a_job(number, a_step(count=count, resources={"cards": each}, **{"run_ms_expected": HOUR} | step))


def done(park, name: str, layout: str) -> None:
    """The node reports itself as it was to be."""
    seen = laid_out(replace(park.engine.node(name), cuts=()), layout)
    park.see(seen)


def profiles(park, name: str = "n1") -> Counter:
    return Counter(device.profile for device in park.engine.node(name).devices)


def test_an_idle_node_is_put_into_the_cheapest_layout_that_has_room_and_the_job_starts_there():
    park = a_park(whole())
    park.submit(asks(1, "3g.40gb"))
    (change,) = recuts(park.cycle())
    assert (change.node, change.card, change.layout, change.name) == ("n1", "", (), "one-3g")
    assert {d.health_reason for d in park.engine.node("n1").devices} == {CUTTING}
    is_the_same_afresh(park)
    assert park.cycle().actions == (), "it is under way"
    park.wait(90_000)
    done(park, "n1", "one-3g")
    (cut,) = park.engine.node("n1").cuts
    assert (cut.name, cut.ended_ms - cut.since_ms, cut.problem) == ("one-3g", 90_000, "")
    (device,) = started(park.cycle())
    assert "3g.40gb" in device
    is_the_same_afresh(park)


def test_many_tasks_are_worth_the_layout_that_has_room_for_all_of_them():
    park = a_park(whole())
    park.submit(asks(1, "1g.10gb", count=14))
    assert [change.name for change in recuts(park.cycle())] == ["all-1g"]
    assert recuts(park.cycle()) == [], "what is coming is enough"


def busy_park(**policy: object):
    """Two nodes of two cards, all held: n1 for one hour more, n2 for three."""
    park = a_park(whole("n1"), whole("n2"), policy=replace(POLICY, **policy))
    park.submit(cards(1, each=2), cards(2, each=2, run_ms_expected=3 * HOUR))
    assert len(started(park.cycle())) == 4
    for attempt in ("j1.work.0.a1", "j2.work.0.a1"):
        park.start(attempt)
    return park, {r.lease.job_id: r.lease.allocations[0].node for r in park.engine.leases()}


def test_who_is_next_has_the_node_drained_that_is_empty_first_and_it_is_cut_when_nobody_is_there():
    park, held = busy_park()
    park.submit(asks(3, "3g.40gb", count=4))
    plan = park.cycle()
    assert recuts(plan) == [], "both are held"
    (kept,) = (action for action in plan.actions if isinstance(action, Reserve))
    assert (kept.job_id, kept.nodes, kept.start_ms) == ("j3", (held["j1"],), park.now_ms + HOUR)
    park.submit(cards(4, run_ms_expected=HOUR), cards(5, run_ms_expected=1_000))
    is_the_same_afresh(park)
    park.wait(HOUR)
    park.end("j1.work.0.a1")
    plan = park.cycle()
    assert [(change.node, change.name, change.for_job) for change in recuts(plan)] == [(held["j1"], "one-3g", "j3")]
    assert started(plan) == [], "it is not given to those behind"
    is_the_same_afresh(park)


def test_a_node_that_drains_takes_what_ends_before():
    park = a_park(whole("n1"))
    park.submit(cards(1))
    assert len(started(park.cycle())) == 1
    park.submit(asks(2, "3g.40gb"), cards(3, run_ms_expected=2 * HOUR), cards(4, run_ms_expected=HOUR // 2))
    plan = park.cycle()
    assert [lease.job_id for lease in (r.lease for r in park.engine.leases())] == ["j1", "j4"]
    assert recuts(plan) == []
    (reason,) = next(wait for wait in park.plan().waits if wait.job_id == "j2").reasons
    assert "node n1 is to be put into layout one-3g, which has MIG profile 3g.40gb, when it is empty" in reason.message


def test_nobody_drains_a_node_where_the_policy_promises_nothing():
    park, _ = busy_park(backfill=Backfill.ANY)
    park.submit(asks(3, "3g.40gb"))
    assert [a for a in park.cycle().actions if isinstance(a, Reserve)] == []


@pytest.mark.parametrize(
    "node",
    [
        whole(devices=(slot(0), slot(1, health=Health.EXTERNAL))),
        whole(devices=(slot(0), slot(1, health=Health.QUARANTINED))),
        whole(state=NodeState.CORDONED),
        whole(devices=(slot(0, model="unknown"), slot(1, model="unknown"))),
        whole(layouts=()),
        whole(layouts=LAYOUTS[1:2]),
    ],
    ids=["stranger", "sick", "cordoned", "unknown", "none", "no-such-profile"],
)
def test_a_node_is_not_cut_that_is_not_sound_and_free(node):
    park = a_park(node)
    park.submit(asks(1, "1g.10gb", count=14))
    assert recuts(park.cycle()) == []


@pytest.mark.parametrize(("policy", "step"), [(Policy(), {}), (POLICY, {"run_ms_expected": 120_000})])
def test_without_a_rule_or_for_little_work_nothing_is_cut(policy, step):
    """Two cards stand still for two minutes; a slice of one of them has to work for an hour to be worth it."""
    park = a_park(whole(), policy=policy)
    park.submit(asks(1, "1g.10gb", **step))
    assert recuts(park.cycle()) == []


def test_whole_cards_are_had_again_when_who_wants_them_waits():
    park = a_park(laid_out(whole(), "all-1g"))
    park.submit(cards(1, each=2))
    assert [change.name for change in recuts(park.cycle())] == ["all-disabled"]
    done(park, "n1", "all-disabled")
    assert len(started(park.cycle())) == 2


def test_what_a_node_says_of_its_devices_while_it_is_cut_does_not_count():
    park = a_park(whole())
    before = totals(park.engine.nodes())
    park.submit(asks(1, "3g.40gb"))
    assert recuts(park.cycle())
    park.see(whole(devices=(), layout=""))  # its device plugin is stopped
    assert totals(park.engine.nodes()) == before
    park.see(laid_out(whole(), "all-1g"))  # another's word: it is cut, but not so
    assert started(park.cycle()) == []
    assert profiles(park) == {"": 2}
    done(park, "n1", "one-3g")
    assert profiles(park) == {"": 1, "3g.40gb": 2}


def refused(park, since_ms: int) -> None:
    cut = CardCut(name="one-3g", since_ms=since_ms, problem="the driver said no")
    park.see(whole(cuts=(cut,)))


def test_a_node_that_refuses_is_used_as_it_is_and_rests_for_long():
    park = a_park(whole())
    park.submit(asks(1, "3g.40gb"))
    assert recuts(park.cycle())
    (begun,) = park.engine.node("n1").cuts
    park.wait(30_000)
    refused(park, begun.since_ms)
    (ended,) = park.engine.node("n1").cuts
    assert (ended.problem, ended.ended_ms) == ("the driver said no", park.now_ms)
    assert [d.health for d in park.engine.node("n1").devices] == [Health.OK] * 2
    plan = park.cycle()
    assert recuts(plan) == []
    assert plan.wake_ms == park.now_ms + 8 * EVERY_MS
    park.submit(cards(2))
    assert len(started(park.cycle())) == 1
    is_the_same_afresh(park)


def test_what_was_refused_once_does_not_end_the_next_try():
    park = a_park(whole())
    park.submit(asks(1, "3g.40gb"))
    assert recuts(park.cycle())
    (first,) = park.engine.node("n1").cuts
    refused(park, first.since_ms)
    park.wait(8 * EVERY_MS + 1)
    assert recuts(park.cycle()), "it has rested"
    refused(park, first.since_ms)  # the node says still what it said of the first
    (second,) = park.engine.node("n1").cuts
    assert (second.ended_ms, second.since_ms) == (0, park.now_ms)
    refused(park, second.since_ms)
    assert park.engine.node("n1").cuts[0].problem


def test_a_cut_that_is_not_confirmed_is_given_up_and_the_node_waits_for_its_next_word():
    park = a_park(whole())
    park.submit(asks(1, "3g.40gb"))
    assert recuts(park.cycle())
    plan = park.cycle()
    assert plan.wake_ms == park.now_ms + POLICY.relayout_limit_ms
    park.now_ms = plan.wake_ms
    (given_up,) = (action for action in park.cycle().actions if isinstance(action, GiveUpRecut))
    assert (given_up.card, "did not confirm" in given_up.reason) == ("", True)
    is_the_same_afresh(park)
    assert {d.health for d in park.engine.node("n1").devices} == {Health.QUARANTINED}
    park.see(whole())
    assert {d.health for d in park.engine.node("n1").devices} == {Health.OK}


def test_who_waits_is_told_of_it_and_of_what_would_help():
    park = a_park(whole(), policy=Policy())
    park.submit(asks(1, "1g.10gb", count=14))
    park.cycle()
    (change,) = (c for c in park.engine.changes("j1", "work", park.now_ms, park.policy) if c.kind is ChangeKind.RECUT)
    assert (change.target, change.names, change.message) == ("n1", ("all-1g",), "put node n1 into layout all-1g")
    park.policy = POLICY
    (reason,) = park.plan().waits[0].reasons
    assert (reason.resource, "is to be put into layout all-1g" in reason.message) == ("recut", True)
    park.cycle()
    (reason,) = park.plan().waits[0].reasons
    assert (reason.resource, "is being put into layout all-1g" in reason.message) == ("recut", True)


def test_a_job_is_possible_where_a_node_can_be_put_into_a_layout_for_it():
    park = a_park(whole())
    small, strange = asks(1, "1g.10gb"), asks(1, "4g.40gb")
    assert park.engine.impossible(small)
    assert not park.engine.impossible(small, recut=True)
    assert park.engine.impossible(strange, recut=True)


def test_a_node_that_is_put_into_a_layout_without_a_record_of_before_takes_no_work():
    cut = CardCut(name="one-3g", since_ms=5)
    assert {d.health for d in settled(None, whole(cuts=(cut,)), 6).devices} == {Health.QUARANTINED}
