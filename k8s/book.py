"""The leases that the lanes carry, and what is told of them: orders in, reports out. No I/O, no clock, no threads.

The bridges speak of pods, the control plane of nodes: every order and every report is translated here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from k8s.adoption import adopted
from k8s.lanes import Held
from k8s.manifests import JOB, job_cluster, pool_cluster
from k8s.seen import JobSeen, PodSeen
from k8s.shapes import Shape, shape_of
from k8s.site import Site
from scheduler.model.lease import AttemptState
from scheduler.model.measured import Measured
from scheduler.model.node import Health, Node
from scheduler.model.order import LeaseOrder, Report, ReportKind

REMEMBERED = 100_000
"""Leases that are over and not begun again, should their order be repeated by somebody who has not heard yet."""
MARK = "|"
"""In cursors: what comes before it is the cluster whose bridge gave the rest."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """A lease, and how far it has come."""

    held: Held
    orders: tuple[LeaseOrder, ...] = ()
    """One per rank; none when it was found on our objects and nobody has ordered it since."""
    stop: str = ""
    """Why it is to be stopped."""
    is_stop_sent: bool = False
    stopped_ms: int = 0
    """When its stop was asked for first."""
    has_begun: bool = False
    is_forgotten: bool = False
    """Its agent says that it does not know it: the control plane will say whether it is lost or begins again."""


class Book:
    """Everything that is known of open leases and of what the bridges said."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.entries: dict[str, Entry] = {}
        """By lease."""
        self.connected: set[str] = set()
        """Clusters whose bridge is there."""
        self.facts: dict[tuple[str, str], Node] = {}
        """What a pod (cluster and name) says of itself: its cards have UUIDs."""
        self._agents: dict[tuple[str, str], tuple[int, frozenset[str]]] = {}
        """When the agent of a pod spoke of its leases last, and which."""
        self._over: dict[str, None] = {}
        """Leases that are over, the latest last."""
        self._ends: dict[str, str] = {}
        """Lease that is over once this cursor is acknowledged."""
        self._pods: Mapping[str, PodSeen] = {}
        self._nodes: dict[tuple[str, str], str] = {}
        """Kubernetes node of a pod (cluster and name)."""

    @property
    def held(self) -> dict[str, Held]:
        """By lease."""
        return {lease: entry.held for lease, entry in self.entries.items()}

    # ── from the control plane ───────────────────────────────────────────────────────────────────────────────────

    def order(self, orders: Iterable[LeaseOrder], now_ms: int) -> list[Report]:
        """Note these orders; what cannot be carried out at all is reported failed."""
        by_lease: defaultdict[str, list[LeaseOrder]] = defaultdict(list)
        for one in orders:
            by_lease[one.lease_id].append(one)
        reports: list[Report] = []
        for lease, ranks in by_lease.items():
            if lease in self._over:
                continue
            ranks.sort(key=lambda one: one.rank)
            entry = self.entries.get(lease)
            if entry is not None:
                self._repeat(entry, tuple(ranks))
                continue
            try:
                self.entries[lease] = Entry(held=self._held(ranks, now_ms), orders=tuple(ranks))
            except (KeyError, ValueError) as error:
                reason = str(error.args[0])
                reports += [
                    _end(ranks[0], task.attempt_id, AttemptState.FAILED, reason, now_ms) for task in ranks[0].tasks
                ]
        return reports

    @staticmethod
    def _repeat(entry: Entry, orders: tuple[LeaseOrder, ...]) -> None:
        """The order may not have arrived. An agent that knows it minds nothing."""
        is_new, entry.orders = not entry.orders, orders
        if is_new or entry.is_forgotten or not entry.has_begun:
            entry.is_forgotten = entry.has_begun = False
            entry.held = replace(entry.held, is_sent=False)

    def _held(self, ranks: Sequence[LeaseOrder], now_ms: int) -> Held:
        """Raises ValueError, KeyError."""
        first = ranks[0]
        shapes = tuple(_shape(one) for one in ranks)
        if first.lane == JOB:
            cluster = job_cluster(self._site, first, first.kind)
        else:
            cluster = pool_cluster(self._site, first.tenant, first.kind, first.node)
        return Held(
            lease=first.lease_id,
            tenant=first.tenant,
            cluster=cluster,
            kind=first.kind,
            tasks=tuple(task.attempt_id for task in first.tasks),
            shapes=shapes,
            asked_ms=now_ms,
        )

    def stop(self, leases: Iterable[str], reason: str, now_ms: int) -> tuple[list[Report], dict[str, list[str]]]:
        """Ends of those that have not begun, and what is to be sent to which bridge for the others."""
        reports: list[Report] = []
        send: defaultdict[str, list[str]] = defaultdict(list)
        for lease in leases:
            entry = self.entries.get(lease)
            if entry is None:
                for (cluster, _), (_, known) in self._agents.items():
                    if lease in known and lease not in send[cluster]:
                        send[cluster].append(lease)
            elif entry.held.is_told:
                continue
            elif entry.is_forgotten or not entry.held.is_sent:
                reports += self._ended(entry, AttemptState.CANCELLED, reason, now_ms)
            else:
                entry.stop, entry.is_stop_sent = reason, False
                entry.stopped_ms = entry.stopped_ms or now_ms
        return reports, {cluster: ids for cluster, ids in send.items() if ids}

    def acknowledge(self, cursors: Iterable[str]) -> dict[str, list[str]]:
        """What is to be acknowledged to which bridge. Leases whose last end is among them are over."""
        by_cluster: defaultdict[str, list[str]] = defaultdict(list)
        for cursor in cursors:
            cluster, _, own = cursor.partition(MARK)
            by_cluster[cluster].append(own)
            lease = self._ends.pop(cursor, None)
            if lease is not None:
                self._drop(lease)
                for key, (at_ms, known) in self._agents.items():
                    if lease in known:
                        self._agents[key] = (at_ms, known - {lease})
        return dict(by_cluster)

    def lose(self, lease: str, reason: str, now_ms: int) -> list[Report]:
        """It cannot go on: every task of it is lost."""
        entry = self.entries.get(lease)
        return [] if entry is None else self._ended(entry, AttemptState.LOST, reason, now_ms)

    def refuse(self, lease: str, reason: str, now_ms: int) -> list[Report]:
        """Kubernetes will never take its objects, or its own work ended its pod: its tasks failed."""
        entry = self.entries.get(lease)
        return [] if entry is None else self._ended(entry, AttemptState.FAILED, reason, now_ms)

    def node_gone(self, node: str) -> None:
        """The control plane closes what was there."""
        for lease, entry in list(self.entries.items()):
            if any(shape.node == node for shape in entry.held.shapes):
                self._drop(lease)

    def _ended(self, entry: Entry, state: AttemptState, reason: str, now_ms: int) -> list[Report]:
        held = entry.held
        self._drop(held.lease)
        base = Report(
            kind=ReportKind.FINISHED,
            at_ms=now_ms,
            node=held.shapes[0].node,
            tenant=held.tenant,
            lease_id=held.lease,
            state=state,
            message=reason,
        )
        return [replace(base, attempt_id=attempt) for attempt in held.tasks]

    def _drop(self, lease: str) -> None:
        self.entries.pop(lease, None)
        self._over[lease] = None
        while len(self._over) > REMEMBERED:
            del self._over[next(iter(self._over))]
        self._ends = {cursor: other for cursor, other in self._ends.items() if other != lease}

    # ── from Kubernetes ──────────────────────────────────────────────────────────────────────────────────────────

    def adopt(self, pods: Iterable[PodSeen], jobs: Iterable[JobSeen], now_ms: int) -> None:
        """Leases found on our objects by a new service: whoever holds them open says so, or has them stopped."""
        ranks: defaultdict[str, dict[int, PodSeen]] = defaultdict(dict)
        for pod in pods:
            if pod.lease and not pod.is_over:
                ranks[pod.lease][pod.rank] = pod
        found = {job.lease: job for job in jobs if not job.is_deleting}
        for lease in sorted(ranks.keys() | found.keys()):
            made = adopted(lease, found.get(lease), ranks.get(lease, {}), now_ms)
            if lease not in self.entries and made is not None:
                self.entries[lease] = Entry(held=made, has_begun=made.is_sent)

    def see(self, pods: Mapping[str, PodSeen], epoch: int) -> None:
        """Which pods there are, by uid: what is gone says nothing any more. A bridge may know a pod before we do.

        A lease that appears on a pod and that a leader of another ``epoch`` wrote there is no news: it slept.
        """
        before, self._pods = self._nodes, pods
        self._nodes = {(pod.cluster, pod.name): pod.node for pod in pods.values()}
        for key in before.keys() - self._nodes.keys():
            self.facts.pop(key, None)
            self._agents.pop(key, None)
        for pod in pods.values():
            held = self.entries[pod.lease].held if pod.lease in self.entries else None
            if held is None or pod.is_over or pod.epoch != epoch or pod.rank >= len(held.shapes):
                continue
            if not held.pods or not held.pods[pod.rank]:
                self.place(pod.lease, pod.rank, pod.uid)  # the answer to our patch was lost

    def place(self, lease: str, rank: int, uid: str) -> None:
        """A pod carries this rank now."""
        entry = self.entries.get(lease)
        if entry is not None:
            pods = list(entry.held.pods or ("",) * len(entry.held.shapes))
            pods[rank] = uid
            entry.held = replace(entry.held, pods=tuple(pods))

    def made(self, lease: str) -> None:
        """Its RayJob was created."""
        entry = self.entries.get(lease)
        if entry is not None:
            entry.held = replace(entry.held, is_made=True)

    def sent(self, lease: str) -> None:
        """Its orders were given to the bridge."""
        entry = self.entries.get(lease)
        if entry is not None:
            entry.held = replace(entry.held, is_sent=True)

    def bound(self, entry: Entry) -> tuple[LeaseOrder, ...]:
        """Its orders as the bridge wants them, for pods and UUIDs; empty while some pod has not joined.

        Raises ValueError when a pod shows other cards than it was made for, or fewer.
        """
        held, made = entry.held, []
        if not entry.orders or not held.is_placed or held.cluster.name not in self.connected:
            return ()
        for order, uid in zip(entry.orders, held.pods, strict=True):
            pod = self._pods.get(uid)
            facts = self.facts.get((held.cluster.name, pod.name)) if pod is not None else None
            if pod is None or facts is None:
                return ()
            made.append(replace(order, node=pod.name, devices=_cards(order, pod, facts)))
        return tuple(made)

    # ── from the bridges ─────────────────────────────────────────────────────────────────────────────────────────

    def hear(self, cluster: str, report: Report) -> tuple[list[Report], set[str], str]:
        """What the control plane is told of it, the nodes whose inventory changed, and the pod that Ray lost."""
        where = self._nodes.get((cluster, report.node), "")
        match report.kind:
            case ReportKind.RUNTIME_UP:
                self._up(cluster)
            case ReportKind.RUNTIME_DOWN:
                self.connected.discard(cluster)
            case ReportKind.NODE if report.facts is not None:
                self.facts[cluster, report.node] = report.facts
            case ReportKind.NODE_GONE:
                self.facts.pop((cluster, report.node), None)
                return [], set(), report.node
            case ReportKind.INVENTORY:
                self._inventory(cluster, report)
                return [], {where} - {""}, ""
            case ReportKind.STARTED | ReportKind.PROGRESS | ReportKind.FINISHED:
                return [self._of_attempt(cluster, report)], set(), ""
        return [], set(), ""

    def _up(self, cluster: str) -> None:
        """Nothing that was given to an earlier line is sure to have arrived."""
        self.connected.add(cluster)
        self._agents = {key: told for key, told in self._agents.items() if key[0] != cluster}
        for entry in self.entries.values():
            if entry.held.cluster.name == cluster:
                entry.is_stop_sent = False
                if entry.orders and not entry.has_begun:
                    entry.held = replace(entry.held, is_sent=False)

    def _inventory(self, cluster: str, report: Report) -> None:
        known = frozenset(report.leases)
        self._agents[cluster, report.node] = (report.at_ms, known)
        for lease, entry in list(self.entries.items()):
            held = entry.held
            on_it = held.cluster.name == cluster and held.is_sent and self._is_on(held, report.node)
            if not on_it or held.is_told:
                continue
            if lease in known:
                entry.has_begun, entry.is_forgotten = True, False
            elif not entry.orders or entry.stop:
                del self.entries[lease]  # it was on a pod of an earlier service, or is stopped: nothing runs of it
            elif entry.has_begun:
                entry.is_forgotten = True

    def _is_on(self, held: Held, pod: str) -> bool:
        return pod in self._names(held)

    def _names(self, held: Held) -> list[str]:
        return [self._pods[uid].name for uid in held.pods if uid in self._pods]

    def _of_attempt(self, cluster: str, report: Report) -> Report:
        entry = self.entries.get(report.lease_id)
        node = self._nodes.get((cluster, report.node), "")
        if not node and entry is not None:
            node = entry.held.shapes[min(report.rank, len(entry.held.shapes) - 1)].node
        cursor = f"{cluster}{MARK}{report.cursor}" if report.cursor else ""
        told = replace(report, node=node, cursor=cursor, measured=self._measured(cluster, report.measured))
        if entry is not None:
            entry.has_begun = True
            if report.kind is ReportKind.FINISHED and report.attempt_id == entry.held.tasks[-1]:
                self._last_end(entry, cursor)
        return told

    def _last_end(self, entry: Entry, cursor: str) -> None:
        if not cursor:
            self._drop(entry.held.lease)  # nobody keeps it: nothing will be acknowledged
            return
        entry.held = replace(entry.held, is_told=True)
        self._ends[cursor] = entry.held.lease

    def _measured(self, cluster: str, measured: Measured | None) -> Measured | None:
        if measured is None:
            return None
        ranks = tuple(replace(one, node=self._nodes.get((cluster, one.node), one.node)) for one in measured.ranks)
        return replace(measured, ranks=ranks)

    def is_known(self, lease: str) -> bool:
        """An agent named it since its bridge connected."""
        return any(lease in known for _, known in self._agents.values())

    # ── what is said of a node ───────────────────────────────────────────────────────────────────────────────────

    def inventory(self, node: str) -> Report:
        """Every lease on a node, whatever its tenant: those on the way, those whose bridge is away, those that agents
        name. Of no agent's time when one of them has not spoken: being on the way is no sign of life.
        """
        leases: set[str] = set()
        heard: list[int] = []
        for lease, entry in self.entries.items():
            if entry.is_forgotten or all(shape.node != node for shape in entry.held.shapes):
                continue
            leases.add(lease)
            if entry.held.is_sent:
                heard += [self._spoke_ms(entry.held.cluster.name, name) for name in self._names(entry.held)]
        for key, (at_ms, known) in self._agents.items():
            if self._nodes.get(key) == node:
                leases |= known
                heard.append(at_ms)
        return Report(kind=ReportKind.INVENTORY, at_ms=min(heard, default=0), node=node, leases=tuple(sorted(leases)))

    def _spoke_ms(self, cluster: str, pod: str) -> int:
        told = self._agents.get((cluster, pod))
        return told[0] if told is not None else 0


