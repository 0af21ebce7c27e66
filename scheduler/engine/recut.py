"""Cards that are cut into other MIG instances, where those who wait gain more than the cut costs.

Only instances that nobody holds go; what runs on a card stays where it is. A cut is a fact of the node from the
decision on: what goes takes no work, and what comes counts when the node reports it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from scheduler.engine.candidates import Candidate
from scheduler.engine.state import State
from scheduler.engine.trial import Trial
from scheduler.model.board import Board
from scheduler.model.catalogue import BY_ID
from scheduler.model.layout import after_cut, layout_of, ordered, settled, under_way
from scheduler.model.node import CardCut, Device, DeviceKind, Health, Layout, MigPlace, Node
from scheduler.model.plan import GiveUpRecut, Recut
from scheduler.placement import mig
from scheduler.placement.fit import Demand, Features, admits, capacity
from scheduler.placement.mig import Instance
from scheduler.placement.view import NodeView, healed, leasable

GAIN = 2
"""Work that waits must take so many times as long as the cut (as for moves between lanes)."""
LOOKED_AT = 16
"""Waiting steps for which a plan looks for cards to cut."""
FAILED_RESTS = 8
"""After a whole node could not be cut it rests so many times as long: it was emptied for nothing."""


@dataclass(slots=True, kw_only=True)
class _Card:
    """A card that may be cut, and how far that went in thought."""

    id: str
    board: Board
    instances: list[Instance] = field(default_factory=list)
    ready: int = 0
    """Idle instances of the wanted profile: none of them goes."""
    slices_lost: int = 0
    is_changed: bool = False

    @property
    def layout(self) -> Layout:
        return ordered(MigPlace(start=each.start, profile=each.profile) for each in self.instances)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """How one node would make room."""

    node: str
    slices_lost: int
    layouts: tuple[tuple[str, Layout], ...]
    """By card, of those that change."""


def recuts(trial: Trial, left_over: Sequence[Candidate]) -> tuple[Recut, ...]:
    """Cuts to begin now, for single tasks at the front of the order; by the cheapest change first."""
    if not trial.policy.recut_every_ms:
        return ()
    waiting = (c for c in left_over if c.left and c.demand.resources.mig_profile and c.step.ranks == 1)
    cost = cost_ms(trial)
    coming = _coming(trial.state)
    used = {*trial.guard.nodes, *trial.moves}
    for candidate in islice((c for c in waiting if (c.blocked or trial.limit(c)) is None), LOOKED_AT):
        ask = candidate.demand.resources
        tasks = candidate.left - coming[ask.mig_profile] // ask.cards
        coming[ask.mig_profile] = max(0, coming[ask.mig_profile] - candidate.left * ask.cards)
        if tasks <= 0 or candidate.run_ms * tasks < GAIN * cost:
            continue
        for chosen in _chosen(trial, candidate.demand, tasks, used):
            used.add(chosen.node)
            trial.recuts += [
                Recut(node=chosen.node, card=card, layout=layout, for_job=candidate.job.id, cost_ms=cost)
                for card, layout in chosen.layouts
            ]
    return tuple(trial.recuts)


def give_ups(trial: Trial) -> tuple[GiveUpRecut, ...]:
    """Cuts that should have been confirmed by now."""
    return tuple(
        GiveUpRecut(node=name, card=cut.card, reason=f"the node did not confirm it within {limit_ms // 1_000} s")
        for name, cut in cuts_of(trial.state)
        if not cut.ended_ms and trial.now_ms >= cut.since_ms + (limit_ms := _limit_ms(trial, cut))
    )


def cut_wake_ms(trial: Trial) -> int:
    """When the next cut has failed, or may begin on a card that rests; 0: neither."""
    instants = [
        cut.ended_ms + rest_ms(trial, cut) if cut.ended_ms else cut.since_ms + _limit_ms(trial, cut)
        for _, cut in cuts_of(trial.state)
        if trial.policy.recut_every_ms or not cut.ended_ms
    ]
    return min((at for at in instants if at > trial.now_ms), default=0)


def rest_ms(trial: Trial, cut: CardCut) -> int:
    """How long a card is left alone after a cut; a whole node that could not be cut for longer."""
    return trial.policy.recut_every_ms * (FAILED_RESTS if cut.name and cut.problem else 1)


def _limit_ms(trial: Trial, cut: CardCut) -> int:
    return trial.policy.relayout_limit_ms if cut.name else trial.policy.recut_limit_ms


def cost_ms(trial: Trial, *, whole: bool = False) -> int:
    """What a cut of a card, or of a ``whole`` node, takes: the median of the last one of each, or what the policy says
    before any was seen.
    """
    ended = (cut for _, cut in cuts_of(trial.state) if cut.ended_ms and not cut.problem and bool(cut.name) is whole)
    seen = sorted(cut.ended_ms - cut.since_ms for cut in ended)
    default_ms = trial.policy.relayout_ms if whole else trial.policy.recut_ms
    return seen[len(seen) // 2] if seen else default_ms


def cutting(node: Node, action: Recut | GiveUpRecut, now_ms: int) -> Node:
    """The node from the decision on. After a cut that failed, what was to go waits for the node's next word."""
    if isinstance(action, Recut):
        begun = CardCut(card=action.card, layout=action.layout, name=action.name, since_ms=now_ms)
        return settled(node, replace(node, cuts=(begun,)), now_ms)
    failed = (replace(c, ended_ms=now_ms, problem=action.reason) if c.card == action.card else c for c in node.cuts)
    return replace(node, cuts=tuple(failed))


