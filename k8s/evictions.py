"""Which idle pods must go because others' leases need their room on a node. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from k8s.seen import PodSeen
from k8s.shapes import Shape, resource_of
from scheduler.model.node import Health, Node

if TYPE_CHECKING:
    from k8s.lanes import World

CPU, MEMORY = "cpu", "memory"


def in_the_way(needs: Sequence[tuple[str, Shape]], pods: Iterable[PodSeen], world: World) -> frozenset[str]:
    """Uids of idle pods that go first, those idle for longest before others. ``needs``: cluster and shape of each rank
    that has no pod.
    """
    by_node: defaultdict[str, list[PodSeen]] = defaultdict(list)
    for pod in pods:
        if not pod.is_deleting:
            by_node[pod.node].append(pod)
    wanted: defaultdict[str, Counter[tuple[str, Shape]]] = defaultdict(Counter)
    for cluster, shape in needs:
        wanted[shape.node][cluster, shape] += 1
    gone: set[str] = set()
    for name, asked in sorted(wanted.items()):
        node = world.nodes.get(name)
        if node is not None:
            gone |= _on_node(node, asked, by_node[name], world)
    return frozenset(gone)


def _on_node(node: Node, asked: Counter[tuple[str, Shape]], pods: list[PodSeen], world: World) -> set[str]:
    held = {uid for one in world.held.values() for uid in one.pods if uid}
    idle = [pod for pod in pods if pod.uid not in held and not pod.lease]
    still = Counter(asked)
    kept: set[str] = set()
    for pod in idle:
        if still[pod.cluster, pod.shape] > 0:
            still[pod.cluster, pod.shape] -= 1
            kept.add(pod.uid)  # it is what somebody waits for
    # Pods of a RayJob come all the same, and wait for room: they have a place only when they are ready.
    is_waited_for = still.total() > 0 or any(not pod.is_ready for pod in idle if pod.uid in kept)
    room = _room(node)
    for pod in pods:
        room.subtract(_amounts(pod.shape))
    for (_, shape), times in still.items():
        for _ in range(times):
            room.subtract(_amounts(shape))
    gone: set[str] = set()
    for pod in sorted(idle, key=lambda pod: (world.idle_ms.get(pod.uid, world.now_ms), pod.name)):
        short = {name for name, left in room.items() if left < 0}
        gives = _amounts(pod.shape)
        if pod.uid in kept or not short & gives.keys() or not is_waited_for:
            continue
        gone.add(pod.uid)
        room.update(gives)
    return gone


def _room(node: Node) -> Counter[str]:
    """What the node offers to our pods."""
    cards = Counter(
        resource_of(device.id)
        for device in node.devices
        if device.health is Health.OK and device.id.startswith("slot:")
    )
    return cards + Counter({CPU: node.cpu_milli, MEMORY: node.memory_mib})


def _amounts(shape: Shape) -> Counter[str]:
    told = Counter({CPU: shape.cpu_milli, MEMORY: shape.memory_mib})
    if shape.count:
        told[shape.resource] = shape.count
    return +told
