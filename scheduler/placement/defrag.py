"""Which running leases to move so that something that waits fits: the cheapest moves, each to a place that is free.

Moving more never makes it fit less, since what is moved in vain may go back to where it was. On small instances the
cheapest set of moves is found exactly, chains and exchanges included. On large ones room is made on one node (for a
gang on several), and what leaves it goes to places that are free already; a bound says what no set can undercut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from itertools import combinations, islice

from scheduler.model.job import Together
from scheduler.model.lease import Allocation
from scheduler.model.node import Device
from scheduler.placement.fit import Demand, Features, by_island, capacity, fraction_room, free_whole, suitable
from scheduler.placement.future import allocate, groups, score
from scheduler.placement.room import Mover, cheapest_first, price_of, room_sets
from scheduler.placement.view import NodeView, device_millis

EXACT_MOVERS, EXACT_NODES, EXACT_TRIES = 10, 8, 20_000
"""Leases that may move, nodes, and seats tried, up to which the cheapest moves are found exactly."""
LOOKED_AT_MAX, SETS_MAX = 4_096, 64
"""Sets of leases a large instance looks at, cheapest first, and for how many of them it tries seats."""
SEATS_WIDE, SEATS_TRIES, ROOMS_MAX = 8, 400, 256
"""On a large instance: nodes tried for each rank, the tightest first; seats tried for each set; nodes weighed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is to start."""

    demand: Demand
    tenant: str
    ranks: int = 1
    together: Together = Together.ANYWHERE
    barred: frozenset[str] = frozenset()
    """Nodes that are kept for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A lease's new place."""

    lease_id: str
    places: tuple[Allocation, ...]
    """One per rank."""
    price: int
    stops_first: bool = False
    """It stands in the way of a move before it: it must have stopped before that one can start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rearrangement:
    """Moves, and what they make room for. In their order each fits once those before it were made."""

    moves: tuple[Move, ...]
    goal: tuple[Allocation, ...]
    bound: int
    """No moves that make the same room cost less; equal to ``price`` where these are the cheapest."""

    @property
    def price(self) -> int:
        """What all moves lose, in the unit of :attr:`Mover.price`."""
        return sum(move.price for move in self.moves)


Rooms = Callable[[Demand], Sequence[str]]
"""Nodes where one more copy of a demand fits as things are, in any order."""


def rearrange(
    views: Mapping[str, NodeView],
    movers: Sequence[Mover],
    goal: Goal,
    features: Features,
    rooms: Rooms | None = None,
    *,
    tries: int = EXACT_TRIES,
) -> Rearrangement | None:
    """The cheapest moves found after which ``goal`` fits; none needed: without moves. None: no moves help.

    ``views`` have everything that runs on them; ``movers`` are those leases that may be moved. Of equally dear sets the
    one with fewer leases is taken, then the one with the smaller ids. ``rooms``: where somebody knows it already.
    ``tries``: most seats that are tried on a small instance, before it is taken for a large one, and then again on
    that (10,000 take about a second).
    """
    order = sorted(movers, key=lambda mover: (mover.price, mover.lease_id))
    if len(order) <= EXACT_MOVERS and len(views) <= EXACT_NODES:
        packer = _Packer(views, features, tries)
        for chosen in cheapest_first([mover.price for mover in order]):
            taken = [order[at] for at in chosen]
            found = packer.pack(taken, goal)
            if found is not None:
                return _ordered(views, taken, found, bound=price_of(taken))
            if packer.is_spent:
                break
        else:
            return None
    return _large(views, order, goal, features, rooms or _scanned(views, features), tries)


def _scanned(views: Mapping[str, NodeView], features: Features) -> Rooms:
    return lambda demand: [name for name, view in views.items() if capacity(view, demand, features)]


def _large(  # noqa: PLR0917 (as rearrange, and all of them decide)
    views: Mapping[str, NodeView],
    movers: Sequence[Mover],
    goal: Goal,
    features: Features,
    rooms: Rooms,
    tries: int,
) -> Rearrangement | None:
    """The cheapest of what each group of nodes that are near enough offers: for its cheapest sets, seats are tried."""
    best: Rearrangement | None = None
    bounds: list[int] = []
    known: dict[Demand, Sequence[str]] = {}
    for demand in dict.fromkeys((goal.demand, *(mover.demand for mover in movers))):
        known[demand] = sorted(rooms(demand))
    # Whoever finds no room now would only push somebody else aside: that is for small instances.
    able = [mover for mover in movers if known[mover.demand]]
    packer = _Packer(views, features, 0, rooms=known)
    for near in groups(views, views, goal.together) if goal.ranks > 1 else [list(views)]:
        names = frozenset(near) - goal.barred
        here = {name: views[name] for name in sorted(names)}
        cheapest = next(room_sets(here, movers, goal.demand, goal.ranks, features), None)
        bounds += [cheapest[1]] if cheapest is not None else []
        sets = (taken for taken, _ in islice(room_sets(here, able, goal.demand, goal.ranks, features), LOOKED_AT_MAX))
        for taken in islice((taken for taken in sets if packer.may_seat(taken)), SETS_MAX):
            if packer.tried >= tries or (best is not None and price_of(taken) >= best.price):
                break
            packer.allow(SEATS_TRIES + goal.ranks, names)
            found = packer.pack(taken, goal)
            if found is not None:
                best = _ordered(views, taken, found, bound=0)
                break
    return best and replace(best, bound=min(bounds))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """Something that needs places; ``lease_id`` is empty for the goal."""

    lease_id: str
    demand: Demand
    tenant: str
    ranks: int
    together: Together
    barred: frozenset[str]


Now = Mapping[str, NodeView]
"""Nodes that differ from how they are."""


class _Packer:
    """Finds places for a goal and for what makes way, by trying them: all of them, or the tightest few."""

    def __init__(
        self,
        views: Mapping[str, NodeView],
        features: Features,
        tries: int,
        rooms: Mapping[Demand, Sequence[str]] | None = None,
    ) -> None:
        """``rooms``: where one more copy fits now. With them only the tightest few are tried for each rank."""
        self._views = views
        self._features = features
        self._tries = tries
        self.tried = 0
        """Seats, in all."""
        self._known = rooms
        self._only: frozenset[str] = frozenset()
        self._items: list[_Item] = []
        self._rooms: dict[Demand, list[tuple[tuple[int, ...], str]]] = {}
        self._copies: dict[Demand, int] = {}

    def allow(self, tries: int, only: frozenset[str]) -> None:
        """So many more; the goal may be on these nodes ``only``."""
        self._tries, self._only = tries, only

    @property
    def is_spent(self) -> bool:
        """It gave up: what was not found may still exist."""
        return self._tries <= 0

    def may_seat(self, taken: Sequence[Mover]) -> bool:
        """A quick look: no more leases of one demand than there is room for now. (What they leave may hold some.)"""
        wanted = Counter(mover.demand for mover in taken)
        return all(count == 1 or count <= self._spaces(demand) for demand, count in wanted.items())

    def _spaces(self, demand: Demand) -> int:
        if demand not in self._copies:
            names = self._known[demand][:ROOMS_MAX] if self._known is not None else ()
            self._copies[demand] = sum(capacity(self._views[name], demand, self._features) for name in names)
        return self._copies[demand]

    def pack(self, taken: Sequence[Mover], goal: Goal) -> dict[str, tuple[Allocation, ...]] | None:
        """Places by lease (the goal's under the empty id) once ``taken`` have stopped; None: not found."""
        now: dict[str, NodeView] = {}
        for mover in taken:
            for held in mover.allocations:
                now[held.node] = now.get(held.node, self._views[held.node]).give_back(held)
        leaving = [
            _Item(
                lease_id=m.lease_id,
                demand=m.demand,
                tenant=m.tenant,
                ranks=len(m.allocations),
                together=m.together,
                barred=m.barred,
            )
            for m in sorted(taken, key=lambda m: (_largest_first(m.demand), m.lease_id))
        ]
        first = _Item(
            lease_id="",
            demand=goal.demand,
            tenant=goal.tenant,
            ranks=goal.ranks,
            together=goal.together,
            barred=goal.barred,
        )
        self._items = [first, *leaving]
        return self._seat(0, (), now)

    def _seat(self, at: int, places: tuple[Allocation, ...], now: Now) -> dict[str, tuple[Allocation, ...]] | None:
        if at == len(self._items):
            return {}
        item = self._items[at]
        if len(places) == item.ranks:
            found = self._seat(at + 1, (), now)
            return None if found is None else {item.lease_id: places, **found}
        for name in self._names(item, places, now):
            view = self._view(name, now)
            for place in self._options(view, item.demand):
                if self._tries <= 0:
                    return None
                self._tries -= 1
                self.tried += 1
                after = {**now, name: view.take(place, item.tenant)}
                found = self._seat(at, (*places, place), after)
                if found is not None:
                    return found
        return None

    def _view(self, name: str, now: Now) -> NodeView:
        return now[name] if name in now else self._views[name]

    def _names(self, item: _Item, places: Sequence[Allocation], now: Now) -> Iterable[str]:
        """Nodes for the item's next rank, where it fits as near to the others as it must."""
        chosen = self._all(item, places, now) if self._known is None else self._narrow(item, now, self._known)
        if places and item.together is Together.NODE:
            return [name for name in chosen if name == places[0].node]
        if places and item.together is Together.RACK:
            rack = self._views[places[0].node].node.rack
            return [name for name in chosen if self._views[name].node.rack == rack]
        return chosen

    def _all(self, item: _Item, places: Sequence[Allocation], now: Now) -> list[str]:
        """By name; ranks are alike, so the next is on the same node as the one before or behind it."""
        least = places[-1].node if places else ""
        return [
            name
            for name in sorted(self._views)
            if name >= least
            and name not in item.barred
            and capacity(self._view(name, now), item.demand, self._features)
        ]

    def _narrow(self, item: _Item, now: Now, known: Mapping[Demand, Sequence[str]]) -> list[str]:
        """The tightest first."""
        features, demand = self._features, item.demand
        if demand not in self._rooms:
            some = known[demand][:ROOMS_MAX]
            self._rooms[demand] = sorted((score(self._views[name], demand, features), name) for name in some)
        changed = sorted((score(v, demand, features), n) for n, v in now.items() if capacity(v, demand, features))
        same = (room for room in self._rooms[demand] if room[1] not in now)
        names = (name for _, name in merge(changed, same) if name not in item.barred)
        if not item.lease_id:
            names = (name for name in names if name in self._only)
        return list(islice(names, SEATS_WIDE))

    def _options(self, view: NodeView, demand: Demand) -> Iterator[Allocation]:
        """Ways to sit on a node: the usual one first, then, where all are tried, those that are not like another."""
        usual = allocate(view, demand, self._features)
        yield usual
        if self._known is not None or not usual.devices:
            return
        known = {device.id: device for device in view.devices}
        seen = {_likeness(view, [known[name] for name in usual.devices])}
        for devices in _device_sets(view, demand, self._features):
            likeness = _likeness(view, devices)
            if likeness not in seen:
                seen.add(likeness)
                yield Allocation(
                    node=usual.node,
                    devices=tuple(sorted(device.id for device in devices)),
                    card_milli=usual.card_milli,
                    cpu_milli=usual.cpu_milli,
                    memory_mib=usual.memory_mib,
                    scratch_mib=usual.scratch_mib,
                )


def _device_sets(view: NodeView, demand: Demand, features: Features) -> Iterator[Sequence[Device]]:
    ask = demand.resources
    devices = suitable(view.devices, ask, features)
    if ask.card_milli:
        yield from ([d] for d in devices if fraction_room(view, d, demand.tenant) >= ask.card_milli)
        return
    free = free_whole(view, devices)
    for island in by_island(free).values() if ask.same_island else [list(free)]:
        yield from combinations(island, ask.cards)


def _likeness(view: NodeView, devices: Sequence[Device]) -> tuple[object, ...]:
    """Equal for sets of devices that serve everybody alike."""
    return tuple(sorted((d.island, d.model, d.profile, d.memory_mib, *view.held.get(d.id, ())) for d in devices))


def _largest_first(demand: Demand) -> tuple[int, int]:
    ask = demand.resources
    return -(ask.cards * 1_000 or ask.card_milli), -ask.cpu_milli


def _ordered(
    views: Mapping[str, NodeView], taken: Sequence[Mover], places: Mapping[str, tuple[Allocation, ...]], *, bound: int
) -> Rearrangement:
    """The moves in an order in which each new place is free; where there is none, the cheapest one stops first."""
    now = {held.node: views[held.node] for found in places.values() for held in found}
    now |= {held.node: views[held.node] for mover in taken for held in mover.allocations}

    def shift(mover: Mover, held: Iterable[Allocation], *, back: bool) -> None:
        for place in held:
            view = now[place.node]
            now[place.node] = view.give_back(place) if back else view.take(place, mover.tenant)

    running, moves = list(taken), list[Move]()
    waiting: list[Mover] = []
    while running or waiting:
        for mover in (*waiting, *running):
            stopped = mover in waiting
            if not stopped:
                shift(mover, mover.allocations, back=True)
            if _is_free(now, places[mover.lease_id]):
                shift(mover, places[mover.lease_id], back=False)
                (waiting if stopped else running).remove(mover)
                moves.append(
                    Move(
                        lease_id=mover.lease_id,
                        places=places[mover.lease_id],
                        price=mover.price,
                        stops_first=stopped,
                    )
                )
                break
            if not stopped:
                shift(mover, mover.allocations, back=False)
        else:
            first = running.pop(0)
            shift(first, first.allocations, back=True)
            waiting.append(first)
    return Rearrangement(moves=tuple(moves), goal=places[""], bound=bound)


def _is_free(now: Mapping[str, NodeView], places: Iterable[Allocation]) -> bool:
    """Whether all of these can be taken together."""
    after: dict[str, NodeView] = {}
    for place in places:
        view = after.get(place.node, now[place.node])
        held = (view.held.get(device, (0, ""))[0] + milli for device, milli in device_millis(place))
        lacks = min(
            view.cpu_milli - place.cpu_milli, view.memory_mib - place.memory_mib, view.scratch_mib - place.scratch_mib
        )
        if lacks < 0 or any(milli > 1_000 for milli in held):
            return False
        after[place.node] = view.take(place, "")
    return True
