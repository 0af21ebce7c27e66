"""True reasons why a demand finds no place, worked out from three views: as it is, empty, and empty and healthy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scheduler.model.node import Health, Node, NodeState
from scheduler.model.plan import Reason, ReasonKind
from scheduler.placement.fit import Demand, Features, Refusal, capacity, refusal, tally
from scheduler.placement.view import NodeView, healed, leasable

REASONS_SHOWN = 4
"""A person reads no more than this."""


def never(nodes: Sequence[Node], demand: Demand, ranks: int, features: Features) -> Reason | None:
    """Why all nodes together, empty and healthy, could not run it; None when they could."""
    if not nodes:
        return Reason(kind=ReasonKind.NEVER_FITS, resource="node", message="no node has joined the cluster yet")
    views = [NodeView.empty(healed(node)) for node in nodes]
    copies = sum(capacity(view, demand, features) for view in views)
    if copies >= ranks:
        return None
    if copies > 0:
        message = _ranks(copies, ranks, "on all nodes, even empty")
        return Reason(kind=ReasonKind.NEVER_FITS, resource="ranks", message=message)
    nearest = _nearest(views, demand, features)[0]
    message = _phrase(nearest, "no node could run it") + _cluster_cards(nearest[0], nodes)
    return Reason(kind=ReasonKind.NEVER_FITS, resource=nearest[0].resource, message=message)


def why_not(views: Mapping[str, NodeView], demand: Demand, ranks: int, features: Features) -> tuple[Reason, ...]:
    """Why ``ranks`` copies of ``demand`` do not fit now. At least one reason; the caller knows that they do not fit."""
    ordered = [views[name] for name in sorted(views)]
    nodes = [view.node for view in ordered]
    impossible = never(nodes, demand, ranks, features)
    if impossible is not None:
        return (impossible,)
    empty = [NodeView.empty(node) for node in nodes]
    if sum(capacity(view, demand, features) for view in empty) < ranks:
        return _health(nodes, demand, features)
    able = [view for view, bare in zip(ordered, empty, strict=True) if capacity(bare, demand, features) > 0]
    copies = sum(capacity(view, demand, features) for view in able)
    if copies > 0:
        message = _ranks(copies, ranks, "at once now: others hold the rest")
        return (Reason(kind=ReasonKind.CAPACITY, resource="ranks", message=message),)
    return tuple(
        Reason(kind=ReasonKind.CAPACITY, resource=found[0].resource, message=_phrase(found, "others hold the rest"))
        for found in _nearest(able, demand, features, per_resource=True)[:REASONS_SHOWN]
    )


def _cluster_cards(no: Refusal, nodes: Sequence[Node]) -> str:
    """What cards there are, for a demand that names the wrong ones."""
    if no.resource not in ("card", "card_model", "card_memory", "mig_profile", "feature"):
        return ""
    names = tally(f"{d.model}/{d.profile}" if d.profile else d.model for node in nodes for d in leasable(node))
    return f" (cards in the cluster: {names or 'none'})"


def _health(nodes: Sequence[Node], demand: Demand, features: Features) -> tuple[Reason, ...]:
    """One reason per node that would run more if it, or its cards, came back."""
    reasons: list[Reason] = []
    for node in nodes:
        now = capacity(NodeView.empty(node), demand, features)
        whole = capacity(NodeView.empty(healed(node)), demand, features)
        if now < whole:
            reasons.append(Reason(kind=ReasonKind.HEALTH, resource=_sick(node)[0], message=_sick(node)[1]))
    return tuple(reasons[:REASONS_SHOWN])


def _sick(node: Node) -> tuple[str, str]:
    if node.state is not NodeState.READY:
        why = f" ({node.state_reason})" if node.state_reason else ""
        return "node", f"node {node.name}, where it would fit, is {node.state.value}{why}"
    bad = [device for device in leasable(node) if device.health is not Health.OK]
    whys = sorted({device.health_reason for device in bad if device.health_reason})
    why = f" ({'; '.join(whys)})" if whys else ""
    count = f"{len(bad)} of {len(leasable(node))} cards"
    return "card", f"{count} of node {node.name}, where it would fit, are quarantined{why}"


def _ranks(copies: int, ranks: int, where: str) -> str:
    return f"needs {ranks} ranks together; only {copies} fit {where}"


def _nearest(
    views: Sequence[NodeView], demand: Demand, features: Features, *, per_resource: bool = False
) -> list[tuple[Refusal, str, int]]:
    """``(refusal, node, nodes refused for that resource)``, the node that comes nearest first."""
    found = [(no, view.node.name) for view in views if (no := refusal(view, demand, features)) is not None]
    found.sort(key=lambda f: (-f[0].stage, -f[0].amount, f[1]))
    best: dict[str, tuple[Refusal, str]] = {}
    for no, name in found:
        best.setdefault(no.resource if per_resource else "", (no, name))
    return [(no, name, sum(1 for other, _ in found if other.resource == no.resource)) for no, name in best.values()]


def _phrase(found: tuple[Refusal, str, int], conclusion: str) -> str:
    no, name, count = found
    others = f" ({count} nodes short of it)" if count > 1 else ""
    return f"{no.need}; {name} comes nearest and {no.have}{others}: {conclusion}"
