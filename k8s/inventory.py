"""The park's nodes as Kubernetes knows them: follows Nodes, pods and devices and reports what of it changed for us."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from k8s.accelerators import Accelerators, shipped
from k8s.api import Api, Object
from k8s.informer import Informer, key_of
from k8s.mapping import Cards, Gone, Sights, mapped
from k8s.mig import Config
from k8s.names import MANAGED, RACK
from k8s.resource import NODES, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES, Resource
from k8s.sightings import ClaimSight, NodeSight, PodSight, SliceSight, claim_sight, node_sight, pod_sight, slice_sight
from scheduler.model.node import Lane, Node
from scheduler.model.order import Report, ReportKind

HOLDING = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
"""Field selector of the pods that hold something."""
LEFT = f"it was deleted from Kubernetes, or is not labelled {MANAGED} any more"

S = TypeVar("S")
Place = str | tuple[str, str]
"""A node, or a driver's pool of devices."""


class Shelf(Generic[S]):
    """The sightings of one kind, found by key and by where they belong. Listens to an informer."""

    def __init__(self, read: Callable[[Object], S | None], places: Callable[[S], Iterable[Place]]) -> None:
        """``read`` gives None for what does not matter; ``places``: to which nodes or pools a sighting belongs."""
        self._read, self._places = read, places
        self._by_key: dict[str, S] = {}
        self._by_place: defaultdict[Place, dict[str, S]] = defaultdict(dict)
        self.is_listed = False

    def put(self, key: str, obj: Object | None) -> set[Place]:
        """Note an object, or (None) that it is gone; the places where something changed."""
        before, after = self._by_key.get(key), self._read(obj) if obj is not None else None
        if before == after:
            if after is not None:  # the newer one: what is not compared, its version, may have changed
                self._by_key[key] = after
                for place in self._places(after):
                    self._by_place[place][key] = after
            return set()
        touched: set[Place] = set()
        if before is not None:
            del self._by_key[key]
            for place in self._places(before):
                touched.add(place)
                del self._by_place[place][key]
                if not self._by_place[place]:
                    del self._by_place[place]
        if after is not None:
            self._by_key[key] = after
            for place in self._places(after):
                touched.add(place)
                self._by_place[place][key] = after
        return touched

    def at(self, place: Place) -> tuple[S, ...]:
        """The sightings that belong there, by key."""
        found = self._by_place.get(place, {})
        return tuple(found[key] for key in sorted(found))


