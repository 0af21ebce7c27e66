"""What would change: recorded history simulated with the same engine, as it was and with something else.

Unchanged, the simulation gives the recorded starts again; how many of them is part of every answer, because it says
how far the rest can be trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from scheduler.engine import VERSION, Engine
from scheduler.model import codec
from scheduler.model.errors import InvalidInput, Problem, unknown
from scheduler.model.event import EngineStarted, Event, NodeLost, NodeSeen
from scheduler.model.job import JobState
from scheduler.model.lease import number_of
from scheduler.model.node import Node, NodeState
from scheduler.model.policy import Policy
from scheduler.model.snapshot import Snapshot
from scheduler.simulation import recording
from scheduler.simulation.loop import Simulation
from scheduler.simulation.measures import Figures, figures
from scheduler.simulation.outcome import JobOutcome, Run, Span
from scheduler.simulation.recorded_truth import RecordedTruth
from scheduler.simulation.recording import Recording, cycle_instants
from scheduler.simulation.scenario import Scenario

MOST_JOBS = 50
"""Jobs that change most, in an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be different."""

    add_nodes: tuple[tuple[str, int], ...] = ()
    """``(node to copy, how many)``"""
    without_nodes: tuple[str, ...] = ()
    policy: Mapping[str, Any] | None = None
    """Fields of Policy and their values, as JSON values or as text."""

    @property
    def sentences(self) -> list[str]:
        """For people."""
        added = [f"{count} more like {node}" for node, count in self.add_nodes]
        removed = [f"without {node}" for node in self.without_nodes]
        return [*added, *removed, *(f"{knob} = {value}" for knob, value in (self.policy or {}).items())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was found; see :func:`view` for its JSON."""

    recorded: Recording
    policy: Policy
    engine: int
    """Version that made the recorded plans; 0: not recorded."""
    before: Run
    after: Run
    identical: int
    """Recorded starts that the unchanged simulation gives, same tasks, instant and devices."""
    difference: str
    """The first one that it does not give; empty: none."""
    changes: Changes
    dropped: tuple[str, ...]
    """Users' verbs that did not fit what had become of their jobs."""


def ask(
    events: Sequence[Event], changes: Changes, *, features: Mapping[str, frozenset[str]], since_ms: int = 0
) -> Answer:
    """Simulate the journal twice. Raises InvalidInput for unknown nodes, knobs or values, and an empty journal."""
    if not events:
        raise InvalidInput([Problem("journal", "nothing is recorded")])
    start, rest, started = _cut(events, since_ms, features)
    policy = started.policy if started is not None else Policy()
    engine = started.engine if started is not None else 0
    recorded = recording.read(rest, policy, features=features, start=start)
    if engine not in (0, VERSION):
        recorded.pauses.clear()  # another engine's plans say nothing about when the runtime was down
    scenario = scenario_of(recorded, policy, features=features)
    changed = changed_by(scenario, changes)
    before, after = Simulation(scenario), Simulation(changed)
    run = before.run()
    identical, difference = compare(recorded, run.spans)
    return Answer(
        recorded=recorded,
        policy=policy,
        engine=engine,
        before=run,
        after=run if changed is scenario else after.run(),
        identical=identical,
        difference=difference,
        changes=changes,
        dropped=tuple(after.dropped),
    )


def _cut(
    events: Sequence[Event], since_ms: int, features: Mapping[str, frozenset[str]]
) -> tuple[Snapshot, Sequence[Event], EngineStarted | None]:
    """State at ``since_ms``, the events from its first cycle on, and who planned last."""
    started = [event for event in events if isinstance(event, EngineStarted)]
    instants = cycle_instants(events)
    first = next((at for at, instant_ms in enumerate(instants) if instant_ms >= since_ms), len(events) - 1)
    engine = Engine.from_snapshot(Snapshot(), features=features)
    for event in islice(events, first):
        engine.apply(event)
        engine.take_changes()
    return engine.snapshot(), events[first:], started[-1] if started else None


def scenario_of(recorded: Recording, policy: Policy, *, features: Mapping[str, frozenset[str]]) -> Scenario:
    """The recording as a scenario: simulated, it gives the recorded starts."""
    return Scenario(
        policy=policy,
        truth=RecordedTruth(recorded),
        queues=(),
        outside=recorded.outside,
        outside_ranks=recorded.outside_ranks,
        start=recorded.snapshot,
        begin_ms=recorded.begin_ms,
        plans=recorded.plans,
        pauses=recorded.pauses,
        wakes=False,
        features=features,
    )


def changed_by(scenario: Scenario, changes: Changes) -> Scenario:
    """``scenario`` with the changes made; itself when there are none. Raises InvalidInput."""
    if changes == Changes():
        return scenario
    known = _nodes(scenario)
    problems = [
        unknown("node", "node", name, known)
        for name in (*(name for name, _ in changes.add_nodes), *changes.without_nodes)
        if name not in known
    ]
    problems += [Problem("count", "must be 1 or more") for _, count in changes.add_nodes if count < 1]
    if problems:
        raise InvalidInput(problems)
    policy = changed_policy(scenario.policy, changes.policy or {})
    return _with_nodes(replace(scenario, policy=policy, wakes=True), changes, known)


def _nodes(scenario: Scenario) -> dict[str, Node]:
    """Each node as it was first seen."""
    seen = [node for node in scenario.start.nodes if node.state is not NodeState.LOST]
    seen += [event.node for event in scenario.outside if isinstance(event, NodeSeen)]
    return {node.name: node for node in reversed(seen)}


