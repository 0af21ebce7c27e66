"""Bridges and agents on paper, beside KubeRay's stand-in: what the lanes ask for comes true within milliseconds."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from k8s.names import CLUSTER, LEASE, SHAPE
from k8s.shapes import Shape
from scheduler.model.errors import ExecutorError
from scheduler.model.node import Device, Node
from scheduler.model.order import LeaseOrder, LogChunk, Report, ReportKind
from tests.fakes.executor import FakeExecutor, FakeFarm
from tests.fakes.kuberay.conditions import is_true
from tests.fakes.kuberay.paper import Paper
from tests.fakes.kuberay.park import KubePark

BEAT_S = 0.005
CLOCK_MS = 20
"""The farms' clocks go on by this each beat."""


class PaperPark(KubePark):
    """A KubePark whose pods have agents on paper: what stays when a service ends."""

    def __init__(
        self,
        *,
        nodes: Iterable[Mapping[str, Any]] = (),
        mig_configs: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        super().__init__(nodes=nodes, mig_configs=mig_configs)
        self.double.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "park"}})
        self.lock = threading.RLock()
        self.farms: dict[str, FakeFarm] = {}
        """By cluster, as the bridges name it."""
        self.cards: Callable[[Shape], int] = lambda shape: shape.count
        """How many cards a pod shows."""
        self.beats = 0

    def beat(self) -> None:
        """Bring the farms to the pods that run. The caller holds the lock."""
        there: dict[str, dict[str, Node]] = {}
        for pod in self.double.objects("pods"):
            meta = pod["metadata"]
            cluster = (meta.get("labels") or {}).get(CLUSTER)
            if cluster is None or not is_true(pod.get("status") or {}, "Ready"):
                continue
            if meta["labels"]["ray.io/node-type"] == "head":
                there.setdefault(cluster, {})
            else:
                there.setdefault(cluster, {})[meta["name"]] = self._facts(meta)
        for name in self.farms.keys() - there.keys():
            del self.farms[name]
        for name, nodes in there.items():
            farm = self.farms.setdefault(name, FakeFarm(()))
            for gone in farm.nodes.keys() - nodes.keys():
                farm.lose_node(gone)
            farm.nodes |= nodes
        self.beats += 1

    def _facts(self, meta: Mapping[str, Any]) -> Node:
        shape = Shape.of_text(meta["annotations"][SHAPE])
        assert isinstance(self.runtime, Paper)
        given = self.runtime.cards.get(meta["uid"], ())[: self.cards(shape)]
        devices = tuple(Device(id=uuid, model="H100", index=n) for n, uuid in enumerate(given))
        return Node(name=meta["name"], cpu_milli=1, memory_mib=1, devices=devices)

    def workers(self, lease: str = "") -> list[Mapping[str, Any]]:
        """Worker pods by name; of one lease, if it is named."""
        pods = [p for p in self.double.objects("pods") if SHAPE in (p["metadata"].get("annotations") or {})]
        return [p for p in pods if not lease or p["metadata"]["annotations"].get(LEASE) == lease]


class PaperLines:
    """One service's lines to the bridges. Fits :class:`k8s.executor.Lines`."""

    def __init__(
        self, park: PaperPark, tell: Callable[[str, Sequence[Report]], None], leads: Callable[[], bool] = lambda: True
    ) -> None:
        """``leads``: bridges dial this service, not another one."""
        self._park, self._tell, self._leads = park, tell, leads
        self._bridges: dict[str, FakeExecutor] = {}
        self.away: set[str] = set()
        """Clusters whose bridge does not dial."""
        self.started: list[tuple[str, str]] = []
        """Cluster and lease of everything that was sent."""
        self.dropped: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paper-lines", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(BEAT_S):
            told: list[tuple[str, Sequence[Report]]] = []
            leads = self._leads()
            with self._park.lock:
                self._park.beat()
                for name in list(self._bridges):
                    if name in self.away or not leads or self._park.farms.get(name) is not self._bridges[name].farm:
                        del self._bridges[name]
                        told.append((name, [Report(kind=ReportKind.RUNTIME_DOWN, message="hung up")]))
                for name, farm in self._park.farms.items():
                    if name in self.away or not leads:
                        continue
                    if name not in self._bridges:
                        self._bridges[name] = FakeExecutor(farm)
                    told.append((name, self._bridges[name].poll(CLOCK_MS)))
            for name, reports in told:
                if reports:
                    self._tell(name, reports)

    def start(self, cluster: str, orders: Sequence[LeaseOrder]) -> bool:
        return self._with(cluster, lambda bridge: self._begin(cluster, bridge, orders))

    def _begin(self, cluster: str, bridge: FakeExecutor, orders: Sequence[LeaseOrder]) -> None:
        self.started += [(cluster, order.lease_id) for order in orders]
        bridge.start(orders)

    def stop(self, cluster: str, lease_ids: Sequence[str], reason: str) -> bool:
        return self._with(cluster, lambda bridge: bridge.stop(lease_ids, reason))

    def acknowledge(self, cluster: str, cursors: Sequence[str]) -> bool:
        return self._with(cluster, lambda bridge: bridge.acknowledge(cursors))

    def _with(self, cluster: str, call: Callable[[FakeExecutor], None]) -> bool:
        with self._park.lock:
            bridge = self._bridges.get(cluster)
            if bridge is None:
                return False
            call(bridge)
            return True

    def read_log(  # noqa: PLR0917 (as the port has them)
        self, cluster: str, node: str, attempt_id: str, offset: int, limit: int, rank: int = 0
    ) -> LogChunk:
        with self._park.lock:
            bridge = self._bridges.get(cluster)
            if bridge is None:
                raise ExecutorError(f"cluster {cluster} is not connected")
            return bridge.read_log(node, attempt_id, offset, limit, rank)

    def drop(self, cluster: str) -> None:
        self.dropped.append(cluster)
        with self._park.lock:
            self._bridges.pop(cluster, None)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
