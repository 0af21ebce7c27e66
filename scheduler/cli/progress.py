"""PURE. What a live view needs to know: how far each step is, and when it will be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FINAL = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One step's line."""

    name: str
    count: int
    done: int
    running: int
    failed: int
    progress_milli: int
    state: str
    eta_ms: int | None
    """Time left; None while nothing can be said."""


@dataclass(slots=True)
class Pace:
    """Progress seen since watching began. Fed with snapshots and the time at which each was seen."""

    _first: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Step name to (instant in ms, progress in thousandths) when it was first seen running."""

    def see(self, job: Mapping[str, Any], now_ms: int) -> tuple[StepView, ...]:
        """The lines of ``job`` as seen at ``now_ms``."""
        return tuple(self._see_step(step, now_ms) for step in job.get("steps", ()))

    def _see_step(self, step: Mapping[str, Any], now_ms: int) -> StepView:
        name, milli = str(step["name"]), int(step.get("progress_milli", 0))
        running = int(step.get("running", 0))
        if running and name not in self._first:
            self._first[name] = (now_ms, milli)
        return StepView(
            name=name,
            count=int(step["count"]),
            done=int(step.get("succeeded", 0)),
            running=running,
            failed=int(step.get("failed", 0)),
            progress_milli=milli,
            state=step_state(step),
            # The service knows every task's run time so far; while none has ended, the pace seen here must do.
            eta_ms=int(step.get("eta_ms", 0)) or self._eta(name, milli, now_ms),
        )

    def _eta(self, name: str, milli: int, now_ms: int) -> int | None:
        if milli >= 1000 or name not in self._first:
            return None
        since_ms, from_milli = self._first[name]
        gained, spent_ms = milli - from_milli, now_ms - since_ms
        if gained <= 0 or spent_ms <= 0:
            return None
        return spent_ms * (1000 - milli) // gained


def step_state(step: Mapping[str, Any]) -> str:
    """One word for a step, from its counts: what is most worth knowing comes first."""
    count = int(step["count"])
    if int(step.get("succeeded", 0)) == count:
        return "succeeded"
    for state in ("running", "failed", "waiting", "cancelled"):
        if int(step.get(state, 0)):
            return state
    return "waiting"


def is_final(job: Mapping[str, Any]) -> bool:
    """Nothing more happens to this job by itself."""
    return job["state"] in FINAL
