"""What the lanes may decide to write. Each is carried out by :mod:`k8s.writes`."""

from __future__ import annotations

from dataclasses import dataclass

from k8s.pods import Cluster
from k8s.seen import ClusterSeen, GroupSeen, JobSeen, PodSeen
from k8s.sightings import NodeSight
from scheduler.model.node import Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeCluster:
    """Create a pool cluster, with its Secret and NetworkPolicy."""

    cluster: Cluster
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetGroups:
    """Set the worker groups of a pool cluster, in this version of it only."""

    seen: ClusterSeen
    cluster: Cluster
    groups: tuple[GroupSeen, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteCluster:
    """Delete a pool cluster and what belongs to it."""

    seen: ClusterSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeJob:
    """Create the suspended RayJob of a lease, with its Secret and NetworkPolicy."""

    lease: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsuspend:
    """Let a RayJob run."""

    seen: JobSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteJob:
    """Delete a RayJob and what belongs to it."""

    seen: JobSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """Write on a pod which rank of which lease it carries: before its order is sent."""

    pod: PodSeen
    lease: str
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Take the lease off a pod."""

    pod: PodSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class Relabel:
    """Write on a node which lane it serves, in this version of it only."""

    node: str
    lane: Lane
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayOut:
    """Ask the GPU Operator to put a node into a layout, in this version of the node only."""

    node: NodeSight
    name: str
    since_ms: int
    """When that was decided."""

    @property
    def mark(self) -> str:
        """As :data:`k8s.names.LAYOUT`."""
        return f"{self.name}@{self.since_ms}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeBack:
    """Unsay what the GPU Operator was asked and has not begun, in this version of the node only."""

    node: NodeSight


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldNode:
    """Write our epoch on a node that is to be cut, in this version only: what an earlier leader decided is void."""

    node: NodeSight


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """Write our epoch on an object of an earlier leader, in this version of it only."""

    seen: PodSeen | ClusterSeen | JobSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class Lose:
    """A lease that can not go on."""

    lease: str
    reason: str
    is_its_own: bool = False
    """Its work is to blame: it failed, and is not begun again without end."""


OnNode = LayOut | TakeBack | HoldNode
Write = (
    MakeCluster
    | SetGroups
    | DeleteCluster
    | MakeJob
    | Unsuspend
    | DeleteJob
    | Assign
    | Release
    | Relabel
    | Adopt
    | OnNode
)
Action = Write | Lose
