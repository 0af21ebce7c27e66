"""Why a lease cannot go on, in words for the owner of its job. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from k8s.manifests import JOB
from k8s.seen import COMPLETE_JOB, FAILED_JOB
from k8s.trouble import Trouble

if TYPE_CHECKING:
    from k8s.lanes import Held, World


def own_fault(held: Held, world: World) -> str:
    """Its own work ended its pod; empty: not so. It comes before all else: a pod that ends takes its RayJob along."""
    if held.is_told:
        return ""
    own = (trouble for trouble in _ends(held, world) if trouble.is_its_own)
    return next((f"its pod ended: {trouble}" for trouble in own), "")


def _ends(held: Held, world: World) -> Iterator[Trouble]:
    """What ended its pods, those that are gone too."""
    for uid in held.pods:
        pod = world.pods.get(uid)
        trouble = pod.trouble if pod is not None and pod.is_over else world.last_words.get(uid)
        if trouble is not None:
            yield trouble


def why_lost(held: Held, world: World) -> str:
    """Through no fault of its own; empty: it goes on."""
    if held.is_told:
        return ""
    if held.cluster.lane == JOB and held.is_made:
        job = world.jobs.get(held.cluster.name)
        if job is None or job.is_deleting:
            return "its RayJob was deleted"
        if job.state in FAILED_JOB:
            return f"its RayJob failed: {job.why or 'no reason was given'}{hint(held, world)}"
        if job.state in COMPLETE_JOB:
            return "its RayJob ended before the end of its tasks was heard"
    reason = next(filter(None, (_pod_lost(uid, world) for uid in held.pods if uid)), "")
    if reason:
        return reason
    away_ms = world.unheard_ms.get(held.cluster.name)
    if held.is_placed and away_ms is not None and world.now_ms >= away_ms + world.site.bridge_ms:
        return f"nothing was heard from the head of {held.cluster.name} for {world.site.bridge_ms // 1_000} s"
    if not held.is_sent and world.now_ms >= held.asked_ms + world.site.start_ms:
        return f"its pods did not start within {world.site.start_ms // 1_000} s{hint(held, world)}"
    return ""


def _pod_lost(uid: str, world: World) -> str:
    pod = world.pods.get(uid)
    if pod is None:
        last = world.last_words.get(uid)
        return f"its pod ended and was deleted: {last}" if last is not None else "its pod was deleted"
    if pod.is_over:
        return f"its pod {pod.name} ended: {pod.trouble or pod.phase}"
    if uid in world.condemned:
        return f"Ray lost its pod {pod.name}"
    return ""


def hint(held: Held, world: World) -> str:
    """What the pods it waits for say, or the head that these wait for."""
    found = [pod for pod in world.pods.values() if pod.cluster == held.cluster.name and pod.shape in held.shapes]
    said = sorted({str(pod.trouble) for pod in found if pod.trouble is not None and not pod.is_ready})
    if not said and held.cluster.name in world.heads:
        said = [f"its head: {world.heads[held.cluster.name]}"]
    return f": {said[0]}" if said else ""
