"""The GPU Operator's MIG manager, with what its device plugin, driver and feature discovery then tell of a node.

It acts on a change of the label as the real one does, whatever is running: what holds a card makes it fail. ``look``
goes through all steps of a change unless :attr:`MigManagers.may` keeps it before one of them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.fakes.kube.server import FakeKubernetes
from tests.fakes.kuberay.objects import Body, Object

CONFIG, STATE = "nvidia.com/mig.config", "nvidia.com/mig.config.state"
MANAGER, PLUGIN = "nvidia.com/gpu.deploy.mig-manager", "nvidia.com/gpu.deploy.device-plugin"
COUNT, GPU, OURS = "nvidia.com/gpu.count", "nvidia.com/gpu", "nvidia.com/"
DRIVER = "gpu.nvidia.com"
OVER = ("Succeeded", "Failed")
PENDING, CUT, REGISTER, FORGET = "pending", "cut", "register", "forget"
"""What comes next; before the first it has not heard of the change."""


class MigManagers:
    """One on each node that is labelled for it. ``look`` is called under the storage's lock, again and again."""

    def __init__(self, double: FakeKubernetes, configs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """``configs``: as mig-parted's file has them under ``mig-configs``."""
        self._double, self.configs = double, configs
        self.fails: set[str] = set()
        """Configurations that the driver refuses."""
        self.may: Callable[[str, str], bool] = lambda _node, _step: True
        """Whether a node's manager goes on to a step."""
        self.began: list[tuple[str, str]] = []
        """Node and configuration of everything that was begun."""
        self._applied: dict[str, str] = {}
        self._heard: dict[str, str] = {}
        self._work: dict[str, tuple[str, Iterator[str]]] = {}
        """By node: the step that comes next, and the rest."""
        self._uuids = 0

    def look(self) -> None:
        for node in self._double.objects("nodes"):
            name, labels = node["metadata"]["name"], node["metadata"].get("labels") or {}
            if labels.get(MANAGER) != "true":
                continue
            if name not in self._applied:
                self._applied[name] = self._heard[name] = labels.get(CONFIG, "")
            hears = name not in self._work and self.may(name, PENDING)  # else it is busy, or not there
            if hears and labels.get(CONFIG, "") != self._heard[name]:
                self._heard[name] = labels.get(CONFIG, "")
                if self._heard[name]:
                    self._go_on(name, self._change(name, self._heard[name]))
            while name in self._work and self.may(name, self._work[name][0]):
                self._go_on(name, self._work[name][1])

    def _go_on(self, name: str, work: Iterator[str]) -> None:
        step = next(work, None)
        if step is None:
            self._work.pop(name, None)
        else:
            self._work[name] = (step, work)

    def _change(self, name: str, config: str) -> Iterator[str]:
        if config not in self.configs:
            self._label(name, {STATE: "failed"})
            return
        if self._applied[name] == config:
            self._label(name, {STATE: "success"})
            return
        self.began.append((name, config))
        self._label(name, {STATE: "pending", PLUGIN: "paused-for-mig-change"})
        before = dict(self._node(name)["status"]["allocatable"])
        self._show(name, usable={key: "0" for key in before if key.startswith(OURS)})
        there = [one for one in self._double.objects("resourceslices") if one["spec"].get("nodeName") == name]
        for one in there:
            self._double.remove("resourceslices", one["metadata"]["name"])
        yield CUT
        if config in self.fails or self._in_use(name):
            self._show(name, usable=before)
            for one in there:
                self._double.put(one)
            self._label(name, {STATE: "failed", PLUGIN: "true"})
            return
        self._applied[name] = config
        self._label(name, {STATE: "success", PLUGIN: "true"})
        yield REGISTER  # its pod has to start first
        now = self._counts(name, config)
        amounts = {_resource(profile): str(count) for profile, count in now.items()}
        gone = {key: "0" for key in before if key.startswith(OURS) and key not in amounts}
        self._label(name, _features(now))
        if there:
            self._double.put(self._slice(there[0], name, now))
        else:
            self._show(name, present=amounts, usable=amounts)
        yield FORGET  # five minutes later
        self._show(name, present=gone, usable=gone)

    def _counts(self, name: str, config: str) -> Counter[str]:
        """Devices by profile; whole cards under the empty one."""
        total: Counter[str] = Counter()
        for index in range(int(self._node(name)["metadata"]["labels"][COUNT])):
            for entry in self.configs[config]:
                if entry["devices"] == "all" or index in entry["devices"]:
                    total.update(entry["mig-devices"] if entry["mig-enabled"] else {"": 1})
        return total

    def _in_use(self, name: str) -> bool:
        """Whether a pod holds a card of the node."""
        for pod in self._double.objects("pods"):
            if pod["spec"].get("nodeName") == name and (pod.get("status") or {}).get("phase") not in OVER:
                limits = [(one.get("resources") or {}).get("limits") or {} for one in pod["spec"]["containers"]]
                if pod["spec"].get("resourceClaims") or any(key.startswith(OURS) for told in limits for key in told):
                    return True
        return False

    def _slice(self, before: Object, name: str, counts: Mapping[str, int]) -> Body:
        """As the driver tells of the node's devices after it has started again."""
        devices: list[Body] = []
        product = before["spec"]["devices"][0]["attributes"]["productName"]
        for profile, count in sorted(counts.items()):
            for _ in range(count):
                self._uuids += 1
                uuid = f"{'MIG' if profile else 'GPU'}-{name}-{self._uuids}"
                told = {"type": {"string": "mig" if profile else "gpu"}, "uuid": {"string": uuid}}
                told |= {"productName": product}
                told |= {"profile": {"string": profile}, "parentUUID": {"string": f"GPU-{name}"}} if profile else {}
                size = {"memory": {"value": f"{_mib(profile) if profile else 81_559}Mi"}}
                devices.append({"name": f"device-{self._uuids}", "attributes": told, "capacity": size})
        meta = {"name": before["metadata"]["name"]}
        pool = {**before["spec"]["pool"], "generation": before["spec"]["pool"]["generation"] + 1}
        return {**before, "metadata": meta, "spec": {**before["spec"], "pool": pool, "devices": devices}}

    def _node(self, name: str) -> Object:
        node = self._double.get("nodes", name)
        assert node is not None
        return node

    def _label(self, name: str, labels: Mapping[str, str]) -> None:
        node = self._node(name)
        told = {**(node["metadata"].get("labels") or {}), **labels}
        self._double.put({**node, "metadata": {**node["metadata"], "labels": told}})

    def _show(self, name: str, *, present: Mapping[str, str] | None = None, usable: Mapping[str, str]) -> None:
        node = self._node(name)
        status = node["status"]
        there = {"capacity": {**status["capacity"], **(present or {})}}
        self._double.put({**node, "status": {**status, **there, "allocatable": {**status["allocatable"], **usable}}})


def _resource(profile: str) -> str:
    return f"nvidia.com/mig-{profile.replace('+', '.')}" if profile else GPU


def _features(counts: Mapping[str, int]) -> dict[str, str]:
    """Labels of GPU Feature Discovery."""
    mixed = [(_resource(profile), profile, count) for profile, count in counts.items() if profile]
    return {
        key: value
        for resource, profile, count in mixed
        for key, value in ((f"{resource}.count", str(count)), (f"{resource}.memory", str(_mib(profile))))
    }


def _mib(profile: str) -> int:
    """Of ``1g.10gb``."""
    return int(profile.partition("g.")[2].partition("gb")[0]) * 970
