"""Kubernetes with KubeRay and bridges on paper: the API server's double, pods that are there at once, agents without
processes. What the lanes ask for comes true within milliseconds; a test may hold it up or break it.
"""

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from k8s.names import CLUSTER, LEASE, SHAPE
from k8s.shapes import Shape
from scheduler.model.errors import ExecutorError
from scheduler.model.node import Device, Node
from scheduler.model.order import LeaseOrder, LogChunk, Report, ReportKind
from tests.fakes.executor import FakeExecutor, FakeFarm
from tests.fakes.kube.kinds import crd
from tests.fakes.kube.server import FakeKubernetes
from tests.fakes.kube.verbs import Call

BEAT_S = 0.005
CLOCK_MS = 20
"""The farms' clocks go on by this each beat."""


class PaperPark:
    """What stays when a service ends: objects, pods, agents."""

    def __init__(self) -> None:
        self.double = FakeKubernetes()
        for plural in ("rayclusters", "rayjobs"):
            self.double.verbs.create(Call(kind=self.double.kind_of(crd(plural))), copy.deepcopy(dict(crd(plural))))
        self.lock = threading.RLock()
        self.farms: dict[str, FakeFarm] = {}
        """By cluster, as the bridges name it."""
        self.ready: Callable[[Mapping[str, Any]], bool] = lambda _pod: True
        """Whether a pod is ready at once."""
        self.cards: Callable[[Shape], int] = lambda shape: shape.count
        """How many cards a pod shows."""
        self.beats = 0
        self._numbers = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paper-kuberay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self.double.close()

    def _run(self) -> None:
        while not self._ended.wait(BEAT_S):
            with self.lock, self.double.storage.lock:  # nobody writes between a look and what follows from it
                self._reconcile()
                self.beats += 1

    # ── KubeRay ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _reconcile(self) -> None:
        double = self.double
        for job in double.objects("rayjobs"):
            self._job(job)
        for cluster in double.objects("rayclusters"):
            if CLUSTER in cluster["metadata"].get("labels", {}):
                self._cluster(cluster)
        for pod in double.objects("pods"):
            self._kubelet(pod)
        there: dict[str, dict[str, Node]] = {}
        for pod in double.objects("pods"):
            told = pod["metadata"].get("annotations") or {}
            if pod["metadata"].get("labels", {}).get("ray.io/node-type") == "head":
                there.setdefault(pod["metadata"]["labels"][CLUSTER], {})
            elif SHAPE in told and is_ready(pod):
                name = pod["metadata"]["name"]
                there.setdefault(pod["metadata"]["labels"][CLUSTER], {})[name] = self._facts(name, told)
        for name in self.farms.keys() - there.keys():
            del self.farms[name]
        for name, nodes in there.items():
            farm = self.farms.setdefault(name, FakeFarm(()))
            for gone in farm.nodes.keys() - nodes.keys():
                farm.lose_node(gone)
            farm.nodes |= nodes

    def _facts(self, name: str, told: Mapping[str, str]) -> Node:
        shape = Shape.of_text(told[SHAPE])
        devices = tuple(Device(id=f"GPU-{name}-{n}", model="H100", index=n) for n in range(self.cards(shape)))
        return Node(name=name, cpu_milli=1, memory_mib=1, devices=devices)

    def _job(self, job: Mapping[str, Any]) -> None:
        status, name = dict(job.get("status") or {}), job["metadata"]["name"]
        if status.get("jobDeploymentStatus") in ("Failed", "Complete"):
            return
        state = "Suspended" if job["spec"].get("suspend") else "Running"
        if status.get("jobDeploymentStatus") != state:
            self.double.put({**job, "status": {**status, "jobDeploymentStatus": state, "rayClusterName": f"{name}-x"}})
        if state == "Running" and self.double.get("rayclusters", f"{name}-x", "park") is None:
            self.double.put(
                {
                    "apiVersion": "ray.io/v1",
                    "kind": "RayCluster",
                    "metadata": {
                        "name": f"{name}-x",
                        "namespace": "park",
                        "labels": job["metadata"]["labels"],
                        "annotations": job["metadata"]["annotations"],
                        "ownerReferences": [owner(job)],
                    },
                    "spec": job["spec"]["rayClusterSpec"],
                }
            )

    def _cluster(self, cluster: Mapping[str, Any]) -> None:
        name, spec = cluster["metadata"]["name"], cluster["spec"]
        mine = [p for p in self.double.objects("pods") if p["metadata"].get("labels", {}).get("ray.io/cluster") == name]
        if not any(p["metadata"]["labels"]["ray.io/node-type"] == "head" for p in mine):
            self._pod(cluster, "head", spec["headGroupSpec"]["template"], "headgroup")
        for group in spec.get("workerGroupSpecs") or ():
            alive = [p for p in mine if p["metadata"]["labels"]["ray.io/group"] == group["groupName"]]
            for pod in list(alive):
                doomed = (group.get("scaleStrategy") or {}).get("workersToDelete") or ()
                if pod["metadata"]["name"] in doomed or pod.get("status", {}).get("phase") in ("Failed", "Succeeded"):
                    self.double.remove("pods", pod["metadata"]["name"], "park")
                    alive.remove(pod)
            for _ in range(group["replicas"] - len(alive)):
                self._pod(cluster, "worker", group["template"], group["groupName"])
            for pod in alive[group["replicas"] :]:  # whoever comes first: callers must name whom they mean
                self.double.remove("pods", pod["metadata"]["name"], "park")

    def _pod(self, cluster: Mapping[str, Any], kind: str, template: Mapping[str, Any], group: str) -> None:
        self._numbers += 1
        name = cluster["metadata"]["name"]
        labels = {"ray.io/cluster": name, "ray.io/node-type": kind, "ray.io/group": group}
        meta = template["metadata"]
        self.double.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    **meta,
                    "name": f"{name}-{kind}-{self._numbers}",
                    "namespace": "park",
                    "labels": {**meta["labels"], **labels},
                    "ownerReferences": [owner(cluster)],
                },
                "spec": template["spec"],
                "status": {"phase": "Pending"},
            }
        )

    def _kubelet(self, pod: Mapping[str, Any]) -> None:
        if "deletionTimestamp" in pod["metadata"]:
            self.double.remove("pods", pod["metadata"]["name"], "park")
            return
        if pod.get("status", {}).get("phase") != "Pending" or not self.ready(pod):
            return
        told = pod["metadata"].get("annotations") or {}
        node = Shape.of_text(told[SHAPE]).node if SHAPE in told else "head-node"
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        self.double.put({**pod, "spec": {**pod["spec"], "nodeName": node}, "status": status})

    # ── what a test does ─────────────────────────────────────────────────────────────────────────────────────────

    def workers(self, lease: str = "") -> list[Mapping[str, Any]]:
        """Worker pods by name; of one lease, if it is named."""
        pods = [p for p in self.double.objects("pods") if SHAPE in (p["metadata"].get("annotations") or {})]
        return [p for p in pods if not lease or p["metadata"]["annotations"].get(LEASE) == lease]

    def end(self, name: str, *, reason: str = "Error") -> None:
        """A pod dies."""
        with self.lock, self.double.storage.lock:
            pod = self.double.get("pods", name, "park")
            assert pod is not None
            self.double.put({**pod, "status": {"phase": "Failed", "reason": reason}})

    def settle(self, job: str, state: str, **status: str) -> None:
        """A RayJob's end."""
        with self.lock, self.double.storage.lock:
            found = self.double.get("rayjobs", job, "park")
            assert found is not None
            self.double.put({**found, "status": {**found.get("status", {}), "jobDeploymentStatus": state, **status}})


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


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def owner(obj: Mapping[str, Any]) -> dict[str, str]:
    meta = {key: obj["metadata"][key] for key in ("name", "uid")}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], **meta}
