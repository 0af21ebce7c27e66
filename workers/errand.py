"""The one lease that a job's own cluster is there for, as its bridge sees it pass by: when is it over, and how.

No clock, no sockets: messages in, an exit code or a reason out.
"""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.model.lease import AttemptState
from scheduler.model.order import GANG_INCOMPLETE, LeaseOrder, Report, ReportKind
from workers.messages import Begin, Message, Recorded, Told


class Errand:
    """``pods`` must be there before the lease can begin. ``lease_id`` and ``attempt_id`` name it when it ends before
    an order did.
    """

    def __init__(self, *, pods: int = 1, lease_id: str = "", attempt_id: str = "") -> None:
        self._pods, self._lease_id = pods, lease_id
        self._attempts: dict[str, LeaseOrder | None] = {attempt_id: None} if lease_id else {}
        self._there: set[str] = set()
        self._states: dict[str, AttemptState] = {}
        self._cursors: dict[str, str] = {}
        """Of each attempt's end; empty when no agent keeps it, so that nobody will acknowledge it."""
        self._recorded: set[str] = set()
        self.begun = False
        """Something of it started or ended."""

    def hear(self, message: Message) -> None:
        """What went either way. Repetitions are harmless."""
        match message:
            case Begin(orders=orders):
                self._ordered(orders)
            case Told(reports=reports):
                for report in reports:
                    self._told(report)
            case Recorded(cursors=cursors):
                self._recorded |= set(cursors)

    @property
    def ended(self) -> bool:
        """Each of its attempts has an end."""
        return bool(self._attempts) and self._states.keys() >= self._attempts.keys()

    @property
    def over(self) -> bool:
        """It ended, and each end that is kept was acknowledged."""
        return self.ended and all(cursor in self._recorded for cursor in self._cursors.values() if cursor)

    @property
    def unkept(self) -> bool:
        """An end is kept by no agent: it was told once, and nobody will acknowledge it."""
        return not all(self._cursors.values())

    def exit_code(self) -> int:
        """0 when all of it succeeded."""
        return 0 if self.ended and set(self._states.values()) == {AttemptState.SUCCEEDED} else 1

    def missing(self, within_s: float) -> str:
        """Why it cannot begin any more, once ``within_s`` has passed; empty when nothing is missing."""
        if self.begun or len(self._there) >= self._pods:
            return ""
        there = ", ".join(sorted(self._there)) or "none"
        return f"{GANG_INCOMPLETE}: {len(self._there)} of {self._pods} pods came within {within_s:.0f} s ({there})"

    def losses(self, reason: str, at_ms: int) -> tuple[Report, ...]:
        """Its attempts reported lost, without cursors; before an order came, under the names that were given."""
        return tuple(
            Report(
                kind=ReportKind.FINISHED,
                at_ms=at_ms,
                node=order.node if order else "",
                tenant=order.tenant if order else "",
                lease_id=self._lease_id,
                attempt_id=attempt_id,
                state=AttemptState.LOST,
                message=reason,
            )
            for attempt_id, order in (self._attempts or {"": None}).items()
        )

    def _ordered(self, orders: Iterable[LeaseOrder]) -> None:
        for order in orders:
            self._lease_id = self._lease_id or order.lease_id
            if order.lease_id == self._lease_id and order.rank == 0:
                self._attempts = {task.attempt_id: order for task in order.tasks}

    def _told(self, report: Report) -> None:
        match report.kind:
            case ReportKind.NODE:
                self._there.add(report.node)
            case ReportKind.NODE_GONE:
                self._there.discard(report.node)
            case ReportKind.STARTED if report.lease_id == self._lease_id:
                self.begun = True
            case ReportKind.FINISHED if report.lease_id == self._lease_id and report.state is not None:
                self.begun = True
                self._states[report.attempt_id] = report.state
                self._cursors[report.attempt_id] = report.cursor
