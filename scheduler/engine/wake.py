"""When the next plan is due even if nothing happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scheduler.engine.candidates import Candidate
from scheduler.engine.trial import Trial
from scheduler.model.plan import Plan, Reserve
from scheduler.queueing.calendar import Bands, windows

LOOK_AGAIN_MS = 60_000
"""Where the order stops what falls behind as time passes, it is looked at no more often than once a minute."""
HORIZON_MS = 7 * 24 * 3_600_000


def wake(trial: Trial, plan: Plan, due_ms: Iterable[int], banned: bool) -> int:
    """The first instant after now at which a plan may differ though no event came, if something waits; 0: none.

    ``due_ms``: when the timetable for deadlines wants something else, when what failed is tried again, when who waits
    overtakes; 0: never.
    ``banned``: somebody waits for a price band.
    """
    return min((at for at in _instants(trial, plan, due_ms, banned) if at > plan.now_ms), default=0)


def overtaken_ms(trial: Trial, waiting: Iterable[Candidate]) -> int:
    """When somebody who waits may next have got ahead of what runs, where the policy stops that; 0: never."""
    at = trial.evictor.standings.change_ms(waiting)
    return max(at, trial.now_ms + LOOK_AGAIN_MS) if at else 0


def _instants(trial: Trial, plan: Plan, due_ms: Iterable[int], banned: bool) -> Iterator[int]:
    now_ms, policy = plan.now_ms, trial.policy
    yield from due_ms
    yield from (seat.until_ms for seat in trial.awaited)
    yield from (action.start_ms for action in plan.actions if isinstance(action, Reserve))
    yield from trial.calls_ms
    if banned:
        bands = Bands(policy.bands)
        yield from (at for band in policy.bands if (at := bands.next_opening_ms(band.name, now_ms)) is not None)
    for reservation in trial.state.reservations.values():
        for window in windows(reservation, now_ms, now_ms + HORIZON_MS):
            yield from window
