"""What keeps a leader that slept from harming its successor's objects. Pure.

Every write is bound to the uid and the version that its decision had seen, and leaves the epoch of its writer on the
object. Whoever takes over first writes its epoch on what it finds: from then on a write that was decided before fits no
version any more, is answered 409, and is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from k8s.actions import Adopt, Assign, HoldNode, LayOut, MakeCluster, MakeJob, Relabel, Release, TakeBack, Write
from k8s.manifests import JOB
from k8s.seen import PodSeen

if TYPE_CHECKING:
    from k8s.lanes import World

AT_ONCE = 500
"""Objects that are taken over in one look: what is asked by users does not wait for forty thousand pods."""


def fenced(actions: Iterable[Write], world: World) -> Iterator[Write]:
    """``actions`` that may be carried out now, and before them what is to be taken over.

    Every write takes its own object over. What it relies on must have been taken over before: a pod is given a lease
    when nobody can scale down its cluster any more by what an earlier leader knew.
    """
    wanted = [action for action in actions if not isinstance(action, Assign) or _is_held(action.pod, world)]
    touched = set(map(_uid, wanted))
    yield from (adopt for adopt in _adoptions(world) if adopt.seen.uid not in touched)
    yield from wanted


def _is_held(pod: PodSeen, world: World) -> bool:
    owner = (world.jobs if pod.lane == JOB else world.clusters).get(pod.cluster)
    return owner is None or owner.epoch == world.epoch


def _uid(action: Write) -> str:
    match action:
        case Assign(pod=pod) | Release(pod=pod):
            return pod.uid
        case MakeCluster() | MakeJob() | Relabel() | LayOut() | TakeBack() | HoldNode():
            return ""
    return action.seen.uid


def _adoptions(world: World) -> list[Adopt]:
    """Clusters and RayJobs first: others wait for them. Idle pods carry nothing that could be undone."""
    carrying = [pod for pod in world.pods.values() if pod.lease and not pod.is_over]
    found = [
        one
        for one in (*world.clusters.values(), *world.jobs.values(), *carrying)
        if one.epoch != world.epoch and not one.is_deleting
    ]
    found.sort(key=lambda one: (isinstance(one, PodSeen), one.name))
    return [Adopt(seen=one) for one in found[:AT_ONCE]]
