"""What speaks against a node, from recorded facts, and what it then costs to place work there."""

from __future__ import annotations

from dataclasses import replace

from scheduler.engine.rules import since
from scheduler.engine.state import State
from scheduler.model.event import NodeLost
from scheduler.model.job import JobRecord
from scheduler.model.lease import AttemptRecord, AttemptState, Lease
from scheduler.model.node import Health, Node, NodeState
from scheduler.model.policy import Policy
from scheduler.queueing import lifecycle, tasks
from scheduler.queueing.health import price_permille, with_fault

FAULTS_SINCE = 5
"""The engine version with which faults of nodes came: facts of earlier ones, as their journals say, leave none."""


def seen_again(state: State, before: Node, node: Node, at_ms: int) -> Node:
    """What a node says of itself, with its faults: those it had, and cards that were well and are in quarantine now."""
    past_milli, past_ms, reason = before.faults_milli, before.faults_ms, before.fault_reason
    node = replace(node, faults_milli=past_milli, faults_ms=past_ms, fault_reason=reason)
    well = {device.id for device in before.devices if device.health is Health.OK}
    for device in node.devices if _counts(state) else ():
        if device.id in well and device.health is Health.QUARANTINED:
            why = f" ({device.health_reason})" if device.health_reason else ""
            node = with_fault(node, f"card {device.index} was quarantined{why}", at_ms)
    return node


def lost(state: State, node: Node, event: NodeLost) -> Node:
    """The node with the fault that it was lost; no other one if it was lost already."""
    if node.state is NodeState.LOST or not _counts(state):
        return node
    return with_fault(node, f"it was lost: {event.reason}", event.at_ms)


def task_ended(state: State, job: JobRecord, attempt: AttemptRecord, lease: Lease) -> JobRecord:
    """Who the end of an attempt speaks against. ``job``: the record after it; the state still has the one before.

    A failure on one node makes the node suspect as long as the task is tried further. When it succeeds elsewhere the
    fault was the node's. Of a gang on several nodes nobody knows which one failed.
    """
    if not _counts(state):
        return job
    nodes = {allocation.node for allocation in lease.allocations}
    if attempt.state is AttemptState.SUCCEEDED:
        _, before = lifecycle.find_step(state.jobs[attempt.job_id], attempt.step)
        for name in tasks.suspects_of(before, attempt.index) if before.suspects else ():
            view = state.nodes.get(name)
            if view is not None and name not in nodes:
                reason = f"task {attempt.job_id}.{attempt.step}.{attempt.index} failed here and succeeded elsewhere"
                state.put_node(with_fault(view.node, reason, attempt.finished_ms))
        return job
    _, done = lifecycle.find_step(job, attempt.step)
    if attempt.state.counts_against_retries and len(nodes) == 1 and attempt.index in done.waiting:
        return lifecycle.suspected(job, attempt, min(nodes))
    return job


def set_prices(state: State, now_ms: int, policy: Policy) -> None:
    """Let placement know by how much dearer nodes with faults are at an instant: no record changes."""
    if state.faulty:
        prices = ((n, price_permille(state.nodes[n].node, now_ms, policy.fault_permille)) for n in state.faulty)
        state.shapes.set_prices({name: price for name, price in prices if price})


def _counts(state: State) -> bool:
    return since(state, FAULTS_SINCE)
