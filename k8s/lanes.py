"""What objects there should be, given the open leases, the pods seen and the clock. Pure: the same state gives the same
actions, in the same order, and carrying them out twice is harmless.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from k8s import recuts
from k8s.actions import (
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
    Write,
)
from k8s.evictions import in_the_way
from k8s.fence import fenced
from k8s.losses import own_fault, why_lost
from k8s.manifests import JOB, POOL
from k8s.pods import Cluster
from k8s.seen import ClusterSeen, GroupSeen, JobSeen, PodSeen
from k8s.shapes import Shape
from k8s.sightings import NodeSight
from k8s.site import Site
from k8s.trouble import Trouble
from scheduler.model.node import CardCut, Lane, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An open lease that was ordered, or found on our objects."""

    lease: str
    tenant: str
    cluster: Cluster
    kind: str
    tasks: tuple[str, ...]
    shapes: tuple[Shape, ...]
    """One per rank."""
    asked_ms: int
    """When it was first heard of."""
    pods: tuple[str, ...] = ()
    """Uid of the pod of each rank, empty for none yet; as long as ``shapes``."""
    is_made: bool = False
    """Its RayJob was created."""
    is_sent: bool = False
    """Its orders were given to a bridge."""
    is_told: bool = False
    """The end of its last task was reported: it waits for that to be recorded."""

    @property
    def is_placed(self) -> bool:
        """Every rank has its pod."""
        return bool(self.pods) and all(self.pods)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything that decides."""

    site: Site
    now_ms: int
    held: Mapping[str, Held] = field(default_factory=dict)
    """By lease."""
    pods: Mapping[str, PodSeen] = field(default_factory=dict)
    """Workers of both lanes, by uid."""
    clusters: Mapping[str, ClusterSeen] = field(default_factory=dict)
    """By name."""
    jobs: Mapping[str, JobSeen] = field(default_factory=dict)
    """By name."""
    nodes: Mapping[str, Node] = field(default_factory=dict)
    """Those that answer."""
    idle_ms: Mapping[str, int] = field(default_factory=dict)
    """Since when a pod (by uid) or a cluster (by name) has had nothing to do."""
    condemned: frozenset[str] = frozenset()
    """Uids of pods that must go whatever they hold."""
    last_words: Mapping[str, Trouble] = field(default_factory=dict)
    """What had ended a pod that is gone, by uid."""
    unheard_ms: Mapping[str, int] = field(default_factory=dict)
    """Since when the bridge of a cluster has been away."""
    heads: Mapping[str, Trouble] = field(default_factory=dict)
    """What is wrong with a cluster's head."""
    moves: Mapping[str, Lane] = field(default_factory=dict)
    """Nodes that are to serve another lane."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of those nodes."""
    cuts: Mapping[str, CardCut | None] = field(default_factory=dict)
    """Nodes whose cards are to be cut anew; None: no more."""
    sights: Mapping[str, NodeSight] = field(default_factory=dict)
    """Of those nodes."""
    labelled: frozenset[str] = frozenset()
    """Nodes whose lane this leader wrote."""
    epoch: int = 0
    """This leader's."""

    @property
    def taken(self) -> set[str]:
        """Uids of pods that a lease has in the book."""
        return {uid for held in self.held.values() for uid in held.pods if uid}


# ── the decision ─────────────────────────────────────────────────────────────────────────────────────────────────────


def decide(world: World) -> tuple[Action, ...]:
    """Everything to be done now."""
    lost = tuple(_losses(world))
    if lost:
        return lost  # the book changes: decide again without them
    evicted = in_the_way(_needs(world), [pod for pod in world.pods.values() if not pod.is_over], world)
    evicted |= recuts.in_the_way(world)
    taken = world.taken
    on_nodes = (*_relabels(world), *recuts.on_nodes(world))
    wanted = (*on_nodes, *_pods(world, taken), *_jobs(world, taken), *_pools(world, taken, evicted))
    return tuple(fenced(wanted, world))


def is_free(pod: PodSeen, world: World) -> bool:
    """A lease may take it, once it is ready."""
    if pod.lease or pod.is_deleting or pod.is_over or pod.uid in world.condemned or pod.node not in world.nodes:
        return False
    cluster = world.clusters.get(pod.cluster)
    leaving = {name for group in cluster.groups for name in group.to_delete} if cluster else frozenset()
    return pod.name not in leaving


