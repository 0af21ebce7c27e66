"""True reasons why a demand finds no place, worked out from three views: as it is, empty, and empty and healthy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from scheduler.model.job import Together
from scheduler.model.node import Health, Node, NodeState
from scheduler.model.plan import Reason, ReasonKind
from scheduler.placement.fit import Demand, Features, Refusal, capacity, refusal, tally
from scheduler.placement.gang import most
from scheduler.placement.shapes import Shape, Shapes
from scheduler.placement.view import NodeView, healed, leasable

REASONS_SHOWN = 4
"""A person reads no more than this."""

Found = tuple[Refusal, str, int]
"""A refusal, the node it comes from, and how many nodes refuse for the same resource."""


WHERE = {Together.ANYWHERE: "", Together.RACK: " within one rack", Together.NODE: " on one node"}


def never(
    nodes: Sequence[Node], demand: Demand, ranks: int, features: Features, together: Together = Together.ANYWHERE
) -> Reason | None:
    """Why all nodes together, empty and healthy, could not run it; None when they could."""
    if not nodes:
        return Reason(kind=ReasonKind.NEVER_FITS, resource="node", message="no node has joined the cluster yet")
    views = {node.name: NodeView.empty(healed(node)) for node in nodes}
    by_node = {name: capacity(view, demand, features) for name, view in views.items()}
    copies = most(by_node, views, together)
    if copies >= ranks:
        return None
    if copies > 0:
        message = _ranks(copies, ranks, f"on all nodes{WHERE[together]}, even empty")
        return Reason(kind=ReasonKind.NEVER_FITS, resource="ranks", message=message)
    refusals = {name: no for name, view in views.items() if (no := refusal(view, demand, features)) is not None}
    nearest = _nearest(refusals, per_resource=False)[0]
    message = _phrase(nearest, "no node could run it") + _cluster_cards(nearest[0], nodes)
    return Reason(kind=ReasonKind.NEVER_FITS, resource=nearest[0].resource, message=message)


def why_not(shapes: Shapes, demand: Demand, ranks: int, together: Together = Together.ANYWHERE) -> tuple[Reason, ...]:
    """Why ``ranks`` copies of ``demand`` do not fit now. At least one reason; the caller knows that they do not fit."""
    shape = shapes.of(demand)
    key = (ranks, together)
    if key not in shape.reasons:
        shape.reasons[key] = _why_not(shapes, shape, ranks, together)
    return shape.reasons[key]


def _why_not(shapes: Shapes, shape: Shape, ranks: int, together: Together) -> tuple[Reason, ...]:
    potential = shapes.potential(shape)
    impossible = most(potential.healed, shapes.nodes, together) < ranks
    reason = never(shapes.described(), shape.demand, ranks, shapes.features, together) if impossible else None
    if reason is not None:
        return (reason,)
    if most(potential.empty, shapes.nodes, together) < ranks:
        sick = (name for name, most in sorted(potential.healed.items()) if potential.empty.get(name, 0) < most)
        return tuple(_health(shapes.nodes[name].node) for name in islice(sick, REASONS_SHOWN))
    if shape.ranking.copies > 0:
        message = _ranks(shape.ranking.copies, ranks, "at once now: others hold the rest")
        return (Reason(kind=ReasonKind.CAPACITY, resource="ranks", message=message),)
    return tuple(
        Reason(kind=ReasonKind.CAPACITY, resource=found[0].resource, message=_phrase(found, "others hold the rest"))
        for found in _nearest(shapes.refusals(shape), per_resource=True)[:REASONS_SHOWN]
    )


def _cluster_cards(no: Refusal, nodes: Sequence[Node]) -> str:
    """What cards there are, for a demand that names the wrong ones."""
    if no.resource not in ("card", "card_model", "card_memory", "mig_profile", "feature"):
        return ""
    names = tally(f"{d.model}/{d.profile}" if d.profile else d.model for node in nodes for d in leasable(node))
    return f" (cards in the cluster: {names or 'none'})"


def _health(node: Node) -> Reason:
    """A node that would run more if it, or its cards, came back."""
    if node.state is not NodeState.READY:
        why = f" ({node.state_reason})" if node.state_reason else ""
        message = f"node {node.name}, where it would fit, is {node.state.value}{why}"
        return Reason(kind=ReasonKind.HEALTH, resource="node", message=message)
    bad = [device for device in leasable(node) if device.health is not Health.OK]
    whys = sorted({device.health_reason for device in bad if device.health_reason})
    why = f" ({'; '.join(whys)})" if whys else ""
    message = f"{len(bad)} of {len(leasable(node))} cards of node {node.name}, where it would fit, are quarantined{why}"
    return Reason(kind=ReasonKind.HEALTH, resource="card", message=message)


def _ranks(copies: int, ranks: int, where: str) -> str:
    return f"needs {ranks} ranks together; only {copies} fit {where}"


def _nearest(refusals: Mapping[str, Refusal], *, per_resource: bool) -> list[Found]:
    """The refusal of the node that comes nearest (per resource, or of all), nearest first; names break ties."""
    best: dict[str, tuple[tuple[int, int, str], Refusal]] = {}
    counts: dict[str, int] = {}
    for name, no in refusals.items():
        key, group = (-no.stage, -no.amount, name), no.resource if per_resource else ""
        counts[no.resource] = counts.get(no.resource, 0) + 1
        if group not in best or key < best[group][0]:
            best[group] = (key, no)
    ranked = sorted(best.values(), key=lambda found: found[0])
    return [(no, key[2], counts[no.resource]) for key, no in ranked]


def _phrase(found: Found, conclusion: str) -> str:
    no, name, count = found
    others = f" ({count} nodes short of it)" if count > 1 else ""
    return f"{no.need}; {name} comes nearest and {no.have}{others}: {conclusion}"