def _with_nodes(scenario: Scenario, changes: Changes, known: Mapping[str, Node]) -> Scenario:
    gone = set(changes.without_nodes)
    there = {node.name for node in scenario.start.nodes}
    more = {name: [_copy(known[name], at) for at in range(1, count + 1)] for name, count in changes.add_nodes}
    outside: list[Event] = []
    ranks: list[int] = []
    for name in sorted(there & more.keys()):
        outside += [NodeSeen(at_ms=scenario.begin_ms, node=node) for node in more.pop(name)]
    ranks += [0] * len(outside)
    for event, rank in zip(scenario.outside, scenario.outside_ranks, strict=True):
        name = event.node.name if isinstance(event, NodeSeen) else event.node if isinstance(event, NodeLost) else ""
        if name not in gone:
            outside.append(event)
            ranks.append(rank)
        if isinstance(event, NodeSeen):
            copies = [NodeSeen(at_ms=event.at_ms, node=node) for node in more.pop(name, [])]
            outside += copies
            ranks += [rank] * len(copies)
    for node in scenario.start.nodes:
        if node.name in gone and node.state is not NodeState.LOST:
            outside.append(NodeLost(at_ms=scenario.begin_ms, node=node.name, reason="asked away"))
            ranks.append(0)
    return replace(scenario, outside=outside, outside_ranks=ranks)


def _copy(node: Node, number: int) -> Node:
    mark = f"-copy{number}"
    devices = tuple(
        replace(
            device,
            id=device.id + mark,
            parent=device.parent + mark if device.parent else "",
            island=device.island + mark if device.island else "",
        )
        for device in node.devices
    )
    return replace(node, name=node.name + mark, devices=devices, state=NodeState.READY, state_reason="")


def changed_policy(policy: Policy, knobs: Mapping[str, Any]) -> Policy:
    """``policy`` with other values. Text is taken as the knob's own kind. Raises InvalidInput."""
    names = {name: type(value) for name, value in asdict(policy).items()}
    problems = [unknown(knob, "knob", knob, names) for knob in knobs if knob not in names]
    if problems:
        raise InvalidInput(problems)
    body = dict(codec.encode(policy))
    for knob, value in knobs.items():
        try:
            body[knob] = int(value) if names[knob] is int else value
            found = codec.decode(Policy, body)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InvalidInput([Problem(knob, f"cannot be {value!r}: {error}")]) from None
    return found if knobs else policy


def compare(recorded: Recording, spans: Iterable[Span]) -> tuple[int, str]:
    """How many recorded starts are among these, and the first that is not, as a sentence."""
    simulated = {span.attempts: span for span in spans}
    alike, difference = 0, ""
    for grant in recorded.grants:
        lease = grant.lease
        span = simulated.get(lease.attempts)
        nodes = tuple(held.node for held in lease.allocations)
        devices = tuple(device for held in lease.allocations for device in held.devices)
        if span is not None and (span.granted_ms, span.nodes, span.devices) == (grant.at_ms, nodes, devices):
            alike += 1
        elif not difference:
            there = f"at {span.granted_ms} on {', '.join(span.nodes)}" if span is not None else "not at all"
            difference = f"{lease.attempts[0]}: recorded at {grant.at_ms} on {', '.join(nodes)}, simulated {there}"
    return alike, difference


def view(answer: Answer) -> dict[str, Any]:
    """The answer as JSON."""
    queues = sorted({job.queue for job in answer.before.jobs})
    both = {"before": answer.before, "after": answer.after}
    return {
        "from_ms": answer.recorded.begin_ms,
        "to_ms": answer.recorded.end_ms,
        "engine": {"recorded": answer.engine, "simulated": VERSION},
        "policy": codec.encode(answer.policy),
        "starts": {
            "recorded": len(answer.recorded.grants),
            "identical": answer.identical,
            "first_difference": answer.difference,
        },
        "paused_ms": sum(end - start for (start, _), (end, _) in answer.recorded.pauses),
        "changes": answer.changes.sentences,
        **{name: asdict(figures(run)) for name, run in both.items()},
        "queues": {queue: {name: asdict(_of_queue(run, queue)) for name, run in both.items()} for queue in queues},
        "jobs": _moved(answer.before, answer.after),
        "dropped": list(answer.dropped),
    }


def _of_queue(run: Run, queue: str) -> Figures:
    return figures(run, [job for job in run.jobs if job.queue == queue])


def _moved(before: Run, after: Run) -> list[dict[str, Any]]:
    """Jobs whose end changes most, largest change first."""
    then = {job.id: job for job in after.jobs}
    moved = [(job, then[job.id]) for job in before.jobs if job.id in then and _differs(job, then[job.id])]
    moved.sort(key=lambda pair: (-abs(pair[1].finished_ms - pair[0].finished_ms), number_of(pair[0].id)))
    return [
        {
            "job_id": a.id,
            "name": a.name,
            "queue": a.queue,
            "wait_before_ms": a.wait_ms if a.was_granted else None,
            "wait_after_ms": b.wait_ms if b.was_granted else None,
            "end_before_ms": a.finished_ms,
            "end_after_ms": b.finished_ms,
            "deadline_before": _deadline(a),
            "deadline_after": _deadline(b),
        }
        for a, b in moved[:MOST_JOBS]
    ]


def _differs(a: JobOutcome, b: JobOutcome) -> bool:
    return (a.granted_ms, a.finished_ms, a.state) != (b.granted_ms, b.finished_ms, b.state)


def _deadline(job: JobOutcome) -> str:
    if not job.deadline_ms:
        return ""
    return "met" if job.met_deadline else "missed" if job.state is not JobState.RUNNING else "open"
