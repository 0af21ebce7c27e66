"""Cluster + jobs → what happened when, in lines: ``5 start ATTEMPT on NODE``, ``9 ATTEMPT succeeded``, ``9 lost n``."""

from dataclasses import replace
from itertools import pairwise

import pytest

from scheduler.model import codec
from scheduler.model.event import (
    AttemptFinished,
    AttemptStarted,
    JobCancelled,
    JobHeld,
    JobReleased,
    LeaseGranted,
    LeaseStopping,
    NodeLost,
    NodeSeen,
)
from scheduler.model.lease import AttemptState
from scheduler.model.policy import Policy
from scheduler.simulation.loop import Simulation, simulate
from scheduler.simulation.scenario import Scenario
from scheduler.simulation.workload import Workload
from tests.builders import a_job, a_node, a_step

S = 1_000


def told(scenario):
    """Grants, ends and stops as lines."""
    simulation = Simulation(scenario, keep=True)
    run = simulation.run()
    lines = []
    for event in simulation.events:
        at = f"{event.at_ms / S:g}"
        if isinstance(event, LeaseGranted):
            nodes = "+".join(a.node for a in event.lease.allocations)
            lines.append(f"{at} start {event.lease.attempts[0]} on {nodes}")
        elif isinstance(event, AttemptFinished):
            saved = f" saved {event.checkpoint_ms / S:g}" if event.checkpoint_ms else ""
            lines.append(f"{at} {event.attempt_id} {event.state.value}{saved}")
        elif isinstance(event, LeaseStopping):
            lines.append(f"{at} stop {event.lease_id}")
        elif isinstance(event, NodeLost):
            lines.append(f"{at} lost {event.node}")
        elif isinstance(event, NodeSeen) and event.at_ms:
            lines.append(f"{at} seen {event.node.name}")
    return lines, run


def a_scenario(*, nodes, jobs, seconds, **changes):
    truth = Workload(work_ms={job: s * S if isinstance(s, int) else [i * S for i in s] for job, s in seconds.items()})
    truth = replace(truth, **changes.pop("truth", {}))
    policy = changes.pop("policy", Policy())
    return Scenario(policy=policy, truth=truth, nodes=nodes, jobs=jobs, **changes)


ONE = [a_node("n1", cpus=1)]
ELASTIC = a_step(cards=1, ranks=4, ranks_min=1, scaling=((1, 400), (4, 1_000)))

