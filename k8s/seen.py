"""Our pods, RayClusters and RayJobs as the API server tells of them, reduced to what the lanes decide by. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from k8s.names import CLUSTER, DOMAIN, EPOCH, LANE, LEASE, RANK, SHAPE, TASKS, TENANT
from k8s.shapes import Shape
from k8s.trouble import Trouble, trouble_of

Raw = Mapping[str, Any]
OVER = ("Succeeded", "Failed")
"""Phases of pods in which nothing runs any more."""
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
    epoch: int = 0
    """Of the leader that wrote it last; 0: none did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSeen(Seen):
    """A worker pod."""

    shape: Shape
    lane: str
    is_ready: bool
    phase: str
    trouble: Trouble | None = None
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
    mark: str = ""
    """As :attr:`k8s.pods.Cluster.mark`."""


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
    mark: str = ""
    """As :attr:`k8s.pods.Cluster.mark`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSeen(Seen):
    """A pod with a cluster's control store, without which no worker begins."""

    trouble: Trouble | None = None


def head_seen(raw: Raw) -> HeadSeen | None:
    """None: no head of ours."""
    meta = raw["metadata"]
    if SHAPE in (meta.get("annotations") or {}) or CLUSTER not in (meta.get("labels") or {}):
        return None
    return HeadSeen(**_common(raw), trouble=trouble_of(raw.get("status") or {}))


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
        trouble=trouble_of(status),
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
    return ClusterSeen(**_common(raw), kind=told[DOMAIN], groups=tuple(_groups(raw["spec"])), mark=mark_of(raw))


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
        mark=mark_of(raw),
    )


def mark_of(raw: Raw) -> str:
    """As :attr:`k8s.pods.Cluster.mark`, of a RayCluster or RayJob: the name of its Secret ends with it."""
    spec = raw["spec"].get("rayClusterSpec") or raw["spec"]
    name: str = (spec.get("authOptions") or {}).get("secretName") or ""
    return name.removeprefix(f"{raw['metadata']['name']}-tokens").removeprefix("-")


def _common(raw: Raw) -> dict[str, Any]:
    meta = raw["metadata"]
    told = meta.get("annotations") or {}
    epoch = told.get(EPOCH, "")
    return {
        "name": meta["name"],
        "uid": meta["uid"],
        "version": meta["resourceVersion"],
        "cluster": (meta.get("labels") or {}).get(CLUSTER, ""),
        "tenant": told.get(TENANT, ""),
        "epoch": int(epoch) if epoch.isdecimal() else 0,
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
