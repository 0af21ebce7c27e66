"""What Kubernetes itself does with pods: its scheduler binds them, kubelets run them, nodes die with them."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from k8s.quantity import nano
from tests.fakes.kube.server import FakeKubernetes
from tests.fakes.kube.verbs import text_now
from tests.fakes.kuberay import objects
from tests.fakes.kuberay.conditions import is_true, with_condition
from tests.fakes.kuberay.devices import Devices
from tests.fakes.kuberay.objects import Body, Object

OVER = ("Succeeded", "Failed")
BLOCKING = ("NoSchedule", "NoExecute")
CARDS = "nvidia.com/gpu"
PLUGIN = "nvidia.com/"
"""Beginning of everything that the device plugin counts: cards, and MIG instances by profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """How a container of a pod that was started is."""

    is_ready: bool = True
    exit_code: int | None = None
    """None while it runs."""
    reason: str = ""
    message: str = ""


class Runtime(Protocol):
    """Runs pods. Nothing waits: every call returns at once."""

    def open(self, double: FakeKubernetes) -> None:
        """Secrets and ConfigMaps are there."""
        ...

    def start(self, pod: Object, cards: Sequence[str]) -> None:
        """Begin with all of its containers; ``cards``: UUIDs that the device plugin, or its claims, gave it."""
        ...

    def restart(self, pod: Object, container: str) -> None:
        """Begin again with one that ended."""
        ...

    def look(self, uid: str) -> Mapping[str, Container]:
        """The containers of a pod that was started, by name."""
        ...

    def stop(self, uid: str) -> bool:
        """End it; True when nothing of it runs any more. Asked again until then."""
        ...

    def lose(self, node: str) -> None:
        """The machine is dead: all of its pods end at once."""
        ...

    def close(self) -> None:
        """End everything."""
        ...


