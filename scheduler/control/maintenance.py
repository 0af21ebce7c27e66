"""Taking nodes out and bringing them back: ``cordon``, ``uncordon``, ``drain``.

Each can be tried first: a dry run answers as the real one would and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import TypedDict  # pydantic reads these for OpenAPI, and typing's own only from Python 3.12

from scheduler.control import views
from scheduler.control.access import Caller, require_operator
from scheduler.control.cycle import Cycle
from scheduler.control.node_shapes import NodeView
from scheduler.control.observe import Observer
from scheduler.engine import Engine
from scheduler.model.errors import NotFound
from scheduler.model.event import Event, LeaseStopping, NodeLost, NodeSeen
from scheduler.model.lease import LeaseRecord
from scheduler.model.node import Node, NodeState


class DrainedLease(TypedDict):
    """What a drain stops on a node; ``cards`` are those on it, ``nodes`` all that a gang holds."""

    lease_id: str
    job_id: str
    tenant: str
    cards: int
    nodes: list[str]


class DrainView(TypedDict):
    """A drain, or (``dry_run``) what it would do; ``stopping`` leases were being stopped already."""

    node: NodeView
    dry_run: bool
    stops: list[DrainedLease]
    stopping: int


class Maintenance:
    """Nodes out and back. Every method raises Forbidden for all but operators, and NotFound."""

    def __init__(self, cycle: Cycle) -> None:
        self._cycle = cycle

    def cordon(self, caller: Caller, name: str, reason: str = "", *, dry_run: bool = False) -> NodeView:
        """Take nothing new on this node; what runs there goes on."""
        return self._change(caller, name, NodeState.CORDONED, reason or "cordoned by an operator", dry_run)

    def uncordon(self, caller: Caller, name: str, *, dry_run: bool = False) -> NodeView:
        """Undo :meth:`cordon` and :meth:`drain`. A node whose runtime does not want it used, or is gone, says so."""
        return self._change(caller, name, NodeState.READY, "", dry_run)

    def drain(self, caller: Caller, name: str, reason: str = "", *, dry_run: bool = False) -> DrainView:
        """Cordon the node and stop what runs there, with its grace to save a checkpoint; it waits again and goes on
        elsewhere, not counted against retries, free of charge from the last checkpoint on. A gang leaves as a whole.
        """
        require_operator(caller)
        why = reason or "drained by an operator"

        def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], DrainView]:
            node = _found(engine, name)
            after = _after(node, NodeState.CORDONED, why, self._cycle.observer)
            leases = [record for record in engine.leases_on(name) if not record.closed_ms]
            going = sorted((r for r in leases if not r.stopping), key=lambda record: record.lease.id)
            events = _events(node, after, now_ms)
            events += [LeaseStopping(at_ms=now_ms, lease_id=r.lease.id, reason=f"node {name}: {why}") for r in going]
            view: DrainView = {
                "node": views.node(after, tuple(engine.leases()), now_ms),
                "dry_run": dry_run,
                "stops": [_drained(record, name) for record in going],
                "stopping": len(leases) - len(going),
            }
            return () if dry_run else events, view

        return self._cycle.call(decide)

    def _change(self, caller: Caller, name: str, state: NodeState, reason: str, dry_run: bool) -> NodeView:
        require_operator(caller)

        def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], NodeView]:
            node = _found(engine, name)
            after = _after(node, state, reason, self._cycle.observer)
            view = views.node(after, tuple(engine.leases()), now_ms)
            return () if dry_run else _events(node, after, now_ms), view

        return self._cycle.call(decide)


def _found(engine: Engine, name: str) -> Node:
    node = engine.node(name)
    if node is None:
        raise NotFound(f"no node {name!r} (there are: {', '.join(sorted(n.name for n in engine.nodes()))})")
    return node


def _after(node: Node, state: NodeState, reason: str, observer: Observer) -> Node:
    """The node when an operator wants it in ``state``: its runtime has a word in it."""
    if node.state in (state, NodeState.LOST):
        return node
    if state is NodeState.READY and node.name in observer.gone:
        return replace(node, state=NodeState.LOST, state_reason="it does not answer")
    if state is NodeState.READY and node.name in observer.unready:
        return replace(node, state=NodeState.UNREADY, state_reason=observer.unready[node.name])
    return replace(node, state=state, state_reason=reason)


def _events(node: Node, after: Node, now_ms: int) -> list[Event]:
    if after == node:
        return []
    if after.state is NodeState.LOST:
        return [NodeLost(at_ms=now_ms, node=node.name, reason=after.state_reason)]
    return [NodeSeen(at_ms=now_ms, node=after)]


def _drained(record: LeaseRecord, node: str) -> DrainedLease:
    lease = record.lease
    return {
        "lease_id": lease.id,
        "job_id": lease.job_id,
        "tenant": lease.tenant,
        "cards": sum(len(a.devices) for a in lease.allocations if a.node == node),
        "nodes": sorted({a.node for a in lease.allocations}),
    }
