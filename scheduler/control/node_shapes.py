"""Nodes and their cards, as plain JSON values."""

from __future__ import annotations

from typing_extensions import TypedDict  # pydantic reads these for OpenAPI, and typing's own only from Python 3.12


class DeviceView(TypedDict):
    """A card or a MIG instance."""

    id: str
    index: int
    model: str
    kind: str
    profile: str
    parent: str
    memory_mib: int
    island: str
    simulated: bool
    health: str
    health_reason: str
    job_id: str
    lease_id: str


class CutView(TypedDict):
    """The last time a card, or all cards of a node, were cut into other MIG instances, or are being cut now."""

    card: str
    """Empty: all cards of the node."""
    layout: str
    """Profiles with their first memory slices, or the name of the node's layout."""
    since_ms: int
    ended_ms: int
    """0: it is under way."""
    problem: str
    """Why it failed; empty: it did not."""


class NodeView(TypedDict):
    """A machine, and what is free of it now."""

    name: str
    state: str
    state_reason: str
    lane: str
    rack: str
    labels: dict[str, str]
    taints: list[str]
    cpu_milli: int
    memory_mib: int
    scratch_mib: int
    cpu_milli_free: int
    memory_mib_free: int
    simulated: bool
    faults_milli: int
    """What went wrong lately by its own fault, in thousandths of a fault, decayed to now; 0: nothing."""
    fault_reason: str
    """The latest fault, in a sentence."""
    fault_ms: int
    """Its instant; 0: none."""
    layout: str
    """In which of ``layouts`` its cards are; empty: in none, or nobody knows."""
    layouts: list[str]
    """Into which its runtime can cut all its cards at once, by name."""
    cuts: list[CutView]
    devices: list[DeviceView]


class NodeList(TypedDict):
    """Nodes by name."""

    nodes: list[NodeView]
