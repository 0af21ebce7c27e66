"""Promised deadlines as tables of plan lines: what is kept, for whom, around what; and a no that says what would do."""

from __future__ import annotations

from dataclasses import replace

from scheduler.model.plan import ChangeKind
from scheduler.model.queue import Queue
from tests.builders import Park, a_job, a_node, a_step, lines

SECOND = 1_000
MINUTE = 60 * SECOND
DEFAULT = (Queue(name="default"),)


def a_known(seconds: int = 60, **changes: object):
    """A step whose owner says how long it takes, and has always been right."""
    return a_step("work", run_ms_expected=seconds * SECOND, **changes)


def busy(*, cards: int = 2, seconds: int = 1_000, queues: tuple[Queue, ...] = DEFAULT) -> Park:
    """A park of one node, all of it held, by an owner whose word is good."""
    park = Park(a_node("n1", cards=cards, cpus=16), queues=queues)
    for number in range(1, 9):
        park.submit(a_job(number, a_known(seconds, cards=cards), queue=queues[0].name))
        park.cycle()
        if number < 8:
            park.run(park.open_attempts()[0], ms=seconds * SECOND)
    park.start(park.open_attempts()[0])
    return park


def ask(park: Park, number: int, seconds: int, by_seconds: int, **changes: object):
    queue = changes.pop("queue", "default")
    job = a_job(number, a_known(seconds, **changes), deadline_ms=park.now_ms + by_seconds * SECOND, queue=queue)
    return job, park.engine.admit(job, park.now_ms, park.policy, changes=True)


def promise(park: Park, number: int, seconds: int, by_seconds: int, **changes: object):
    job, found = ask(park, number, seconds, by_seconds, **changes)
    assert found.slot is not None
    park.submit(park.engine.promised(job, park.now_ms, park.policy))
    return park.job(f"j{number}").job.slot


def test_a_slot_is_kept_from_what_comes_later_and_starts_in_time():
    park = busy()
    slot = promise(park, 9, 600, 2_400, cards=2)
    assert slot.nodes == ("n1",)
    park.submit(a_job(10, a_known(2_000, cards=1), priority=99), a_job(11, a_known(300, cards=1)))
    assert [line for line in lines(park.plan()) if line.startswith("start")] == []
    assert "wait #2 j9.work x1 reservation:j9" in lines(park.plan())
    park.wait(slot.start_ms - park.now_ms)
    park.end("j8.work.0.a1")
    assert lines(park.cycle())[0] == "start j9.work.0.a1 on n1[0,1]"


def test_what_ends_before_a_slot_begins_uses_its_cards():
    park = busy(cards=4)
    park.submit(a_job(9, a_known(100, cards=1)))
    promise(park, 10, 600, 4_000, cards=4)
    park.end("j8.work.0.a1")
    started = [line for line in lines(park.cycle()) if line.startswith("start")]
    assert started[0].startswith("start j9.work.0.a1")


def test_a_no_names_changes_that_each_make_it_a_yes():
    park = busy(cards=4)
    park.see(a_node("n2", cards=4, cpus=16, model="L4"))
    job, found = ask(park, 9, 600, 700, cards=4, resources={"card_models": ("H100",)})
    assert found.slot is None
    assert found.reason == ""
    by_kind = {change.kind: change for change in found.changes}
    assert by_kind.keys() == {ChangeKind.DEADLINE, ChangeKind.OTHER_CARD, ChangeKind.ADD_NODES}
    later = replace(job, deadline_ms=by_kind[ChangeKind.DEADLINE].amount)
    assert park.engine.admit(later, park.now_ms, park.policy).slot is not None
    sooner = replace(job, deadline_ms=by_kind[ChangeKind.DEADLINE].amount - 2 * MINUTE)
    assert park.engine.admit(sooner, park.now_ms, park.policy).slot is None
    step = job.steps[0]
    wider = replace(step.resources, card_models=("H100", by_kind[ChangeKind.OTHER_CARD].target))
    other = replace(job, steps=(replace(step, resources=wider),))
    assert park.engine.admit(other, park.now_ms, park.policy).slot is not None
    assert by_kind[ChangeKind.ADD_NODES].target == "n1"
    park.see(a_node("n3", cards=4, cpus=16))
    assert park.engine.admit(job, park.now_ms, park.policy).slot is not None


def test_a_slot_moves_when_its_node_is_lost():
    park = Park(a_node("n1", cards=2, cpus=16), a_node("n2", cards=2, cpus=16))
    park.submit(a_job(1, a_known(600, cards=2)), a_job(2, a_known(600, cards=2)))
    park.cycle()
    slot = promise(park, 3, 600, 6_000, cards=2)
    other = {"n1": "n2", "n2": "n1"}[slot.nodes[0]]
    park.lose(slot.nodes[0])
    assert any(line.startswith(f"reserve j3.work on {other} at ") for line in lines(park.plan()))


def test_what_runs_in_its_slot_is_nobodys_victim():
    queues = (Queue(name="ai"), Queue(name="film", guaranteed=(0, 0, 2_000, 0)))
    park = Park(a_node("n1", cards=2, cpus=16), queues=queues)
    promise(park, 1, 600, 6_000, cards=2, queue="ai")
    park.cycle()
    park.wait(10 * SECOND)
    park.submit(a_job(2, a_known(600, cards=2), queue="film"), a_job(3, a_known(600, cards=2), queue="ai", priority=99))
    assert not [line for line in lines(park.plan()) if line.startswith("preempt")]


def test_a_limit_counts_a_slot_for_who_would_still_run_then():
    queues = (Queue(name="ai", limit=(-1, -1, 3_000, -1)),)
    park = busy(cards=2, queues=queues)
    park.see(a_node("n2", cards=2, cpus=16))
    slot = promise(park, 9, 600, 4_000, cards=2, queue="ai")
    assert slot.start_ms > park.now_ms, "the limit leaves no room for it until then, though n2 is free"
    park.submit(a_job(10, a_known(3_000, cards=1), queue="ai"), a_job(11, a_known(100, cards=1), queue="ai"))
    told = lines(park.plan())
    assert [line for line in told if line.startswith("start")] == ["start j11.work.0.a1 on n2[0]"]
    assert "wait #2 j10.work x1 quota:ai" in told


def test_who_can_have_no_slot_is_told_why():
    park = Park(a_node("n1", cards=2, cpus=16))
    job = a_job(1, a_known(count=2, ranks=2), deadline_ms=park.now_ms + 10 * MINUTE)
    found = park.engine.admit(job, park.now_ms, park.policy, changes=True)
    assert (found.is_yes, found.changes) == (False, ())
    assert "not for several gangs" in found.reason


def test_failures_and_what_must_end_before_lower_the_probability():
    park = busy()
    _, early = ask(park, 9, 600, 5_000, cards=2)
    park.policy = replace(park.policy, node_mtbf_ms=0)
    _, sure = ask(park, 9, 600, 5_000, cards=2)
    park.policy = replace(park.policy, node_mtbf_ms=4 * 3_600_000)
    _, weak = ask(park, 9, 600, 5_000, cards=2)
    assert weak.permille < early.permille < sure.permille == 1_000


def test_a_fresh_engine_keeps_the_same_slots():
    park = busy()
    promise(park, 9, 600, 2_400, cards=2)
    park.submit(a_job(10, a_known(2_000, cards=1)))
    fresh = park.engine.from_snapshot(park.engine.snapshot())
    assert fresh.plan(park.now_ms, park.policy) == park.plan()
