"""Promised films as tables of plan lines: tracks that are kept, around what; and a no that says what would do."""

from __future__ import annotations

from dataclasses import replace

from scheduler.model.job import Step
from scheduler.model.lease import AttemptState
from scheduler.model.plan import ChangeKind, Start
from scheduler.model.queue import Queue
from tests.builders import Park, a_job, a_node, a_step, lines
from tests.scenario.test_deadlines import MINUTE, SECOND, a_known, busy


def promise(park: Park, number: int, by_ms: int, *steps: Step, **changes: object):
    job = a_job(number, *steps, deadline_ms=park.now_ms + by_ms, **changes)
    job = park.engine.promised(job, park.now_ms, park.policy)
    assert job.tracks
    park.submit(job)
    return job.tracks


def starts(park: Park) -> list[str]:
    return [line for line in lines(park.plan()) if line.startswith("start")]


def test_a_film_gets_no_more_places_than_it_needs_and_each_goes_on_when_a_frame_ends():
    park = busy(cards=4)
    park.end("j8.work.0.a1")
    [track] = promise(park, 9, 20 * MINUTE, a_known(60, count=8, cards=1))
    assert (track.copies, track.tasks, track.start_ms) == (1, 8, park.now_ms)
    park.submit(a_job(10, a_known(600, count=6, cards=1), priority=99))
    park.cycle()
    first = [a for a in park.open_attempts() if a.startswith("j9.")]
    assert first == ["j9.work.0.a1"]
    park.submit(a_job(11, a_known(600, count=6, cards=1), priority=99))
    park.run(first[0], ms=60 * SECOND)
    assert starts(park) == ["start j9.work.1.a1 on n1[0]"], "the next frame, not who has a higher priority"


def test_what_is_promised_later_waits_for_the_end_of_a_track_and_not_of_a_frame():
    park = busy(cards=1)
    park.end("j8.work.0.a1")
    [track] = promise(park, 9, 20 * MINUTE, a_known(60, count=8, cards=1))
    park.cycle()
    park.start("j9.work.0.a1")
    later = a_job(10, a_known(60, cards=1), deadline_ms=park.now_ms + 60 * MINUTE)
    found = park.engine.admit(later, park.now_ms, park.policy)
    assert found.slot.start_ms >= track.end_ms


def test_nothing_runs_into_a_track_that_begins_later():
    park = busy(cards=2, seconds=1_000)
    tracks = promise(park, 9, 60 * MINUTE, a_known(60, count=20, cards=2))
    assert min(track.start_ms for track in tracks) > park.now_ms
    park.see(a_node("n2", cards=2, cpus=16))
    park.end("j8.work.0.a1")
    park.submit(a_job(10, a_known(50_000, cards=1), priority=99))
    placed = {a.lease.job_id: a.lease.allocations[0].node for a in park.plan().actions if isinstance(a, Start)}
    assert placed["j10"] == "n2"


def test_steps_have_windows_one_behind_the_other_and_the_later_ones_are_kept_meanwhile():
    park = busy(cards=1)
    park.end("j8.work.0.a1")
    merge = replace(a_known(300, cards=1), name="merge", needs=("work",))
    tracks = promise(park, 9, 60 * MINUTE, a_known(60, count=8, cards=1), merge)
    render, join = [t for t in tracks if t.step == "work"], [t for t in tracks if t.step == "merge"]
    assert max(t.end_ms for t in render) <= min(t.start_ms for t in join)
    park.submit(a_job(10, a_known(3_000, cards=1), priority=99))
    park.cycle()
    for frame in range(8):
        assert [a for a in park.open_attempts() if a.startswith("j9")] == [f"j9.work.{frame}.a1"]
        park.run(f"j9.work.{frame}.a1", ms=60 * SECOND)
        park.cycle()
    assert park.open_attempts() == ["j9.merge.0.a1"], "ahead of its track, because nobody else may have its card"


