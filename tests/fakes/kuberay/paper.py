"""Pods on paper: they run as soon as they are started, until a test says otherwise."""

from collections.abc import Mapping, Sequence

from tests.fakes.kube.server import FakeKubernetes
from tests.fakes.kuberay.kubelet import Container
from tests.fakes.kuberay.objects import Object


class Paper:
    """Fits :class:`tests.fakes.kuberay.kubelet.Runtime`."""

    def __init__(self) -> None:
        self.cards: dict[str, tuple[str, ...]] = {}
        """What the device plugin, or its claims, gave to a pod, by uid."""
        self._containers: dict[str, dict[str, Container]] = {}
        self._nodes: dict[str, str] = {}

    def open(self, double: FakeKubernetes) -> None:
        """It needs nothing of it."""

    def start(self, pod: Object, cards: Sequence[str]) -> None:
        uid = pod["metadata"]["uid"]
        self.cards[uid] = tuple(cards)
        self._nodes[uid] = pod["spec"]["nodeName"]
        self._containers[uid] = {one["name"]: Container() for one in pod["spec"]["containers"]}

    def restart(self, pod: Object, container: str) -> None:
        self._containers[pod["metadata"]["uid"]][container] = Container()

    def look(self, uid: str) -> Mapping[str, Container]:
        return self._containers[uid]

    def end(self, uid: str, container: str, exit_code: int, *, reason: str = "", message: str = "") -> None:
        """A container ends."""
        ended = Container(is_ready=False, exit_code=exit_code, reason=reason, message=message)
        self._containers[uid][container] = ended

    def stop(self, uid: str) -> bool:
        for of_pods in (self._containers, self._nodes, self.cards):
            of_pods.pop(uid, None)
        return True

    def lose(self, node: str) -> None:
        for uid in [uid for uid, where in self._nodes.items() if where == node]:
            self.stop(uid)

    def close(self) -> None:
        """Nothing runs."""
