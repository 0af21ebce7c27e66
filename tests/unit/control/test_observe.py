"""What a runtime says of its nodes, and what becomes of it."""

from dataclasses import replace

import pytest

from scheduler.control.observe import Observer
from scheduler.engine import Engine
from scheduler.model.event import NodeSeen
from scheduler.model.node import Lane, NodeState
from scheduler.model.order import Report, ReportKind
from scheduler.model.snapshot import Snapshot
from tests.unit.control.world import NODE

POOL = replace(NODE, lane=Lane.POOL)
MOVING = replace(POOL, state=NodeState.CORDONED, state_reason="on its way", moving_to=Lane.JOB, moving_since_ms=10)


def after(known, reported):
    """The node in the engine when the runtime reports on one it knows."""
    engine = Engine.from_snapshot(Snapshot())
    engine.apply(NodeSeen(at_ms=20, node=known))
    report = Report(kind=ReportKind.NODE, node=reported.name, facts=reported)
    for event in Observer(silence_ms=1_000).react(report, engine, 30).events:
        engine.apply(event)
    return engine.node(known.name)


@pytest.mark.parametrize(
    ("known", "reported", "state", "reason"),
    [
        (replace(POOL, state=NodeState.CORDONED, state_reason="fan"), POOL, NodeState.CORDONED, "fan"),
        (replace(POOL, state=NodeState.UNREADY, state_reason="theirs"), POOL, NodeState.READY, ""),
        (replace(POOL, state=NodeState.LOST), POOL, NodeState.READY, ""),
        (MOVING, POOL, NodeState.CORDONED, "on its way"),
        (MOVING, replace(POOL, lane=Lane.JOB), NodeState.READY, ""),
    ],
    ids=["an operator's cordon stays", "the runtime's own ends", "who returns", "on the way", "arrived in its lane"],
)
def test_the_state_of_a_node_that_reports(known, reported, state, reason):
    made = after(known, reported)
    assert (made.state, made.state_reason) == (state, reason)
