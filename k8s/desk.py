"""What the executor knows at one moment: the book, the objects, the nodes; what follows from news, and what is said of
it. No I/O but through the lines; whoever calls holds the executor's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from k8s.actions import (
    Action,
    Assign,
    HoldNode,
    LayOut,
    Lose,
    MakeCluster,
    MakeJob,
    Relabel,
    SetGroups,
    TakeBack,
    Unsuspend,
)
from k8s.api import Object
from k8s.book import Book, Entry
from k8s.errors import KubernetesError, Malformed
from k8s.failures import Failures, key
from k8s.inventory import Inventory
from k8s.lanes import World, decide
from k8s.losses import hint
from k8s.resource import PODS, Resource
from k8s.seen import JobSeen
from k8s.sightings import NodeSight
from k8s.site import Site
from k8s.views import Views
from k8s.writes import Done
from scheduler.model.node import CardCut, Lane, Node
from scheduler.model.order import GANG_INCOMPLETE, LeaseOrder, LogChunk, Report, ReportKind

UNHEARD_MS = 60_000
"""A stopped lease of an earlier service that no agent names by then goes with its pods."""
WORDS_MS = 3_000
"""Ray notices a pod's end before Kubernetes has said why: it is waited for so long."""
ROUNDS = 20
"""Losses in a row after which the rest waits for the next look."""


class Lines(Protocol):
    """The way to the bridges of our clusters."""

    def start(self, cluster: str, orders: Sequence[LeaseOrder]) -> bool:
        """False: that bridge is not connected, nothing was sent."""
        ...

    def stop(self, cluster: str, lease_ids: Sequence[str], reason: str) -> bool:
        """As :meth:`start`."""
        ...

    def acknowledge(self, cluster: str, cursors: Sequence[str]) -> bool:
        """As :meth:`start`."""
        ...

    def read_log(  # noqa: PLR0917 (as the Executor port has them)
        self, cluster: str, node: str, attempt_id: str, offset: int, limit: int, rank: int = 0
    ) -> LogChunk:
        """Raises NotFound, ExecutorError."""
        ...

    def drop(self, cluster: str) -> None:
        """The cluster is gone."""
        ...

    def close(self) -> None:
        """Hang up on all."""
        ...


