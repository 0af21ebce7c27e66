"""Nodes on their way to another lane: they take nothing new, drain, and come back after what the change truly costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from scheduler.engine import Engine
from scheduler.model.event import NodeSeen
from scheduler.model.layout import after_cut, laid_out
from scheduler.model.lease import LeaseRecord
from scheduler.model.node import Node, NodeState
from scheduler.model.plan import Convert, Recut


class Lanes:
    """Changes that were decided and are not over."""

    def __init__(self, seed: int, cost_ms: tuple[int, int]) -> None:
        """``cost_ms``: least and greatest length of a change."""
        self._seed = seed
        self._cost_ms = cost_ms
        self._begun = 0
        self._waiting: dict[str, Convert] = {}

    def begin(self, action: Convert) -> bool:
        """A change was decided. False: the node is on its way already."""
        if action.node in self._waiting:
            return False
        self._waiting[action.node] = action
        return True

    def forget(self, node: str) -> None:
        """The node is gone."""
        self._waiting.pop(node, None)

    def drained(self, engine: Engine, now_ms: int) -> Iterator[NodeSeen]:
        """For each waiting node that holds nothing any more: when and how it comes back."""
        for name, action in list(self._waiting.items()):
            if on_node(engine, name):
                continue
            del self._waiting[name]
            self._begun += 1
            low, high = self._cost_ms
            cost_ms = int(np.random.default_rng([self._seed, self._begun]).integers(low, high + 1))
            node = replace(
                _node(engine, name),
                lane=action.lane,
                state=NodeState.READY,
                state_reason="",
                moving_to=None,
                moving_since_ms=0,
            )
            yield NodeSeen(at_ms=now_ms + cost_ms, node=node)


def cut(engine: Engine, action: Recut, now_ms: int) -> NodeSeen:
    """A card, or a whole node, is cut: what the node says then."""
    node = _node(engine, action.node)
    if action.name:
        return NodeSeen(at_ms=now_ms, node=laid_out(node, action.name))
    return NodeSeen(at_ms=now_ms, node=replace(node, devices=after_cut(node.devices, action.card, action.layout)))


def on_node(engine: Engine, node: str) -> list[LeaseRecord]:
    """Open leases with a rank on the node."""
    return [r for r in engine.leases() if any(held.node == node for held in r.lease.allocations)]


def _node(engine: Engine, name: str) -> Node:
    return next(node for node in engine.nodes() if node.name == name)
