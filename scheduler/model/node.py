"""Hardware as the scheduler sees it: nodes, and the devices on them. A MIG instance is a device of its own."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Lane(StrEnum):
    """Which kind of runtime may use a node."""

    POOL = "pool"
    """Our own runners on a long-lived Ray cluster."""
    JOB = "job"
    """One Ray cluster per job, for users' own programs."""
    ANY = "any"
    """One machine, both lanes on the embedded Ray; isolates less."""


class DeviceKind(StrEnum):
    """What a device is."""

    CARD = "card"
    MIG = "mig"


class Health(StrEnum):
    """Whether a device may take work."""

    OK = "ok"
    QUARANTINED = "quarantined"
    EXTERNAL = "external"
    """Held by something that is not shisuan's."""


class NodeState(StrEnum):
    """Whether a node may take work."""

    READY = "ready"
    CORDONED = "cordoned"
    """Keeps what runs, takes nothing new, until an operator says otherwise."""
    UNREADY = "unready"
    """As cordoned, but its runtime says so, and will say when it is over (a node cordoned in Kubernetes)."""
    LOST = "lost"
    """Its agent stopped answering; what ran there is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One schedulable device. ``id`` is the NVML UUID, ``SIM-...`` of a simulated card, or ``slot:...`` of a card that
    Kubernetes counts and does not name.
    """

    id: str
    model: str
    """Catalogue id, e.g. ``H100-SXM-80GB``; ``unknown`` when the catalogue has no such board."""
    kind: DeviceKind = DeviceKind.CARD
    index: int = 0
    """Position on the node, for people; never used as a key."""
    memory_mib: int = 0
    """Measured, not nominal."""
    parent: str = ""
    """UUID of the card a MIG instance lies on."""
    profile: str = ""
    """MIG profile, e.g. ``1g.10gb``."""
    slice_start: int = -1
    """First memory slice of a MIG instance on its card; -1: not known."""
    slices: int = 0
    """Memory slices it occupies; 0: not known."""
    mig_on: bool = False
    """A card that could be cut into MIG instances and has none: it takes no work as it is."""
    island: str = ""
    """NVLink island; devices of equal non-empty island reach each other over NVLink."""
    simulated: bool = False
    """Declared for trying out; shown as such everywhere and never billed."""
    health: Health = Health.OK
    health_reason: str = ""
    only_whole: bool = False
    """No part of it can be had: its runtime gives it to one process tree at a time (a device plugin of Kubernetes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigPlace:
    """One MIG instance of a layout: where it lies on its card."""

    start: int
    """Its first memory slice."""
    profile: str


Layout = tuple[MigPlace, ...]
"""All MIG instances of a card, by start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLayout:
    """How all cards of a node can be cut at once, under a name: its runtime can do that and nothing else."""

    name: str
    profiles: tuple[tuple[str, int], ...]
    """MIG profile to the number of its instances on all cards together, sorted; whole cards under the empty name."""
    cards: int
    """How many cards the node has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardCut:
    """The last time a card (or a whole node) was cut anew, or is being cut now."""

    card: str = ""
    """UUID; empty: all cards of the node at once, see ``name``."""
    layout: Layout = ()
    """As the card is to be."""
    name: str = ""
    """As the node is to be: one of its :class:`NodeLayout`, by name. Empty: it is one card that is cut."""
    since_ms: int = 0
    """When it was decided. A node that speaks of a cut says of which decision; 0: of whichever is under way."""
    ended_ms: int = 0
    """0: it is under way."""
    problem: str = ""
    """Why it failed; empty: it did not."""

    @property
    def is_told(self) -> bool:
        """The word of a node, which only confirms or refuses; else that of a plan."""
        return not self.since_ms or bool(self.problem and not self.ended_ms)

    def answers(self, cut: CardCut) -> bool:
        """Whether this word of a node is about a cut."""
        same = (self.card, self.layout, self.name) == (cut.card, cut.layout, cut.name)
        return same and self.since_ms in (0, cut.since_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine. Capacities are totals offered to jobs, not what is free now."""

    name: str
    cpu_milli: int
    memory_mib: int
    scratch_mib: int = 0
    devices: tuple[Device, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[str, ...] = ()
    rack: str = ""
    lane: Lane = Lane.ANY
    state: NodeState = NodeState.READY
    state_reason: str = ""
    moving_to: Lane | None = None
    """The lane it is being moved to; it takes no work until it is there."""
    moving_since_ms: int = 0
    moved_ms: int = 0
    """How long its last move between lanes took; 0: it never moved."""
    cuts: tuple[CardCut, ...] = ()
    """Of cards that were cut anew, by card. What a node reports has those only that it refused."""
    layouts: tuple[NodeLayout, ...] = ()
    """In which it can be as a whole, by name; none: its cards are cut one by one, or not at all."""
    layout: str = ""
    """The one of these in which it is; empty: in none, or nobody knows."""
    faults_milli: int = 0
    """What went wrong by the node's own fault, in thousandths of a fault as of ``faults_ms``; forgotten by halves since
    (``scheduler.queueing.health``)."""
    faults_ms: int = 0
    fault_reason: str = ""
    """The latest of them, in a sentence."""
