"""Leases that an earlier service left on our objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from k8s.lanes import Held
from k8s.manifests import JOB
from k8s.pods import Cluster
from k8s.seen import JobSeen, PodSeen


def adopted(lease: str, job: JobSeen | None, ranks: Mapping[int, PodSeen], now_ms: int) -> Held | None:
    """What its RayJob, or the pods of its ranks, say of it; None: not enough."""
    if job is not None:
        if not job.shapes or not job.tasks:
            return None
        shapes, tasks, cluster = job.shapes, job.tasks, _cluster(job.cluster, job.tenant, JOB)
    elif ranks:
        first = next(iter(ranks.values()))
        shapes = tuple(ranks[n].shape if n in ranks else first.shape for n in range(first.ranks))
        tasks, cluster = first.tasks, _cluster(first.cluster, first.tenant, first.lane)
    else:
        return None
    pods = tuple(ranks[n].uid if n in ranks else "" for n in range(len(shapes)))
    return Held(
        lease=lease,
        tenant=cluster.tenant,
        cluster=cluster,
        kind="",
        tasks=tasks,
        shapes=shapes,
        asked_ms=now_ms,
        pods=pods,
        is_made=job is not None,
        is_sent=all(pods),
    )


def _cluster(name: str, tenant: str, lane: str) -> Cluster:
    return Cluster(name=name, tenant=tenant, lane=lane, image="")