class Kubelets:
    """``look`` is called under the storage's lock, again and again."""

    def __init__(self, double: FakeKubernetes, runtime: Runtime) -> None:
        self._double, self._runtime = double, runtime
        self._devices = Devices(double)
        self.pulled: Callable[[Object], bool] = lambda _pod: True
        """Whether the images of a pod are on its node."""
        self.pull_problem: Callable[[Object], str] = lambda _pod: ""
        """Why an image will not come."""
        self.lost: set[str] = set()
        """Nodes whose kubelet is dead."""
        self.cards: dict[str, tuple[str, ...]] = {}
        """UUIDs of a node's cards; made up where a node that has cards is not named here."""
        self._given: dict[str, tuple[str, ...]] = {}
        """By uid of the pod."""
        self._started: dict[str, str] = {}
        """Pods that were started: uid to node."""
        self._restarts: Counter[tuple[str, str]] = Counter()
        self._addresses = itertools.count(1)

    def look(self) -> None:
        nodes = {node["metadata"]["name"]: node for node in self._double.objects("nodes")}
        self._devices.look()
        pods = self._double.objects("pods")
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid in [uid for uid in self._started if uid not in present]:
            self._forget(uid)  # it was removed by force: its kubelet ends it all the same
        for pod in pods:
            name = pod["spec"].get("nodeName")
            if not name:
                self._schedule(pod, nodes)
            elif name not in nodes:
                self._collect(pod)
            elif name not in self.lost:
                self._run(pod, nodes[name])

    # ── the scheduler ────────────────────────────────────────────────────────────────────────────────────────────

    def _schedule(self, pod: Object, nodes: Mapping[str, Object]) -> None:
        problems: Counter[str] = Counter()
        for name, node in sorted(nodes.items()):
            problem = self._misfit(pod, node)
            if not problem:
                conditions = with_condition(_conditions(pod), "PodScheduled", True, "")
                self._devices.bind(pod, name)
                self._put(pod, {"conditions": conditions}, nodeName=name)
                return
            problems[problem] += 1
        said = ", ".join(f"{count} {problem}" for problem, count in sorted(problems.items())) or "no nodes"
        message = f"0/{len(nodes)} nodes are available: {said}."
        self._put(
            pod, {"conditions": with_condition(_conditions(pod), "PodScheduled", False, "Unschedulable", message)}
        )

    def _misfit(self, pod: Object, node: Object) -> str:
        spec, told = pod["spec"], node["spec"]
        if told.get("unschedulable"):
            return "node(s) were unschedulable"
        if not is_true(node.get("status") or {}, "Ready"):
            return "node(s) were not ready"
        for taint in told.get("taints") or ():
            if taint["effect"] in BLOCKING and not any(tolerates(one, taint) for one in spec.get("tolerations") or ()):
                return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
        if not selects(spec, node):
            return "node(s) didn't match Pod's node affinity/selector"
        here = [p for p in self._double.objects("pods") if p["spec"].get("nodeName") == node["metadata"]["name"]]
        used = sum((requests(p) for p in here if _phase(p) not in OVER), Counter({"pods": 0}))
        for key, amount in sorted(requests(pod).items()):
            if used[key] + amount > nano((node["status"].get("allocatable") or {}).get(key, 0)):
                return f"Insufficient {key}"
        return self._devices.problem(pod, node["metadata"]["name"])

    # ── kubelets ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, pod: Object, node: Object) -> None:
        uid = pod["metadata"]["uid"]
        if "deletionTimestamp" in pod["metadata"]:
            if uid not in self._started or self._runtime.stop(uid):
                self._collect(pod)
        elif _phase(pod) in OVER:
            return
        elif uid in self._started:
            self._watch(pod)
        elif _phase(pod) == "Running":
            self._put(pod, _ended(pod, "Unknown", "its node came back without it"))
        elif self._may_start(pod):
            self._start(pod, node)

    def _may_start(self, pod: Object) -> bool:
        waiting = self._waits_for(pod)
        if waiting:
            self._put(pod, {"phase": "Pending", "containerStatuses": _all(pod, {"waiting": waiting})})
        return not waiting

    def _waits_for(self, pod: Object) -> dict[str, str]:
        problem, namespace = self.pull_problem(pod), pod["metadata"]["namespace"]
        if problem:
            return {"reason": "ImagePullBackOff", "message": problem}
        if not self.pulled(pod):
            return {"reason": "ContainerCreating"}
        for name in sorted(secrets_of(pod)):
            if self._double.get("secrets", name, namespace) is None:
                return {"reason": "CreateContainerConfigError", "message": f'secret "{name}" not found'}
        if not any(one["name"] == objects.WAIT for one in pod["spec"].get("initContainers") or ()):
            return {}
        cluster = pod["metadata"]["labels"][objects.CLUSTER]
        has_head = any(is_true(head.get("status") or {}, "Ready") for head in self._heads(cluster))
        return {} if has_head else {"reason": "PodInitializing"}

    def _heads(self, cluster: str) -> Iterator[Object]:
        for pod in self._double.objects("pods"):
            labels = pod["metadata"].get("labels") or {}
            if labels.get(objects.CLUSTER) == cluster and labels.get(objects.NODE_TYPE) == objects.HEAD:
                yield pod

    def _start(self, pod: Object, node: Object) -> None:
        uid, name = pod["metadata"]["uid"], node["metadata"]["name"]
        self._started[uid] = name
        number = next(self._addresses)
        status: Body = {"startTime": text_now(), "podIP": f"127.1.{number // 250}.{number % 250 + 2}"}
        status |= {"podIPs": [{"ip": status["podIP"]}], "hostIP": "127.0.0.1"}
        shown = self._put(pod, status)
        self._runtime.start(shown, self._cards(pod, name))
        self._watch(shown)

    def _cards(self, pod: Object, node: str) -> tuple[str, ...]:
        given = list(self._devices.uuids(pod))
        taken = {card for uid, cards in self._given.items() if self._started.get(uid) == node for card in cards}
        for resource, amount in sorted(requests(pod).items()):
            if not resource.startswith(PLUGIN):
                continue
            count, kind = amount // 10**9, resource.removeprefix(PLUGIN)
            made = f"GPU-{node}" if resource == CARDS else f"MIG-{node}-{kind}"
            there = self.cards.get(node) if resource == CARDS else None
            there = there or tuple(f"{made}-{n}" for n in range(len(taken) + count))
            given += [card for card in there if card not in taken][:count]
        self._given[pod["metadata"]["uid"]] = tuple(given)
        return tuple(given)

    def _watch(self, pod: Object) -> None:
        uid, spec = pod["metadata"]["uid"], pod["spec"]
        found = self._runtime.look(uid)
        restarts = spec.get("restartPolicy", "Always") == "Always"
        shown: list[Body] = []
        for container in spec["containers"]:
            name = container["name"]
            now = found.get(name, Container(is_ready=False))
            if now.exit_code is not None and restarts:
                self._restarts[uid, name] += 1
                self._runtime.restart(pod, name)
                now = Container(is_ready=False)
            shown.append(_status(container, now, self._restarts[uid, name], pod))
        ends = [now.exit_code for now in found.values() if now.exit_code is not None]
        conditions = _conditions(pod)
        is_ready = all(one["ready"] for one in shown)
        reason = "" if is_ready else "ContainersNotReady"
        for kind in ("Initialized", "ContainersReady", "Ready"):
            ready = is_ready or kind == "Initialized"
            conditions = with_condition(conditions, kind, ready, "" if ready else reason)
        phase = "Running"
        if not restarts and len(ends) == len(shown):
            phase = "Failed" if any(ends) else "Succeeded"
        self._put(pod, {"phase": phase, "containerStatuses": shown, "conditions": conditions})
        if phase in OVER:
            self._given.pop(uid, None)

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _collect(self, pod: Object) -> None:
        meta = pod["metadata"]
        self._forget(meta["uid"])
        self._double.remove("pods", meta["name"], meta["namespace"])

    def _forget(self, uid: str) -> None:
        self._given.pop(uid, None)
        if self._started.pop(uid, None) is not None:
            self._runtime.stop(uid)

    def lose(self, name: str) -> None:
        """Its kubelet says no more: its pods are not ready, whatever becomes of them."""
        self.lost.add(name)
        for uid in [uid for uid, node in self._started.items() if node == name]:
            del self._started[uid]
            self._given.pop(uid, None)
        for pod in self._double.objects("pods"):
            if pod["spec"].get("nodeName") == name and _phase(pod) == "Running":
                conditions = with_condition(_conditions(pod), "Ready", False, "NodeNotReady")
                self._put(pod, {"conditions": conditions})

    def _put(self, pod: Object, status: Mapping[str, Any], **spec: Any) -> Object:
        before = pod.get("status") or {}
        after = {**before, **status}
        if after == before and not spec:
            return pod
        return self._double.put({**pod, "spec": {**pod["spec"], **spec}, "status": after})


