"""Why a step that is in the order does not start its next task now."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import islice

from scheduler.engine.candidates import Candidate
from scheduler.engine.limits import seat_reason
from scheduler.engine.trial import Trial
from scheduler.model.job import Together
from scheduler.model.layout import layout_under_way
from scheduler.model.node import Health, Node
from scheduler.model.plan import Reason, ReasonKind
from scheduler.placement.fit import capacity
from scheduler.placement.future import most
from scheduler.placement.view import NodeView, healed, leasable
from scheduler.placement.why import WHERE, why_not

NODES_SHOWN = 3
"""More of them say no more."""


def reasons_of(trial: Trial, candidate: Candidate) -> tuple[Reason, ...]:
    """At least one; each is true of the state the plan was made from."""
    limit = candidate.blocked or trial.limit(candidate)
    if limit is not None:
        return (limit,)
    cut = next(_being_cut(trial, candidate), None)
    if cut is not None:
        return (cut,)
    demand, together = candidate.demand, candidate.step.together
    ranks = candidate.step.ranks_min or candidate.step.ranks
    if trial.search.most(demand, together) >= ranks:
        barred = trial.barred(candidate)
        free = trial.search.most(demand, together, barred) >= ranks
        return (_turn(trial) if free else _kept(trial, candidate, barred),)
    if trial.state.shapes.most(demand, together) >= ranks:
        message = "would fit, but leases ahead of it in the order take the room in this cycle"
        return (Reason(kind=ReasonKind.ORDER, message=message),)
    found = why_not(trial.state.shapes, demand, ranks, together)
    scattered = trial.state.shapes.most(demand, Together.ANYWHERE) >= ranks
    if scattered and all(reason.kind is ReasonKind.CAPACITY for reason in found):
        message = f"needs {ranks} ranks{WHERE[together]}; enough is free, but not near enough to each other"
        return (Reason(kind=ReasonKind.TOPOLOGY, resource=together.value, message=message),)
    if all(reason.kind is ReasonKind.HEALTH or reason.resource == "external" for reason in found):
        return tuple(_strangers(trial, candidate, ranks)) or found
    return found


def _being_cut(trial: Trial, candidate: Candidate) -> Iterator[Reason]:
    """Cards that are cut, or will be now, into what the candidate asks for."""
    profile = candidate.demand.resources.mig_profile
    yield from _being_laid_out(trial, candidate, profile)
    if not profile:
        return
    for name in sorted(trial.state.cut):
        for cut in trial.state.nodes[name].node.cuts:
            if not cut.ended_ms and any(place.profile == profile for place in cut.layout):
                since_s = (trial.now_ms - cut.since_ms) // 1_000
                message = f"card {cut.card} of node {name} is being cut for MIG profile {profile}, since {since_s} s"
                yield Reason(kind=ReasonKind.CAPACITY, resource="recut", message=message)
    for action in trial.recuts:
        if action.for_job == candidate.job.id:
            message = f"card {action.card} of node {action.node} is to be cut for MIG profile {profile} now"
            yield Reason(kind=ReasonKind.CAPACITY, resource="recut", message=message)


def _being_laid_out(trial: Trial, candidate: Candidate, profile: str) -> Iterator[Reason]:
    """Nodes that are put, or will be now or once they are empty, into a layout that has what the candidate asks for."""
    what = f"MIG profile {profile}" if profile else "whole cards"
    for name in sorted(trial.state.laid & trial.state.cut if candidate.demand.resources.cards else ()):
        node = trial.state.nodes[name].node
        layout = layout_under_way(node)
        if any(one.name == layout and profile in dict(one.profiles) for one in node.layouts):
            since_s = next((trial.now_ms - cut.since_ms) // 1_000 for cut in node.cuts if cut.name == layout)
            message = f"node {name} is being put into layout {layout}, which has {what}, since {since_s} s"
            yield Reason(kind=ReasonKind.CAPACITY, resource="recut", message=message)
    for name, action in sorted(trial.laid.now.items()):
        if action.for_job == candidate.job.id:
            message = f"node {name} is to be put into layout {action.name}, which has {what}, now"
            yield Reason(kind=ReasonKind.CAPACITY, resource="recut", message=message)
    if candidate.key in trial.laid.draining:
        name, layout, ready_ms = trial.laid.draining[candidate.key]
        in_s = max(0, ready_ms - trial.now_ms) // 1_000
        message = f"node {name} is to be put into layout {layout}, which has {what}, when it is empty: in {in_s} s"
        yield Reason(kind=ReasonKind.CAPACITY, resource="recut", message=message)


def _strangers(trial: Trial, candidate: Candidate, ranks: int) -> Iterator[Reason]:
    """Nodes whose cards something else than shisuan holds, where bringing back all that is ours would not be enough."""
    demand, features = candidate.demand, trial.state.shapes.features
    nodes = [view.node for view in trial.state.nodes.values()]
    cured = {node.name: NodeView.empty(_cured(node)) for node in nodes}
    copies = {name: capacity(view, demand, features) for name, view in cured.items()}
    if most(copies, cured, candidate.step.together) >= ranks:
        return
    more = (n for n in nodes if capacity(NodeView.empty(healed(n)), demand, features) > copies[n.name])
    for node in islice(sorted(more, key=lambda node: node.name), NODES_SHOWN):
        cards = leasable(node)
        theirs = [device for device in cards if device.health is Health.EXTERNAL]
        whys = sorted({device.health_reason for device in theirs if device.health_reason})
        why = f" ({'; '.join(whys)})" if whys else ""
        count = f"{len(theirs)} of {len(cards)} cards of node {node.name}"
        message = f"{count} are held by something else than shisuan{why}"
        yield Reason(kind=ReasonKind.CAPACITY, resource="external", message=message)


def _cured(node: Node) -> Node:
    """With everything back that is ours to bring back."""
    devices = (replace(d, health=Health.OK) if d.health is Health.QUARANTINED else d for d in node.devices)
    return replace(healed(node), devices=tuple(devices))


def _turn(trial: Trial) -> Reason:
    if trial.shut:
        message = f"job {trial.shut} is ahead of it, and nothing may start before that (backfill is off)"
    else:
        message = f"this cycle has granted its {trial.policy.starts_per_cycle} leases; the next one goes on"
    return Reason(kind=ReasonKind.ORDER, message=message)


def _kept(trial: Trial, candidate: Candidate, barred: Collection[str]) -> Reason:
    names = [name for name in barred if trial.search.copies_on(candidate.demand, name) > 0]
    own = {id(promise) for promise in trial.own(candidate)}
    promises = [promise for promise in trial.guard.delayed(names) if id(promise) not in own]
    if promises:
        first = promises[0]
        if (first.job_id, first.step) == candidate.key:
            return seat_reason(first, trial.now_ms)  # the seat of another lease of the same step
        in_s = max(0, first.start_ms - trial.now_ms) // 1000
        message = f"would run into the start of job {first.job_id}, expected in {in_s} s on {first.nodes[0]}"
        return Reason(kind=ReasonKind.RESERVATION, resource=first.job_id, message=message)
    windows = {window.name for node in sorted(barred) if (window := trial.window(candidate, node)) is not None}
    name = min(windows)
    message = f"could not end before reservation {name} takes its nodes"
    return Reason(kind=ReasonKind.RESERVATION, resource=name, message=message)
