"""Cutting a node's cards into other MIG instances, on the node itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from scheduler.model.layout import after_cut
from scheduler.model.node import CardCut, Device, MigPlace
from workers.nvml import cut_here
from workers.table import Table


def cut_cards(
    home: Path, node: str, devices: Sequence[Device], cuts: Sequence[CardCut]
) -> tuple[tuple[Device, ...], tuple[CardCut, ...]]:
    """The node's devices afterwards, and the cuts that could not be made, with why. May be repeated.

    An instance that a lease holds or processes use is not destroyed. Simulated cards are cut on paper.
    """
    held = frozenset(_held(home, node))
    problems: dict[str, str] = {}
    real: dict[str, CardCut] = {}
    for cut in cuts:
        mine = [device for device in devices if cut.card in (device.id, device.parent)]
        going = [d for d in mine if MigPlace(start=d.slice_start, profile=d.profile) not in cut.layout]
        busy = sorted(device.id for device in going if device.id in held)
        if busy:
            problems[cut.card] = f"instance {busy[0]} is in use: a lease holds it"
        elif any(device.simulated for device in mine):
            try:
                devices = after_cut(devices, cut.card, cut.layout)
            except KeyError as unknown:
                problems[cut.card] = f"a card of this model is not cut so: {unknown}"
        else:
            real[cut.card] = cut
    if real:
        found, refused = cut_here({card: cut.layout for card, cut in real.items()})
        if found:  # else the driver is silent now, which takes no card away
            devices = (*found, *(device for device in devices if device.simulated))
        problems |= refused
    return tuple(devices), tuple(replace(c, problem=problems[c.card]) for c in cuts if c.card in problems)


def _held(home: Path, node: str) -> Iterator[str]:
    """Devices of leases of all tenants here that have something to run."""
    for path in sorted((home / "nodes" / node).glob("*/table.log")):
        for lease in Table(path, reads_only=True).leases.values():
            if any(True for _ in lease.unfinished()):
                yield from lease.order.devices