def test_a_lost_nodes_track_is_laid_anew():
    park = Park(a_node("n1", cards=1, cpus=16), a_node("n2", cards=1, cpus=16))
    step = a_known(60, count=10, cards=1)
    [track] = promise(park, 1, 60 * MINUTE, step)
    other = {"n1": "n2", "n2": "n1"}[track.node]
    park.submit(a_job(2, a_known(900, cards=1), priority=99))
    park.cycle()
    park.lose(track.node)
    park.submit(a_job(3, a_known(900, cards=1), priority=99))
    told = lines(park.plan())
    assert any(line.startswith(f"reserve j1.work on {other} at ") for line in told), told


def test_what_runs_on_a_track_is_nobodys_victim_and_what_runs_beside_it_is():
    queues = (Queue(name="ai"), Queue(name="film", guaranteed=(0, 0, 2_000, 0)))
    park = Park(a_node("n1", cards=2, cpus=16), queues=queues)
    promise(park, 1, 200 * MINUTE, a_known(600, count=4, cards=1), queue="ai")
    park.cycle()
    assert len(park.open_attempts()) == 2
    park.submit(a_job(2, a_known(600, count=2, cards=1), queue="film"))
    assert [line for line in lines(park.cycle()) if line.startswith("preempt")] == ["preempt l2"]
    park.end("j1.work.1.a1", AttemptState.PREEMPTED)
    assert [line for line in lines(park.cycle()) if line.startswith(("start", "preempt"))] == [
        "start j2.work.0.a1 on n1[1]"
    ]


def test_a_no_names_changes_that_each_make_it_a_yes():
    park = busy(cards=2, seconds=1_000)
    park.see(a_node("n2", cards=1, cpus=16, model="L4"))
    step = a_known(60, count=40, cards=1, resources={"card_models": ("H100",)})
    job = a_job(9, step, deadline_ms=park.now_ms + 32 * MINUTE)
    found = park.engine.admit(job, park.now_ms, park.policy, changes=True)
    assert not found.is_yes
    by_kind = {change.kind: change for change in found.changes}
    assert by_kind.keys() >= {ChangeKind.DEADLINE, ChangeKind.ADD_NODES}

    def is_yes(changed) -> bool:
        return park.engine.admit(changed, park.now_ms, park.policy).is_yes

    later_ms = by_kind[ChangeKind.DEADLINE].amount
    assert is_yes(replace(job, deadline_ms=later_ms))
    assert not is_yes(replace(job, deadline_ms=later_ms - MINUTE))
    more = by_kind[ChangeKind.ADD_NODES]
    for number in range(more.amount):
        assert not is_yes(job)
        park.see(a_node(f"m{number}", cards=2, cpus=16))
    assert is_yes(job)


def test_a_steps_own_limit_may_be_what_keeps_it():
    park = busy(cards=4)
    park.end("j8.work.0.a1")
    job = a_job(9, a_known(60, count=40, cards=1, max_parallel=1), deadline_ms=park.now_ms + 20 * MINUTE)
    found = park.engine.admit(job, park.now_ms, park.policy, changes=True)
    assert not found.is_yes
    [wider] = [change for change in found.changes if change.kind is ChangeKind.PARALLEL]
    assert wider.amount == 3
    assert "let 3 tasks of step work run at once instead of 1" in wider.message


def test_what_frames_take_is_learned_and_tracks_that_are_not_needed_are_given_back():
    park = Park(a_node("n1", cards=4, cpus=16))
    tracks = promise(park, 1, 90 * MINUTE, a_step("work", 12, cards=1, run_ms_expected=10 * MINUTE, max_parallel=4))
    assert sum(track.copies for track in tracks) == 4
    for _ in range(2):
        park.cycle()
        for attempt in park.open_attempts():
            park.start(attempt)
        park.wait(MINUTE)
        for attempt in park.open_attempts():
            park.end(attempt)
    park.submit(a_job(2, a_known(90 * 60, count=4, cards=1), priority=99))
    assert len([line for line in starts(park) if line.startswith("start j2")]) == 3, "four frames need one card now"
