"""Places shapes of demand on a cluster, one after the other: each decision is that of a full scan, found in a cache."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_not, mul

import numpy as np
from numpy.typing import NDArray

from scheduler.model.lease import Allocation
from scheduler.model.node import Node
from scheduler.model.units import WHOLE_CARD_MILLI
from scheduler.placement import kernels, nearest, ranking
from scheduler.placement.cluster import Cluster
from scheduler.placement.core import address_of, core_of
from scheduler.placement.fit import Demand, Features, allotted
from scheduler.placement.kernels import Ranks, States, Work
from scheduler.placement.table import Table, frag_of
from scheduler.placement.wanted import NOTHING, Wanted

LAG = 128
"""States that may be new to a shape before it learns them in turn: few enough to be weighed within a decision."""
STATES_PER_ROW = 2

Place = tuple[int, tuple[int, ...]]
"""Row of the node, and the device slots taken on it."""

_MASK = (1 << ranking.MASK_SLOTS) - 1
_SLOTS = [tuple(slot for slot in range(ranking.MASK_SLOTS) if mask >> slot & 1) for mask in range(_MASK + 1)]
"""Slots by mask."""


class Placer:
    """A cluster with the rankings of all shapes asked for. Not thread-safe.

    ``shape`` gives a demand its number, ``place`` takes the best place for one copy and ``release`` gives it back.
    """

    def __init__(self, cluster: Cluster, wanted: Wanted = NOTHING, features: Features | None = None) -> None:
        self.cluster = cluster
        self.wanted = wanted
        self.features: Features = features or {}
        self.table = Table(self.features)
        self._ranks = _ranks(1, 1)
        self._states = _states(1, 1)
        self._work = _work(1, 1)
        self._frag = frag_of(wanted, cluster, self.features)
        self._version = self._entered = -1
        """The cluster's version that rankings are for, and that states are for."""
        self._bound: tuple[object, ...] | None = None
        self._changed: set[int] | None = set()
        """Rows of nodes that were set and not yet looked at; None: all."""
        self._origin: Placer | None = None
        self._forked = 0
        """The origin's clock when this was forked from it."""
        self._lag = LAG
        self._unsettled = True
        self._changed = None

    def fork(self) -> Placer:
        """A placer whose takings are its own; it copies a ranking when the shape is first asked."""
        if self._unsettled:
            self._settle()
        other = Placer.__new__(Placer)
        other.__dict__ |= self.__dict__
        other.cluster = self.cluster.fork()
        shapes, rows = self._ranks.copies.shape
        other._ranks = _ranks(shapes, rows)
        other._states = States._make(array.copy() for array in self._states)
        other._work = _work(self._work.pick.shape[0], rows)
        other._bind()
        other._origin, other._forked, other._changed, other._lag = self, self.changes, set(), 0
        return other

    # -- nodes

    def set_node(self, node: Node) -> None:
        """A node joined or is described anew; what is held on it stays held."""
        row = self.cluster.set_node(node)
        self._unsettled = True
        if self._changed is not None:
            self._changed.add(row)

    def drop_node(self, name: str) -> None:
        """A node was never there."""
        rows = self.cluster.drop_node(name)
        self._unsettled = True
        if self._changed is not None:
            self._changed.update(rows)

    def set_mix(self, wanted: Wanted) -> None:
        """The demand to weigh fragmentation against. Every score changes with it, when it is next asked."""
        if wanted != self.wanted:
            self.wanted, self._changed, self._unsettled = wanted, None, True

    def hold(self, allocation: Allocation, tenant: str) -> None:
        """An allocation that somebody decided takes what it names. Raises KeyError for an unknown node."""
        self._shift(allocation, tenant, 1)

    def give_back(self, allocation: Allocation, tenant: str) -> None:
        """Likewise it gives it back."""
        self._shift(allocation, tenant, -1)

    # -- shapes

    @property
    def changes(self) -> int:
        """Changes to the cluster so far."""
        if self._unsettled:
            self._settle()
        return int(self.cluster.rows.clock[0])

    def forget(self) -> None:
        """Drop all shapes; their numbers are void."""
        self.table = Table(self.features)
        self._version = -1
        self._work.state[:] = 0
        self._follow()

    def shape(self, demand: Demand) -> int:
        """The number of a demand, to place it by."""
        if self._unsettled:
            self._settle()
        number = self.table.numbers.get(demand)
        if number is None:
            number = self.table.add(demand, self.cluster)
        if number >= self._work.state[kernels.LIVE]:
            self._follow()
            self._work.state[kernels.LIVE] = len(self.table.demands)
        if self._origin is not None and self._ranks.seen[number] < 0:
            self._adopt(number, self._origin)
        return number

    def copies(self, shape: int) -> int:
        """How many copies fit on all nodes together now."""
        self._count(shape)
        return int(self._ranks.total[shape])

    def copies_by_row(self, shape: int) -> NDArray[np.int32]:
        """How many copies fit on each row now; to read, not to keep."""
        self._count(shape)
        return self._ranks.copies[shape, : self.cluster.count]

    def room(self, shape: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Copies by row, to read and not to keep, and ``(cost, tie)`` by row, as they are now."""
        copies = self.copies_by_row(shape)
        key = np.empty((len(copies), 2), np.int64)
        ranking.room(self._at, shape, key)
        return copies, key

    def best(self, shape: int) -> int | None:
        """The best row for one copy; None when it fits nowhere."""
        row = self._refresh(shape)
        return None if row < 0 else row

    def best_but(self, shape: int, barred: NDArray[np.int32]) -> int | None:
        """The best row that is none of ``barred``."""
        if self._unsettled:
            self._settle()
        row = ranking.best_but(self._at, shape, barred, np.empty(len(barred), np.int32))
        return None if row < 0 else row

    # -- why

    def potential(self, shape: int) -> tuple[int, int]:
        """Copies that would fit if nobody held anything, and if moreover all nodes and cards were well."""
        self._refresh(shape)
        members, healed = self.cluster.members, self.table.healed[shape]
        empty = self.table.asks.empty[shape].tolist()
        return sum(map(mul, members, empty)), sum(map(mul, members, healed))

    def sick(self, shape: int) -> list[Node]:
        """Nodes on which more copies would fit, empty, if they and their cards were well."""
        self._refresh(shape)
        healed, empty = self.table.healed[shape], self.table.asks.empty[shape].tolist()
        less = {index for index, most in enumerate(healed) if empty[index] < most}
        klass = self.cluster.rows.klass[: self.cluster.count].tolist()
        return [node for node, index in zip(self.cluster.nodes, klass, strict=True) if index in less]

    def possible(self, shape: int) -> list[str]:
        """Nodes on which at least one copy would fit if nobody held anything, by name."""
        self._refresh(shape)
        empty = self.table.asks.empty[shape].tolist()
        klass = self.cluster.rows.klass[: self.cluster.count].tolist()
        return sorted([node.name for node, index in zip(self.cluster.nodes, klass, strict=True) if empty[index]])

    def nearest(self, shape: int) -> list[tuple[int, int]]:
        """``(row, nodes that lack the same)`` per resource that nodes are short of, nearest to fitting first.

        Only nodes count on which the shape would fit if they were empty.
        """
        if self._unsettled:
            self._settle()
        row, have, count = np.zeros((3, 5), np.int64)
        nearest.nearest(self._at, shape, row, have, count)
        return [(int(row[stage]), int(count[stage])) for stage in range(4, -1, -1) if count[stage]]

    # -- placing

    def place(self, shape: int, tenant: int = 1) -> Place | None:
        """Take the best place for one copy; None when it fits nowhere."""
        if self._unsettled:
            self._settle()
        found = ranking.place(self._at, shape, tenant, -1, self._lag)
        if found >= 0:
            return found >> ranking.MASK_SLOTS, _SLOTS[found & _MASK]
        return None if found == ranking.NO_PLACE else self._placed()

    def take(self, shape: int, row: int, tenant: int = 1) -> Place:
        """Take one copy from a row that it fits on."""
        self._decide(shape, tenant, row, 1)
        return self._placed()

    def place_many(self, shape: int, count: int, tenant: int = 1) -> list[Place]:
        """Places of as many copies as fit, at most ``count``: what as many single placements would give."""
        ask = self.table.demands[shape].resources
        width = 1 if ask.card_milli else ask.cards
        places: list[Place] = []
        while len(places) < count:
            wanted = min(count - len(places), kernels.BATCH)
            done = self._decide(shape, tenant, -1, wanted)
            rows, slots = self._work.nodes[:done].tolist(), self._work.slots[:done, :width].tolist()
            places += zip(rows, map(tuple, slots), strict=True)
            if done < wanted:
                break
        return places

    def scan(self, shape: int) -> int | None:
        """What ``best`` finds, by weighing every node again: to check it, and to compare with."""
        if self._unsettled:
            self._settle()
        row = ranking.scan(self._at, shape)
        return None if row < 0 else row

    def release(self, shape: int, place: Place) -> None:
        """Give back what ``place`` gave."""
        row, slots = place
        ask = self.table.demands[shape].resources
        self._move(
            row, (-ask.cpu_milli, -ask.memory_mib, -ask.scratch_mib), slots, -(ask.card_milli or WHOLE_CARD_MILLI), 0
        )

    def allocation(self, shape: int, row: int, slots: Sequence[int]) -> Allocation:
        """A place as a lease names it."""
        ask = self.table.demands[shape].resources
        ids = self.cluster.ids(row)
        return allotted(ask, self.cluster.nodes[row].name, tuple(sorted([ids[slot] for slot in slots])))

    # -- inside

    def _placed(self) -> Place:
        work = self._work
        return int(work.nodes[0]), tuple(work.pick[: work.state[kernels.PICKED]].tolist())

    def _shift(self, allocation: Allocation, tenant: str, sign: int) -> None:
        cluster = self.cluster
        row = cluster.row[allocation.node]
        milli = sign * (allocation.card_milli or WHOLE_CARD_MILLI)
        slots = cluster.slots_of(row, allocation)
        if slots is None:
            for device in allocation.devices:
                cluster.hold(row, device, milli, tenant)
            slots = []
        amounts = (sign * allocation.cpu_milli, sign * allocation.memory_mib, sign * allocation.scratch_mib)
        self._move(row, amounts, slots, milli, cluster.tenant(tenant))

    def _move(self, row: int, amounts: tuple[int, int, int], slots: Sequence[int], milli: int, tenant: int) -> None:
        if self._unsettled:
            self._settle()
        pick = self._work.pick
        for at, slot in enumerate(slots):
            pick[at] = slot
        ranking.shift(self._at, row, *amounts, len(slots), milli, tenant)

    def _adopt(self, shape: int, origin: Placer) -> None:
        """Begin with what the origin knows of the shape, if nothing has changed there since."""
        if origin.changes != self._forked or origin.shape(self.table.demands[shape]) != shape:
            return
        origin._refresh(shape)
        origin._count(shape)
        for name in Ranks._fields:
            getattr(self._ranks, name)[shape] = getattr(origin._ranks, name)[shape]

    def _decide(self, shape: int, tenant: int, row: int, count: int) -> int:
        if self._unsettled:
            self._settle()
        return int(ranking.decide(self._at, shape, tenant, row, count, self._lag))

    def _refresh(self, shape: int) -> int:
        return self._decide(shape, 0, -1, 0)

    def _count(self, shape: int) -> None:
        if self._unsettled:
            self._settle()
        ranking.count(self._at, shape)

    def _settle(self) -> None:
        """Work in nodes and a mix that were set: new classes, new sizes, and which values and rankings still hold."""
        cluster, before = self.cluster, self._frag
        self._unsettled = False
        if self._entered != cluster.version:
            self._changed = None
        for row in sorted(self._changed or ()):
            ranking.leave(self._at, row)
        cluster.rank_names()
        self._frag = frag_of(self.wanted, cluster, self.features, before)
        if self._frag.memo is not before.memo:
            self._changed = None
        rows, slots = cluster.rows.milli.shape
        if self._changed is None:
            self._states, self._entered = _states(rows, slots), cluster.version
            cluster.rows.state[:], cluster.rows.links[:] = -1, -1
            self._ranks.seen[:] = self._ranks.counted[:] = -1
        self._follow()
        for row in range(rows) if self._changed is None else sorted(self._changed):
            ranking.shift(self._at, row, 0, 0, 0, 0, 0, 0)
        self._changed = set()

    def _follow(self) -> None:
        """Make every array as large as the cluster and the table are now; rankings of another size begin anew."""
        cluster = self.cluster
        rows, slots = cluster.rows.milli.shape
        self.table.follow(cluster)
        shapes = self.table.asks.ask.shape[0]
        if self._ranks.copies.shape != (shapes, rows) or self._version != cluster.version:
            more = _ranks(shapes, rows)
            if self._version == cluster.version:
                for name in Ranks._fields:
                    old = getattr(self._ranks, name)
                    getattr(more, name)[: len(old)] = old
            self._ranks, self._version = more, cluster.version
        if self._work.pick.shape[0] < slots or self._work.stack.shape[0] < rows:
            state = self._work.state
            self._work = _work(slots, rows)
            self._work.state[:] = state
        self._bind()

    def _bind(self) -> None:
        arrays = (self.cluster.rows, self._states, self.table.asks, self._ranks, self._frag, self._work)
        if self._bound is None or any(map(is_not, arrays, self._bound)):
            self._core, self._bound = core_of(*arrays), arrays
            self._at = address_of(self._core, ranking.layout())


def _ranks(shapes: int, rows: int) -> Ranks:
    return Ranks(
        key=np.zeros((shapes, _most(rows)), np.int64),
        seen=np.full(shapes, -1, np.int64),
        copies=np.empty((shapes, rows), np.int32),
        total=np.zeros(shapes, np.int64),
        counted=np.full(shapes, -1, np.int64),
    )


def _most(rows: int) -> int:
    """Numbers of states: whole blocks, and like the rows a power of two."""
    return max(STATES_PER_ROW * rows, ranking.BLOCK)


def _states(rows: int, slots: int) -> States:
    most = _most(rows)
    return States(
        klass=np.zeros(most, np.int32),
        slots=np.zeros(most, np.int32),
        level=np.zeros((most, 2), np.int32),
        milli=np.zeros((most, slots), np.int32),
        holder=np.zeros((most, slots), np.int32),
        cards=np.zeros(most, np.uint64),
        value=np.zeros(most, np.int64),
        mark=np.zeros(most, np.uint64),
        top=np.full(most, -1, np.int32),
        most=np.zeros((most, 2), np.int64),
        empty=np.full(most, kernels.EMPTY, np.int64),
        chain=np.full(most, -1, np.int32),
        buckets=np.full(2 * most, -1, np.int32),
        born=np.zeros(most, np.int64),
        log=np.zeros(most, np.int32),
        clock=np.zeros(4, np.int64),
    )


def _work(slots: int, rows: int) -> Work:
    return Work(
        pick=np.zeros(slots, np.int32),
        islands=np.zeros(slots + 1, np.int32),
        stack=np.zeros(rows, np.int32),
        least=np.zeros(_most(rows) // ranking.BLOCK, np.int64),
        unknown=np.zeros(ranking.BLOCK + 1, np.int32),
        nodes=np.empty(kernels.BATCH, np.int32),
        slots=np.empty((kernels.BATCH, slots), np.int32),
        state=np.zeros(8, np.int64),
    )