def could_cut(node: Node, demand: Demand, features: Features) -> bool:
    """Whether the node, with nobody on it, can be cut so that the demand fits."""
    return offer(NodeView.empty(replace(healed(node), cuts=())), demand, features) is not None


def offer(
    view: NodeView, demand: Demand, features: Features, resting: Collection[str] = (), *, copies: int = 1
) -> Offer | None:
    """The cheapest change of the node's cards after which ``copies`` fit on it. None: there is none, or none is needed.

    ``resting``: cards that may not be cut now.
    """
    ask = demand.resources
    if not admits(view.node, demand) or not _is_cuttable(view.node):
        return None
    cards = [card for card in _cards(view, ask.mig_profile) if card.id not in resting]
    missing = copies * ask.cards - sum(card.ready for card in cards)
    if missing <= 0 or not all(_cut_one(cards, ask.mig_profile) for _ in range(missing)):
        return None
    changed = [card for card in cards if card.is_changed]
    devices = view.node.devices
    for card in changed:
        devices = after_cut(devices, card.id, card.layout)
    there = replace(view.node, devices=devices)
    if capacity(replace(view, node=there, devices=leasable(there)), demand, features) < copies:
        return None
    return Offer(
        node=view.node.name,
        slices_lost=sum(card.slices_lost for card in changed),
        layouts=tuple((card.id, card.layout) for card in changed),
    )


def with_cut(node: Node, chosen: Offer) -> Node:
    """The node as an offer would leave it."""
    devices = node.devices
    for card, layout in chosen.layouts:
        devices = after_cut(devices, card, layout)
    return replace(node, devices=devices)


def _chosen(trial: Trial, demand: Demand, tasks: int, used: Collection[str]) -> list[Offer]:
    """Offers for as many of the tasks as can be, the cheapest first, one per node."""
    views, features = trial.search.nodes, trial.state.shapes.features
    resting = frozenset(_resting(trial))
    names = [name for name, view in trial.state.nodes.items() if name not in used and _is_cuttable(view.node)]
    best = {name: found for name in names if (found := offer(views[name], demand, features, resting)) is not None}
    copies = dict.fromkeys(best, 1)
    steps = {name: found.slices_lost for name, found in best.items()}
    chosen: dict[str, Offer] = {}
    while tasks > 0 and steps:
        _, name = min((lost, name) for name, lost in steps.items())
        chosen[name] = best[name]
        tasks -= 1
        copies[name] += 1
        more = offer(views[name], demand, features, resting, copies=copies[name])
        if more is None:
            del steps[name]
            continue
        steps[name] = more.slices_lost - best[name].slices_lost
        best[name] = more
    return [chosen[name] for name in sorted(chosen)]


def _cut_one(cards: Sequence[_Card], profile: str) -> bool:
    """One more instance of the profile, where least is lost for it. False: nowhere."""
    found = [
        (change.slices_lost, card.id, at, change)
        for at, card in enumerate(cards)
        if (change := mig.recut(card.board, card.instances, profile)) is not None
    ]
    if not found:
        return False
    lost, _, at, change = min(found, key=lambda each: each[:3])
    card = cards[at]
    left = [instance for instance in card.instances if instance not in change.destroy]
    card.instances = [*left, replace(change.create, is_idle=False)]
    card.slices_lost += lost
    card.is_changed = True
    return True


def _cards(view: NodeView, profile: str) -> Iterator[_Card]:
    """Cards of a node with MIG on that know the profile, and whose instances are well and say where they lie."""
    by_card: dict[str, list[Device]] = {}
    for device in view.node.devices:
        if device.kind is DeviceKind.MIG or device.mig_on:
            by_card.setdefault(device.parent or device.id, []).append(device)
    busy = under_way(view.node)
    for card_id, devices in sorted(by_card.items()):
        board = BY_ID.get(devices[0].model)
        if board is None or card_id in busy or profile not in {known.name for known in board.mig}:
            continue
        card = _Card(id=card_id, board=board)
        instances = [device for device in devices if device.kind is DeviceKind.MIG]
        if any(device.slice_start < 0 or device.health is Health.QUARANTINED for device in instances):
            continue
        for device in instances:
            is_free = device.id not in view.held and device.health is Health.OK
            card.ready += is_free and device.profile == profile
            is_idle = is_free and device.profile != profile
            card.instances.append(Instance(profile=device.profile, start=device.slice_start, is_idle=is_idle))
        if {instance.profile for instance in card.instances} <= {known.name for known in board.mig}:
            yield card


def _is_cuttable(node: Node) -> bool:
    return not node.layouts and any(device.kind is DeviceKind.MIG or device.mig_on for device in node.devices)


def _resting(trial: Trial) -> Iterator[str]:
    """Cards that were cut, or were to be, too lately."""
    every_ms = trial.policy.recut_every_ms
    return (cut.card for _, cut in cuts_of(trial.state) if not cut.ended_ms or trial.now_ms < cut.ended_ms + every_ms)


def _coming(state: State) -> Counter[str]:
    """Instances by profile that cuts under way will bring."""
    found = Counter[str]()
    for name in sorted(state.cut):
        node = state.nodes[name].node
        for card, layout in under_way(node).items():
            there = set(layout_of(node.devices, card) or ())
            found.update(place.profile for place in layout if place not in there)
    return found


def cuts_of(state: State) -> Iterator[tuple[str, CardCut]]:
    """Every node and cut that is under way, or was the last of its card."""
    for name in sorted(state.cut):
        for cut in state.nodes[name].node.cuts:
            yield name, cut
