"""Starts that were promised are recorded where several are promised at a time, and later plans keep them."""

from __future__ import annotations

import pytest

from scheduler.engine import Engine
from scheduler.model.codec import dumps, loads
from scheduler.model.errors import NotFound
from scheduler.model.event import Event, JobCancelled, JobSubmitted, StartsPromised
from scheduler.model.job import JobRecord, KeptStart
from scheduler.model.plan import KeepStarts, Reserve
from scheduler.model.policy import Backfill, Policy
from scheduler.model.snapshot import Snapshot
from tests.builders import FEATURES, Park, a_job, a_node, a_step, started

S = 1_000
CONSERVATIVE = Policy(backfill=Backfill.CONSERVATIVE)
START = KeptStart(start_ms=50 * S, places=(("n1", ("GPU-n1-0",)),))


def known(seconds: int, **changes: object):
    return a_step(cards=1, run_ms_expected=seconds * S, timeout_ms=2 * seconds * S, **changes)


def two_promised() -> Park:
    """One card each on a small and a large node, held until 100 and 1,000 s. j3 may run on either and is promised the
    small one, j4 needs the large one.
    """
    park = Park(a_node("n1", cards=1, cpus=2), a_node("n2", cards=1, cpus=8))
    park.policy = CONSERVATIVE
    park.submit(a_job(1, known(1_000, cpus=8)), a_job(2, known(100)))
    park.cycle()
    for attempt in park.open_attempts():
        park.start(attempt)
    park.wait(1)
    park.submit(a_job(3, known(5_000)), a_job(4, known(50, cpus=8)))
    park.cycle()
    return park


def reserved(park: Park) -> dict[str, tuple[tuple[str, ...], int]]:
    return {a.job_id: (a.nodes, a.start_ms) for a in park.plan().actions if isinstance(a, Reserve)}


def test_an_early_end_does_not_move_who_is_ahead_into_the_way_of_who_comes_behind():
    park = two_promised()
    before = reserved(park)
    assert [nodes for nodes, _ in before.values()] == [("n1",), ("n2",)]
    park.wait(10 * S)
    park.end("j1.work.0.a1")
    assert started(park.plan()) == {"j4.work.0.a1": "n2"}, "what became free is nobody's but its own"
    assert reserved(park)["j3"][1] <= before["j3"][1]


def test_without_the_record_it_would():
    park = two_promised()
    park.tell(StartsPromised(at_ms=park.now_ms, starts=()))
    park.wait(10 * S)
    park.end("j1.work.0.a1")
    assert started(park.plan()) == {"j3.work.0.a1": "n2"}


def test_what_is_promised_is_recorded_once_and_forgotten_with_the_start():
    park = two_promised()
    promised = {job: park.job(job).steps[0].promised for job in ("j3", "j4")}
    assert {job: (kept.places[0][0], kept.start_ms) for job, kept in promised.items()} == {
        job: (nodes[0], start_ms) for job, (nodes, start_ms) in reserved(park).items()
    }
    assert not [a for a in park.plan().actions if isinstance(a, KeepStarts)], "it is said once"
    park.wait(10 * S)
    park.end("j2.work.0.a1")
    park.cycle()
    assert park.job("j3").steps[0].promised is None
    park.tell(JobCancelled(at_ms=park.now_ms, job_id="j4", by="owner"))
    park.cycle()
    assert park.job("j4").steps[0].promised is None
    assert not park.engine._state.promised


def test_with_one_promise_nothing_is_recorded_and_a_changed_policy_forgets():
    park = two_promised()
    park.policy = Policy(backfill=Backfill.EASY)
    park.cycle()
    assert [park.job(job).steps[0].promised for job in ("j3", "j4")] == [None, None]
    assert not [event for event in park.journal[-1:] if isinstance(event, StartsPromised) and event.starts]
    park.wait(1)
    length = len(park.journal)
    park.cycle()
    assert len(park.journal) == length


def test_a_full_plan_forgets_nobody_it_did_not_come_to():
    park = two_promised()
    before = {job: park.job(job).steps[0].promised for job in ("j3", "j4")}
    park.policy = Policy(backfill=Backfill.CONSERVATIVE, starts_per_cycle=1)
    park.submit(a_job(5, a_step(resources={"cpu_milli": 100}), priority=60))
    plan = park.cycle()
    assert len(started(plan)) == 1
    assert {job: park.job(job).steps[0].promised for job in ("j3", "j4")} == before


def test_the_fact_replaces_what_was_promised_and_does_so_twice_without_harm():
    park = Park(a_node("n1", cards=1))
    park.submit(a_job(1), a_job(2))
    first = StartsPromised(at_ms=park.now_ms, starts=(("j1", "work", START),))
    park.tell(first, first)
    assert park.job("j1").steps[0].promised == START
    park.tell(StartsPromised(at_ms=park.now_ms, starts=(("j2", "work", START),)))
    assert [park.job(job).steps[0].promised for job in ("j1", "j2")] == [None, START]
    again = Engine.from_snapshot(Snapshot(), features=FEATURES)
    for event in park.journal:
        again.apply(event)
    assert again.snapshot() == park.engine.snapshot()
    fresh = Engine.from_snapshot(park.engine.snapshot(), features=FEATURES)
    assert fresh._state.promised == park.engine._state.promised == {"j2"}


@pytest.mark.parametrize("start", [("j9", "work", START), ("j1", "other", START)])
def test_a_fact_about_nobody_is_refused_and_changes_nothing(start):
    park = Park(a_node("n1", cards=1))
    park.submit(a_job(1))
    park.tell(StartsPromised(at_ms=park.now_ms, starts=(("j1", "work", START),)))
    before = park.engine.snapshot()
    with pytest.raises(NotFound):
        park.engine.apply(StartsPromised(at_ms=park.now_ms, starts=(("j1", "work", START), start)))
    assert park.engine.snapshot() == before


def test_records_and_facts_from_before_are_read():
    park = Park(a_node("n1", cards=1))
    park.submit(a_job(1))
    text = dumps(park.job("j1"))
    assert "promised" not in text
    assert loads(JobRecord, text).steps[0].promised is None
    fact: Event = StartsPromised(at_ms=5, starts=(("j1", "work", START),))
    assert loads(StartsPromised, dumps(fact)) == fact
    assert isinstance(park.journal[-1], JobSubmitted)
