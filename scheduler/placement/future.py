"""One node as an object: where a copy would sit on it, and how gangs spread over such nodes.

For nodes as they will be, which no arrays hold: promises of future starts are worked out on views. With an empty demand
mix the arrays choose the same devices (a property test holds the two together).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from scheduler.model.job import Resources, Together
from scheduler.model.lease import Allocation
from scheduler.model.node import Device
from scheduler.placement.fit import Demand, Features, allotted, by_island, fraction_room, free_whole, suitable
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
    return allotted(ask, view.node.name, tuple(sorted(device.id for device in devices)))


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


def groups(names: Iterable[str], views: Mapping[str, NodeView], together: Together) -> list[list[str]]:
    """The sets of nodes within which all ranks must be, each sorted by name."""
    ordered = sorted(names)
    if together is Together.ANYWHERE:
        return [ordered]
    if together is Together.NODE:
        return [[name] for name in ordered]
    racks: dict[str, list[str]] = {}
    for name in ordered:
        racks.setdefault(views[name].node.rack, []).append(name)
    return [racks[rack] for rack in sorted(racks)]


def spread(room: Sequence[tuple[int, Score, str]], ranks: int) -> tuple[tuple[str, int], ...]:
    """``(node, ranks on it)`` from ``(copies that fit, score, node)``; empty when not all ranks fit.

    Largest rooms first gives the fewest nodes; the last node is the smallest room that still holds the rest.
    """
    if sum(copies for copies, _, _ in room) < ranks:
        return ()
    left = sorted(room, key=lambda r: (-r[0], r[1], r[2]))
    chosen: list[tuple[str, int]] = []
    while ranks > 0:
        holders = [r for r in left if r[0] >= ranks]
        pick = min(holders, key=lambda r: (r[0], r[1], r[2])) if holders else left[0]
        left.remove(pick)
        chosen.append((pick[2], min(pick[0], ranks)))
        ranks -= chosen[-1][1]
    return tuple(chosen)


def most(copies: Mapping[str, int], views: Mapping[str, NodeView], together: Together) -> int:
    """The most ranks that fit near enough to each other; ``copies`` by node."""
    return max((sum(copies[name] for name in group) for group in groups(copies, views, together)), default=0)
