"""Our objects as they were seen last: by informers, and in the answers to our own writes, whichever is newer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from k8s.api import Object
from k8s.resource import PODS, RAY_CLUSTERS, RAY_JOBS, Resource
from k8s.seen import ClusterSeen, HeadSeen, JobSeen, PodSeen, Seen, cluster_seen, head_seen, job_seen, pod_seen
from k8s.trouble import Trouble

S = TypeVar("S", bound=Seen)


class View(Generic[S]):
    """The objects of one kind, by name. Not thread-safe."""

    def __init__(self, read: Callable[[Object], S | None]) -> None:
        self._read = read
        self.by_name: dict[str, S] = {}
        self.is_listed = False

    def put(self, obj: Object) -> bool:
        """Note it; whether anything changed. An informer may be behind what a write of ours was answered."""
        seen = self._read(obj)
        if seen is None:
            return False
        known = self.by_name.get(seen.name)
        if known is not None and known.uid == seen.uid and int(known.version) >= int(seen.version):
            return False
        self.by_name[seen.name] = seen
        return True

    def drop(self, name: str) -> bool:
        """It is gone; whether it was known."""
        return self.by_name.pop(name, None) is not None


class Pods(View[PodSeen]):
    """Workers; and heads, of which only trouble matters."""

    def __init__(self) -> None:
        super().__init__(pod_seen)
        self.heads: View[HeadSeen] = View(head_seen)
        self.last_words: dict[str, Trouble] = {}
        """What had ended a worker that is gone, by uid: KubeRay deletes it at once."""

    def put(self, obj: Object) -> bool:
        """See :class:`View`."""
        return self.heads.put(obj) or super().put(obj)

    def drop(self, name: str) -> bool:
        """See :class:`View`."""
        known = self.by_name.get(name)
        if known is not None and known.is_over and known.trouble is not None:
            self.last_words[known.uid] = known.trouble
        return self.heads.drop(name) or super().drop(name)


class Views:
    """Workers, pool clusters and RayJobs of this installation."""

    def __init__(self) -> None:
        self._pods = Pods()
        self._clusters: View[ClusterSeen] = View(cluster_seen)
        self._jobs: View[JobSeen] = View(job_seen)
        self.of: Mapping[Resource, View[Any]] = {
            PODS: self._pods,
            RAY_CLUSTERS: self._clusters,
            RAY_JOBS: self._jobs,
        }

    @property
    def is_listed(self) -> bool:
        """Everything there is was told once."""
        return all(view.is_listed for view in self.of.values())

    def listed(self, resource: Resource) -> None:
        """Everything there is of this kind was told."""
        self.of[resource].is_listed = True

    @property
    def pods(self) -> dict[str, PodSeen]:
        """By uid."""
        return {pod.uid: pod for pod in self._pods.by_name.values()}

    def last_words(self, uids: set[str]) -> dict[str, Trouble]:
        """What had ended those of these pods that are gone; of all others it is forgotten."""
        kept = {uid: trouble for uid, trouble in self._pods.last_words.items() if uid in uids}
        self._pods.last_words = kept
        return kept

    @property
    def heads(self) -> dict[str, Trouble]:
        """What is wrong with heads, by the name of their cluster."""
        return {head.cluster: head.trouble for head in self._pods.heads.by_name.values() if head.trouble is not None}

    @property
    def clusters(self) -> Mapping[str, ClusterSeen]:
        """By name."""
        return self._clusters.by_name

    @property
    def jobs(self) -> Mapping[str, JobSeen]:
        """By name."""
        return self._jobs.by_name
