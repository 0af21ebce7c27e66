"""Every knob of the engine in one frozen class; each default says why."""

from __future__ import annotations

from dataclasses import dataclass

MAX_LOST_ATTEMPTS = 20
"""A task lost more often than this fails: something about it kills nodes. Not a field of Policy, because it decides in
``apply``, which must give the same records at every replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Given to ``Engine.plan`` as an argument, so that a replay knows it."""

    chunk_target_ms: int = 1_000
    """Tasks measured shorter than this are leased several at a time: a second of work hides the ~10 ms of a cycle."""
    chunk_max: int = 64
    """No lease carries more tasks than this, so that a lost agent costs little."""
    chunk_after: int = 3
    """Tasks of a step that must have succeeded before their measured time is trusted for chunks."""
    starts_per_cycle: int = 2_000
    """Bounds one cycle's transaction."""
