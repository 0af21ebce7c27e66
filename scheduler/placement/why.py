"""True reasons why a demand finds no place, worked out from three views: as it is, empty, and empty and healthy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scheduler.model.job import Together
from scheduler.model.node import Device, Health, Lane, Node, NodeState
from scheduler.model.plan import Reason, ReasonKind
from scheduler.placement.fit import Demand, Features, Refusal, capacity, refusal, tally
from scheduler.placement.future import most
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
    nearest = _nearest(refusals)
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
    placer, number = shapes.placer, shape.number
    demand = placer.table.demands[number]
    empty, whole = placer.potential(number)
    if together is not Together.ANYWHERE:
        views = {node.name: NodeView.empty(node) for node in shapes.described()}
        well = {name: NodeView.empty(healed(view.node)) for name, view in views.items()}
        empty = most({name: capacity(view, demand, shapes.features) for name, view in views.items()}, views, together)
        whole = most({name: capacity(view, demand, shapes.features) for name, view in well.items()}, views, together)
    reason = never(shapes.described(), demand, ranks, shapes.features, together) if whole < ranks else None
    if reason is not None:
        return (reason,)
    if empty < ranks:
        sick = sorted(placer.sick(number), key=lambda node: node.name)
        return tuple(_health(node, demand) for node in sick[:REASONS_SHOWN])
    if shape.ranking.copies > 0:
        message = _ranks(shape.ranking.copies, ranks, "at once now: others hold the rest")
        return (Reason(kind=ReasonKind.CAPACITY, resource="ranks", message=message),)
    return tuple(
        Reason(kind=ReasonKind.CAPACITY, resource=found[0].resource, message=_phrase(found, "others hold the rest"))
        for found in _short(shapes, number)[:REASONS_SHOWN]
    )


def _short(shapes: Shapes, number: int) -> list[Found]:
    """Per resource, the refusal of the node that comes nearest, of nodes that would take a copy if they were empty."""
    placer = shapes.placer
    found: list[Found] = []
    for row, count in placer.nearest(number):
        no = refusal(placer.cluster.view(row), placer.table.demands[number], shapes.features)
        assert no is not None, "capacity and refusal disagree"
        found.append((no, placer.cluster.nodes[row].name, count))
    return found


def _cluster_cards(no: Refusal, nodes: Sequence[Node]) -> str:
    """What cards there are, for a demand that names the wrong ones."""
    if no.resource not in ("card", "card_model", "card_memory", "mig_profile", "feature"):
        return ""
    names = tally(f"{d.model}/{d.profile}" if d.profile else d.model for node in nodes for d in leasable(node))
    return f" (cards in the cluster: {names or 'none'})"


def _health(node: Node, demand: Demand) -> Reason:
    """A node that would run more if it, or its cards, came back, or if it moved to the demand's lane."""
    if node.lane is not Lane.ANY and node.lane.value != demand.lane:
        message = f"needs lane {demand.lane}; node {node.name}, where it would fit, serves lane {node.lane.value}"
        return Reason(kind=ReasonKind.CAPACITY, resource="lane", message=message)
    if node.state is not NodeState.READY:
        why = f" ({node.state_reason})" if node.state_reason else ""
        message = f"node {node.name}, where it would fit, is {node.state.value}{why}"
        return Reason(kind=ReasonKind.HEALTH, resource="node", message=message)
    cards = leasable(node)
    ours, theirs = ([d for d in cards if d.health is health] for health in (Health.QUARANTINED, Health.EXTERNAL))
    where = f"cards of node {node.name}, where it would fit, are"
    if not ours:
        message = f"{len(theirs)} of {len(cards)} {where} held by something else than shisuan{_whys(theirs)}"
        return Reason(kind=ReasonKind.CAPACITY, resource="external", message=message)
    message = f"{len(ours)} of {len(cards)} {where} quarantined{_whys(ours)}"
    message += f", and {len(theirs)} held by something else than shisuan" if theirs else ""
    return Reason(kind=ReasonKind.HEALTH, resource="card", message=message)


def _whys(devices: Sequence[Device]) -> str:
    whys = sorted({device.health_reason for device in devices if device.health_reason})
    return f" ({'; '.join(whys)})" if whys else ""


def _ranks(copies: int, ranks: int, where: str) -> str:
    return f"needs {ranks} ranks together; only {copies} fit {where}"


def _nearest(refusals: Mapping[str, Refusal]) -> Found:
    """The refusal of the node that comes nearest; names break ties."""
    name = min(refusals, key=lambda name: (-refusals[name].stage, -refusals[name].amount, name))
    no = refusals[name]
    return no, name, sum(other.resource == no.resource for other in refusals.values())


def _phrase(found: Found, conclusion: str) -> str:
    no, name, count = found
    others = f" ({count} nodes short of it)" if count > 1 else ""
    return f"{no.need}; {name} comes nearest and {no.have}{others}: {conclusion}"
