"""Our pods, RayClusters and RayJobs as the API server tells of them, reduced to what the lanes decide by. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from k8s.names import CLUSTER, DOMAIN, LANE, LEASE, RANK, SHAPE, TASKS, TENANT
from k8s.shapes import Shape

Raw = Mapping[str, Any]
OVER = ("Succeeded", "Failed")
"""Phases of pods in which nothing runs any more."""
EVICTED = "Evicted"
"""Reason of a pod that its kubelet ended: the node was short of something, or the pod used more than its limit."""
FAILED_JOB, COMPLETE_JOB = ("Failed", "ValidationFailed"), ("Complete",)
"""Values of a RayJob's ``jobDeploymentStatus``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What every object has."""

    name: str
    uid: str
    version: str
    cluster: str
    """As the bridges name it."""
    tenant: str
    is_deleting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSeen(Seen):
    """A worker pod."""

    shape: Shape
    lane: str
    is_ready: bool
    phase: str
    why: str = ""
    """What keeps it from running, or ended it."""
    lease: str = ""
    rank: int = 0
    ranks: int = 1
    tasks: tuple[str, ...] = ()

    @property
    def node(self) -> str:
        """The Kubernetes node it is made for."""
        return self.shape.node

    @property
    def is_over(self) -> bool:
        """Nothing runs in it any more."""
        return self.phase in OVER


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSeen:
    """A worker group of a pool cluster."""

    shape: Shape
    replicas: int
    to_delete: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSeen(Seen):
    """A pool cluster."""

    kind: str
    """A kind of step that it serves: its image is that kind's."""
    groups: tuple[GroupSeen, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSeen(Seen):
    """A RayJob."""

    lease: str
    tasks: tuple[str, ...]
    shapes: tuple[Shape, ...]
    """One per rank."""
    is_suspended: bool
    state: str = ""
    """``jobDeploymentStatus``."""
    why: str = ""


def pod_seen(raw: Raw) -> PodSeen | None:
    """None: a head, or made by somebody else's template."""
    told = raw["metadata"].get("annotations") or {}
    try:
        shape = Shape.of_text(told[SHAPE])
    except (KeyError, ValueError):
        return None
    status, labels = raw.get("status") or {}, raw["metadata"].get("labels") or {}
    rank, _, ranks = told.get(RANK, "0/1").partition("/")
    return PodSeen(
        **_common(raw),
        shape=shape,
        lane=labels.get(LANE, ""),
        is_ready=_condition(status, "Ready") == "True",
        phase=status.get("phase", "Pending"),
        why=_why(status),
        lease=told.get(LEASE, ""),
        rank=int(rank),
        ranks=int(ranks),
        tasks=_words(told.get(TASKS, "")),
    )


def cluster_seen(raw: Raw) -> ClusterSeen | None:
    """None: a RayJob's own RayCluster, which KubeRay looks after."""
    told = raw["metadata"].get("annotations") or {}
    if DOMAIN not in told or raw["metadata"].get("ownerReferences"):
        return None
    return ClusterSeen(**_common(raw), kind=told[DOMAIN], groups=tuple(_groups(raw["spec"])))


def job_seen(raw: Raw) -> JobSeen | None:
    """None: not made by us."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
    lease = (meta.get("labels") or {}).get(LEASE)
    if lease is None:
        return None
    told = meta.get("annotations") or {}
    said = [status.get("reason", ""), status.get("message", "")]
    return JobSeen(
        **_common(raw),
        lease=lease,
        tasks=_words(told.get(TASKS, "")),
        shapes=_shapes(told.get(SHAPE, "")),
        is_suspended=bool(spec.get("suspend")),
        state=status.get("jobDeploymentStatus", ""),
        why=": ".join(word for word in said if word),
    )


def _common(raw: Raw) -> dict[str, Any]:
    meta = raw["metadata"]
    return {
        "name": meta["name"],
        "uid": meta["uid"],
        "version": meta["resourceVersion"],
        "cluster": (meta.get("labels") or {}).get(CLUSTER, ""),
        "tenant": (meta.get("annotations") or {}).get(TENANT, ""),
        "is_deleting": "deletionTimestamp" in meta,
    }


def _groups(spec: Raw) -> Iterator[GroupSeen]:
    for one in spec.get("workerGroupSpecs") or ():
        told = one["template"].get("metadata", {}).get("annotations") or {}
        try:
            shape = Shape.of_text(told[SHAPE])
        except (KeyError, ValueError):
            continue
        to_delete = (one.get("scaleStrategy") or {}).get("workersToDelete") or ()
        yield GroupSeen(shape=shape, replicas=int(one.get("replicas") or 0), to_delete=tuple(to_delete))


def _shapes(text: str) -> tuple[Shape, ...]:
    """One JSON object a line."""
    try:
        return tuple(Shape.of_text(line) for line in text.splitlines())
    except ValueError:
        return ()


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _condition(status: Raw, kind: str) -> str:
    return next((str(c.get("status")) for c in status.get("conditions") or () if c.get("type") == kind), "")


def _why(status: Raw) -> str:
    """The first thing that is wrong, in the words of Kubernetes. An eviction says more than what it did to them."""
    if status.get("reason") == EVICTED:
        return f"{EVICTED}: {status.get('message', '')}".removesuffix(": ")
    for container in status.get("containerStatuses") or ():
        state = container.get("state") or {}
        told = state.get("waiting") or state.get("terminated") or {}
        if told.get("reason") not in (None, "ContainerCreating", "PodInitializing", "Completed"):
            code = f" (exit code {told['exitCode']})" if "exitCode" in told else ""
            return f"{told['reason']}{code}: {told.get('message', '')}".removesuffix(": ")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
    return ": ".join(filter(None, (status.get("reason", ""), status.get("message", ""))))
