"""Every knob of the engine in one frozen class; each default says why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Given to ``Engine.plan`` as an argument, so that a replay knows it."""

    chunk_target_ms: int = 1_000
    """Tasks measured shorter than this are leased several at a time: a second of work hides the ~10 ms of a cycle."""
    chunk_max: int = 64
    """No lease carries more tasks than this, so that a lost agent costs little."""
    max_lost_attempts: int = 20
    """A task lost this often fails: something about it kills nodes."""
    starts_per_cycle: int = 2_000
    """Bounds one cycle's transaction."""
