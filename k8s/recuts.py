"""Nodes whose cards are to be cut anew: the GPU Operator is asked by a label when nobody of ours is there. Pure.

Asked once: what was asked, and of which decision, is written on the node together with the label, so a next service
goes on from there. What has not begun when it is given up is taken back, lest it begins under somebody's work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from k8s.actions import HoldNode, LayOut, OnNode, TakeBack
from k8s.mig import BUSY
from k8s.names import MIG_CONFIG, MIG_STATE
from scheduler.model.node import Health

if TYPE_CHECKING:
    from k8s.lanes import World
    from k8s.sightings import NodeSight


def on_nodes(world: World) -> Iterator[OnNode]:
    """What is to be written on nodes that are cut, or whose cut is given up or over."""
    for name, cut in sorted(world.cuts.items()):
        node = world.sights.get(name)
        if node is None:
            continue
        ask = LayOut(node=node, name=cut.name, since_ms=cut.since_ms) if cut is not None else None
        if ask is not None and node.asked != ask.mark and _is_empty(node, world):
            yield ask
        elif cut is None and _has_not_begun(node):
            yield TakeBack(node=node)
        elif node.epoch != world.epoch:
            yield HoldNode(node=node)


def in_the_way(world: World) -> frozenset[str]:
    """Uids of idle pods that hold cards of nodes that are to be cut."""
    taken = world.taken
    going = {name for name, cut in world.cuts.items() if cut is not None}
    return frozenset(
        uid
        for uid, pod in world.pods.items()
        if pod.node in going and pod.shape.count and not pod.lease and uid not in taken
    )


def _is_empty(node: NodeSight, world: World) -> bool:
    """Nobody holds a card there: none of our pods, not even one that is ending, and no stranger; and nobody cuts it."""
    told = world.nodes.get(node.name)
    if told is None or node.label(MIG_STATE) in BUSY:
        return False
    if any(device.health is Health.EXTERNAL for device in told.devices):
        return False
    if any(shape.node == node.name for held in world.held.values() for shape in held.shapes):
        return False
    return not any(pod.node == node.name and pod.shape.count and not pod.is_over for pod in world.pods.values())


def _has_not_begun(node: NodeSight) -> bool:
    asked = node.asked.rpartition("@")[0]
    return bool(asked) and asked == node.label(MIG_CONFIG) and not node.label(MIG_STATE)
