"""Carries out what the lanes decided, one object each. Every write may be repeated: names follow from what they are
for, and patches and deletions hold for one object, in one version of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from k8s import claims, manifests
from k8s.api import Api, Object, Only
from k8s.book import Entry
from k8s.errors import Absent, AlreadyThere, KubernetesError
from k8s.lanes import (
    Action,
    Assign,
    DeleteCluster,
    DeleteJob,
    Lose,
    MakeCluster,
    MakeJob,
    Relabel,
    Release,
    SetGroups,
    Unsuspend,
)
from k8s.names import DEVICES, INSTANCE, LANE, LEASE, MANAGED_BY, OURS, RANK, TASKS
from k8s.pods import Body, Cluster
from k8s.resource import (
    CLAIM_TEMPLATES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    RAY_CLUSTERS,
    RAY_JOBS,
    RESOURCE_CLAIMS,
    SECRETS,
    Resource,
)
from k8s.shapes import Shape
from k8s.site import Site

NO_LEASE = dict.fromkeys((LEASE, RANK, TASKS, DEVICES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a write led to."""

    objects: tuple[tuple[Resource, Object], ...] = ()
    """As the server has them now."""
    gone: tuple[tuple[Resource, str], ...] = ()
    """Kind and name of what it does not have."""


class NotOurs(KubernetesError):
    """The name is taken by an object that this installation did not make."""


class Leaving(KubernetesError):
    """The object is being deleted: there will be another one."""


