"""Whole nodes that are put into another of the layouts their runtime has names for, where that gains more than it
costs.

On Kubernetes the GPU Operator cuts all cards of a node at once, as a configuration says that has a name. Everything
there is stopped for it, so nobody may be on the node: an idle one is laid out anew at once. For who is next, a busy one
is kept free of anything that would not end before the rest has: it drains, and is laid out anew when it is empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from scheduler.engine.candidates import Candidate
from scheduler.engine.convert import is_idle, whole_node
from scheduler.engine.recut import GAIN, LOOKED_AT, cost_ms, cuts_of, rest_ms
from scheduler.engine.trial import Trial
from scheduler.model.catalogue import BY_ID
from scheduler.model.layout import laid_out, layout_named, layout_under_way
from scheduler.model.node import Health, Node, NodeLayout, NodeState
from scheduler.model.plan import Recut
from scheduler.placement.fit import Demand, Features, capacity
from scheduler.placement.mig import whole
from scheduler.placement.view import NodeView, healed


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutOffer:
    """How one node, with nobody on it, would make room."""

    node: str
    name: str
    """The layout."""
    copies: int
    slices_lost: int
    """Memory slices of the devices that there would not be any more."""

    @property
    def order(self) -> tuple[int, int, str, str]:
        """The cheapest per copy first."""
        return self.slices_lost * 1_000 // self.copies, -self.copies, self.node, self.name


def relayouts(trial: Trial, left_over: Sequence[Candidate]) -> tuple[Recut, ...]:
    """What was drained and is empty, and idle nodes for single tasks at the front of the order."""
    if trial.policy.recut_every_ms and trial.state.laid:
        waiting = (c for c in left_over if _asks(c) and (c.blocked or trial.limit(c)) is None)
        coming = _coming(trial)
        for candidate in islice(waiting, LOOKED_AT):
            tasks = _missing(candidate, coming)
            for offer in _offers(trial, candidate, tasks, idle=True):
                if tasks > 0:
                    _take(trial, candidate, offer)
                    tasks -= offer.copies
    return tuple(trial.laid.now[name] for name in sorted(trial.laid.now))


def drain(trial: Trial, candidate: Candidate) -> None:
    """The candidate is next and no node can run it as they are cut: keep the one that is empty first for it, where that
    is sooner than what it was promised.
    """
    if not trial.policy.recut_every_ms or not trial.state.laid or not _asks(candidate) or candidate.blocked is not None:
        return
    own = trial.promise_of(candidate)
    is_possible = bool(trial.state.shapes.possible(trial.state.shapes.of(candidate.demand)))
    if own is None and (is_possible or len(trial.promises) >= trial.promises_max):
        return  # the next of its kind to end makes room for it, or others ahead are promised theirs
    tasks = _missing(candidate, _coming(trial))
    free = trial.expected.empty_ms
    offers = _offers(trial, candidate, tasks)
    best = min(offers, key=lambda offer: (max(free(offer.node), trial.now_ms), offer.order), default=None)
    if best is None:
        return
    ready_ms = max(free(best.node), trial.now_ms)
    start_ms = ready_ms + cost_ms(trial, whole=True)
    if own is not None and own.start_ms <= start_ms:
        return
    node = whole_node(trial, best.node)
    trial.keep(candidate.promise((node,), ready_ms, start_ms + candidate.run_ms), instead_of=own)
    if is_idle(trial, best.node):
        _take(trial, candidate, best)
    else:
        trial.laid.draining[candidate.key] = (best.node, best.name, ready_ms)


def could_lay_out(node: Node, demand: Demand, features: Features) -> bool:
    """Whether the node, with nobody on it, has a layout in which the demand fits."""
    is_known = bool(node.devices) and node.devices[0].model in BY_ID
    return is_known and any(_fits(healed(node), layout, demand, features) for layout in node.layouts)


def best_offer(node: Node, demand: Demand, features: Features, tasks: int = 1) -> LayoutOffer | None:
    """The cheapest layout per copy of the demand, of which ``tasks`` are wanted; None: no other one has room for it.

    Only of a healthy node that says which board its cards are; whether anybody is on it is asked elsewhere.
    """
    sound = all(device.health is Health.OK for device in node.devices)
    if not (sound and node.devices and node.devices[0].model in BY_ID and node.state is NodeState.READY):
        return None
    have = Counter(device.profile for device in node.devices)
    found = (
        LayoutOffer(node=node.name, name=layout.name, copies=copies, slices_lost=_lost(node, have, layout))
        for layout in node.layouts
        if layout.name != node.layout
        if (copies := min(tasks, _fits(node, layout, demand, features))) > 0
    )
    return min(found, key=lambda offer: offer.order, default=None)


def _fits(node: Node, layout: NodeLayout, demand: Demand, features: Features) -> int:
    return capacity(NodeView.empty(laid_out(node, layout.name)), demand, features)


def _lost(node: Node, have: Counter[str], layout: NodeLayout) -> int:
    gone = have - Counter(dict(layout.profiles))
    return sum(_slices(node, profile) * count for profile, count in gone.items())


def _slices(node: Node, profile: str) -> int:
    """Memory slices of an instance, or of a whole card."""
    board = BY_ID[node.devices[0].model]
    known = {one.name: one.memory_slices for one in board.mig}
    return known.get(profile) or whole(board).memory_slices


def _asks(candidate: Candidate) -> bool:
    ask = candidate.demand.resources
    return bool(candidate.left) and candidate.step.ranks == 1 and ask.cards > 0


def _missing(candidate: Candidate, coming: Counter[str]) -> int:
    """Tasks for which nothing is coming yet; what is, is taken by them."""
    ask = candidate.demand.resources
    there = min(candidate.left, coming[ask.mig_profile] // ask.cards)
    coming[ask.mig_profile] -= there * ask.cards
    return candidate.left - there


def _coming(trial: Trial) -> Counter[str]:
    """Devices by profile of the layouts that nodes are being put into, or will be now."""
    found = Counter[str]()
    for name in sorted(trial.state.laid & trial.state.cut):
        node = trial.state.nodes[name].node
        if under_way := layout_under_way(node):
            found.update(_devices(node, under_way))
    for name, action in sorted(trial.laid.now.items()):
        found.update(_devices(trial.state.nodes[name].node, action.name))
    return found


def _devices(node: Node, name: str) -> dict[str, int]:
    return dict(layout_named(node, name).profiles) if name in {layout.name for layout in node.layouts} else {}


def _offers(trial: Trial, candidate: Candidate, tasks: int, *, idle: bool = False) -> list[LayoutOffer]:
    """Of nodes that nobody has been promised and where the work that waits is worth it, the cheapest first.

    ``idle``: only of those on which nobody is.
    """
    if tasks <= 0:
        return []
    cost, features = cost_ms(trial, whole=True), trial.state.shapes.features
    known: dict[Hashable, LayoutOffer | None] = {}
    found: list[LayoutOffer] = []
    taken = trial.guard.nodes | trial.moves.keys() | trial.laid.now.keys() | _resting(trial)
    for name in sorted(trial.state.laid - taken):
        if idle and not is_idle(trial, name):
            continue
        node = trial.state.nodes[name].node
        kind = trial.laid.kinds.get(name) or trial.laid.kinds.setdefault(name, _kind(node))
        if kind not in known:
            known[kind] = best_offer(node, candidate.demand, features, tasks)
        offer = known[kind]
        if offer is not None and _gains(candidate, node, offer, cost):
            found.append(replace(offer, node=name))
    return sorted(found, key=lambda offer: offer.order)


def _kind(node: Node) -> Hashable:
    """Nodes of a kind have the same offers."""
    devices = Counter((device.model, device.profile, device.health) for device in node.devices)
    offered = (node.cpu_milli, node.memory_mib, node.scratch_mib, node.labels, node.taints, node.lane, node.state)
    return offered, node.layouts, node.layout, tuple(sorted(devices.items()))


def _gains(candidate: Candidate, node: Node, offer: LayoutOffer, cost: int) -> bool:
    """Work and cost in memory slices times time: all cards of the node stand still while it is cut."""
    ask = candidate.demand.resources
    work = candidate.run_ms * offer.copies * ask.cards * _slices(node, ask.mig_profile)
    return work >= GAIN * cost * layout_named(node, offer.name).cards * _slices(node, "")


def _resting(trial: Trial) -> set[str]:
    """Nodes that are being cut, or were, or were to be, too lately."""
    return {
        name
        for name, cut in cuts_of(trial.state)
        if not cut.ended_ms or trial.now_ms < cut.ended_ms + rest_ms(trial, cut)
    }


def _take(trial: Trial, candidate: Candidate, offer: LayoutOffer) -> None:
    trial.laid.now[offer.node] = Recut(
        node=offer.node,
        card="",
        layout=(),
        name=offer.name,
        for_job=candidate.job.id,
        cost_ms=cost_ms(trial, whole=True),
    )
