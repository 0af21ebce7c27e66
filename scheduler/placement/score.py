"""Which place is best: the tightest that fits, so that large holes stay large. Lower is better."""

from __future__ import annotations

from scheduler.model.job import Resources
from scheduler.model.lease import Allocation
from scheduler.model.node import Device
from scheduler.placement.fit import Demand, Features, by_island, fraction_room, free_whole, suitable
from scheduler.placement.view import NodeView

Score = tuple[int, int, int, int]

MIB_PER_CPU_MILLI = 4
"""To add cpu and memory: servers carry about 4 GiB per vCPU. A constant, so that one node's score never depends on
others."""


def score(view: NodeView, demand: Demand, features: Features) -> Score:
    """How well one copy of ``demand`` sits on a node it fits on.

    Card work: unbroken NVLink island first, then an opened card for fractions, then fewest suitable cards left over.
    Work without cards: nodes without cards first. Then the least cpu and memory left over (their sum, not the
    larger of both: equal memories would hide a tighter cpu).
    """
    ask = demand.resources
    cpu_left, memory_left = view.cpu_milli - ask.cpu_milli, view.memory_mib - ask.memory_mib
    left = cpu_left * MIB_PER_CPU_MILLI + memory_left
    if not (ask.cards or ask.card_milli):
        return (1 if view.devices else 0, 0, 0, left)
    devices = suitable(view.devices, ask, features)
    free = free_whole(view, devices)
    if ask.card_milli:
        rooms = [fraction_room(view, d, demand.tenant) for d in devices if d.id in view.held]
        fitting = [room for room in rooms if room >= ask.card_milli]
        return (0, 0, min(fitting), left) if fitting else (0, 1, len(free), left)
    split = 0 if any(len(island) >= ask.cards for island in by_island(free).values()) else 1
    return (split, 0, len(free) - ask.cards, left)


def allocate(view: NodeView, demand: Demand, features: Features) -> Allocation:
    """The allocation of one copy of ``demand`` on a node it fits on."""
    ask = demand.resources
    devices = _choose(view, demand, features) if ask.cards or ask.card_milli else ()
    return Allocation(
        node=view.node.name,
        devices=tuple(sorted(device.id for device in devices)),
        card_milli=ask.card_milli,
        cpu_milli=ask.cpu_milli,
        memory_mib=ask.memory_mib,
        scratch_mib=ask.scratch_mib,
    )


def _choose(view: NodeView, demand: Demand, features: Features) -> tuple[Device, ...]:
    ask = demand.resources
    devices = suitable(view.devices, ask, features)
    if ask.card_milli:
        rooms = ((fraction_room(view, device, demand.tenant), device) for device in devices)
        return (min((r for r in rooms if r[0] >= ask.card_milli), key=lambda r: (r[0], r[1].index, r[1].id))[1],)
    return _whole_cards(free_whole(view, devices), ask)


def _whole_cards(free: tuple[Device, ...], ask: Resources) -> tuple[Device, ...]:
    """Cards of the tightest island that holds them all; else of as few islands as possible."""
    islands = [sorted(island, key=lambda d: (d.index, d.id)) for island in by_island(free).values()]
    enough = [island for island in islands if len(island) >= ask.cards]
    if enough:
        return tuple(min(enough, key=len)[: ask.cards])
    chosen: list[Device] = []
    for island in sorted(islands, key=len, reverse=True):
        chosen.extend(island[: ask.cards - len(chosen)])
    return tuple(chosen)
