"""A Kubernetes with KubeRay: the API server's double, the operator's stand-in and the kubelets, in one thread."""

import copy
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tests.fakes.kube.kinds import crd
from tests.fakes.kube.server import FakeKubernetes
from tests.fakes.kube.verbs import Call
from tests.fakes.kuberay import objects
from tests.fakes.kuberay.conditions import with_condition
from tests.fakes.kuberay.kubelet import CARDS, Kubelets, Runtime
from tests.fakes.kuberay.mig_manager import MigManagers
from tests.fakes.kuberay.objects import Object
from tests.fakes.kuberay.operator import KubeRay
from tests.fakes.kuberay.paper import Paper

BEAT_S = 0.05
"""Between two looks at what runs; changes of objects wake at once."""
DEADLINE_S = 60.0
MOST_ROUNDS = 50


class KubePark:
    """Runs from construction to :meth:`close`; use it in a ``with``. ``runtime``: what runs the pods, else paper."""

    def __init__(
        self,
        *,
        nodes: Iterable[Mapping[str, Any]] = (),
        runtime: Runtime | None = None,
        namespace: str = "park",
        mig_configs: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        """``mig_configs``: those of the GPU Operator's MIG managers."""
        self.double = FakeKubernetes()
        for plural in ("rayclusters", "rayjobs"):
            definition = copy.deepcopy(dict(crd(plural)))
            self.double.verbs.create(Call(kind=self.double.kind_of(definition)), definition)
        self.double.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        for node in nodes:
            self.double.put(node)
        self.runtime: Runtime = runtime if runtime is not None else Paper()
        self.runtime.open(self.double)
        self.operator = KubeRay(self.double)
        self.kubelets = Kubelets(self.double, self.runtime)
        self.mig = MigManagers(self.double, mig_configs or {})
        self.failure: BaseException | None = None
        """Of the stand-in itself."""
        self._settled, self._ended = -1, False
        self._thread = threading.Thread(target=self._run, name="kuberay", daemon=True)
        self._thread.start()

    def __enter__(self) -> "KubePark":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything that runs. Raises what the stand-in failed with."""
        self._ended = True
        with self.double.storage.lock:
            self.double.storage.changed.notify_all()
        self._thread.join()
        self.runtime.close()
        self.double.close()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        storage = self.double.storage
        try:
            while not self._ended:
                with storage.lock:
                    storage.changed.wait_for(lambda: self._ended or storage.version != self._settled, BEAT_S)
                    self._settle()
        except BaseException as error:
            self.failure = error
            raise

    def _settle(self) -> None:
        """Until nothing changes any more. Nobody else writes meanwhile."""
        storage = self.double.storage
        for _ in range(MOST_ROUNDS):
            before = storage.version
            self.operator.look()
            self.kubelets.look()
            self.mig.look()
            if storage.version == before:
                self._settled = before
                return
        raise AssertionError("the stand-in never comes to rest: two parts of it undo each other's work")

    # ── what a test looks at ─────────────────────────────────────────────────────────────────────────────────────

    def pods(self, **labels: str) -> list[Object]:
        """Pods with these labels (``group="g1"`` is ``ray.io/group``), by name."""
        wanted = {f"ray.io/{key.replace('_', '-')}": value for key, value in labels.items()}
        found = [pod for pod in self.double.objects("pods") if wanted.items() <= _labels(pod).items()]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def until(self, condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
        """The first true value of ``condition``. Raises AssertionError at the deadline."""
        storage, until = self.double.storage, time.monotonic() + deadline_s
        while True:
            if self.failure is not None:
                raise AssertionError("the stand-in failed") from self.failure
            found = condition()
            if found:
                return found
            assert time.monotonic() < until, f"it did not happen within {deadline_s:.0f} s; {self.told()}"
            with storage.lock:
                storage.changed.wait(BEAT_S)

    def told(self) -> str:
        """Every pod in a few words."""
        said = [f"{pod['metadata']['name']} {pod['status'].get('phase')}" for pod in self.double.objects("pods")]
        return "; ".join(said) or "no pods"

    # ── what a test does ─────────────────────────────────────────────────────────────────────────────────────────

    def end(self, name: str, container: str = "", *, exit_code: int = 1, reason: str = "", message: str = "") -> None:
        """A container (the Ray one, if none is named) of a pod on paper ends."""
        assert isinstance(self.runtime, Paper), "real processes are killed, not told that they have ended"
        with self.double.storage.lock:
            pod = next(pod for pod in self.double.objects("pods") if pod["metadata"]["name"] == name)
            which = container or pod["spec"]["containers"][0]["name"]
            self.runtime.end(pod["metadata"]["uid"], which, exit_code, reason=reason, message=message)
            self._settle()

    def finish(self, job: str, *, exit_code: int = 0, message: str = "") -> None:
        """The entrypoint of a RayJob on paper ends."""
        (found,) = [one for one in self.double.objects("rayjobs") if one["metadata"]["name"] == job]
        (head,) = self.pods(cluster=found["status"]["rayClusterName"], node_type=objects.HEAD)
        self.end(head["metadata"]["name"], objects.SUBMITTER, exit_code=exit_code, message=message)

    def lose_node(self, name: str) -> None:
        """A machine dies. Its pods stay on the books until its node object goes, see :meth:`remove_node`."""
        with self.double.storage.lock:
            self.kubelets.lose(name)
            self._set_ready(name, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
        self.runtime.lose(name)

    def return_node(self, name: str) -> None:
        """The machine is back, with nothing of what it ran."""
        with self.double.storage.lock:
            self.kubelets.lost.discard(name)
            self._set_ready(name, "True", "KubeletReady", "kubelet is posting ready status")

    def remove_node(self, name: str) -> None:
        """The node object is deleted, and its pods are collected."""
        with self.double.storage.lock:
            self.kubelets.lose(name)
            self.double.remove("nodes", name)
            self.kubelets.lost.discard(name)
        self.runtime.lose(name)

    def _set_ready(self, name: str, status: str, reason: str, message: str) -> None:
        node = self.double.get("nodes", name)
        assert node is not None, f"there is no node {name}"
        conditions = with_condition(node["status"].get("conditions") or (), "Ready", status, reason, message)
        self.double.put({**node, "status": {**node["status"], "conditions": conditions}})


def node(name: str, *, cards: int = 0, labels: Mapping[str, str] | None = None, **resources: str) -> dict[str, Any]:
    """A small machine, as its kubelet tells of it."""
    amounts = {"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "10Gi", **resources}
    amounts |= {CARDS: str(cards)} if cards else {}
    ready = with_condition((), "Ready", True, "KubeletReady", "kubelet is posting ready status")
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": ready},
    }


def _labels(pod: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = pod["metadata"].get("labels") or {}
    return found
