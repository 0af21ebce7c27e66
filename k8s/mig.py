"""What the GPU Operator's MIG manager can make of a node, and what a node's labels say of it. Pure.

A configuration is what mig-parted's file has under one name; the label ``nvidia.com/mig.config`` of a node names the
one that is to be applied to all of its cards. The MIG manager says in another label how far it is; after ``success``
the device plugin (or the driver) still has to tell of the new devices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from k8s.names import MIG_CAPABLE, MIG_CONFIG, MIG_MANAGER, MIG_STATE, MIG_STRATEGY
from k8s.sightings import NodeSight
from scheduler.model.board import Board
from scheduler.model.catalogue import BY_ID
from scheduler.model.node import CardCut, Device, DeviceKind, Health, NodeLayout

BUSY = ("pending", "rebooting")
SUCCESS, FAILED = "success", "failed"
COUNT = "nvidia.com/gpu.count"
MIXED = "mixed"
"""The device plugin's strategy by which each profile is a resource of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What becomes of some of a node's cards."""

    devices: tuple[int, ...] | None = None
    """Their indices; None: all."""
    profiles: tuple[tuple[str, int], ...] = ()
    """Instances per card, sorted; of no meaning where MIG is off."""
    mig_on: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A named configuration. Entries that are meant for other boards are told by their profiles."""

    name: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """What is to be known of a node's cards as a whole."""

    devices: tuple[Device, ...]
    layouts: tuple[NodeLayout, ...] = ()
    layout: str = ""
    cuts: tuple[CardCut, ...] = ()
    """Of those that were asked: the one that failed."""


def laid(
    node: NodeSight, devices: tuple[Device, ...], model: str, configs: tuple[Config, ...], *, is_named: bool
) -> Laid:
    """``devices``: those that the device plugin or the driver tells of. ``is_named``: it is a driver that does."""
    can = node.label(MIG_CAPABLE) == node.label(MIG_MANAGER) == "true"
    count = node.label(COUNT)
    if not can or not count.isdecimal() or not (is_named or node.label(MIG_STRATEGY) == MIXED):
        return Laid(devices=devices)
    layouts = layouts_of(configs, model, int(count))
    if not layouts:
        return Laid(devices=devices)
    config, state = node.label(MIG_CONFIG), node.label(MIG_STATE)
    asked, _, since = node.asked.rpartition("@")
    is_ours = bool(asked) and asked == config and since.isdecimal()
    if state in BUSY or (is_ours and not state):
        why = f"the GPU Operator is to cut its cards anew ({config}: {state or 'not begun'})"
        return Laid(devices=tuple(_out(device, why) for device in devices), layouts=layouts)
    if state == SUCCESS:
        return _in_layout(devices, layouts, config)
    if state == FAILED and is_ours:
        problem = f"the GPU Operator's MIG manager could not apply {config} ({MIG_STATE}={state})"
        return Laid(
            devices=devices, layouts=layouts, cuts=(CardCut(name=config, since_ms=int(since), problem=problem),)
        )
    return Laid(devices=devices, layouts=layouts)


def _in_layout(devices: Sequence[Device], layouts: tuple[NodeLayout, ...], name: str) -> Laid:
    """A kubelet shows for minutes what a device plugin had before, as unhealthy: that is not there any more."""
    wanted = next((dict(layout.profiles) for layout in layouts if layout.name == name), None)
    if wanted is not None:
        there = tuple(device for device in devices if device.health is Health.OK or _profile(device) in wanted)
        if Counter(map(_profile, there)) == wanted:
            return Laid(devices=there, layouts=layouts, layout=name)
    return Laid(devices=tuple(devices), layouts=layouts)


def _profile(device: Device) -> str:
    return device.profile if device.kind is DeviceKind.MIG else ""


def _out(device: Device, why: str) -> Device:
    return device if device.health is not Health.OK else replace(device, health=Health.QUARANTINED, health_reason=why)


@lru_cache(maxsize=256)
def layouts_of(configs: tuple[Config, ...], model: str, cards: int) -> tuple[NodeLayout, ...]:
    """What a node with so many cards of a model can be, by name: those configurations that say it of every card."""
    board = BY_ID.get(model)
    if board is None or not board.mig or not cards:
        return ()
    found = (_layout(config, board, cards) for config in configs)
    return tuple(sorted((layout for layout in found if layout is not None), key=lambda layout: layout.name))


def _layout(config: Config, board: Board, cards: int) -> NodeLayout | None:
    total: Counter[str] = Counter()
    for index in range(cards):
        # mig-parted finds an entry's boards by PCI ids, which no label tells: it is for boards that can be cut so.
        entries = (one for one in config.entries if one.devices is None or index in one.devices)
        outcomes = {(("", 1),) if not one.mig_on else one.profiles for one in entries if can_be(board, one)}
        if len(outcomes) != 1:
            return None  # nothing is said of this card, or two things are
        total.update(dict(outcomes.pop()))
    return NodeLayout(name=config.name, profiles=tuple(sorted(total.items())), cards=cards)


def can_be(board: Board, entry: Entry) -> bool:
    """Whether a card of this board can be cut so."""
    if not entry.mig_on:
        return True
    known = {profile.name: profile for profile in board.mig}
    if not all(name in known and count <= known[name].most for name, count in entry.profiles):
        return False
    taken = sum(known[name].memory_slices * count for name, count in entry.profiles)
    return taken <= max(profile.memory_slices for profile in board.mig)
