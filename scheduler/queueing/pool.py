"""A pool of nodes as a forecast sees it: what is free, what runs, who waits, who may still come."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.model.policy import Backfill
from scheduler.queueing.durations import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An open lease: what it holds of which nodes of the pool, and how far it is."""

    nodes: tuple[int, ...]
    """Positions in ``Pool.free``; a node may appear more than once."""
    amount: int
    """On each of them: thousandths of a card, or of a vCPU for work without cards."""
    elapsed_ms: int
    estimate: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Equal waiting tasks: each takes ``amount`` at ``ranks`` places together."""

    ranks: int = 1
    amount: int
    count: int = 1
    elapsed_ms: int = 0
    """Work its checkpoints keep."""
    estimate: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """What comes while the task waits: one of ``asks`` after another, ``gap_ms`` apart on average."""

    gap_ms: int
    asks: tuple[Ask, ...]
    """A sample of recent ones."""
    are_ahead: bool = False
    """They go before the task (a more entitled queue, a higher priority); else they only fill what it leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The nodes a task may use, what runs on them, and who waits for them ahead of it, first in order first."""

    free: tuple[int, ...]
    running: tuple[Running, ...]
    ahead: tuple[Ask, ...] = ()
    arrivals: tuple[Arrivals, ...] = ()
    backfill: Backfill = Backfill.EASY
