"""Who is next and does not fit: whom it may stop, who leaves for it, and which start it is promised by that."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from scheduler.engine.candidates import Candidate
from scheduler.engine.guard import Promise
from scheduler.engine.leave import LEAST_MS
from scheduler.engine.limits import slot_reason
from scheduler.engine.trial import Trial
from scheduler.model.plan import Preempt, ReasonKind
from scheduler.queueing.calendar import FOREVER_MS

Stops = tuple[bool, tuple[Preempt, ...]]
"""Whether the candidate will have room, and whom the plan stops for that."""


def pass_over(trial: Trial, candidate: Candidate) -> tuple[Preempt, ...]:
    """The candidate is next and does not fit: stop others for it if it is entitled, and promise it its start."""
    if candidate.key in trial.slots:
        candidate.blocked = candidate.blocked or slot_reason(trial.slots[candidate.key], trial.now_ms)
        return ()
    if trial.promise_of(candidate) is not None:
        return ()
    evictor, starts, is_full = trial.evictor, trial.starts, len(trial.promises) >= trial.promises_max
    may_stop = evictor.may_try(candidate)
    if not candidate.left or (not may_stop and evictor.is_full and is_full):
        return ()
    candidate.blocked = candidate.blocked or trial.limit(candidate)
    quota = candidate.blocked is not None and candidate.blocked.kind is ReasonKind.QUOTA
    if candidate.blocked is not None and not quota:
        return ()
    promised = trial.needs_promise(candidate) and not quota and not is_full
    if not (may_stop or promised):
        evictor.passed(candidate)
        return ()
    trial.set_chunk(candidate)
    names, leave = trial.possible(candidate), trial.leave(candidate)
    ahead = candidate.key not in starts.recorded
    calls = bool(leave) and promised and may_stop and trial.leavers.lead_ms(names, leave) is not None
    expected, stops = _entitled(trial, candidate, names, leave if calls else "") if may_stop else (False, ())
    # Who is at a limit starts when those have ended whose stop lets it.
    from_ms = evictor.opens_ms(candidate, trial.expected.stops()) if quota and expected else trial.now_ms
    leave = "" if calls and expected else leave  # nobody else is told
    promise = trial.promise(candidate, names, leave, from_ms) if promised or expected else None
    if promise is not None and not expected:
        expected, stops = _call_in(trial, candidate, promise, () if ahead else starts.beside(promise))
    if not expected:
        trial.unhurried.update(promise.nodes if promise is not None else ())
        evictor.passed(candidate)
    return stops


def _entitled(trial: Trial, candidate: Candidate, names: Sequence[str], leave: str) -> Stops:
    """Stops to which it is entitled, if there is no start at least as early without them.

    ``leave``: its job where others leave for its start, else empty. They do so only if it has no room by stops: both
    together would stop more than it needs, and its start would be promised as if all of them were told.
    """
    evictor, starts, expected = trial.evictor, trial.starts, trial.expected
    called = starts.expected(candidate, names, leave, gaps=trial.has_gaps) if leave else None
    before = evictor.mark()
    with evictor.beside(() if candidate.key not in starts.recorded else starts.others(candidate)):
        has_room, stops = _stop_for(trial, candidate, [n for n in names if n not in trial.closed(candidate)])
    if not has_room or called is None:
        return has_room, stops
    alone = starts.expected(candidate, names, "", gaps=trial.has_gaps)
    if alone is not None:
        # Who leaves is counted a millisecond later than who is stopped (``Expected.end_ms``).
        is_sooner = alone.start_ms + 1 < called.start_ms if stops else alone.start_ms <= called.start_ms
        if is_sooner:
            return True, stops
    evictor.back(before)
    expected.go_on(stop.lease_id for stop in stops)
    return False, ()


def _call_in(trial: Trial, candidate: Candidate, promise: Promise, others: Sequence[Promise]) -> Stops:
    """Stops for its promised start: what leaves for it is told in time to be gone with the others.

    ``others``: other promised starts. What those need that begin later may still be held when it starts.
    """
    nodes, start_ms, now_ms, evictor = promise.nodes, promise.start_ms, trial.now_ms, trial.evictor
    lead_ms = trial.leavers.lead_ms(nodes, candidate.job.id) if trial.leave(candidate) else None
    if lead_ms is None:
        return False, ()
    is_due = start_ms - lead_ms <= now_ms + 1
    if not is_due:
        trial.calls_ms.append(start_ms - lead_ms)
    # What is told late must not wait for what ends only after the promised instant.
    promised_ms = max(start_ms - now_ms, LEAST_MS)
    evictor.expect(trial.leavers.ending(nodes, min(lead_ms, promised_ms)))
    presumed = trial.leavers.presumed(promise) if trial.promises_max > 1 else frozenset[str]()
    late = frozenset(key for end_ms, key in trial.expected.stops() if end_ms > now_ms + promised_ms)
    begun = [other for other in others if other.start_ms <= start_ms]
    for beside in (others, begun) if is_due and len(begun) < len(others) else (others,):
        with evictor.without(late), evictor.beside(beside):
            has_room, stops = _stop_for(trial, candidate, nodes, promised_ms, presumed)
        if has_room:
            last_ms = start_ms + trial.stay(candidate).last_ms - now_ms
            more = evictor.spare_slots(candidate, promise, last_ms, trial.guard)
            trial.expected.stop(stop.lease_id for stop in more)
            return True, (*stops, *more)
    with evictor.beside(others):
        return _stop_for(trial, candidate, nodes, FOREVER_MS)


def _stop_for(
    trial: Trial, candidate: Candidate, names: Sequence[str], promised_ms: int = 0, presumed: Collection[str] = ()
) -> Stops:
    """Stops for the candidate. ``promised_ms``: of what leaves for its start, in so long."""
    free = [name for name in names if name not in trial.unhurried]
    if trial.evictor.fits_when_stopped(candidate, free):
        return True, ()
    stops = trial.evictor.victims(candidate, free, promised_ms, presumed)
    trial.expected.stop(stop.lease_id for stop in stops)
    return bool(stops), stops
