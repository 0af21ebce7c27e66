"""A gang drains its place while sliced frames fill it: who leaves when, who stays, and that nobody leaves in vain.

Frames are leases of four slices of 9 s (``chunk``). Events are lines: ``SECOND start ATTEMPT on NODE``, ``SECOND stop
LEASE``, ``SECOND ATTEMPT preempted``.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.model.event import AttemptFinished, LeaseGranted, LeaseStopping
from scheduler.model.job import JobKind
from scheduler.model.lease import AttemptState
from scheduler.model.node import Lane
from scheduler.model.plan import Reserve
from scheduler.model.policy import Backfill, Floor, Policy, Preemption
from scheduler.model.queue import Queue
from scheduler.simulation.loop import Simulation
from scheduler.simulation.scenario import Scenario
from scheduler.simulation.workload import Workload
from tests.builders import Park, a_job, a_node, a_step

S = 1_000
SLICES, SLICE_S, GRACE_S = 4, 9, 2
TWO = (a_node("n1", cards=2, cpus=16), a_node("n2", cards=2, cpus=16))
GANG = a_step(ranks=2, cards=2, run_ms_expected=100 * S)


def frames(number, count, **changes):
    """A job of so many frames, each a lease of four slices."""
    given = {"chunk": SLICES, "run_ms_expected": SLICE_S * S, "grace_ms": GRACE_S * S} | changes.pop("step", {})
    step = a_step("slices", count * SLICES, cards=1, **given)
    return a_job(number, step, kind=JobKind.RENDER, **changes)


def whole(number, seconds, cards=1, **changes):
    """One task that keeps nothing before its end."""
    return a_job(number, a_step(cards=cards, run_ms_expected=seconds * S), **changes)


def gang(number, at_s, **changes):
    """Both nodes, or as many as there are twos of cards."""
    return a_job(number, GANG, submitted_ms=at_s * S, priority=55, **changes)


def play(jobs, seconds, nodes=TWO, policy=None, until_s=400):
    """``(grants, stops, and ends of what was stopped, as lines; the run)``. ``seconds``: by job; or ms by task."""
    truth = Workload(work_ms={key: s * S if isinstance(s, int) else s for key, s in seconds.items()})
    scenario = Scenario(policy=policy or Policy(), truth=truth, nodes=nodes, jobs=jobs, until_ms=until_s * S)
    simulation = Simulation(scenario, keep=True)
    run = simulation.run()
    told = []
    for event in simulation.events:
        at = f"{event.at_ms / S:g}"
        if isinstance(event, LeaseGranted):
            told.append(f"{at} start {event.lease.attempts[0]} on {'+'.join(a.node for a in event.lease.allocations)}")
        elif isinstance(event, LeaseStopping):
            told.append(f"{at} stop {event.lease_id}")
        elif isinstance(event, AttemptFinished) and event.state is not AttemptState.SUCCEEDED:
            told.append(f"{at} {event.attempt_id} {event.state.value}")
    return told, run


FILLED = (whole(1, 20), whole(2, 60), whole(3, 60), whole(4, 60), gang(5, 5), frames(6, 50, submitted_ms=10 * S))
"""One card is free after 20 s, the others after 60; the gang needs all four."""
SECONDS = {"j1": 20, "j2": 60, "j3": 60, "j4": 60, "j5": 100, "j6": SLICE_S}


def test_frames_fill_the_drain_and_lose_no_more_than_a_slice():
    told, run = play(FILLED, SECONDS)
    assert told[4:12] == [
        "20 start j6.slices.0.a1 on n1",
        "56 start j6.slices.4.a1 on n1",
        "60 stop l6",
        "62 j6.slices.4.a1 preempted",
        "62 j6.slices.5.a1 preempted",
        "62 j6.slices.6.a1 preempted",
        "62 j6.slices.7.a1 preempted",
        "62 start j5.work.0.a1 on n1+n2",
    ]
    assert told[12] == "162 start j6.slices.4.a2 on n1", "what was stopped is next"
    assert run.jobs[5].lost_ms == 6 * S, "one slice that had run for 6 s; those behind it had not begun"


def test_nobody_leaves_while_something_else_keeps_the_gang_from_starting():
    told, run = play(FILLED, SECONDS | {"j4": 200})
    start_s = run.jobs[4].granted_ms / S
    stops = [float(line.split()[0]) for line in told if " stop " in line]
    assert start_s == 200 + GRACE_S
    assert {at for at in stops if at <= start_s} == {200.0}
    assert sum("j6.slices" in line and " start " in line for line in told if float(line.split()[0]) < 200) > 10


@pytest.mark.parametrize(("permille", "starts"), [(300, True), (350, False)])
def test_a_floor_is_kept_when_frames_leave(permille, starts):
    """Two of six cards are left to frames: the gang waits where their floor is more than that."""
    policy = Policy(floors=(Floor(kind=JobKind.RENDER.value, permille=permille),))
    nodes = (*TWO, a_node("n3", cards=2, cpus=16))
    jobs = (*FILLED[:4], frames(5, 100), gang(6, 5))
    seconds = SECONDS | {"j1": 30, "j5": SLICE_S, "j6": 100}
    told, run = play(jobs, seconds, nodes=nodes, policy=policy, until_s=120)
    assert run.jobs[5].was_granted is starts
    assert any(" stop " in line for line in told) is starts


def test_room_that_was_made_is_not_taken_by_who_is_below_a_floor():
    policy = Policy(floors=(Floor(kind=JobKind.TRANSCODE.value, permille=250),))
    clip = whole(7, 30, kind=JobKind.TRANSCODE, submitted_ms=61 * S)
    told, run = play((*FILLED, clip), SECONDS | {"j7": 30}, policy=policy)
    assert "60 stop l6" in told
    assert run.jobs[4].granted_ms == 62 * S


def test_a_slow_frame_leaves_when_it_overstays_and_a_task_that_would_lose_everything_does_not():
    slices = frames(1, 30, step={"run_ms_expected": 3 * S})
    work = [12 if index < SLICES else 3 for index in range(30 * SLICES)]
    told, run = play((slices, gang(2, 5)), {"j1": [s * S for s in work], "j2": 100})
    assert run.jobs[1].granted_ms < 4 * 12 * S
    assert any(line.endswith("stop l1") for line in told)
    slow = a_step(count=40, cards=1, run_ms_expected=12 * S)
    told, run = play((a_job(1, slow), gang(2, 5)), {"j1": [s * S for s in (48, *[12] * 39)], "j2": 100})
    assert run.jobs[1].granted_ms >= 4 * 12 * S
    assert not any(" stop " in line for line in told)


@pytest.mark.parametrize(
    ("changes", "policy"),
    [({}, Policy(preemption=Preemption.NEVER)), ({}, Policy(preempted_max=0)), ({"preemptible": False}, Policy())],
)
def test_who_may_not_be_stopped_does_not_fill(changes, policy):
    told, run = play((*FILLED[:5], frames(6, 50, submitted_ms=10 * S, step=changes)), SECONDS, policy=policy)
    assert told[4] == "60 start j5.work.0.a1 on n1+n2"
    assert run.jobs[5].preempted == 0


def test_nodes_of_the_other_lane_are_left_in_time_to_move():
    nodes = tuple(a_node(f"p{at}", cards=2, cpus=16, lane=Lane.POOL) for at in (1, 2))
    trainer = replace(GANG, lane="job")
    jobs = (*FILLED[:4], a_job(5, trainer, submitted_ms=5 * S), FILLED[5])
    told, run = play(jobs, SECONDS, nodes=nodes)
    assert any("j6.slices" in line for line in told[4:]), "the drain is filled"
    assert run.jobs[4].was_granted
    stops = [float(line.split()[0]) for line in told if " stop " in line]
    assert 60.0 in stops


def test_a_stop_that_was_told_ends_when_its_grace_is_over_not_a_grace_from_now():
    """Slices of 20 s are told at 60 s. What may take until 70.4 s is no backfill for a start that is then at 70 s."""
    slices = {"grace_ms": 10 * S, "run_ms_expected": 20 * S}
    jobs = (*FILLED[:5], frames(6, 50, submitted_ms=10 * S, step=slices), whole(7, 6, submitted_ms=61 * S))
    told, run = play(jobs, SECONDS | {"j6": 20, "j7": [9_500]})
    assert "60 stop l5" in told
    assert run.jobs[4].granted_ms == 70 * S


def test_with_several_promises_nobody_counts_on_what_leaves_for_another():
    """Slices on the idle node leave for the gang that is first: for who comes next they run to their end."""
    park = Park(a_node("n1", cards=3), a_node("n2", cards=2))
    park.policy = Policy(backfill=Backfill.CONSERVATIVE)
    slices = a_step(count=12, chunk=4, cards=1, run_ms_expected=100 * S, grace_ms=2 * S)
    park.submit(a_job(1, a_step(cards=2, run_ms_expected=5_000 * S)))
    park.cycle()
    park.submit(a_job(2, a_step(ranks=2, cards=2, run_ms_expected=600 * S)), a_job(3, slices))
    park.cycle()
    assert next(r.lease.leaves_for for r in park.engine.leases() if r.lease.job_id == "j3") == "j2"
    park.submit(a_job(4, a_step(cards=1, run_ms_expected=50 * S)))
    reserved = {a.job_id: a.start_ms for a in park.plan().actions if isinstance(a, Reserve)}
    assert reserved["j4"] - park.now_ms > 390 * S


def test_what_would_use_up_the_limit_of_who_is_next_waits():
    queues = (Queue(name="film", limit=(-1, -1, 4_000, -1)), Queue(name="default"))
    nodes = (*TWO, a_node("n3", cards=1, cpus=16))
    jobs = (
        whole(1, 60, cards=2),
        whole(2, 60, cards=2),
        a_job(3, GANG, submitted_ms=5 * S, priority=55, queue="film"),
        a_job(4, a_step(cards=1, run_ms_expected=500 * S), submitted_ms=6 * S, queue="film"),
    )
    truth = Workload(work_ms={"j1": 60 * S, "j2": 60 * S, "j3": 100 * S, "j4": 500 * S})
    scenario = Scenario(policy=Policy(), truth=truth, nodes=nodes, queues=queues, jobs=jobs, until_ms=400 * S)
    run = Simulation(scenario).run()
    assert run.jobs[2].granted_ms == 60 * S
    assert run.jobs[3].granted_ms >= 60 * S


def test_a_gang_that_puts_several_ranks_on_a_node_looks_at_all_of_them():
    """Two ranks fit beside one another before the start that is promised, but only one of them beside it."""
    node = (a_node("n1", cards=4, cpus=16),)
    jobs = (
        whole(1, 60, cards=2),
        a_job(2, a_step(cards=3, run_ms_expected=20 * S), submitted_ms=1 * S, priority=55),
        a_job(3, a_step(ranks=2, cards=1, run_ms_expected=300 * S), submitted_ms=2 * S),
    )
    _, run = play(jobs, {"j1": 60, "j2": 20, "j3": 300}, nodes=node)
    assert run.jobs[1].granted_ms == 60 * S
