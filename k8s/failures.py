"""What did not work, and when it is tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from k8s.actions import (
    Action,
    Adopt,
    Assign,
    DeleteCluster,
    DeleteJob,
    HoldNode,
    LayOut,
    Lose,
    MakeCluster,
    MakeJob,
    Relabel,
    Release,
    SetGroups,
    TakeBack,
    Unsuspend,
)
from k8s.backoff import Backoff
from k8s.errors import KubernetesError


@dataclass(slots=True)
class _Failure:
    count: int = 0
    again_s: float = 0.0
    why: str = ""


class Failures:
    """Per action, whatever the version of the object it is about."""

    def __init__(self, backoff: Backoff, *, draw: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._backoff, self._draw, self._monotonic = backoff, draw, monotonic
        self._known: dict[str, _Failure] = {}

    def is_due(self, action: Action) -> bool:
        """It may be tried now."""
        failure = self._known.get(key(action))
        return failure is None or self._monotonic() >= failure.again_s

    def add(self, action: Action, error: KubernetesError) -> None:
        """It failed (again)."""
        failure = self._known.setdefault(key(action), _Failure())
        failure.count, failure.why = failure.count + 1, str(error)
        failure.again_s = self._monotonic() + self._backoff.wait_s(failure.count, self._draw(), error.retry_after_s)

    def clear(self, action: Action) -> None:
        """It worked."""
        self._known.pop(key(action), None)

    def why(self, *actions: Action) -> str:
        """What the first of these that failed was answered; empty when none did."""
        found = (self._known.get(key(action)) for action in actions)
        return next((failure.why for failure in found if failure is not None), "")

    def keep(self, actions: set[str]) -> None:
        """Forget those that are not wanted any more."""
        self._known = {name: failure for name, failure in self._known.items() if name in actions}


def key(action: Action) -> str:
    """What it is about, in words for a log."""
    kind = type(action).__name__
    match action:
        case MakeCluster(cluster=cluster) | SetGroups(cluster=cluster):
            return f"{kind} {cluster.name}"
        case MakeJob(lease=lease) | Lose(lease=lease):
            return f"{kind} {lease}"
        case Relabel(node=node):
            return f"{kind} {node}"
        case LayOut(node=node) | TakeBack(node=node) | HoldNode(node=node):
            return f"{kind} {node.name}"
        case Assign(pod=pod) | Release(pod=pod):
            return f"{kind} {pod.name}"
        case Adopt(seen=seen):
            return f"{kind} {type(seen).__name__} {seen.name}"
        case DeleteCluster(seen=seen) | DeleteJob(seen=seen) | Unsuspend(seen=seen):
            return f"{kind} {seen.name}"
