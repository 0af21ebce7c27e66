"""Tasks that failed and wait before they are tried again, in words and as instants."""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.model.job import StepRecord
from scheduler.model.plan import Reason, ReasonKind, Wait
from scheduler.queueing.tasks import delayed


def backoff_of(record: StepRecord, now_ms: int) -> tuple[int, tuple[Reason, ...]]:
    """How many of a step's waiting tasks may not start yet because they failed, and the reason, if any."""
    found = delayed(record, now_ms)
    if not found:
        return 0, ()
    index, until_ms = min(found, key=lambda entry: (entry[1], entry[0]))
    in_s = -((now_ms - until_ms) // 1000)
    if len(found) == 1:
        message = f"task {index} failed and is tried again in {in_s} s"
    else:
        message = (
            f"{len(found)} tasks failed and wait before they are tried again; the first, {index}, starts in {in_s} s"
        )
    return len(found), (Reason(kind=ReasonKind.BACKOFF, resource=str(index), message=message, until_ms=until_ms),)


def ends_ms(waits: Iterable[Wait]) -> int:
    """The first instant at which one of them has waited long enough; 0: none waits for a known instant."""
    return min((r.until_ms for wait in waits for r in wait.reasons if r.until_ms), default=0)
