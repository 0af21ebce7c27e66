"""The Executor port on Kubernetes: RayClusters for the pool lane, a RayJob per lease for the job lane.

What is to be done follows from the open leases, the objects seen and the clock (:mod:`k8s.lanes`); this file looks,
writes, and speaks with the bridges. The service may rely on the rules of ``workers/runtime.py``:

* RUNTIME_UP comes when everything there is was seen; every node follows, then an INVENTORY of each: the leases that are
  written on our objects are in it whether their bridge is there yet or not, and what nobody holds open is stopped.
* An order is on its way until its agent has it: pods that end, do not start or lose their head, and objects that
  vanish, have its attempts reported LOST without a cursor. A bridge that comes back is given again what may not have
  arrived.
* RUNTIME_DOWN means that Kubernetes itself has not answered for a while; a bridge that is away is no such thing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from k8s.api import Api, Object
from k8s.backoff import Backoff
from k8s.book import Book, Entry
from k8s.errors import KubernetesError, Malformed, Stale
from k8s.informer import Informer
from k8s.inventory import Inventory
from k8s.lanes import Action, Assign, Lose, MakeCluster, MakeJob, SetGroups, Unsuspend, World, decide
from k8s.names import INSTANCE, MANAGED_BY, OURS
from k8s.resource import PODS, RAY_CLUSTERS, RAY_JOBS, Resource
from k8s.site import Site
from k8s.views import Views
from k8s.writes import Done, Writer
from scheduler.model.errors import ExecutorError, NotFound
from scheduler.model.node import Lane, Node
from scheduler.model.order import LeaseOrder, LogChunk, Report, ReportKind

_log = logging.getLogger(__name__)
TICK_S = 1.0
"""Longest pause between two looks: limits of time are noticed within it."""
TROUBLE_S = 30.0
"""Kubernetes may be silent for so long before nothing new is planned."""
WRITERS = 8
AGAIN = Backoff(first_s=0.5, most_s=30.0)
"""Before something that failed is tried again; each request was tried several times by then."""
ROUNDS = 20
"""Decisions in a row before the book is looked at again."""


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


@dataclass(slots=True)
class _Failure:
    """What did not work, and when it is tried again."""

    count: int = 0
    again_s: float = 0.0
    why: str = ""


@dataclass(slots=True)
class _State:
    """Everything that the lock guards."""

    book: Book
    views: Views = field(default_factory=Views)
    nodes: dict[str, Node] = field(default_factory=dict)
    condemned: set[str] = field(default_factory=set)
    """Uids of pods that must go."""
    idle_ms: dict[str, int] = field(default_factory=dict)
    unheard_ms: dict[str, int] = field(default_factory=dict)
    speak: set[str] = field(default_factory=set)
    """Nodes whose inventory is to be told."""
    early: list[tuple[str, Sequence[Report]]] = field(default_factory=list)
    """What bridges said before our objects were seen."""
    is_adopted: bool = False
    """The leases on our objects are in the book."""
    is_up: bool = False
    was_up: bool = False


class KubernetesExecutor:
    """See :class:`scheduler.control.ports.Executor`. Nothing happens before :meth:`open`."""

    def __init__(
        self,
        api: Api,
        site: Site,
        *,
        token: Callable[[str], str],
        now_ms: Callable[[], int],
        may_write: Callable[[], bool] = lambda: True,
        lane: Lane = Lane.ANY,
        tick_s: float = TICK_S,
        trouble_s: float = TROUBLE_S,
        again: Backoff = AGAIN,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``token`` derives a secret text from a name; ``may_write`` says whether we still lead, and is asked before
        anything is written; ``lane`` is that of nodes whose label does not say.
        """
        self._api, self._site, self._now_ms, self._monotonic = api, site, now_ms, monotonic
        self._tick_s, self._trouble_s, self._again = tick_s, trouble_s, again
        self._may_write = may_write
        self._lines: Lines | None = None
        self._lock = threading.RLock()
        self._state = _State(book=Book(site))
        self._writer = Writer(api, site, token)
        self._failures: dict[str, _Failure] = {}
        self._trouble_from: float | None = None
        self._news = threading.Condition()
        self._inbox: deque[Callable[[], None]] = deque()
        self._due = False
        self._mail = threading.Condition()
        self._reports: deque[Report] = deque()
        self._woken = False
        self._closing = threading.Event()
        self.inventory = Inventory(api, self._hear_nodes, now_ms=now_ms, lane=lane)
        ours = f"{MANAGED_BY}={OURS},{INSTANCE}={site.instance}"
        self._informers = [
            Informer(api, resource, _Ear(self, resource), namespace=site.namespace, labels=ours)
            for resource in (PODS, RAY_CLUSTERS, RAY_JOBS)
        ]
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="lanes-write")
        self._thread = threading.Thread(target=self._run, name="lanes", daemon=True)

    def open(self, lines: Lines) -> None:
        """Begin, with this way to the bridges."""
        self._lines = lines
        self._thread.start()

    # ── the port ─────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, orders: Sequence[LeaseOrder]) -> None:
        """See the port."""
        with self._lock:
            self._tell(self._state.book.order(orders, self._now_ms()))
            self._state.speak |= {order.node for order in orders}
        self._look()

    def stop(self, lease_ids: Sequence[str], reason: str) -> None:
        """See the port."""
        with self._lock:
            reports, send = self._state.book.stop(lease_ids, reason, self._now_ms())
            self._tell(reports)
            for cluster, known in send.items():
                if self._lines is not None:
                    self._lines.stop(cluster, known, reason)
        self._look()

    def poll(self, timeout_ms: int) -> tuple[Report, ...]:
        """See the port."""
        with self._mail:
            self._mail.wait_for(lambda: self._reports or self._woken, timeout_ms / 1_000)
            reports = tuple(self._reports)
            self._reports.clear()
            self._woken = False
            return reports

    def wake(self) -> None:
        """Make a blocked :meth:`poll` return."""
        with self._mail:
            self._woken = True
            self._mail.notify_all()

    def acknowledge(self, cursors: Sequence[str]) -> None:
        """See the port."""
        with self._lock:
            for cluster, own in self._state.book.acknowledge(cursors).items():
                if self._lines is not None:
                    self._lines.acknowledge(cluster, own)
        self._look()

    def read_log(self, node: str, attempt_id: str, offset: int, limit: int, rank: int = 0) -> LogChunk:
        """See the port; logs end with their pod. Raises NotFound, ExecutorError."""
        with self._lock:
            pods = [pod for pod in self._state.views.pods.values() if pod.node == node]
        pods.sort(key=lambda pod: (attempt_id not in pod.tasks, pod.name))
        unanswered: ExecutorError | None = None
        for pod in pods:
            if self._lines is None:
                break
            try:
                return self._lines.read_log(pod.cluster, pod.name, attempt_id, offset, limit, rank)
            except NotFound:
                continue
            except ExecutorError as error:
                unanswered = error
        if unanswered is not None:
            raise unanswered
        raise NotFound(f"no log of attempt {attempt_id!r} on node {node!r}: it went with its pod")

    def close(self) -> None:
        """Let go; what runs keeps running. Harmless twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._look()
        self.wake()
        if self._thread.ident is not None:
            self._thread.join()
        for informer in self._informers:
            informer.close()
        self.inventory.close()
        if self._lines is not None:
            self._lines.close()
        self._pool.shutdown()
        self._api.close()

    # ── what is heard ────────────────────────────────────────────────────────────────────────────────────────────

    def hear(self, cluster: str, reports: Sequence[Report]) -> None:
        """A bridge speaks. Any thread; returns at once."""
        self._post(lambda: self._heard(cluster, reports))

    def put(self, resource: Resource, obj: Object) -> None:
        """An informer saw an object of ours."""
        self._post(lambda: self._seen(resource, obj))

    def drop(self, resource: Resource, key: str) -> None:
        """An informer saw it go."""
        name = key.rpartition("/")[2]
        self._post(lambda: self._gone(resource, name))

    def listed(self, resource: Resource) -> None:
        """An informer has told everything there is."""

        def note() -> None:
            self._state.views.of[resource].is_listed = True

        self._post(note)

    def _hear_nodes(self, reports: Sequence[Report]) -> None:
        self._post(lambda: self._heard_nodes(reports))

    def _post(self, item: Callable[[], None]) -> None:
        with self._news:
            self._inbox.append(item)
            self._news.notify_all()

    def _look(self) -> None:
        with self._news:
            self._due = True
            self._news.notify_all()

    def _heard(self, cluster: str, reports: Sequence[Report]) -> None:
        state = self._state
        if not state.is_adopted:
            state.early.append((cluster, reports))
            return
        for report in reports:
            told, nodes, lost = state.book.hear(cluster, report)
            self._tell(told)
            state.speak |= nodes
            if lost:
                state.condemned |= {p.uid for p in state.views.pods.values() if (p.cluster, p.name) == (cluster, lost)}

    def _heard_nodes(self, reports: Sequence[Report]) -> None:
        for report in reports:
            if report.kind is ReportKind.NODE and report.facts is not None:
                self._state.nodes[report.node] = report.facts
            elif report.kind is ReportKind.NODE_GONE:
                self._state.nodes.pop(report.node, None)
                self._state.book.node_gone(report.node)
        if self._state.is_up:
            self._tell(reports)

    def _seen(self, resource: Resource, obj: Object) -> None:
        self._state.views.of[resource].put(obj)

    def _gone(self, resource: Resource, name: str) -> None:
        self._state.views.of[resource].drop(name)
        if resource is not PODS and self._lines is not None:
            self._state.book.connected.discard(name)
            self._lines.drop(name)

    def _tell(self, reports: Sequence[Report]) -> None:
        if reports:
            with self._mail:
                self._reports.extend(reports)
                self._mail.notify_all()

    # ── the one thread ───────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            for informer in self._informers:
                informer.start()
            self._begin_inventory()
            while not self._closing.is_set():
                with self._news:
                    self._news.wait_for(lambda: self._inbox or self._due, self._tick_s)
                    self._due = False
                self._turn()
        finally:
            if not self._closing.is_set():
                self._tell([self._report(ReportKind.RUNTIME_DOWN, "the lanes failed: restart the service")])

    def _begin_inventory(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                self.inventory.start()
            except KubernetesError as error:
                failures += 1
                self._go_down(f"Kubernetes does not answer: {error}")
                self._closing.wait(self._again.wait_s(failures, self._api.draw()))
            else:
                return

    def _turn(self) -> None:
        with self._lock:
            self._read()
            if not self._check():
                return
            actions = self._decided()
            entries = {action: self._entry_of(action) for action in actions}
        if entries and not self._may_write():
            return  # somebody else decides now, and has seen what we have not
        self._carry_out(entries)
        with self._lock:
            self._state.book.see(self._state.views.pods)
            self._send()
            self._speak()

    def _read(self) -> None:
        while True:
            with self._news:
                items = list(self._inbox)
                self._inbox.clear()
            if not items:
                break
            for item in items:
                item()
        self._state.book.see(self._state.views.pods)

    def _check(self) -> bool:
        """Whether Kubernetes is known well enough to decide anything."""
        state, problem = self._state, self._problem()
        if not (state.views.is_listed and self.inventory.is_listed):
            if problem:
                self._go_down(problem)
            return False
        now_s = self._monotonic()
        if not problem:
            self._trouble_from = None
        elif self._trouble_from is None:
            self._trouble_from = now_s
        if problem and self._trouble_from is not None and now_s >= self._trouble_from + self._trouble_s:
            self._go_down(problem)
        elif not state.is_up and not problem:
            self._come_up()
        return True

    def _problem(self) -> str:
        said = [informer.problem for informer in self._informers if informer.problem]
        said += ["an informer failed: restart the service" for informer in self._informers if not informer.is_alive]
        said += [self.inventory.problem] if self.inventory.problem else []
        return f"Kubernetes does not answer: {said[0]}" if said else ""

    def _go_down(self, reason: str) -> None:
        with self._lock:
            if self._state.is_up or not self._state.was_up:
                self._tell([self._report(ReportKind.RUNTIME_DOWN, message=reason)])
            self._state.is_up, self._state.was_up = False, True

    def _come_up(self) -> None:
        state = self._state
        if not state.is_adopted:
            state.book.adopt(state.views.pods.values(), state.views.jobs.values(), self._now_ms())
        state.is_up = state.was_up = state.is_adopted = True
        now_ms = self._now_ms()
        self._tell([self._report(ReportKind.RUNTIME_UP)])
        self._tell(
            [
                Report(kind=ReportKind.NODE, at_ms=now_ms, node=name, facts=node)
                for name, node in sorted(state.nodes.items())
            ]
        )
        state.speak |= state.nodes.keys()
        early, state.early = state.early, []
        for cluster, reports in early:
            self._heard(cluster, reports)

    def _report(self, kind: ReportKind, message: str = "") -> Report:
        return Report(kind=kind, at_ms=self._now_ms(), message=message)

    # ── decide and write ─────────────────────────────────────────────────────────────────────────────────────────

    def _decided(self) -> list[Action]:
        for _ in range(ROUNDS):
            actions = decide(self._world())
            lost = [action for action in actions if isinstance(action, Lose)]
            for action in lost:
                self._lose(action)
            if not lost:
                return [action for action in actions if self._is_due(action)]
        return []

    def _lose(self, action: Lose) -> None:
        state = self._state
        entry = state.book.entries[action.lease]
        why = self._failures.get(_key(MakeCluster(cluster=entry.held.cluster, kind="")), _Failure()).why
        reason = f"{action.reason}; {why}" if why and not entry.held.is_placed else action.reason
        state.condemned |= set(filter(None, entry.held.pods))
        state.speak |= {shape.node for shape in entry.held.shapes}
        self._tell(state.book.lose(action.lease, reason, self._now_ms()))

    def _world(self) -> World:
        state, now_ms = self._state, self._now_ms()
        held, pods = state.book.held, state.views.pods
        state.condemned &= pods.keys()
        taken = {uid for one in held.values() for uid in one.pods if uid}
        idle = {uid for uid, pod in pods.items() if uid not in taken and not pod.lease}
        busy = {one.cluster.name for one in held.values()} | {pod.cluster for pod in pods.values()}
        idle |= {name for name in state.views.clusters if name not in busy}
        state.idle_ms = {key: state.idle_ms.get(key, now_ms) for key in idle}
        away = {one.cluster.name for one in held.values() if one.is_placed} - state.book.connected
        state.unheard_ms = {name: state.unheard_ms.get(name, now_ms) for name in away}
        return World(
            site=self._site,
            now_ms=now_ms,
            held=held,
            pods=pods,
            clusters=dict(state.views.clusters),
            jobs=dict(state.views.jobs),
            nodes=dict(state.nodes),
            idle_ms=state.idle_ms,
            condemned=frozenset(state.condemned),
            unheard_ms=state.unheard_ms,
        )

    def _is_due(self, action: Action) -> bool:
        failure = self._failures.get(_key(action))
        return failure is None or self._monotonic() >= failure.again_s

    def _entry_of(self, action: Action) -> Entry | None:
        match action:
            case MakeJob(lease=lease) | Assign(lease=lease):
                return self._state.book.entries.get(lease)
            case Unsuspend(seen=seen):
                return self._state.book.entries.get(seen.lease)
        return None

    def _carry_out(self, entries: dict[Action, Entry | None]) -> None:
        futures = [
            (action, self._pool.submit(self._writer.carry_out, action, entry)) for action, entry in entries.items()
        ]
        for action, future in futures:
            try:
                done = future.result()
            except Stale as stale:
                _log.info("%s: somebody was quicker: %s", _key(action), stale)
                self._fail(action, stale)
            except KubernetesError as error:
                _log.warning("%s: %s", _key(action), error)
                self._fail(action, error)
            else:
                self._failures.pop(_key(action), None)
                self._note(action, done)

    def _note(self, action: Action, done: Done) -> None:
        with self._lock:
            for resource, obj in done.objects:
                self._state.views.of[resource].put(obj)
            for resource, name in done.gone:
                self._state.views.of[resource].drop(name)
            match action:
                case MakeJob(lease=lease) if done.objects:
                    self._state.book.made(lease)
                case Assign(lease=lease, rank=rank, pod=pod) if done.objects:
                    self._state.book.place(lease, rank, pod.uid)
        if done.objects or done.gone:
            self._look()

    def _fail(self, action: Action, error: KubernetesError) -> None:
        failure = self._failures.setdefault(_key(action), _Failure())
        failure.count, failure.why = failure.count + 1, str(error)
        failure.again_s = self._monotonic() + self._again.wait_s(failure.count, self._api.draw(), error.retry_after_s)
        if not isinstance(error, Malformed):
            return
        with self._lock:  # the same object would be refused again
            for lease in self._refused(action):
                self._tell(self._state.book.refuse(lease, f"Kubernetes refuses it: {error}", self._now_ms()))

    def _refused(self, action: Action) -> list[str]:
        match action:
            case MakeJob(lease=lease):
                return [lease]
            case MakeCluster(cluster=cluster) | SetGroups(cluster=cluster):
                held = self._state.book.held.values()
                return [one.lease for one in held if one.cluster.name == cluster.name and not one.is_placed]
        return []

    # ── speak ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self) -> None:
        """Orders whose pods are there, then stops."""
        book, lines = self._state.book, self._lines
        if lines is None:
            return
        for lease, entry in sorted(book.entries.items()):
            held = entry.held
            if not held.is_sent and not entry.is_forgotten and not held.is_told:
                try:
                    orders = book.bound(entry)
                except ValueError as error:
                    self._lose(Lose(lease=lease, reason=str(error)))
                    continue
                if orders and lines.start(held.cluster.name, orders):
                    book.sent(lease)
            if entry.stop and not entry.is_stop_sent and entry.held.is_sent and held.cluster.name in book.connected:
                entry.is_stop_sent = lines.stop(held.cluster.name, [lease], entry.stop)

    def _speak(self) -> None:
        state = self._state
        if not state.is_up:
            return
        nodes, state.speak = sorted(state.speak & state.nodes.keys()), set()
        self._tell([state.book.inventory(node) for node in nodes])


class _Ear:
    """An informer's listener."""

    def __init__(self, executor: KubernetesExecutor, resource: Resource) -> None:
        self._executor, self._resource = executor, resource

    def put(self, obj: Object) -> None:
        self._executor.put(self._resource, obj)

    def drop(self, key: str) -> None:
        self._executor.drop(self._resource, key)

    def listed(self) -> None:
        self._executor.listed(self._resource)


def _key(action: Action) -> str:
    """What it is about, whatever the version."""
    kind = type(action).__name__
    match action:
        case MakeCluster(cluster=cluster) | SetGroups(cluster=cluster):
            return f"{kind} {cluster.name}"
        case MakeJob(lease=lease) | Lose(lease=lease):
            return f"{kind} {lease}"
        case Assign(pod=pod):
            return f"{kind} {pod.name}"
        case _:
            return f"{kind} {(action.pod if hasattr(action, 'pod') else action.seen).name}"
