"""Transitions of one StepRecord: which tasks wait, run and are over, and how often each was tried.

A waiting task costs nothing: attempts are stored only where they differ from what the task's state implies.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from scheduler.model.changed import replace
from scheduler.model.job import Seat, Step, StepRecord
from scheduler.model.ranges import Ranges

RUN_MEAN_WINDOW = 64
"""The running mean follows about this many last tasks, so that a step whose frames grow heavier is noticed."""
WARM_NODES_KEPT = 4
"""A step remembers this few nodes: warmth is lost quickly and the record is written often."""


def new_step(step: Step) -> StepRecord:
    """All tasks wait."""
    return StepRecord(name=step.name, waiting=Ranges.span(0, step.count))


def tries(record: StepRecord, index: int) -> tuple[int, int]:
    """``(attempts made, of which counted against retries)`` of one task."""
    at = bisect_left(record.attempts, (index,))
    if at < len(record.attempts) and record.attempts[at][0] == index:
        return record.attempts[at][1:]
    return (1, 0) if index in record.running or index in record.succeeded else (0, 0)


def times_lost(record: StepRecord, index: int) -> int:
    """How often the park lost this task since it was submitted or retried."""
    at = bisect_left(record.lost, (index,))
    return record.lost[at][1] if at < len(record.lost) and record.lost[at][0] == index else 0


def grant(record: StepRecord, indices: Sequence[int], nodes: Sequence[str] = ()) -> StepRecord:
    """Waiting tasks become running, each with one more attempt. ``nodes``: where, for steps with a warm key.

    The caller has checked that every index waits.
    """
    waiting, running, attempts = record.waiting, record.running, record.attempts
    for index in indices:
        waiting, running = waiting.remove(index), running.add(index)
        if attempts:  # else it is the task's first
            made, counted = tries(record, index)
            attempts = _with_tries(attempts, index, (made + 1, counted), (1, 0))
    later = record.later and _outside(record.later, indices)
    warm = tuple(dict.fromkeys((*nodes, *record.warm_nodes)))[:WARM_NODES_KEPT] if nodes else record.warm_nodes
    return replace(record, waiting=waiting, running=running, attempts=attempts, later=later, warm_nodes=warm)


def keep_seat(record: StepRecord, seat: Seat, at_ms: int) -> StepRecord:
    """One more seat; those that nobody took in time are forgotten."""
    return replace(record, seats=(*(kept for kept in record.seats if kept.until_ms > at_ms), seat))


def sit(record: StepRecord, nodes: Sequence[str]) -> StepRecord:
    """A lease was granted on ``nodes``, sorted, each once: a seat that is there is taken."""
    own = next((seat for seat in record.seats if sorted(set(seat.nodes)) == list(nodes)), None)
    left = list(record.seats)
    if own is not None:
        left.remove(own)
    return replace(record, seats=tuple(left))


def succeed(record: StepRecord, index: int, run_ms: int, served_ms: int = 0) -> StepRecord:
    """A running task succeeded after ``run_ms`` (0: its start was never seen, so it teaches nothing).

    ``served_ms``: service that the lease which closed with it was.
    """
    mean, count = record.run_ms_mean, record.run_count
    if run_ms > 0:
        count += 1
        window = min(count, RUN_MEAN_WINDOW)
        mean = max(1, (mean * (window - 1) + run_ms + window // 2) // window)
    return replace(
        record,
        running=record.running.remove(index),
        succeeded=record.succeeded.add(index),
        attempts=record.attempts and _with_tries(record.attempts, index, tries(record, index), (1, 0)),
        lost=record.lost and _with_entry(record.lost, index, 0),
        worked=record.worked and _with_entry(record.worked, index, 0),
        suspects=record.suspects and _cleared(record.suspects, index),
        served_ms=record.served_ms + served_ms,
        run_ms_mean=mean,
        run_count=count,
    )


def worked_ms(record: StepRecord, index: int) -> int:
    """Work on one task that its checkpoints keep, at full speed."""
    at = bisect_left(record.worked, (index,))
    return record.worked[at][1] if at < len(record.worked) and record.worked[at][0] == index else 0


def keep_work(record: StepRecord, index: int, ms: int) -> StepRecord:
    """A checkpoint keeps ``ms`` more of the work on a task."""
    return replace(record, worked=_with_entry(record.worked, index, worked_ms(record, index) + ms))


def wait_again(record: StepRecord, index: int, *, counted: bool, lost: bool, from_ms: int = 0) -> StepRecord:
    """A running task ended without success and waits for its next attempt, which is not to start before ``from_ms``."""
    made, before = tries(record, index)
    return replace(
        record,
        running=record.running.remove(index),
        waiting=record.waiting.add(index),
        attempts=_with_tries(record.attempts, index, (made, before + counted), (0, 0)),
        lost=_with_entry(record.lost, index, times_lost(record, index) + lost),
        later=_with_entry(record.later, index, from_ms) if from_ms else record.later,
    )


def suspect(record: StepRecord, index: int, node: str) -> StepRecord:
    """A task failed on a node."""
    return replace(record, suspects=tuple(sorted({*record.suspects, (index, node)})))


def suspects_of(record: StepRecord, index: int) -> list[str]:
    """Nodes on which the task failed, sorted."""
    return [node for each, node in record.suspects if each == index]


def _still(record: StepRecord) -> tuple[tuple[int, str], ...]:
    return tuple([entry for entry in record.suspects if entry[0] not in record.waiting])


def _cleared(suspects: tuple[tuple[int, str], ...], index: int) -> tuple[tuple[int, str], ...]:
    return tuple([entry for entry in suspects if entry[0] != index])


def delayed(record: StepRecord, now_ms: int) -> list[tuple[int, int]]:
    """``(index, instant)`` of waiting tasks whose next attempt starts later than now."""
    return [entry for entry in record.later if entry[1] > now_ms]


def ready(record: StepRecord, now_ms: int) -> Ranges:
    """Waiting tasks that may start as far as it is up to them."""
    found = delayed(record, now_ms) if record.later else ()
    return _without(record.waiting, Ranges.of(index for index, _ in found)) if found else record.waiting


def hurry(record: StepRecord, indices: Sequence[int] = ()) -> StepRecord:
    """Tasks that failed (those among ``indices`` when given) need not wait before their next attempt."""
    if not record.later:
        return record
    return replace(record, later=_outside(record.later, indices) if indices else ())


def fail(record: StepRecord, index: int, *, counted: bool) -> StepRecord:
    """A running task ended for the last time without success. Its attempts are always stored."""
    made, before = tries(record, index)
    return replace(
        record,
        running=record.running.remove(index),
        failed=record.failed.add(index),
        suspects=_cleared(record.suspects, index),
        attempts=_with_tries(record.attempts, index, (made, before + counted), None),
    )


def cancel_running(record: StepRecord, index: int, *, counted: bool) -> StepRecord:
    """A running task of a job that is being stopped ended without success."""
    made, before = tries(record, index)
    return replace(
        record,
        running=record.running.remove(index),
        cancelled=record.cancelled.add(index),
        suspects=_cleared(record.suspects, index),
        attempts=_with_tries(record.attempts, index, (made, before + counted), (0, 0)),
    )


def cancel_waiting(record: StepRecord) -> StepRecord:
    """Every waiting task is cancelled; costs the same for one task and for a million."""
    if not record.waiting.spans:
        return record
    return replace(
        record, waiting=Ranges(), cancelled=record.cancelled.union(record.waiting), later=(), suspects=_still(record)
    )


def reset(record: StepRecord, indices: Sequence[int] = ()) -> StepRecord:
    """Failed and cancelled tasks (those among ``indices`` when given) wait again with a fresh retry budget."""
    if indices:
        again = Ranges.of(i for i in indices if i in record.failed or i in record.cancelled)
    else:
        again = record.failed.union(record.cancelled)
    if not again.spans:
        return record
    return replace(
        record,
        waiting=record.waiting.union(again),
        failed=_without(record.failed, again),
        cancelled=_without(record.cancelled, again),
        attempts=tuple(_forgiven(record.attempts, again)),
        lost=tuple(entry for entry in record.lost if entry[0] not in again),
    )


def redo(record: StepRecord, indices: Sequence[int] = ()) -> StepRecord:
    """Tasks that succeeded (those among ``indices`` when given) wait again, for another result than they gave."""
    again = Ranges.of(i for i in indices if i in record.succeeded) if indices else record.succeeded
    if not again.spans:
        return record
    attempts, redone = dict[int, tuple[int, int]](), dict(record.redone)
    for index in again:
        made, _ = tries(record, index)
        attempts[index], redone[index] = (made, 0), made + 1
    attempts = {index: (made, counted) for index, made, counted in record.attempts} | attempts
    return replace(
        record,
        waiting=record.waiting.union(again),
        succeeded=_without(record.succeeded, again),
        attempts=tuple((index, *attempts[index]) for index in sorted(attempts)),
        redone=tuple(sorted(redone.items())),
    )


def stale_before(record: StepRecord, index: int) -> int:
    """Number of the first attempt whose outputs count; 0 when all do."""
    at = bisect_left(record.redone, (index,))
    return record.redone[at][1] if at < len(record.redone) and record.redone[at][0] == index else 0


def is_done(step: Step, record: StepRecord) -> bool:
    """Every task succeeded."""
    return len(record.succeeded) == step.count


def is_broken(record: StepRecord) -> bool:
    """Nothing waits or runs, and not every task succeeded: steps that need this one can never start."""
    idle = not record.waiting.spans and not record.running.spans
    return idle and bool(record.failed.spans or record.cancelled.spans)


def _forgiven(attempts: Iterable[tuple[int, int, int]], again: Ranges) -> Iterable[tuple[int, int, int]]:
    for index, made, counted in attempts:
        yield (index, made, 0) if index in again else (index, made, counted)


def _outside(entries: tuple[tuple[int, int], ...], indices: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple([entry for entry in entries if entry[0] not in indices])


def _without(these: Ranges, gone: Ranges) -> Ranges:
    """Members of ``these`` that are not in ``gone``; costs the product of their spans."""
    kept: list[tuple[int, int]] = []
    for first, end in these.spans:
        start = first
        for gone_start, gone_end in gone.spans:
            if gone_end <= start or gone_start >= end:
                continue
            if gone_start > start:
                kept.append((start, gone_start))
            start = gone_end
        if start < end:
            kept.append((start, end))
    return Ranges(tuple(kept))


def _with_tries(
    attempts: tuple[tuple[int, int, int], ...], index: int, value: tuple[int, int], implied: tuple[int, int] | None
) -> tuple[tuple[int, int, int], ...]:
    at = bisect_left(attempts, (index,))
    known = at < len(attempts) and attempts[at][0] == index
    entry = () if value == implied else ((index, *value),)
    if not known and not entry:
        return attempts
    return (*attempts[:at], *entry, *attempts[at + known :])


def _with_entry(entries: tuple[tuple[int, int], ...], index: int, value: int) -> tuple[tuple[int, int], ...]:
    """``entries`` with ``value`` for ``index``; a zero is not stored."""
    at = bisect_left(entries, (index,))
    known = at < len(entries) and entries[at][0] == index
    entry = ((index, value),) if value else ()
    if not known and not entry:
        return entries
    return (*entries[:at], *entry, *entries[at + known :])
