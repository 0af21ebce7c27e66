"""The executor of the lanes over a park on paper, for tests."""

import hashlib
import time

import yaml

from k8s.api import Api
from k8s.backoff import Backoff
from k8s.door import from_kubeconfig
from k8s.executor import KubernetesExecutor
from k8s.names import MANAGED
from k8s.site import Site
from tests.fakes.paper_park import PaperLines, PaperPark
from tests.kube_server import kubeconfig

SITE = Site(
    namespace="park",
    gateway="shisuan:7443",
    images={"default": "pool:1", "train": "train:1"},
    warm_ms=60_000,
    cluster_idle_ms=60_000,
)


class Service(KubernetesExecutor):
    """One that says when it goes."""

    def close(self):
        left, self.left = self.left, lambda: None
        left()
        super().close()


class KubeSite:
    """A park, and services that come and go."""

    def __init__(self, folder, *, site=SITE, nodes=(), mig_configs=None):
        heads = paper_node("heads", cpu="64", memory="64Gi", managed=False)
        self.park = PaperPark(nodes=[*nodes, heads], mig_configs=mig_configs)
        self.site = site
        self._config = folder / "kubeconfig"
        self._config.write_text(yaml.safe_dump(kubeconfig(self.park.double.url, token="")), encoding="utf-8")
        self.lines = None
        self.epoch = 0
        self._services = []
        """Those that are connected; the last one leads."""

    def connect(self, **fields):
        """A new service."""
        api = Api(
            from_kubeconfig(str(self._config)), backoff=Backoff(first_s=0.001, most_s=0.01, tries=3), draw=lambda: 0.5
        )
        me = object()

        def leads():
            return self._services[-1:] == [me]

        executor = Service(
            api,
            self.site,
            token=lambda text: hashlib.sha256(text.encode()).hexdigest(),
            now_ms=lambda: time.time_ns() // 1_000_000,
            again=Backoff(first_s=0.001, most_s=0.02),
            may_write=leads,
            **{"tick_s": 0.02, **fields},
        )
        self._services.append(me)
        executor.left = lambda: self._services.remove(me)
        self.lines = PaperLines(self.park, executor.hear, leads)
        self.epoch += 1
        executor.open(self.lines, self.epoch)
        return executor

    def remove(self):
        self.park.close()


def paper_node(name, *, cpu="2", memory="2048Mi", cards=0, managed=True):
    """As a kubelet tells of it."""
    amounts = {"cpu": cpu, "memory": memory, "pods": "110", **({"nvidia.com/gpu": str(cards)} if cards else {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {MANAGED: "true"} if managed else {}},
        "spec": {"taints": [{"key": MANAGED, "value": "true", "effect": "NoSchedule"}]} if managed else {},
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
