"""A gang as one attempt: many ranks report, one STARTED and one FINISHED come out. No Ray, no clock, no threads.

Rank reports stay unacknowledged with their agents until the combined report they went into is, so that whoever takes
over is told all of them again. A combined report's cursor lists those of the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scheduler.model.lease import AttemptState
from scheduler.model.measured import together
from scheduler.model.order import LeaseOrder, Report, ReportKind

STOP_REASON = "another rank of the gang ended"
CURSOR_MARK = "gang:"
_STOPPED = (AttemptState.PREEMPTED, AttemptState.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a rank's report leads to."""

    reports: tuple[Report, ...] = ()
    stop_rest: bool = False
    """The other ranks are to be stopped now."""


class Gang:
    """The ranks of one lease. ``orders`` are all of them, one per rank."""

    def __init__(self, orders: Sequence[LeaseOrder]) -> None:
        self.orders = tuple(sorted(orders, key=lambda order: order.rank))
        first = self.orders[0]
        self.lease_id, self.ranks = first.lease_id, first.ranks
        self.attempt_id = first.tasks[0].attempt_id
        self._started: dict[int, Report] = {}
        self._finished: dict[int, Report] = {}
        self._told_start = self._told_end = self._stopping = False

    @property
    def rendezvous(self) -> str:
        """Where the ranks meet; empty until :meth:`meet`."""
        return self.orders[0].rendezvous

    def meet(self, rendezvous: str) -> None:
        """Settle where the ranks meet, before any of them is told."""
        self.orders = tuple(replace(order, rendezvous=rendezvous) for order in self.orders)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Node of each rank."""
        return tuple(order.node for order in self.orders)

    @property
    def over(self) -> bool:
        """The combined end was told."""
        return self._told_end

    @property
    def broken(self) -> bool:
        """A rank ended otherwise than well."""
        return any(report.state is not AttemptState.SUCCEEDED for report in self._finished.values())

    def silent(self) -> bool:
        """No rank has reported anything."""
        return not self._started and not self._finished

    def take(self, report: Report) -> Outcome:
        """A rank's report. Repeating one is harmless."""
        match report.kind:
            case ReportKind.STARTED:
                self._started[report.rank] = report
                return Outcome(reports=self._start_report())
            case ReportKind.FINISHED:
                self._finished[report.rank] = report
                return self._after_end()
            case ReportKind.PROGRESS if report.rank == 0:
                return Outcome(reports=(report,))
        return Outcome()

    def lose(self, node: str, reason: str, at_ms: int) -> Outcome:
        """A node is gone, and its ranks with it."""
        return self._lose([order.rank for order in self.orders if order.node == node], reason, at_ms)

    def refuse(self, state: AttemptState, reason: str, at_ms: int) -> Outcome:
        """No rank was given to an agent."""
        return self._lose([order.rank for order in self.orders], reason, at_ms, state)

    def _lose(self, ranks: Sequence[int], reason: str, at_ms: int, state: AttemptState = AttemptState.LOST) -> Outcome:
        for rank in ranks:
            if rank not in self._finished:
                self._finished[rank] = Report(
                    kind=ReportKind.FINISHED,
                    at_ms=at_ms,
                    node=self.orders[rank].node,
                    lease_id=self.lease_id,
                    attempt_id=self.attempt_id,
                    rank=rank,
                    state=state,
                    message=reason,
                )
        return self._after_end()

    def _start_report(self) -> tuple[Report, ...]:
        if self._told_start or self._told_end or len(self._started) < self.ranks:
            return ()
        self._told_start = True
        reports = [self._started[rank] for rank in range(self.ranks)]
        latest = max(report.at_ms for report in reports)
        return (replace(reports[0], at_ms=latest, cursor=join("", reports)),)

    def _after_end(self) -> Outcome:
        if self._told_end:
            return Outcome()
        if len(self._finished) == self.ranks:
            self._told_end = True
            return Outcome(reports=(self._end_report(),))
        stop_rest = self.broken and not self._stopping
        self._stopping = self._stopping or stop_rest
        return Outcome(stop_rest=stop_rest)

    def _end_report(self) -> Report:
        """Succeeded when every rank did; else the first end that was not our own doing.

        A stop from outside goes before a failure: ranks that are stopped a moment later fail over the missing peer.
        """
        reports = [self._finished[rank] for rank in range(self.ranks)]
        heard = [*self._started.values(), *reports]
        cursor = join(self.lease_id, heard)
        outputs = tuple(name for report in reports for name in report.outputs)
        measured = together(report.measured for report in reports)
        ends = sorted(
            (r for r in reports if r.state is not AttemptState.SUCCEEDED),
            key=lambda r: (STOP_REASON in r.message, r.state not in _STOPPED, r.at_ms, r.rank),
        )
        at_ms = max(report.at_ms for report in reports)
        base = replace(reports[0], at_ms=at_ms, cursor=cursor, outputs=outputs, measured=measured)
        if not ends:
            return base
        first = ends[0]
        said = first.message or first.state or ""
        alike = len(ends) == self.ranks and {(r.state, r.message) for r in ends} == {(first.state, first.message)}
        message = said if alike else f"rank {first.rank}: {said}"
        # What it saved is rank 0's to tell, whoever failed.
        return replace(base, node=first.node, state=first.state, exit_code=first.exit_code, message=message)


def join(ended: str, reports: Sequence[Report]) -> str:
    """One cursor for several reports; ``ended`` is the lease this ends, if it does. Empty when none is to be kept."""
    cursors = sorted({report.cursor for report in reports if report.cursor})
    return "\n".join([CURSOR_MARK + ended, *cursors]) if cursors else ""


def split(cursor: str) -> tuple[str, tuple[str, ...]]:
    """The lease that this cursor ends (or nothing), and the agents' cursors in it."""
    if not cursor.startswith(CURSOR_MARK):
        return "", (cursor,)
    ended, *parts = cursor.removeprefix(CURSOR_MARK).split("\n")
    return ended, tuple(parts)
