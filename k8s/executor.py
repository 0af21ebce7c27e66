"""The Executor port on Kubernetes: RayClusters for the pool lane, a RayJob per lease for the job lane.

What is to be done follows from the open leases, the objects seen and the clock (:mod:`k8s.lanes`); this file looks,
writes, and speaks with the bridges. The service may rely on the rules of ``workers/runtime.py``:

* RUNTIME_UP comes when everything there is was seen, and names all nodes; each follows, those that do not answer as
  NODE_GONE, then an INVENTORY of each: the leases that are written on our objects are in it whether their bridge is
  there yet or not, and what nobody holds open is stopped.
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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from k8s.actions import Action
from k8s.api import Api, Object
from k8s.backoff import Backoff
from k8s.book import Entry
from k8s.desk import Desk, Lines
from k8s.errors import KubernetesError
from k8s.failures import Failures, key
from k8s.informer import Informer
from k8s.inventory import Inventory
from k8s.manifests import JOB
from k8s.names import INSTANCE, MANAGED_BY, OURS
from k8s.resource import PODS, RAY_CLUSTERS, RAY_JOBS, Resource
from k8s.site import Site
from k8s.writes import Writer
from scheduler.model.errors import ExecutorError, NotFound
from scheduler.model.node import CardCut, Lane
from scheduler.model.order import LeaseOrder, LogChunk, Report, ReportKind

_log = logging.getLogger(__name__)
TICK_S = 1.0
"""Longest pause between two looks: limits of time are noticed within it."""
TROUBLE_S = 30.0
"""Kubernetes may be silent for so long before nothing new is planned."""
WRITERS = 8
AGAIN = Backoff(first_s=0.5, most_s=30.0)
"""Before something that failed is tried again; each request was tried several times by then."""


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
        self._api, self._now_ms, self._monotonic = api, now_ms, monotonic
        self._tick_s, self._trouble_s, self._again = tick_s, trouble_s, again
        self._may_write = may_write
        self._writer = Writer(api, site, token)
        self._trouble_from: float | None = None
        self._lock = threading.RLock()
        """Guards the desk."""
        failures = Failures(again, draw=api.draw, monotonic=monotonic)
        self._news = threading.Condition()
        self._inbox: deque[Callable[[], None]] = deque()
        self._is_due = False
        self._mail = threading.Condition()
        self._reports: deque[Report] = deque()
        self._woken = False
        self._closing = threading.Event()
        self.inventory = Inventory(
            api, self._hear_nodes, now_ms=now_ms, lane=lane, cards=site.cards, configs=site.mig_configs
        )
        self._desk = Desk(site, failures, tell=self._tell, now_ms=now_ms, park=self.inventory)
        ours = f"{MANAGED_BY}={OURS},{INSTANCE}={site.instance}"
        self._informers = [
            Informer(api, resource, _Ear(self, resource), namespace=site.namespace, labels=ours)
            for resource in (PODS, RAY_CLUSTERS, RAY_JOBS)
        ]
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="lanes-write")
        self._thread = threading.Thread(target=self._run, name="lanes", daemon=True)

    def open(self, lines: Lines, epoch: int) -> None:
        """Begin, with this way to the bridges and under this epoch."""
        self._desk.lines, self._desk.epoch, self._writer.epoch = lines, epoch, epoch
        self._thread.start()

    # ── the port ─────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, orders: Sequence[LeaseOrder]) -> None:
        """See the port."""
        with self._lock:
            self._tell(self._desk.book.order(orders, self._now_ms()))
            self._desk.speak |= {order.node for order in orders}
        self._look()

    def stop(self, lease_ids: Sequence[str], reason: str) -> None:
        """See the port."""
        with self._lock:
            reports, send = self._desk.book.stop(lease_ids, reason, self._now_ms())
            self._tell(reports)
            for cluster, known in send.items():
                if self._desk.lines is not None:
                    self._desk.lines.stop(cluster, known, reason)
        self._look()

    def move(self, lanes: Mapping[str, Lane]) -> None:
        """See the port: a node's label says which lane it serves."""
        with self._lock:
            self._desk.moves |= lanes
        self._look()

    def recut(self, cuts: Mapping[str, Sequence[CardCut]]) -> None:
        """See the port: a node's label says into which of its layouts the GPU Operator is to put it."""
        self._post(lambda: self._desk.recut(cuts))  # in order with what is written

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
            for cluster, own in self._desk.book.acknowledge(cursors).items():
                if self._desk.lines is not None:
                    self._desk.lines.acknowledge(cluster, own)
        self._look()

    def read_log(self, node: str, attempt_id: str, offset: int, limit: int, rank: int = 0) -> LogChunk:
        """See the port; logs end with their pod. Raises NotFound, ExecutorError."""
        with self._lock:
            pods = [pod for pod in self._desk.views.pods.values() if pod.node == node]
        pods.sort(key=lambda pod: (attempt_id not in pod.tasks, pod.name))
        unanswered: ExecutorError | None = None
        for pod in pods:
            if self._desk.lines is None:
                break
            try:
                return self._desk.lines.read_log(pod.cluster, pod.name, attempt_id, offset, limit, rank)
            except NotFound:
                continue
            except ExecutorError as error:
                unanswered = error
        if unanswered is not None:
            raise unanswered
        raise NotFound(f"no log of attempt {attempt_id!r} on node {node!r}: it went with its pod")

    def carries(self, cluster: str) -> tuple[str, frozenset[str]]:
        """The lane of a cluster of open leases, and their attempts; empty for one that carries nothing."""
        with self._lock:
            held = [one for one in self._desk.book.held.values() if one.cluster.name == cluster]
        lane = held[0].cluster.lane if held else JOB if cluster.startswith(f"{JOB}-") else ""
        return lane, frozenset(attempt for one in held for attempt in one.tasks)

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
        if self._desk.lines is not None:
            self._desk.lines.close()
        self._pool.shutdown()
        self._api.close()

    # ── what is heard ────────────────────────────────────────────────────────────────────────────────────────────

    def hear(self, cluster: str, reports: Sequence[Report]) -> None:
        """A bridge speaks. Any thread; returns at once."""
        self._post(lambda: self._desk.heard(cluster, reports))

    def put(self, resource: Resource, obj: Object) -> None:
        """An informer saw an object of ours."""
        self._post(lambda: self._desk.seen(resource, obj))

    def drop(self, resource: Resource, name: str) -> None:
        """An informer saw it go."""
        self._post(lambda: self._desk.gone(resource, name))

    def listed(self, resource: Resource) -> None:
        """An informer has told everything there is."""
        self._post(lambda: self._desk.views.listed(resource))

    def _hear_nodes(self, reports: Sequence[Report]) -> None:
        self._post(lambda: self._desk.heard_nodes(reports))

    def _post(self, item: Callable[[], None]) -> None:
        with self._news:
            self._inbox.append(item)
            self._news.notify_all()

    def _look(self) -> None:
        with self._news:
            self._is_due = True
            self._news.notify_all()

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
                    self._news.wait_for(lambda: self._inbox or self._is_due, self._tick_s)
                    self._is_due = False
                self._turn()
        finally:
            if not self._closing.is_set():
                down = ReportKind.RUNTIME_DOWN
                self._tell([Report(kind=down, at_ms=self._now_ms(), message="the lanes failed: restart the service")])

    def _begin_inventory(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                self.inventory.start()
            except KubernetesError as error:
                failures += 1
                with self._lock:
                    self._desk.go_down(f"Kubernetes does not answer: {error}")
                self._closing.wait(self._again.wait_s(failures, self._api.draw()))
            else:
                return

    def _turn(self) -> None:
        with self._lock:
            self._read()
            if not self._knows_enough():
                return
            actions = self._desk.decided()
        if actions and not self._may_write():
            return  # somebody else decides now, and has seen what we have not
        self._carry_out(actions)
        with self._lock:
            self._desk.book.see(self._desk.views.pods, self._desk.epoch)
            self._desk.send()
            self._desk.tell_inventories()

    def _read(self) -> None:
        while True:
            with self._news:
                items = list(self._inbox)
                self._inbox.clear()
            if not items:
                break
            for item in items:
                item()
        self._desk.book.see(self._desk.views.pods, self._desk.epoch)

    def _knows_enough(self) -> bool:
        """Whether Kubernetes is known well enough to decide anything."""
        problem = self._problem()
        if not (self._desk.views.is_listed and self.inventory.is_listed):
            if problem:
                self._desk.go_down(problem)
            return False
        now_s = self._monotonic()
        self._trouble_from = None if not problem else self._trouble_from or now_s
        if self._trouble_from is not None and now_s >= self._trouble_from + self._trouble_s:
            self._desk.go_down(problem)
        elif not self._desk.is_up and not problem:
            self._desk.come_up()
        return True

    def _problem(self) -> str:
        followed = [*self._informers, *self.inventory.informers.values()]
        if any(not one.is_alive for one in followed):
            return "an informer failed: restart the service"
        said = next((one.problem for one in followed if one.problem), "")
        return f"Kubernetes does not answer: {said}" if said else ""

    def _carry_out(self, actions: Mapping[Action, Entry | None]) -> None:
        asked = [
            (action, self._pool.submit(self._writer.carry_out, action, entry)) for action, entry in actions.items()
        ]
        for action, future in asked:
            try:
                done = future.result()
            except KubernetesError as error:
                _log.warning("%s: %s", key(action), error)
                with self._lock:
                    self._desk.failed(action, error)
            else:
                with self._lock:
                    self._desk.done(action, done)
                if done.objects or done.gone:
                    self._look()


class _Ear:
    """An informer's listener."""

    def __init__(self, executor: KubernetesExecutor, resource: Resource) -> None:
        self._executor, self._resource = executor, resource

    def put(self, obj: Object) -> None:
        self._executor.put(self._resource, obj)

    def drop(self, key: str) -> None:
        self._executor.drop(self._resource, key.rpartition("/")[2])

    def listed(self) -> None:
        self._executor.listed(self._resource)