TABLE = {
    "one after the other on one core": (
        a_scenario(nodes=ONE, jobs=[a_job(1), a_job(2, submitted_ms=5 * S)], seconds={"j1": 10, "j2": 3}),
        [
            "0 start j1.work.0.a1 on n1",
            "10 j1.work.0.a1 succeeded",
            "10 start j2.work.0.a1 on n1",
            "13 j2.work.0.a1 succeeded",
        ],
    ),
    "run times per task, and a delay before each start": (
        a_scenario(nodes=ONE, jobs=[a_job(1, a_step(count=2))], seconds={"j1": (4, 2)}, truth={"start_ms": S}),
        [
            "0 start j1.work.0.a1 on n1",
            "5 j1.work.0.a1 succeeded",
            "5 start j1.work.1.a1 on n1",
            "8 j1.work.1.a1 succeeded",
        ],
    ),
    "a slow card takes longer": (
        a_scenario(
            nodes=[a_node("n1", cards=1, model="L4")],
            jobs=[a_job(1, a_step(cards=1, speeds=(("L4", 250),)))],
            seconds={"j1": 10},
        ),
        ["0 start j1.work.0.a1 on n1", "40 j1.work.0.a1 succeeded"],
    ),
    "a node is lost: work since the last checkpoint is, too": (
        a_scenario(
            nodes=ONE,
            jobs=[a_job(1, a_step(checkpoint_ms=10 * S, restart_ms=2 * S))],
            seconds={"j1": 40},
            outside=[
                NodeLost(at_ms=25 * S, node="n1", reason="power"),
                NodeSeen(at_ms=100 * S, node=a_node("n1", cpus=1)),
            ],
        ),
        [
            "0 start j1.work.0.a1 on n1",
            "25 j1.work.0.a1 lost saved 20",
            "25 lost n1",
            "100 seen n1",
            "100 start j1.work.0.a2 on n1",
            "122 j1.work.0.a2 succeeded",
        ],
    ),
    "without checkpoints everything is": (
        a_scenario(
            nodes=[*ONE, a_node("n2", cpus=2)],
            jobs=[a_job(1)],
            seconds={"j1": 40},
            outside=[NodeLost(at_ms=25 * S, node="n1", reason="power")],
        ),
        [
            "0 start j1.work.0.a1 on n1",
            "25 j1.work.0.a1 lost",
            "25 lost n1",
            "25 start j1.work.0.a2 on n2",
            "65 j1.work.0.a2 succeeded",
        ],
    ),
    "a stop waits for the grace, saves what was committed, and frees the room then": (
        a_scenario(
            nodes=ONE,
            jobs=[a_job(1, a_step(checkpoint_ms=4 * S, grace_ms=3 * S)), a_job(2, submitted_ms=S)],
            seconds={"j1": 20, "j2": 1},
            outside=[
                JobHeld(at_ms=9 * S, job_id="j1"),
                LeaseStopping(at_ms=9 * S, lease_id="j1.work.0.a1", reason="test"),
                JobReleased(at_ms=13 * S, job_id="j1"),
            ],
        ),
        [
            "0 start j1.work.0.a1 on n1",
            "9 stop l1",
            "12 j1.work.0.a1 preempted saved 12",
            "12 start j2.work.0.a1 on n1",
            "13 j2.work.0.a1 succeeded",
            "13 start j1.work.0.a2 on n1",
            "21 j1.work.0.a2 succeeded",
        ],
    ),
    "who ends within the grace ends well": (
        a_scenario(
            nodes=ONE,
            jobs=[a_job(1)],
            seconds={"j1": 10},
            outside=[LeaseStopping(at_ms=9 * S, lease_id="j1.work.0.a1", reason="test")],
        ),
        ["0 start j1.work.0.a1 on n1", "9 stop l1", "10 j1.work.0.a1 succeeded"],
    ),
    "a cancelled job ends after its grace": (
        a_scenario(
            nodes=ONE,
            jobs=[a_job(1, a_step(count=3, grace_ms=S))],
            seconds={"j1": 10},
            outside=[JobCancelled(at_ms=4 * S, job_id="j1", by="tester")],
        ),
        ["0 start j1.work.0.a1 on n1", "4 stop l1", "5 j1.work.0.a1 cancelled"],
    ),
    "a time limit": (
        a_scenario(nodes=ONE, jobs=[a_job(1, a_step(timeout_ms=5 * S, retries=1))], seconds={"j1": 10}),
        [
            "0 start j1.work.0.a1 on n1",
            "5 j1.work.0.a1 timed_out",
            "5 start j1.work.0.a2 on n1",
            "10 j1.work.0.a2 timed_out",
        ],
    ),
    "tasks of one lease run one after the other": (
        a_scenario(nodes=ONE, jobs=[a_job(1, a_step(count=3, chunk=3))], seconds={"j1": (1, 2, 3)}),
        [
            "0 start j1.work.0.a1 on n1",
            "1 j1.work.0.a1 succeeded",
            "3 j1.work.1.a1 succeeded",
            "6 j1.work.2.a1 succeeded",
        ],
    ),
    "a lost node takes all tasks of a lease": (
        a_scenario(
            nodes=ONE,
            jobs=[a_job(1, a_step(count=2, chunk=2))],
            seconds={"j1": 4},
            outside=[NodeLost(at_ms=2 * S, node="n1", reason="power")],
        ),
        ["0 start j1.work.0.a1 on n1", "2 j1.work.0.a1 lost", "2 j1.work.1.a1 lost", "2 lost n1"],
    ),
    "a gang begins when all its ranks fit": (
        a_scenario(
            nodes=[a_node("n1", cpus=1), a_node("n2", cpus=1)],
            jobs=[a_job(1), a_job(2, a_step(ranks=2))],
            seconds={"j1": 7, "j2": 5},
        ),
        [
            "0 start j1.work.0.a1 on n1",
            "7 j1.work.0.a1 succeeded",
            "7 start j2.work.0.a1 on n1+n2",
            "12 j2.work.0.a1 succeeded",
        ],
    ),
    "plans keep a distance": (
        a_scenario(nodes=ONE, jobs=[a_job(1), a_job(2)], seconds={"j1": 3, "j2": 3}, cycle_ms=5 * S),
        [
            "0 start j1.work.0.a1 on n1",
            "3 j1.work.0.a1 succeeded",
            "5 start j2.work.0.a1 on n1",
            "8 j2.work.0.a1 succeeded",
        ],
    ),
    "nothing starts during a pause": (
        a_scenario(nodes=ONE, jobs=[a_job(1)], seconds={"j1": 3}, pauses=[((0, 0), (4 * S, 0))], plans=[(4 * S, 0)]),
        ["4 start j1.work.0.a1 on n1", "7 j1.work.0.a1 succeeded"],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_table(name):
    scenario, expected = TABLE[name]
    assert told(scenario)[0] == expected


def random_scenario(seed, failed=100):
    nodes = [a_node(f"n{i}", cpus=8, cards=4, model=("H100", "L4")[i % 2]) for i in range(3)]
    steps = [a_step(count=1 + i % 3, cards=i % 3, ranks=1 + i % 2, checkpoint_ms=5 * S) for i in range(40)]
    jobs = [a_job(i + 1, step, submitted_ms=i * 700) for i, step in enumerate(steps)]
    truth = Workload(
        work_ms=lambda job, step, index: 1_000 + (int(job.id[1:]) * 7_919 + index * 104_729) % 30_000,
        start_ms=300,
        failed_permille=failed,
        seed=seed,
    )
    outside = [
        NodeLost(at_ms=20 * S, node="n1", reason="power"),
        NodeSeen(at_ms=50 * S, node=nodes[1]),
        JobCancelled(at_ms=30 * S, job_id="j20", by="tester"),
    ]
    return Scenario(policy=Policy(), truth=truth, nodes=nodes, jobs=jobs, outside=outside)


def journal(scenario):
    simulation = Simulation(scenario, keep=True)
    run = simulation.run()
    return [codec.dumps(event, tagged=True) for event in simulation.events], run


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not():
    assert journal(random_scenario(1)) == journal(random_scenario(1))
    assert journal(random_scenario(1))[0] != journal(random_scenario(2))[0]


def test_card_time_adds_up():
    """What jobs held is what the cards were held, card by card, and never more than one lease at a time."""
    run = simulate(random_scenario(3))
    by_device = {}
    for span in run.spans:
        assert span.granted_ms <= span.closed_ms
        for device in span.devices:
            by_device.setdefault(device, []).append((span.granted_ms, span.closed_ms))
    for held in by_device.values():
        held.sort()
        assert all(end <= start for (_, end), (start, _) in pairwise(held))
    total = sum(end - start for held in by_device.values() for start, end in held)
    assert total == sum(job.card_ms for job in run.jobs) > 0


def test_what_was_in_vain_and_what_was_kept_make_up_the_time_held():
    """One task at full speed: held = work + lost, whatever was stopped or failed."""
    scenario = a_scenario(
        nodes=ONE,
        jobs=[a_job(1, a_step(checkpoint_ms=7 * S, restart_ms=3 * S, retries=1_000))],
        seconds={"j1": 100},
        truth={"failed_permille": 700, "seed": 5, "stop_ms": 2 * S},
        outside=[LeaseStopping(at_ms=33 * S, lease_id="j1.work.0.a1", reason="test")],
    )
    run = simulate(scenario)
    held = sum(span.closed_ms - span.granted_ms for span in run.spans)
    assert len(run.spans) > 2
    assert held == 100 * S + run.jobs[0].lost_ms


def test_every_task_that_succeeded_had_a_start_before_its_end():
    simulation = Simulation(random_scenario(4), keep=True)
    simulation.run()
    starts = {e.attempt_id: e.at_ms for e in simulation.events if isinstance(e, AttemptStarted)}
    ends = [e for e in simulation.events if isinstance(e, AttemptFinished) and e.state is AttemptState.SUCCEEDED]
    assert ends
    assert all(starts[e.attempt_id] < e.at_ms for e in ends)


def test_events_rebuild_the_engine():
    """A simulation's events are a journal: a fresh engine that applies them stands where the simulated one does."""
    from scheduler.engine import Engine
    from scheduler.model.snapshot import Snapshot

    simulation = Simulation(random_scenario(6), keep=True)
    simulation.run()
    engine = Engine.from_snapshot(Snapshot())
    for event in simulation.events:
        engine.apply(event)
    assert engine.snapshot() == simulation.engine.snapshot()