class Desk:
    """``tell`` takes reports for the control plane; ``park`` knows the nodes."""

    def __init__(
        self,
        site: Site,
        failures: Failures,
        *,
        tell: Callable[[Sequence[Report]], None],
        now_ms: Callable[[], int],
        park: Inventory,
    ) -> None:
        self._site, self._tell, self._now_ms, self._park = site, tell, now_ms, park
        self.failures = failures
        self.lines: Lines | None = None
        self.book = Book(site)
        self.views = Views()
        self.is_up = False
        """RUNTIME_UP was said, and no RUNTIME_DOWN since."""
        self.speak: set[str] = set()
        """Nodes whose inventory is to be told."""
        self.moves: dict[str, Lane] = {}
        """Nodes that are to serve another lane, until that is written."""
        self.cuts: dict[str, CardCut | None] = {}
        """Nodes whose cards are to be cut anew; None: no more."""
        self._written: dict[str, str] = {}
        """Version in which we left a node that has not come back to us yet: nothing is decided about it meanwhile."""
        self._given_up: set[str] = set()
        """Nodes that are to be told again, because plans count on nothing of them until then."""
        self.epoch = 0
        """Under which everything is decided; set before the first decision."""
        self._labelled: set[str] = set()
        """Nodes whose lane we wrote."""
        self._nodes: dict[str, Node] = {}
        self._gone: dict[str, Report] = {}
        """Nodes that do not answer, as the inventory said."""
        self._condemned: set[str] = set()
        """Uids of pods that must go."""
        self._ray_lost_ms: dict[str, int] = {}
        """When a bridge said that Ray lost a pod."""
        self._idle_ms: dict[str, int] = {}
        self._unheard_ms: dict[str, int] = {}
        self._early: list[tuple[str, Sequence[Report]]] = []
        """What bridges said before our objects were seen."""
        self._is_adopted = self._said = False

    # ── up and down ──────────────────────────────────────────────────────────────────────────────────────────────

    def come_up(self) -> None:
        """Everything there is was seen."""
        if not self._is_adopted:
            self.book.adopt(self.views.pods.values(), self.views.jobs.values(), self._now_ms())
        self.is_up = self._said = self._is_adopted = True
        there = self._park.names()
        self._tell([replace(self._report(ReportKind.RUNTIME_UP), nodes=there)])
        now_ms, nodes = self._now_ms(), sorted(self._nodes.items())
        self._tell([Report(kind=ReportKind.NODE, at_ms=now_ms, node=name, facts=node) for name, node in nodes])
        # They may have gone while no service was there, with leases that were adopted.
        carriers = {shape.node for held in self.book.held.values() for shape in held.shapes}
        for name in self._gone.keys() | carriers - set(there):
            self.book.node_gone(name)
        self._tell([report for _, report in sorted(self._gone.items())])
        self.speak |= self._nodes.keys()
        early, self._early = self._early, []
        for cluster, reports in early:
            self.heard(cluster, reports)

    def go_down(self, reason: str) -> None:
        """Nothing new should be planned. Said once."""
        if self.is_up or not self._said:
            self._tell([self._report(ReportKind.RUNTIME_DOWN, reason)])
        self.is_up, self._said = False, True

    def _report(self, kind: ReportKind, message: str = "") -> Report:
        return Report(kind=kind, at_ms=self._now_ms(), message=message)

    # ── news ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def heard(self, cluster: str, reports: Sequence[Report]) -> None:
        """A bridge spoke."""
        if not self._is_adopted:
            self._early.append((cluster, reports))
            return
        for report in reports:
            told, nodes, lost = self.book.hear(cluster, self._hinted(report))
            self._tell(told)
            self.speak |= nodes
            if lost:
                gone = {p.uid for p in self.views.pods.values() if (p.cluster, p.name) == (cluster, lost)}
                self._ray_lost_ms = dict.fromkeys(gone, self._now_ms()) | self._ray_lost_ms

    def _hinted(self, report: Report) -> Report:
        """A bridge knows that pods did not come; why they did not, Kubernetes says."""
        entry = self.book.entries.get(report.lease_id)
        if entry is None or not report.message.startswith(GANG_INCOMPLETE):
            return report
        return replace(report, message=f"{report.message}{hint(entry.held, self._world())}")

    def heard_nodes(self, reports: Sequence[Report]) -> None:
        """The inventory spoke."""
        for report in reports:
            if report.kind is ReportKind.NODE and report.facts is not None:
                self._nodes[report.node] = report.facts
                self._gone.pop(report.node, None)
            elif report.kind is ReportKind.NODE_GONE:
                self._nodes.pop(report.node, None)
                self._gone[report.node] = report
                self.book.node_gone(report.node)
        if self.is_up:
            self._tell(reports)

    def seen(self, resource: Resource, obj: Object) -> None:
        """There is this object of ours."""
        self.views.of[resource].put(obj)

    def gone(self, resource: Resource, name: str) -> None:
        """It is not there any more."""
        self.views.of[resource].drop(name)
        if resource is not PODS and self.lines is not None:
            self.book.connected.discard(name)
            self.lines.drop(name)

    # ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────

    def decided(self) -> dict[Action, Entry | None]:
        """What is to be written now, with the lease that it is for."""
        for _ in range(ROUNDS):
            actions = decide(self._world())
            lost = [action for action in actions if isinstance(action, Lose)]
            for action in lost:
                self._lose(action)
            if not lost:
                self.failures.keep({key(action) for action in actions})
                return {action: self._entry_of(action) for action in actions if self.failures.is_due(action)}
        return {}

    def _world(self) -> World:
        now_ms, held, pods = self._now_ms(), self.book.held, self.views.pods
        taken = {uid for one in held.values() for uid in one.pods if uid}
        ripe = {uid for uid, at_ms in self._ray_lost_ms.items() if uid not in taken or now_ms >= at_ms + WORDS_MS}
        self._ray_lost_ms = {uid: at_ms for uid, at_ms in self._ray_lost_ms.items() if uid in pods}
        self._condemned = (self._condemned | ripe) & pods.keys()
        busy = {one.cluster.name for one in held.values()} | {pod.cluster for pod in pods.values()}
        idle = {uid for uid, pod in pods.items() if uid not in taken and not pod.lease}
        idle |= self.views.clusters.keys() - busy
        away = {one.cluster.name for one in held.values() if one.is_placed} - self.book.connected
        self._idle_ms = {name: self._idle_ms.get(name, now_ms) for name in idle}
        self._unheard_ms = {name: self._unheard_ms.get(name, now_ms) for name in away}
        return World(
            site=self._site,
            now_ms=now_ms,
            held=held,
            pods=pods,
            clusters=dict(self.views.clusters),
            jobs=dict(self.views.jobs),
            nodes=dict(self._nodes),
            idle_ms=self._idle_ms,
            condemned=frozenset(self._condemned),
            unheard_ms=self._unheard_ms,
            last_words=self.views.last_words(taken),
            heads=self.views.heads,
            moves=dict(self.moves),
            versions={node: version for node in self.moves if (version := self._park.version(node))},
            cuts=dict(self.cuts),
            sights=self._sights(),
            labelled=frozenset(self._labelled),
            epoch=self.epoch,
        )

    def _sights(self) -> dict[str, NodeSight]:
        """Nodes that are to be cut, or were, as far as what we wrote on them is seen."""
        found = {name: sight for name in self.cuts if (sight := self._park.sight(name)) is not None}
        for name in self._written.keys() & found.keys():
            if int(found[name].version) < int(self._written[name]):
                del found[name]
            else:
                del self._written[name]
        return found

    def _lose(self, action: Lose) -> None:
        held = self.book.entries[action.lease].held
        why = self.failures.why(MakeCluster(cluster=held.cluster, kind=""), MakeJob(lease=held.lease))
        reason = f"{action.reason}; {why}" if why and not held.is_placed else action.reason
        self._condemned |= set(filter(None, held.pods))
        self.speak |= {shape.node for shape in held.shapes}
        end = self.book.refuse if action.is_its_own else self.book.lose
        self._tell(end(action.lease, reason, self._now_ms()))

    def _entry_of(self, action: Action) -> Entry | None:
        match action:
            case MakeJob(lease=lease) | Assign(lease=lease):
                return self.book.entries.get(lease)
            case Unsuspend(seen=seen):
                return self.book.entries.get(seen.lease)
        return None

    def done(self, action: Action, done: Done) -> None:
        """It was written."""
        self.failures.clear(action)
        for resource, obj in done.objects:
            self.seen(resource, obj)
        for resource, name in done.gone:
            self.gone(resource, name)
        match action:
            case Relabel(node=name, lane=lane):
                self._labelled.add(name)
                if self.moves.get(name) is lane:
                    del self.moves[name]  # whoever labels it otherwise from now on means it
            case LayOut(node=node) | TakeBack(node=node) | HoldNode(node=node):
                self._written[node.name] = done.version
            case MakeJob(lease=lease) | Unsuspend(seen=JobSeen(lease=lease)) if done.objects:
                self.book.made(lease)
            case Assign(lease=lease, rank=rank, pod=pod) if done.objects:
                self.book.place(lease, rank, pod.uid)

    def failed(self, action: Action, error: KubernetesError) -> None:
        """It was not; what the server would refuse again fails for good."""
        self.failures.add(action, error)
        if isinstance(error, Malformed):
            for lease in self._behind(action):
                self._tell(self.book.refuse(lease, f"Kubernetes refuses it: {error}", self._now_ms()))

    def _behind(self, action: Action) -> list[str]:
        """Leases that wait for it."""
        match action:
            case MakeJob(lease=lease):
                return [lease]
            case MakeCluster(cluster=cluster) | SetGroups(cluster=cluster):
                held = self.book.held.values()
                return [one.lease for one in held if one.cluster.name == cluster.name and not one.is_placed]
        return []

    # ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────

    def send(self) -> None:
        """Orders whose pods are there, then stops."""
        if self.lines is None:
            return
        for lease, entry in sorted(self.book.entries.items()):
            held = entry.held
            if not held.is_sent and not entry.is_forgotten and not held.is_told:
                try:
                    orders = self.book.bound(entry)
                except ValueError as error:
                    self._lose(Lose(lease=lease, reason=str(error)))
                    continue
                if orders and self.lines.start(held.cluster.name, orders):
                    self.book.sent(lease)
            if entry.stop and not entry.is_stop_sent and entry.held.is_sent:
                entry.is_stop_sent = self.lines.stop(held.cluster.name, [lease], entry.stop)
            is_late = entry.is_stop_sent and self._now_ms() >= entry.stopped_ms + UNHEARD_MS
            if is_late and not entry.orders and not self.book.is_known(lease):
                self._lose(Lose(lease=lease, reason=entry.stop))  # its pod was never given it, or nobody can say

    def recut(self, cuts: Mapping[str, Sequence[CardCut]]) -> None:
        """The control plane says how nodes are to be cut: as a whole, because single cards are the GPU Operator's."""
        for name, asked in cuts.items():
            known = self.cuts.get(name)
            self.cuts[name] = next((cut for cut in asked if cut.name), None)
            if known is not None and self.cuts[name] is None:
                self._given_up.add(name)

    def _tell_given_up(self) -> None:
        """As they are now, once what we wrote there last is seen: devices of before would be given away."""
        for name in sorted(self._given_up & self._sights().keys()):
            self._given_up.discard(name)
            node = self._park.node(name)  # it is told when it answers again, else
            if node is not None:
                self._tell([Report(kind=ReportKind.NODE, at_ms=self._now_ms(), node=name, facts=node)])

    def tell_inventories(self) -> None:
        """Of the nodes where something changed."""
        if self.is_up:
            self._tell_given_up()
            nodes, self.speak = sorted(self.speak & self._nodes.keys()), set()
            self._tell([self.book.inventory(node) for node in nodes])