# ── what fits ────────────────────────────────────────────────────────────────────────────────────────────────────────


def requests(pod: Object) -> Counter[str]:
    """What the scheduler counts of a pod, in billionths; limits where no requests are named."""
    total = Counter({"pods": 10**9})
    for container in pod["spec"]["containers"]:
        told = container.get("resources") or {}
        for key, amount in {**(told.get("limits") or {}), **(told.get("requests") or {})}.items():
            total[key] += nano(amount)
    return total


def secrets_of(pod: Object) -> set[str]:
    """Secrets without which it cannot begin."""
    spec = pod["spec"]
    found = {one["secret"]["secretName"] for one in spec.get("volumes") or () if "secret" in one}
    variables = [one for container in spec["containers"] for one in container.get("env") or ()]
    keys = [one["valueFrom"]["secretKeyRef"] for one in variables if "secretKeyRef" in one.get("valueFrom", {})]
    return found | {key["name"] for key in keys}


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", "")


def selects(spec: Mapping[str, Any], node: Object) -> bool:
    """Whether node selector and required node affinity allow the node."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    wanted = (spec.get("affinity") or {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    return wanted is None or any(_meets(term, labels, node) for term in wanted["nodeSelectorTerms"])


def _meets(term: Mapping[str, Any], labels: Mapping[str, str], node: Object) -> bool:
    fields = {"metadata.name": node["metadata"]["name"]}
    return all(_holds(one, labels) for one in term.get("matchExpressions") or ()) and all(
        _holds(one, fields) for one in term.get("matchFields") or ()
    )


def _holds(wanted: Mapping[str, Any], words: Mapping[str, str]) -> bool:
    has, value = wanted["key"] in words, words.get(wanted["key"])
    match wanted["operator"]:
        case "In":
            return has and value in wanted["values"]
        case "NotIn":
            return not has or value not in wanted["values"]
        case "Exists":
            return has
        case "DoesNotExist":
            return not has
    raise NotImplementedError(f"node affinity with operator {wanted['operator']}")


# ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────────────


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase", "Pending"))


def _conditions(pod: Object) -> Sequence[Mapping[str, str]]:
    found: Sequence[Mapping[str, str]] = (pod.get("status") or {}).get("conditions") or ()
    return found


def _all(pod: Object, state: Mapping[str, Any]) -> list[Body]:
    return [_shown(container, state, is_ready=False) for container in pod["spec"]["containers"]]


def _shown(container: Object, state: Mapping[str, Any], *, is_ready: bool, restarts: int = 0) -> Body:
    named = {"name": container["name"], "image": container.get("image", ""), "imageID": ""}
    return {**named, "ready": is_ready, "restartCount": restarts, "state": dict(state)}


def _status(container: Object, now: Container, restarts: int, pod: Object) -> Body:
    if now.exit_code is None:
        since = {"startedAt": pod["status"]["startTime"]}
        return _shown(container, {"running": since}, is_ready=now.is_ready, restarts=restarts)
    reason = now.reason or ("Error" if now.exit_code else "Completed")
    ended = {"exitCode": now.exit_code, "reason": reason, **({"message": now.message} if now.message else {})}
    return _shown(container, {"terminated": ended}, is_ready=False, restarts=restarts)


def _ended(pod: Object, reason: str, message: str) -> Body:
    conditions = with_condition(_conditions(pod), "Ready", False, "PodFailed")
    return {"phase": "Failed", "reason": reason, "message": message, "conditions": conditions}