class Inventory:
    """From :meth:`start` on tells every managed node once, then what changes. Holds no raw objects."""

    def __init__(
        self,
        api: Api,
        tell: Callable[[Sequence[Report]], None],
        *,
        now_ms: Callable[[], int],
        table: Accelerators | None = None,
        selector: str = MANAGED,
        lane: Lane = Lane.POOL,
        rack_label: str = RACK,
        cards: Cards = Cards.AUTO,
        configs: tuple[Config, ...] = (),
    ) -> None:
        """``tell`` is called with a lock held and must return at once. ``selector``: the labels of managed nodes."""
        self._api, self._tell, self._now_ms = api, tell, now_ms
        self._table = table or shipped()
        self._lane, self._rack_label, self._cards, self._configs = lane, rack_label, cards, configs
        self._selector = selector
        self._lock = threading.Lock()
        self._nodes: Shelf[NodeSight] = Shelf(lambda raw: node_sight(raw, self._table), lambda n: [n.name])
        self._pods: Shelf[PodSight] = Shelf(lambda raw: pod_sight(raw, self._table), lambda p: [p.node])
        self._slices: Shelf[SliceSight] = Shelf(
            lambda raw: slice_sight(raw, self._table), lambda s: [s.node, (s.driver, s.pool)]
        )
        self._claims: Shelf[ClaimSight] = Shelf(claim_sight, lambda c: {(d, p) for d, p, _ in c.devices})
        self._followed: list[Shelf[Any]] = []
        self._dirty: set[str] = set()
        self._told: dict[str, Node | Gone] = {}
        self._informers: dict[str, Informer] = {}

    def start(self) -> None:
        """Begin to follow. Raises KubernetesError when the server cannot be asked which kinds it has."""
        followed: list[tuple[Resource, Shelf[Any], dict[str, str]]] = [
            (NODES, self._nodes, {"labels": self._selector}),
            (PODS, self._pods, {"fields": HOLDING}),
        ]
        if self._cards is not Cards.PLUGIN and self._api.serves(RESOURCE_SLICES):
            followed += [(RESOURCE_SLICES, self._slices, {}), (RESOURCE_CLAIMS, self._claims, {})]
        self._followed = [shelf for _, shelf, _ in followed]
        for resource, shelf, where in followed:
            self._informers[resource.plural] = Informer(self._api, resource, _Ear(self, shelf), **where)
        for informer in self._informers.values():
            informer.start()

    def close(self) -> None:
        """End and wait until it has. Harmless twice."""
        for informer in self._informers.values():
            informer.close()

    @property
    def informers(self) -> dict[str, Informer]:
        """By the plural of what they follow: their counts and times are for metrics."""
        return dict(self._informers)

    def version(self, node: str) -> str:
        """Of the Node object as it was told last; empty: it is not known."""
        informer = self._informers.get(NODES.plural)
        return informer.version(node) if informer is not None else ""

    def sight(self, node: str) -> NodeSight | None:
        """The Node object, as it was seen last; None: it is not there."""
        with self._lock:
            return next(iter(self._nodes.at(node)), None)

    @property
    def is_alive(self) -> bool:
        """Whether everything is still followed."""
        return bool(self._informers) and all(one.is_alive for one in self._informers.values())

    @property
    def is_listed(self) -> bool:
        """Everything was told once."""
        with self._lock:
            return bool(self._followed) and all(shelf.is_listed for shelf in self._followed)

    @property
    def problem(self) -> str:
        """Why it may be behind; empty: it is not."""
        return "; ".join(one.problem for one in self._informers.values() if one.problem)

    def node(self, name: str) -> Node | None:
        """As it was told; None: it does not answer."""
        with self._lock:
            told = self._told.get(name)
            return told if isinstance(told, Node) else None

    def names(self) -> tuple[str, ...]:
        """Of all managed nodes that there are, whether they answer or not. Complete once :attr:`is_listed`."""
        with self._lock:
            return tuple(sorted(self._told))

    def nodes(self) -> tuple[Node, ...]:
        """Those that answer, by name, as told."""
        with self._lock:
            return tuple(node for _, node in sorted(self._told.items()) if isinstance(node, Node))

    def hear(self, shelf: Shelf[Any], key: str, obj: Object | None) -> None:
        """An informer has news."""
        with self._lock:
            for place in shelf.put(key, obj):
                # A claim belongs to pools of devices, and it is slices that say whose these are.
                self._dirty |= {place} if isinstance(place, str) else {one.node for one in self._slices.at(place)}
            self._report()

    def hear_listed(self, shelf: Shelf[Any]) -> None:
        """An informer has told everything there is. The first reports wait for all of them."""
        with self._lock:
            shelf.is_listed = True
            self._report()

    def _report(self) -> None:
        if not self._dirty or not all(shelf.is_listed for shelf in self._followed):
            return
        names, self._dirty = sorted(self._dirty), set()
        reports = [report for name in names if (report := self._news(name)) is not None]
        if reports:
            self._tell(reports)

    def _news(self, name: str) -> Report | None:
        """What has changed of a node since it was told last."""
        seen, before = self._now(name), self._told.get(name)
        if seen == before or (seen is None and before is None):
            return None
        if isinstance(seen, Node):
            self._told[name] = seen
            return Report(kind=ReportKind.NODE, at_ms=self._now_ms(), node=name, facts=seen)
        if seen is None:
            del self._told[name]
        else:
            self._told[name] = seen
        if isinstance(before, Gone):
            return None
        reason = seen.reason if seen is not None else LEFT
        return Report(kind=ReportKind.NODE_GONE, at_ms=self._now_ms(), node=name, message=reason)

    def _now(self, name: str) -> Node | Gone | None:
        found = self._nodes.at(name)
        if not found:
            return None
        slices = self._slices.at(name)
        pools = sorted({(one.driver, one.pool) for one in slices})
        claims = {claim.key: claim for pool in pools for claim in self._claims.at(pool)}
        sights = Sights(
            node=found[0],
            pods=self._pods.at(name),
            slices=slices,
            claims=tuple(claims[key] for key in sorted(claims)),
        )
        return mapped(
            sights,
            self._table,
            lane=self._lane,
            rack_label=self._rack_label,
            cards=self._cards,
            configs=self._configs,
        )


class _Ear:
    """One informer's listener."""

    def __init__(self, inventory: Inventory, shelf: Shelf[Any]) -> None:
        self._inventory, self._shelf = inventory, shelf

    def put(self, obj: Object) -> None:
        self._inventory.hear(self._shelf, key_of(obj), obj)

    def drop(self, key: str) -> None:
        self._inventory.hear(self._shelf, key, None)

    def listed(self) -> None:
        self._inventory.hear_listed(self._shelf)
