"""Carries out what the lanes decided, one object each. Every write may be repeated: names follow from what they are
for, and patches and deletions hold for one object, in the version that was seen when they were decided. Each leaves the
epoch of its writer on the object (:mod:`k8s.fence`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from k8s import claims, manifests
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
    OnNode,
    Relabel,
    Release,
    SetGroups,
    TakeBack,
    Unsuspend,
)
from k8s.api import Api, Object, Only
from k8s.book import Entry
from k8s.errors import Absent, AlreadyThere, KubernetesError
from k8s.names import (
    DEVICES,
    EPOCH,
    INSTANCE,
    LANE,
    LAYOUT,
    LAYOUT_BEFORE,
    LEASE,
    MANAGED_BY,
    MIG_CONFIG,
    MIG_STATE,
    OURS,
    RANK,
    TASKS,
)
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
from k8s.seen import ClusterSeen, JobSeen, PodSeen, Seen, mark_of
from k8s.shapes import Shape
from k8s.sightings import NodeSight
from k8s.site import Site

OF: Mapping[type[Seen], Resource] = {PodSeen: PODS, ClusterSeen: RAY_CLUSTERS, JobSeen: RAY_JOBS}
NO_LEASE = dict.fromkeys((LEASE, RANK, TASKS, DEVICES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a write led to."""

    objects: tuple[tuple[Resource, Object], ...] = ()
    """As the server has them now."""
    gone: tuple[tuple[Resource, str], ...] = ()
    """Kind and name of what it does not have."""
    version: str = ""
    """Of the node that was written on."""


class NotOurs(KubernetesError):
    """The name is taken by an object that this installation did not make."""


class Leaving(KubernetesError):
    """The object is being deleted: there will be another one."""


