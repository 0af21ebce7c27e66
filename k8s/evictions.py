"""Which idle pods must go because others' leases need their room on a node. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from k8s.seen import PodSeen
from k8s.shapes import SLOT, Shape, resource_of
from scheduler.model.node import Health, Node
from scheduler.model.units import MILLI

if TYPE_CHECKING:
    from k8s.lanes import World

CPU, MEMORY, SCRATCH = "cpu", "memory", "scratch"


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
        is_in_the_way = short & gives.keys() or _keeps_a_card(pod, asked, world)
        if pod.uid in kept or not is_in_the_way or not is_waited_for:
            continue
        gone.add(pod.uid)
        room.update(gives)
    return gone


def _keeps_a_card(pod: PodSeen, needs: Iterable[tuple[str, Shape]], world: World) -> bool:
    """Whether it has a part of a card of which somebody else's pod waits for a part: two tenants never share one."""
    tenants = {one.cluster.name: one.tenant for one in world.held.values()}
    return any(
        tenants.get(cluster) != pod.tenant and not set(shape.devices).isdisjoint(pod.shape.devices)
        for cluster, shape in needs
    )


def _room(node: Node) -> Counter[str]:
    """What the node offers to our pods: thousandths of cards that have names, counts of those that have none."""
    room = Counter({CPU: node.cpu_milli, MEMORY: node.memory_mib, SCRATCH: node.scratch_mib})
    for device in node.devices:
        if device.health is Health.OK:
            is_slot = device.id.startswith(f"{SLOT}:")
            room[resource_of(device.id) if is_slot else device.id] += 1 if is_slot else MILLI
    return room


def _amounts(shape: Shape) -> Counter[str]:
    told = Counter({CPU: shape.cpu_milli, MEMORY: shape.memory_mib, SCRATCH: shape.scratch_mib})
    told |= dict.fromkeys(shape.devices, shape.card_milli or MILLI)
    if shape.count and not shape.devices:
        told[shape.resource] = shape.count
    return +told
