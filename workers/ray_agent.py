"""The agent as a Ray actor, one per node and tenant: detached, named, holding no Ray resources."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from scheduler.model.errors import ExecutorError
from scheduler.model.node import CardCut, Device, Node
from scheduler.model.order import LeaseOrder, LogChunk, Report
from workers.agent import Agent
from workers.remains import read_kept_log, tenants_with_news
from workers.site import free_port

CALLS_AT_ONCE = 8
"""A long poll, an exchange and a few log readers."""
HOME = "SHISUAN_HOME"


class RayAgent:
    """What the bridge calls. Each method is one round trip. An empty ``home`` is the node's own: see
    :func:`own_home`.
    """

    def __init__(self, node: str, tenant: str, home: str) -> None:
        self._agent = Agent(node=node, tenant=tenant, home=Path(home) if home else own_home())

    def exchange(
        self, orders: Sequence[LeaseOrder], stops: Sequence[tuple[str, Sequence[str]]], cursors: Sequence[str]
    ) -> str:
        """Take orders, then stops (reason and lease ids), then acknowledgements. All may be repeated.

        Returns why the orders were refused, or nothing.
        """
        refusal = ""
        try:
            if orders:
                self._agent.submit(orders)
        except (ExecutorError, OSError, ValueError) as error:
            refusal = repr(error)
        for reason, lease_ids in stops:
            self._agent.stop(lease_ids, reason)
        if cursors:
            self._agent.acknowledge(cursors)
        return refusal

    def poll(self, after_cursor: str, wait_ms: int, limit: int) -> tuple[Report, ...]:
        """See :meth:`workers.agent.Agent.poll`."""
        return self._agent.poll(after_cursor, wait_ms, limit)

    def free_port(self, ip: str) -> int:
        """See :func:`workers.site.free_port`. Raises OSError."""
        return free_port(ip)

    def close(self) -> None:
        """End all that runs here."""
        self._agent.close()

    def inventory(self) -> Report:
        """See :meth:`workers.agent.Agent.inventory`."""
        return self._agent.inventory()

    def read_log(self, attempt_id: str, offset: int, limit: int, rank: int) -> LogChunk:
        """See :meth:`workers.agent.Agent.read_log`. Raises NotFound."""
        return self._agent.read_log(attempt_id, offset, limit, rank)


class RayProbe:
    """What the bridge asks a node of an existing cluster before it has an agent there. Dies with the bridge.

    An empty ``home`` is the node's own: see :func:`own_home`.
    """

    def facts(self, name: str) -> Node:
        """The machine as its own tools see it."""
        from workers.facts import local_node

        return local_node(name)

    def own_facts(self, name: str) -> Node:
        """The pod as its own tools see it, with the space of its home."""
        from workers.facts import local_node

        return local_node(name, home=own_home())

    def cut(
        self, home: str, node: str, devices: Sequence[Device], cuts: Sequence[CardCut]
    ) -> tuple[tuple[Device, ...], tuple[CardCut, ...]]:
        """See :func:`workers.cutting.cut_cards`."""
        from workers.cutting import cut_cards

        return cut_cards(Path(home) if home else own_home(), node, devices, cuts)

    def tenants(self, home: str, node: str) -> tuple[str, ...]:
        """See :func:`workers.remains.tenants_with_news`."""
        return tenants_with_news(Path(home) if home else own_home(), node)

    def read_log(  # noqa: PLR0917 (Ray's remote calls are positional here)
        self, home: str, node: str, attempt_id: str, offset: int, limit: int, rank: int
    ) -> LogChunk:
        """See :func:`workers.remains.read_kept_log`."""
        return read_kept_log(Path(home) if home else own_home(), node, attempt_id, offset, limit, rank)


def own_home() -> Path:
    """The home folder that this Ray node was started with: pods share no disk. Raises ExecutorError."""
    home = os.environ.get(HOME, "")
    if not home:
        raise ExecutorError(f"this Ray node was started without {HOME}: name a folder of the pod's own in it")
    return Path(home)


def agent_actor(*, name: str, node_id: str, node: str, tenant: str, home: str) -> Any:
    """Handle of the named agent, created on that node when there is none. Its first call says whether it lives."""
    return (
        ray.remote(RayAgent)
        .options(
            name=name,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=CALLS_AT_ONCE,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )
        .remote(node, tenant, home)
    )


def probe_actor(node_id: str) -> Any:
    """A probe on that node."""
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(RayProbe).options(num_cpus=0, max_restarts=0, scheduling_strategy=strategy).remote()