def _losses(world: World) -> Iterator[Lose]:
    for lease, held in sorted(world.held.items()):
        own_end = own_fault(held, world)
        if reason := own_end or why_lost(held, world):
            yield Lose(lease=lease, reason=reason, is_its_own=bool(own_end))


def _needs(world: World) -> list[tuple[str, Shape]]:
    """Cluster and shape of every rank that has no pod, in the order in which they were asked for."""
    waiting = sorted(world.held.values(), key=lambda held: (held.asked_ms, held.lease))
    return [(held.cluster.name, shape) for held in waiting for _, shape in _unplaced(held)]


def _relabels(world: World) -> Iterator[Relabel]:
    """Idle pods of the other lane need not go first: they make room for whoever comes. Each leader writes a lane that
    was decided once, even where it is so already: an earlier one's word may be on its way.
    """
    for name, lane in sorted(world.moves.items()):
        is_new = name in world.nodes and (world.nodes[name].lane is not lane or name not in world.labelled)
        if is_new and name in world.versions:
            yield Relabel(node=name, lane=lane, version=world.versions[name])


def _pods(world: World, taken: set[str]) -> Iterator[Release | Assign]:
    """Pods that carry a lease nobody holds, or a rank that another pod has; and those that lost what they carry."""
    for lease, held in sorted(world.held.items()):
        for rank, pod in enumerate(map(world.pods.get, held.pods)):
            if pod is not None and pod.lease != lease and not pod.is_deleting:
                yield Assign(pod=pod, lease=lease, rank=rank)
    for uid, pod in sorted(world.pods.items()):
        is_alive = not pod.is_deleting and not pod.is_over and uid not in world.condemned
        if pod.lease and pod.lane == POOL and uid not in taken and is_alive:
            yield Release(pod=pod)


# ── the job lane ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _jobs(world: World, taken: set[str]) -> Iterator[Write]:
    mine = {held.cluster.name: held for held in world.held.values() if held.cluster.lane == JOB}
    for name, job in sorted(world.jobs.items()):
        if name not in mine and not job.is_deleting:
            yield DeleteJob(seen=job)
    workers: defaultdict[str, list[PodSeen]] = defaultdict(list)
    for pod in sorted(world.pods.values(), key=lambda pod: pod.name):
        workers[pod.cluster].append(pod)
    for name, held in sorted(mine.items()):
        seen = world.jobs.get(name)
        if seen is None:
            if not held.is_made:
                yield MakeJob(lease=held.lease)
            continue
        if seen.is_suspended:
            yield Unsuspend(seen=seen)
        yield from _assigned(held, [p for p in workers[name] if p.uid not in taken], world)


def _assigned(held: Held, free: Iterable[PodSeen], world: World) -> Iterator[Assign]:
    """Ready pods for ranks that have none."""
    left = [pod for pod in free if pod.is_ready and is_free(pod, world)]
    for rank, shape in _unplaced(held):
        fitting = next((pod for pod in left if pod.shape == shape), None)
        if fitting is not None:
            left.remove(fitting)
            yield Assign(pod=fitting, lease=held.lease, rank=rank)


def _unplaced(held: Held) -> list[tuple[int, Shape]]:
    """Ranks without a pod."""
    uids = held.pods or ("",) * len(held.shapes)
    return [(rank, shape) for rank, (shape, uid) in enumerate(zip(held.shapes, uids, strict=True)) if not uid]


# ── the pool lane ────────────────────────────────────────────────────────────────────────────────────────────────────


def _pools(world: World, taken: set[str], evicted: frozenset[str]) -> Iterator[Write]:
    held: defaultdict[str, list[Held]] = defaultdict(list)
    for one in sorted(world.held.values(), key=lambda one: (one.asked_ms, one.lease)):
        if one.cluster.lane == POOL:
            held[one.cluster.name].append(one)
    workers: defaultdict[str, list[PodSeen]] = defaultdict(list)
    for pod in sorted(world.pods.values(), key=lambda pod: pod.name):
        workers[pod.cluster].append(pod)
    for name in sorted(held.keys() | world.clusters.keys()):
        seen = world.clusters.get(name)
        if seen is None:
            if any(not one.is_placed for one in held[name]):
                yield MakeCluster(cluster=held[name][0].cluster, kind=held[name][0].kind)
        elif not seen.is_deleting:
            yield from _pool(seen, held[name], workers[name], taken, evicted, world)