def _shape(one: LeaseOrder) -> Shape:
    more = {"scratch_mib": one.scratch_mib, "card_milli": one.card_milli}
    return shape_of(one.node, one.devices, one.cpu_milli, one.memory_mib, **more)


def _cards(order: LeaseOrder, pod: PodSeen, facts: Node) -> tuple[str, ...]:
    """UUIDs of an order's cards: those its pod claimed, or those that a device plugin gave it. Raises ValueError."""
    shown = tuple(sorted(device.id for device in facts.devices if device.health is Health.OK))
    if pod.shape.devices:
        missing = [device for device in order.devices if device not in shown]
        if missing:
            raise ValueError(f"pod {pod.name} claimed {', '.join(missing)} and shows {', '.join(shown) or 'no cards'}")
        return order.devices
    if len(shown) < len(order.devices):
        raise ValueError(f"pod {pod.name} shows {len(shown)} of {len(order.devices)} cards")
    return shown[: len(order.devices)]


def _end(order: LeaseOrder, attempt_id: str, state: AttemptState, reason: str, now_ms: int) -> Report:
    return Report(
        kind=ReportKind.FINISHED,
        at_ms=now_ms,
        node=order.node,
        tenant=order.tenant,
        lease_id=order.lease_id,
        attempt_id=attempt_id,
        state=state,
        message=reason,
    )