class Writer:
    """Safe from several threads. ``token`` derives a cluster's token from a text; the same text gives the same one."""

    def __init__(self, api: Api, site: Site, token: Callable[[str], str]) -> None:
        self._api, self._site, self._token = api, site, token
        self.epoch = 0
        """Under which everything is written; set before the first write."""
        self._complete: set[str] = set()
        """Uids of RayClusters and RayJobs whose Secret and NetworkPolicy are there."""
        self._numbers = itertools.count(1)

    def carry_out(self, action: Action, entry: Entry | None) -> Done:
        """``entry``: of the lease that the action is for. Raises KubernetesError."""
        match action:
            case MakeCluster(cluster=cluster, kind=kind):
                cluster = self._marked(cluster)
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
                return self._patch(PODS, pod, {"metadata": {"annotations": NO_LEASE}})
            case Relabel(node=node, lane=lane, version=version):
                told = {"labels": {LANE: lane.value}, "annotations": self._written}
                self._api.merge(NODES, node, {"metadata": told}, only=Only(version=version))
                return Done()
            case LayOut() | TakeBack() | HoldNode():
                return self._of_layouts(action)
            case DeleteCluster(seen=seen):
                return self._delete(RAY_CLUSTERS, seen)
            case DeleteJob(seen=seen):
                return self._delete(RAY_JOBS, seen)
            case Adopt(seen=seen):
                return self._patch(OF[type(seen)], seen, {})
            case Lose():
                raise TypeError("a loss is no write")

    @property
    def _written(self) -> dict[str, str]:
        """Annotations of everything we write."""
        return {EPOCH: str(self.epoch)}

    def _stamped(self, body: Mapping[str, Any]) -> Body:
        meta = body.get("metadata", {})
        annotations = {**meta.get("annotations", {}), **self._written}
        return {**body, "metadata": {**meta, "annotations": annotations}}

    def _patch(self, resource: Resource, seen: Seen, patch: Mapping[str, Any]) -> Done:
        """This object, in this version. Raises Stale: it is another's, or has changed since that was decided."""
        only = Only(uid=seen.uid, version=seen.version)
        try:
            told = self._api.merge(resource, seen.name, self._stamped(patch), self._site.namespace, only=only)
        except Absent:
            return Done(gone=((resource, seen.name),))
        return Done(objects=((resource, told),))

    # ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _of_layouts(self, action: OnNode) -> Done:
        match action:
            case LayOut():
                return self._lay_out(action)
            case TakeBack(node=node):
                label = {MIG_CONFIG: node.before or None}
                return self._on_node(node, label, {LAYOUT: None, LAYOUT_BEFORE: None})
            case HoldNode(node=node):
                return self._on_node(node, {}, {})

    def _lay_out(self, action: LayOut) -> Done:
        """The state goes with the label: what comes there from now on is about what we asked. The MIG manager acts on a
        label that changes only, so one that says the same already, of a try that failed, is taken away first.
        """
        node, before = action.node, action.node.label(MIG_CONFIG)
        if before == action.name:
            told = self._api.merge(
                NODES, node.name, self._stamped({"metadata": {"labels": {MIG_CONFIG: None}}}), only=_as_seen(node)
            )
            node = replace(node, version=told["metadata"]["resourceVersion"])
        asked = {LAYOUT: action.mark, LAYOUT_BEFORE: before or None}
        return self._on_node(node, {MIG_CONFIG: action.name, MIG_STATE: None}, asked)

    def _on_node(self, node: NodeSight, labels: Mapping[str, Any], annotations: Mapping[str, Any]) -> Done:
        told = {"metadata": {"labels": dict(labels), "annotations": dict(annotations)}}
        after = self._api.merge(NODES, node.name, self._stamped(told), only=_as_seen(node))
        return Done(version=after["metadata"]["resourceVersion"])

    # ── clusters ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _marked(self, cluster: Cluster) -> Cluster:
        return replace(cluster, mark=f"{self.epoch}-{next(self._numbers)}")

    def _make(self, resource: Resource, body: Body, cluster: Cluster, token: str = "") -> Done:
        made = self._create(resource, self._stamped(body))
        self._equip(made, resource, replace(cluster, mark=mark_of(made)), token)
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
        cluster = replace(action.cluster, mark=seen.mark)
        self._equip(_owner(seen), RAY_CLUSTERS, cluster, "")
        before = {group.shape: group.replicas for group in seen.groups}
        grown = [group.shape for group in action.groups if group.replicas > before.get(group.shape, 0)]
        self._claim(_owner(seen), RAY_CLUSTERS, cluster, grown)
        groups = [manifests.group(site, cluster, g.shape, g.replicas, g.to_delete) for g in action.groups]
        return self._patch(RAY_CLUSTERS, seen, {"spec": {"workerGroupSpecs": groups}})

    # ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _make_job(self, entry: Entry | None) -> Done:
        if entry is None or not entry.orders:
            return Done()
        held, cluster = entry.held, self._marked(entry.held.cluster)
        body = manifests.ray_job(self._site, cluster, held.lease, held.tasks, held.shapes)
        done = self._make(RAY_JOBS, body, cluster, entry.orders[0].tasks[0].token)
        ((_, made),) = done.objects
        self._claim(made, RAY_JOBS, replace(cluster, mark=mark_of(made)), held.shapes)
        return done

    def _unsuspend(self, action: Unsuspend, entry: Entry | None) -> Done:
        seen = action.seen
        if entry is None or not entry.orders:  # found on the way, and nobody has ordered it: it waits for that
            return self._patch(RAY_JOBS, seen, {}) if seen.epoch != self.epoch else Done()
        cluster = replace(entry.held.cluster, mark=seen.mark)
        self._equip(_owner(seen), RAY_JOBS, cluster, entry.orders[0].tasks[0].token)
        self._claim(_owner(seen), RAY_JOBS, cluster, entry.held.shapes)
        return self._patch(RAY_JOBS, seen, {"spec": {"suspend": False}})

    def _delete(self, resource: Resource, seen: Seen) -> Done:
        """Its pods go with it, and so do its Secret and NetworkPolicy."""
        self._api.delete(resource, seen.name, self._site.namespace, only=Only(uid=seen.uid, version=seen.version))
        self._complete.discard(seen.uid)
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
        return self._patch(PODS, pod, {"metadata": {"annotations": {**NO_LEASE, **told}}})


def _as_seen(node: NodeSight) -> Only:
    return Only(version=node.version)


def _owner(seen: Seen) -> Object:
    return {"metadata": {"name": seen.name, "uid": seen.uid}}


def _typed(owner: Object, resource: Resource) -> Object:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": owner["metadata"]}