def _pool(  # noqa: PLR0917 (each is a different thing)
    seen: ClusterSeen,
    held: list[Held],
    workers: list[PodSeen],
    taken: set[str],
    evicted: frozenset[str],
    world: World,
) -> Iterator[Write]:
    free = [pod for pod in workers if pod.uid not in taken and is_free(pod, world)]
    waiting: Counter[Shape] = Counter()
    for one in held:
        given = {action.rank: action for action in _assigned(one, free, world)}
        for action in given.values():
            free.remove(action.pod)
            yield action
        waiting.update(shape for rank, shape in _unplaced(one) if rank not in given)
    since_ms = world.idle_ms.get(seen.name)
    if not held and not workers and not any(group.replicas for group in seen.groups):
        if since_ms is not None and world.now_ms >= since_ms + world.site.cluster_idle_ms:
            yield DeleteCluster(seen=seen)
        return
    soon = [pod for pod in workers if pod.lease and pod.uid not in taken and is_free(replace(pod, lease=""), world)]
    groups = tuple(_groups(seen, waiting - Counter(pod.shape for pod in soon), free, workers, evicted, world))
    if groups != seen.groups:
        domain = held[0].cluster if held else _cluster(seen, world)
        yield SetGroups(seen=seen, cluster=domain, groups=groups)


def _cluster(seen: ClusterSeen, world: World) -> Cluster:
    return Cluster(name=seen.name, tenant=seen.tenant, lane=POOL, image=world.site.image(seen.kind))


def _groups(  # noqa: PLR0917 (each is a different thing)
    seen: ClusterSeen,
    waiting: Counter[Shape],
    free: list[PodSeen],
    workers: list[PodSeen],
    evicted: frozenset[str],
    world: World,
) -> Iterator[GroupSeen]:
    """The groups as they should be. Replicas go down only by pods that are named: KubeRay would choose by chance."""
    have = {group.shape: group for group in seen.groups}
    changed = False
    wanted: list[GroupSeen] = []
    alike: defaultdict[Shape, list[PodSeen]] = defaultdict(list)
    for pod in workers:
        alike[pod.shape].append(pod)
    for shape in sorted(have.keys() | waiting.keys()):
        before = have.get(shape, GroupSeen(shape=shape, replicas=0))
        after = _group(before, waiting[shape], free, alike[shape], evicted, world)
        changed = changed or after.replicas != before.replicas or not set(after.to_delete) <= set(before.to_delete)
        wanted.append(after)
    if not changed:
        yield from seen.groups  # what is left over in it is cleared with the next change
        return
    for group in wanted:
        if group.replicas or alike[group.shape]:
            yield group


def _group(  # noqa: PLR0917 (each is a different thing)
    before: GroupSeen, waiting: int, free: list[PodSeen], workers: list[PodSeen], evicted: frozenset[str], world: World
) -> GroupSeen:
    names = {pod.name for pod in workers}
    leaving = [name for name in before.to_delete if name in names]
    staying = [pod for pod in workers if not pod.is_deleting and not pod.is_over and pod.name not in leaving]
    coming = max(0, before.replicas - len(staying))
    free = sorted((p for p in free if p.shape == before.shape), key=lambda pod: (not pod.is_ready, pod.name))
    spare = free[waiting:]
    drops = [pod.name for pod in spare if pod.uid in evicted or _is_cold(pod, world)]
    drops += [pod.name for pod in staying if pod.uid in world.condemned or pod.node not in world.nodes]
    drops = sorted(set(drops))
    grown = max(0, waiting - len(free) - coming)
    return GroupSeen(
        shape=before.shape,
        replicas=max(0, before.replicas - len(drops)) + grown,
        to_delete=(*leaving, *drops),
    )


def _is_cold(pod: PodSeen, world: World) -> bool:
    since_ms = world.idle_ms.get(pod.uid)
    return since_ms is not None and world.now_ms >= since_ms + world.site.warm_ms
