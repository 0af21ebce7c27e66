"""When the next plan is due even if nothing happens."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.engine.trial import Trial
from scheduler.model.plan import Plan, ReasonKind, Reserve
from scheduler.model.policy import Preemption
from scheduler.queueing.calendar import Bands, windows

RETRY_MS = 1_000
LOOK_AGAIN_MS = 60_000
"""With preemption by order, standings change as time passes: look again after a minute."""
HORIZON_MS = 7 * 24 * 3_600_000


def wake(trial: Trial, plan: Plan, steer_ms: int) -> int:
    """The first instant after now at which a plan may differ though no event came; 0: none is known.

    ``steer_ms``: when the timetable for deadlines wants something else; 0: never.
    """
    if not plan.waits:
        return 0
    return min((at for at in _instants(trial, plan, steer_ms) if at > plan.now_ms), default=0)


def _instants(trial: Trial, plan: Plan, steer_ms: int) -> Iterator[int]:
    now_ms, policy = plan.now_ms, trial.policy
    yield steer_ms
    yield from (action.start_ms for action in plan.actions if isinstance(action, Reserve))
    kinds = {reason.kind for wait in plan.waits for reason in wait.reasons}
    if ReasonKind.RETRY_LATER in kinds:
        yield now_ms + RETRY_MS
    if policy.preemption is Preemption.ALWAYS:
        yield now_ms + LOOK_AGAIN_MS
    if ReasonKind.CALENDAR in kinds:
        bands = Bands(policy.bands)
        yield from (at for band in policy.bands if (at := bands.next_opening_ms(band.name, now_ms)) is not None)
    for reservation in trial.state.reservations.values():
        for window in windows(reservation, now_ms, now_ms + HORIZON_MS):
            yield from window