class Writer:
    """Safe from several threads. ``token`` derives a cluster's token from a text; the same text gives the same one."""

    def __init__(self, api: Api, site: Site, token: Callable[[str], str]) -> None:
        self._api, self._site, self._token = api, site, token
        self._complete: set[str] = set()
        """Uids of RayClusters and RayJobs whose Secret and NetworkPolicy are there."""

    def carry_out(self, action: Action, entry: Entry | None) -> Done:
        """``entry``: of the lease that the action is for. Raises KubernetesError."""
        match action:
            case MakeCluster(cluster=cluster, kind=kind):
                return self._make(RAY_CLUSTERS, manifests.ray_cluster(self._site, cluster, kind), cluster)
            case SetGroups():
                return self._set_groups(action)
            case MakeJob():
                return self._make_job(entry)
            case Unsuspend():
                return self._unsuspend(action, entry)
            case Assign():
                return self._assign(action, entry)
            case Release(pod=pod):
                return self._patch_pod(pod.name, NO_LEASE, Only(uid=pod.uid, version=pod.version))
            case Relabel(node=node, lane=lane):
                self._api.merge(NODES, node, {"metadata": {"labels": {LANE: lane.value}}})
                return Done()
            case DeleteCluster(seen=seen):
                return self._delete(RAY_CLUSTERS, seen.name, seen.uid)
            case DeleteJob(seen=seen):
                return self._delete(RAY_JOBS, seen.name, seen.uid)
            case Lose():
                raise TypeError("a loss is no write")

    # ── clusters ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _make(self, resource: Resource, body: Body, cluster: Cluster, token: str = "") -> Done:
        made = self._create(resource, body)
        self._equip(made, resource, cluster, token)
        return Done(objects=((resource, made),))

    def _create(self, resource: Resource, body: Body) -> Object:
        """Made by us now, or before: an answer may have been lost. Raises NotOurs."""
        namespace, name = self._site.namespace, body["metadata"]["name"]
        try:
            return self._api.create(resource, body, namespace)
        except AlreadyThere:
            there = self._api.get(resource, name, namespace)
        labels = there["metadata"].get("labels") or {}
        if (labels.get(MANAGED_BY), labels.get(INSTANCE)) != (OURS, self._site.instance):
            raise NotOurs(f"{resource.kind} {name} is there and is not this installation's")
        return there

    def _equip(self, owner: Object, resource: Resource, cluster: Cluster, token: str) -> None:
        """Secret and NetworkPolicy, before anything can run."""
        uid = owner["metadata"]["uid"]
        if uid in self._complete:
            return
        typed = _typed(owner, resource)
        bridge_token = token or self._token(f"bridge/{cluster.name}")
        secret = manifests.secret(
            self._site, cluster, bridge_token=bridge_token, ray_token=self._token(f"ray/{cluster.name}")
        )
        things = [(SECRETS, secret)]
        if self._site.network_policy:
            things.append((NETWORK_POLICIES, manifests.network_policy(self._site, cluster)))
        for kind, body in things:
            try:
                self._api.create(kind, manifests.owned(body, typed), self._site.namespace)
            except AlreadyThere:
                continue  # the service may write Secrets, not read them; the name is derived from the owner's
        self._complete.add(uid)

    def _claim(self, owner: Object, resource: Resource, cluster: Cluster, shapes: Iterable[Shape]) -> None:
        """What pods of these shapes claim, before there are any. Raises Leaving."""
        namespace = self._site.namespace
        for shape in sorted(filter(claims.is_claimed, set(shapes))):
            body = manifests.owned(manifests.claim(self._site, cluster, shape), _typed(owner, resource))
            if claims.is_shared(shape):
                # Each cluster is an owner beside the others: the claim goes with the last of them.
                told = self._api.apply(RESOURCE_CLAIMS, body, namespace, part=cluster.name)
                if "deletionTimestamp" in told["metadata"]:
                    raise Leaving(f"ResourceClaim {told['metadata']['name']} is being deleted")
                continue
            try:
                self._api.create(CLAIM_TEMPLATES, body, namespace)
            except AlreadyThere:
                continue  # its name follows from what is in it

    def _set_groups(self, action: SetGroups) -> Done:
        seen, site = action.seen, self._site
        owner: Object = {"metadata": {"name": seen.name, "uid": seen.uid}}
        self._equip(owner, RAY_CLUSTERS, action.cluster, "")
        before = {group.shape: group.replicas for group in seen.groups}
        grown = [group.shape for group in action.groups if group.replicas > before.get(group.shape, 0)]
        self._claim(owner, RAY_CLUSTERS, action.cluster, grown)
        groups = [manifests.group(site, action.cluster, g.shape, g.replicas, g.to_delete) for g in action.groups]
        only, patch = Only(uid=seen.uid, version=seen.version), {"spec": {"workerGroupSpecs": groups}}
        try:
            told = self._api.merge(RAY_CLUSTERS, seen.name, patch, site.namespace, only=only)
        except Absent:
            return Done(gone=((RAY_CLUSTERS, seen.name),))
        return Done(objects=((RAY_CLUSTERS, told),))

    # ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _make_job(self, entry: Entry | None) -> Done:
        if entry is None or not entry.orders:
            return Done()
        held = entry.held
        body = manifests.ray_job(self._site, held.cluster, held.lease, held.tasks, held.shapes)
        done = self._make(RAY_JOBS, body, held.cluster, entry.orders[0].tasks[0].token)
        ((_, made),) = done.objects
        self._claim(made, RAY_JOBS, held.cluster, held.shapes)
        return done

    def _unsuspend(self, action: Unsuspend, entry: Entry | None) -> Done:
        seen = action.seen
        if entry is None or not entry.orders:
            return Done()  # found on the way, and nobody has ordered it: it waits for that
        owner: Object = {"metadata": {"name": seen.name, "uid": seen.uid}}
        self._equip(owner, RAY_JOBS, entry.held.cluster, entry.orders[0].tasks[0].token)
        self._claim(owner, RAY_JOBS, entry.held.cluster, entry.held.shapes)
        only = Only(uid=seen.uid, version=seen.version)
        try:
            told = self._api.merge(RAY_JOBS, seen.name, {"spec": {"suspend": False}}, self._site.namespace, only=only)
        except Absent:
            return Done(gone=((RAY_JOBS, seen.name),))
        return Done(objects=((RAY_JOBS, told),))

    def _delete(self, resource: Resource, name: str, uid: str) -> Done:
        """Its pods go with it, and so do its Secret and NetworkPolicy."""
        self._api.delete(resource, name, self._site.namespace, only=Only(uid=uid))
        self._complete.discard(uid)
        return Done()

    # ── pods ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _assign(self, action: Assign, entry: Entry | None) -> Done:
        if entry is None:
            return Done()
        pod = action.pod
        held = entry.held
        devices = entry.orders[action.rank].devices if entry.orders else ()
        told = {LEASE: action.lease, RANK: f"{action.rank}/{len(held.shapes)}", TASKS: ",".join(held.tasks)}
        told |= {DEVICES: ",".join(devices)} if devices else {}
        return self._patch_pod(pod.name, told, Only(uid=pod.uid, version=pod.version))

    def _patch_pod(self, name: str, annotations: Mapping[str, str | None], only: Only) -> Done:
        patch = {"metadata": {"annotations": dict(annotations)}}
        try:
            told = self._api.merge(PODS, name, patch, self._site.namespace, only=only)
        except Absent:
            return Done(gone=((PODS, name),))
        return Done(objects=((PODS, told),))


def _typed(owner: Object, resource: Resource) -> Object:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": owner["metadata"]}
