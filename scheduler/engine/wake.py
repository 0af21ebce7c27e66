"""When the next plan is due even if nothing happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scheduler.engine.trial import Trial
from scheduler.model.plan import Plan, Reserve
from scheduler.model.policy import Preemption, Sort
from scheduler.queueing.calendar import Bands, windows

LOOK_AGAIN_MS = 60_000
"""With preemption by order, standings may change as time passes: look again after a minute."""
CHANGING = frozenset({Sort.EXPECTED, Sort.SERVED})
"""Orders in which what runs may fall behind: it is served more, or runs for longer than it was expected to."""
HORIZON_MS = 7 * 24 * 3_600_000


def wake(trial: Trial, plan: Plan, due_ms: Iterable[int], banned: bool) -> int:
    """The first instant after now at which a plan may differ though no event came, if something waits; 0: none.

    ``due_ms``: when the timetable for deadlines wants something else, when what failed is tried again; 0: never.
    ``banned``: somebody waits for a price band.
    """
    return min((at for at in _instants(trial, plan, due_ms, banned) if at > plan.now_ms), default=0)


def _instants(trial: Trial, plan: Plan, due_ms: Iterable[int], banned: bool) -> Iterator[int]:
    now_ms, policy = plan.now_ms, trial.policy
    yield from due_ms
    yield from (seat.until_ms for seat in trial.awaited)
    yield from (action.start_ms for action in plan.actions if isinstance(action, Reserve))
    yield from trial.calls_ms
    if policy.preemption is Preemption.ALWAYS and policy.sort in CHANGING:
        yield now_ms + LOOK_AGAIN_MS
    if banned:
        bands = Bands(policy.bands)
        yield from (at for band in policy.bands if (at := bands.next_opening_ms(band.name, now_ms)) is not None)
    for reservation in trial.state.reservations.values():
        for window in windows(reservation, now_ms, now_ms + HORIZON_MS):
            yield from window
