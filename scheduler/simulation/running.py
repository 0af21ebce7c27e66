"""An attempt between its grant and its end, and what its end keeps and loses."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.model.job import Step
from scheduler.model.lease import AttemptState, Lease
from scheduler.simulation.scenario import Script

WHOLE_PERMILLE = 1_000


@dataclass(slots=True)
class Running:
    """An attempt that holds its lease."""

    lease: Lease
    step: Step
    script: Script
    kept_ms: int
    """Work that checkpoints had kept before it."""
    began_ms: int
    """When it could begin: its lease's grant, or the end of the attempt before it."""
    started_ms: int
    end_ms: int
    state: AttemptState
    reason: str
    version: int = 0
    """Of its entry in the heap: older ones are void."""

    def stop(self, end_ms: int, state: AttemptState, reason: str) -> bool:
        """It is to end at ``end_ms``. False: it ends before that by itself."""
        if self.end_ms <= end_ms:
            return False
        self.end_ms, self.reason = end_ms, reason
        self.state = self.script.stop_state or state
        self.version += 1
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What is left of an attempt that ended."""

    kept_ms: int
    """Work of the task that checkpoints keep now; 0 after success, when nobody needs it."""
    lost_ms: int
    """Time in vain, for each rank."""
    saved_at_ms: int
    """Instant of its last checkpoint; 0: none."""


def ended(running: Running, end_ms: int) -> Ended:
    """Work is kept up to the last checkpoint; catching up, and what came after the checkpoint, was in vain."""
    script, ranks = running.script, len(running.lease.allocations)
    if running.state is AttemptState.SUCCEEDED:
        return Ended(kept_ms=0, lost_ms=script.catch_up_ms * ranks, saved_at_ms=0)
    saved_ms = _saved_ms(running, end_ms)
    began_ms = running.started_ms + script.catch_up_ms
    return Ended(
        kept_ms=running.kept_ms + saved_ms * script.speed_permille // WHOLE_PERMILLE,
        lost_ms=max(end_ms - running.began_ms - saved_ms, 0) * ranks,
        saved_at_ms=began_ms + saved_ms if saved_ms else 0,
    )


def _saved_ms(running: Running, end_ms: int) -> int:
    """Time in which work was done that a checkpoint keeps."""
    script, every_ms = running.script, running.step.checkpoint_ms
    ran_ms = end_ms - running.started_ms
    if script.saved_ms >= 0 and ran_ms == script.saved_after_ms:
        return max(script.saved_ms - script.catch_up_ms, 0)
    done_ms = max(ran_ms - script.catch_up_ms, 0)
    return done_ms // every_ms * every_ms if every_ms else 0
