"""The MIG layout of a card, read off a node's devices, and the devices a layout gives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from scheduler.model.catalogue import BY_ID, nominal_mib
from scheduler.model.node import Device, DeviceKind, Health, Layout, MigPlace, Node

USABLE_PERMILLE = 950
"""Of its share of the card's memory, an instance shows so much at least: the rest is the driver's."""
CUTTING = "its card is being cut anew"


def layout_of(devices: Iterable[Device], card: str) -> Layout | None:
    """What is cut from a card now; None where an instance does not say where it lies."""
    mine = [device for device in devices if device.kind is DeviceKind.MIG and device.parent == card]
    if any(device.slice_start < 0 for device in mine):
        return None
    return ordered(MigPlace(start=device.slice_start, profile=device.profile) for device in mine)


def ordered(places: Iterable[MigPlace]) -> Layout:
    """As a layout."""
    return tuple(sorted(places, key=lambda place: (place.start, place.profile)))


def after_cut(devices: Iterable[Device], card: str, layout: Layout) -> tuple[Device, ...]:
    """The devices as they will be. Those that come are named by their places, and have the memory they have at least.

    Raises KeyError for a card that is not there, a model without MIG or a profile that it does not have.
    """
    devices = tuple(devices)
    there = [device for device in devices if card in (device.id, device.parent)]
    if not there:
        raise KeyError(card)
    known = {(device.slice_start, device.profile): device for device in there if device.kind is DeviceKind.MIG}
    board = BY_ID[there[0].model]
    slices = {profile.name: profile.memory_slices for profile in board.mig}
    bare = replace(
        there[0], kind=DeviceKind.MIG, parent=card, mig_on=False, health=Health.OK, health_reason="", island=""
    )
    made = [
        known.get((place.start, place.profile))
        or replace(
            bare,
            id=f"{card}/{place.profile}@{place.start}",
            profile=place.profile,
            slice_start=place.start,
            slices=slices[place.profile],
            memory_mib=share_mib(bare.model, slices[place.profile]),
        )
        for place in layout
    ]
    if not made:
        whole = nominal_mib(bare.model)
        made = [
            replace(
                bare, id=card, kind=DeviceKind.CARD, parent="", profile="", slice_start=-1, slices=0, mig_on=True,
                memory_mib=whole, health=Health.QUARANTINED, health_reason="MIG is on and no instance is made",
            )
        ]  # fmt: skip
    return tuple(device for device in devices if device not in there) + tuple(made)


def share_mib(model: str, slices: int) -> int:
    """What an instance of so many memory slices has at least. Raises KeyError."""
    most = max(profile.memory_slices for profile in BY_ID[model].mig)
    return nominal_mib(model) * slices * USABLE_PERMILLE // (most * 1_000)


def settled(before: Node | None, seen: Node, at_ms: int) -> Node:
    """What a node says of itself, with what plans know of its cards: which are being cut, and what therefore goes.

    A cut ends when the devices are as it wants them, or with the node's own refusal. Until then what it will destroy
    takes no work.
    """
    cuts = {cut.card: cut for cut in (before.cuts if before is not None else ())}
    for said in seen.cuts:
        known = cuts.get(said.card)
        if said.since_ms:
            if known is None or not known.ended_ms or said.since_ms > known.since_ms:
                cuts[said.card] = said
        elif known is not None and not known.ended_ms and known.layout == said.layout:
            cuts[said.card] = replace(known, ended_ms=max(at_ms, known.since_ms + 1), problem=said.problem)
    for card, cut in cuts.items():
        if not cut.ended_ms and layout_of(seen.devices, card) == cut.layout:
            cuts[card] = replace(cut, ended_ms=max(at_ms, cut.since_ms + 1))
    if not cuts:
        return seen
    going = {cut.card: cut.layout for cut in cuts.values() if not cut.ended_ms}
    devices = tuple(_leaving(device, going) for device in seen.devices)
    return replace(seen, devices=devices, cuts=tuple(cuts[card] for card in sorted(cuts)))


def _leaving(device: Device, going: dict[str, Layout]) -> Device:
    layout = going.get(device.parent)
    stays = layout is None or MigPlace(start=device.slice_start, profile=device.profile) in layout
    if stays or device.health is not Health.OK:
        return device
    return replace(device, health=Health.QUARANTINED, health_reason=CUTTING)


def under_way(node: Node) -> dict[str, Layout]:
    """By card, the layout it is being cut into."""
    return {cut.card: cut.layout for cut in node.cuts if not cut.ended_ms}
