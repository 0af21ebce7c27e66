"""Which leases would have to leave a node, or a few nodes, so that a demand fits there: cheapest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush
from itertools import accumulate

from scheduler.model.job import Together
from scheduler.model.lease import Allocation
from scheduler.placement.fit import Demand, Features, capacity
from scheduler.placement.view import NodeView, device_millis

SUBSETS_MAX = 4_096
"""Sets of one node's leases that are looked at: all of them up to twelve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """A running lease that may be stopped and started anew elsewhere."""

    lease_id: str
    tenant: str
    demand: Demand
    allocations: tuple[Allocation, ...]
    """One per rank."""
    price: int
    """What a move loses; not negative. The unit is the caller's."""
    together: Together = Together.ANYWHERE
    barred: frozenset[str] = frozenset()
    """Nodes it may not go to."""


def cheapest_first(prices: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every set of places in ``prices``, which ascend: by sum, then number, then the places themselves."""
    heap: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, ())]
    while heap:
        price, count, chosen = heappop(heap)
        yield chosen
        after = chosen[-1] + 1 if chosen else 0
        if after == len(prices):
            continue
        heappush(heap, (price + prices[after], count + 1, (*chosen, after)))
        if chosen:  # its last member exchanged for the next
            heappush(heap, (price - prices[chosen[-1]] + prices[after], count, (*chosen[:-1], after)))


def price_of(movers: Iterable[Mover]) -> int:
    """What moving all of them loses."""
    return sum(mover.price for mover in movers)


def room_sets(
    views: Mapping[str, NodeView], movers: Sequence[Mover], demand: Demand, ranks: int, features: Features
) -> Iterator[tuple[tuple[Mover, ...], int]]:
    """``(leases, bound)``: sets after which ``ranks`` copies fit on ``views``, cheapest first.

    Every set that makes this room costs at least ``bound``. For one rank these are sets on one node. A gang gets one
    set, put together node by node from what is cheapest for each copy, and the bound of its first copy.
    """
    missing = ranks - sum(capacity(view, demand, features) for view in views.values())
    if missing <= 0:
        yield (), 0
        return
    sites = [site for site in _sites(views, movers, demand, features) if site.most > site.now]
    yield from _merged(sites) if ranks == 1 else _together(sites, missing)


class _Site:
    """A node and the leases that may leave it."""

    def __init__(self, view: NodeView, movers: Sequence[Mover], demand: Demand, features: Features) -> None:
        self.name = view.node.name
        self.movers = movers
        self._view = view
        self._demand = demand
        self._features = features
        self._freed = [_freed(self.name, mover) for mover in movers]
        self.now = capacity(view, demand, features)

    @cached_property
    def most(self) -> int:
        """Copies that fit when all of them have left."""
        return self._after(range(len(self.movers)))

    @cached_property
    def least(self) -> int:
        """No set that makes room for one more copy costs less: prices of the cheapest, as many as the largest take."""
        count = max(
            next((n for n, sum_ in enumerate(accumulate(sorted(amounts, reverse=True)), 1) if sum_ >= short), 0)
            for amounts, short in zip(zip(*self._freed, strict=True), self._short, strict=True)
        )
        return sum(sorted(mover.price for mover in self.movers)[: max(count, 1)])

    def sets(self, copies: int) -> Iterator[tuple[int, tuple[Mover, ...]]]:
        """``(bound, set)`` after which so many fit, cheapest first, none part of an earlier one.

        The bound is the set's price, or less where a node is so crowded that not every set was looked at.
        """
        order = sorted(range(len(self.movers)), key=lambda at: (self.movers[at].price, self.movers[at].lease_id))
        found: list[frozenset[int]] = []
        for looked, chosen in enumerate(cheapest_first([self.movers[at].price for at in order])):
            leaves = [order[at] for at in chosen]
            if looked == SUBSETS_MAX:
                if not found:
                    yield price_of(self.movers[at] for at in leaves), self._needed(order, copies)
                return
            if any(earlier <= set(leaves) for earlier in found) or not self._may_do(leaves):
                continue
            if self._after(leaves) >= copies:
                found.append(frozenset(leaves))
                yield price_of(self.movers[at] for at in leaves), tuple(self.movers[at] for at in leaves)

    def _needed(self, order: Sequence[int], copies: int) -> tuple[Mover, ...]:
        """All that leave, but for those that need not, the dearest first."""
        leaves = list(order)
        for at in reversed(order):
            fewer = [other for other in leaves if other != at]
            if self._after(fewer) >= copies:
                leaves = fewer
        return tuple(self.movers[at] for at in leaves)

    @cached_property
    def _short(self) -> tuple[int, int, int]:
        """What one copy lacks of cards (in thousandths, whoever's), vCPU and memory."""
        view, ask = self._view, self._demand.resources
        free = sum(1_000 - view.held.get(device.id, (0, ""))[0] for device in view.devices)
        cards = ask.cards * 1_000 or ask.card_milli
        return cards - free, ask.cpu_milli - view.cpu_milli, ask.memory_mib - view.memory_mib

    def _may_do(self, leaves: Sequence[int]) -> bool:
        """A quick look that refuses nothing that is enough."""
        return all(sum(self._freed[at][i] for at in leaves) >= short for i, short in enumerate(self._short))

    def _after(self, leaves: Iterable[int]) -> int:
        view = self._view
        for at in leaves:
            for held in self.movers[at].allocations:
                if held.node == self.name:
                    view = view.give_back(held)
        return capacity(view, self._demand, self._features)


def _sites(
    views: Mapping[str, NodeView], movers: Sequence[Mover], demand: Demand, features: Features
) -> Iterator[_Site]:
    on: dict[str, list[Mover]] = {}
    for mover in movers:
        for name in sorted({held.node for held in mover.allocations}):
            if name in views:
                on.setdefault(name, []).append(mover)
    for name in sorted(on):
        yield _Site(views[name], on[name], demand, features)


def _merged(sites: Sequence[_Site]) -> Iterator[tuple[tuple[Mover, ...], int]]:
    """The sets of all nodes by price. A node's are worked out when it is its turn by what they cost at least."""
    heap: list[tuple[int, int, tuple[Mover, ...]]] = [(site.least, at, ()) for at, site in enumerate(sites)]
    heap.sort(key=lambda entry: entry[:2])
    sets: dict[int, Iterator[tuple[int, tuple[Mover, ...]]]] = {}
    bound: int | None = None
    while heap:
        price, at, taken = heappop(heap)
        if taken:
            bound = price if bound is None else bound
            yield taken, bound
        following = next(sets.setdefault(at, sites[at].sets(sites[at].now + 1)), None)
        if following is not None:
            heappush(heap, (following[0], at, following[1]))


def _together(sites: Sequence[_Site], missing: int) -> Iterator[tuple[tuple[Mover, ...], int]]:
    """One set for so many more copies: again and again the node where one more copy costs least."""
    chosen: dict[str, Mover] = {}
    copies = [site.now for site in sites]
    heap = [(site.least, at, False) for at, site in enumerate(sites)]
    heap.sort()
    taken: dict[int, tuple[Mover, ...]] = {}
    bound = heap[0][0] if heap else 0
    while heap and missing > 0:
        _, at, is_known = heappop(heap)
        if is_known:
            chosen |= {mover.lease_id: mover for mover in taken[at]}
            copies[at] += 1
            missing -= 1
        if copies[at] < sites[at].most:
            _, taken[at] = next(sites[at].sets(copies[at] + 1))
            more = price_of(mover for mover in taken[at] if mover.lease_id not in chosen)
            heappush(heap, (more, at, True))
    if missing <= 0:
        yield tuple(sorted(chosen.values(), key=lambda m: (m.price, m.lease_id))), bound


def _freed(name: str, mover: Mover) -> tuple[int, int, int]:
    """Cards (thousandths), vCPU and memory that a lease gives back on a node."""
    here = [held for held in mover.allocations if held.node == name]
    cards = sum(milli for held in here for _, milli in device_millis(held))
    return cards, sum(held.cpu_milli for held in here), sum(held.memory_mib for held in here)
