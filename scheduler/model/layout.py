"""The MIG layout of a card, read off a node's devices, and the devices a layout gives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from scheduler.model.catalogue import BY_ID, nominal_mib
from scheduler.model.node import CardCut, Device, DeviceKind, Health, Layout, MigPlace, Node, NodeLayout

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


def laid_out(node: Node, name: str) -> Node:
    """The node as it will be in one of its layouts; its devices have the memory they have at least.

    Raises KeyError for a layout or a profile that there is not.
    """
    layout = layout_named(node, name)
    first = node.devices[0]
    board = BY_ID[first.model]
    slices = {profile.name: profile.memory_slices for profile in board.mig}
    bare = replace(first, parent="", mig_on=False, slice_start=-1, health=Health.OK, health_reason="", island="")
    made = [
        replace(
            bare,
            id=f"{node.name}/{name}/{profile}#{number}",
            index=number,
            kind=DeviceKind.MIG if profile else DeviceKind.CARD,
            profile=profile,
            slices=slices[profile] if profile else 0,
            memory_mib=share_mib(first.model, slices[profile]) if profile else nominal_mib(first.model),
        )
        for profile, count in layout.profiles
        for number in range(count)
    ]
    return replace(node, devices=tuple(made), layout=name)


def layout_named(node: Node, name: str) -> NodeLayout:
    """One of the node's layouts. Raises KeyError."""
    return {layout.name: layout for layout in node.layouts}[name]


def share_mib(model: str, slices: int) -> int:
    """What an instance of so many memory slices has at least. Raises KeyError."""
    most = max(profile.memory_slices for profile in BY_ID[model].mig)
    return nominal_mib(model) * slices * USABLE_PERMILLE // (most * 1_000)


def settled(before: Node | None, seen: Node, at_ms: int) -> Node:
    """What a node says of itself, with what plans know of its cards: which are being cut, and what therefore goes.

    A cut ends when the devices are as it wants them, or with the node's own refusal. Until then what it will destroy
    takes no work. While a whole node is cut its devices come and go as its runtime likes: those that it had count.
    """
    cuts = {cut.card: cut for cut in (before.cuts if before is not None else ())}
    for said in seen.cuts:
        known = cuts.get(said.card)
        if not said.is_told:
            if known is None or not known.ended_ms or said.since_ms > known.since_ms:
                cuts[said.card] = said
        elif known is not None and not known.ended_ms and said.answers(known):
            cuts[said.card] = replace(known, ended_ms=max(at_ms, known.since_ms + 1), problem=said.problem)
    for card, cut in cuts.items():
        if not cut.ended_ms and _is_so(seen, cut):
            cuts[card] = replace(cut, ended_ms=max(at_ms, cut.since_ms + 1))
    if not cuts:
        return seen
    after = replace(seen, cuts=tuple(cuts[card] for card in sorted(cuts)))
    if layout_under_way(after):
        there = before.devices if before is not None else seen.devices
        return replace(after, devices=tuple(_out(device) for device in there))
    going = under_way(after)
    return replace(after, devices=tuple(_leaving(device, going) for device in seen.devices))


def _is_so(seen: Node, cut: CardCut) -> bool:
    return seen.layout == cut.name if cut.name else layout_of(seen.devices, cut.card) == cut.layout


def _leaving(device: Device, going: dict[str, Layout]) -> Device:
    layout = going.get(device.parent)
    stays = layout is None or MigPlace(start=device.slice_start, profile=device.profile) in layout
    return device if stays or device.health is not Health.OK else _out(device)


def _out(device: Device) -> Device:
    return replace(device, health=Health.QUARANTINED, health_reason=CUTTING)


def under_way(node: Node) -> dict[str, Layout]:
    """By card, the layout it is being cut into."""
    return {cut.card: cut.layout for cut in node.cuts if not (cut.ended_ms or cut.name)}


def layout_under_way(node: Node) -> str:
    """The layout that the whole node is being put into, by name; empty: none."""
    return next((cut.name for cut in node.cuts if cut.name and not cut.ended_ms), "")
