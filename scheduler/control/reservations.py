"""Nodes kept for someone during windows of time: made and cancelled by operators, seen by everybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scheduler.control.access import Caller, require_operator
from scheduler.control.cycle import Cycle
from scheduler.control.operations import NAME, NAME_RULE
from scheduler.control.shapes import ReservationView
from scheduler.control.terms import instant_ms, until_ms
from scheduler.engine import Engine
from scheduler.jobfile.quantity import Malformed, duration_ms
from scheduler.model.errors import Conflict, InvalidInput, NotFound, Problem, unknown
from scheduler.model.event import Event, ReservationSet
from scheduler.model.queue import Reservation, ReservationKind
from scheduler.queueing.calendar import FOREVER_MS, next_window

MOST_REPEATS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A reservation as people write it.

    Instants are dates or instants (China time without a zone), or ``+2h`` from now.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    start: str
    """``now`` works too."""
    end: str = ""
    """A date means the end of that day."""
    length: str = ""
    """Instead of ``end``: ``3h``."""
    every: str = ""
    """``7d``: held again so much later; empty: once."""
    repeats: int = 0
    """How often; 0: until it is cancelled."""
    queues: tuple[str, ...] = ()
    reason: str = ""

    def reservation(self, engine: Engine, now_ms: int) -> Reservation:
        """As the engine reads it. Raises InvalidInput with every mistake."""
        problems = self._names(engine)
        start_ms = self._instant("start", self.start, now_ms, problems)
        every_ms = self._length("every", self.every, problems) if self.every else 0
        if bool(self.end) == bool(self.length):
            problems.append(Problem("end", "say when it ends: either end or length"))
            end_ms = 0
        elif self.end:
            end_ms = self._instant("end", self.end, now_ms, problems)
        else:
            end_ms = start_ms + self._length("length", self.length, problems)
        if not problems:
            problems += self._times(start_ms, end_ms, every_ms, now_ms)
        if problems:
            raise InvalidInput(problems)
        return Reservation(
            name=self.name,
            kind=ReservationKind(self.kind),
            nodes=tuple(sorted(set(self.nodes))),
            start_ms=start_ms,
            end_ms=end_ms,
            every_ms=every_ms,
            repeats=self.repeats if every_ms else 1,
            queues=tuple(sorted(set(self.queues))),
            reason=self.reason,
        )

    def _names(self, engine: Engine) -> list[Problem]:
        known, queues = [n.name for n in engine.nodes()], [q.name for q in engine.queues()]
        problems = [] if NAME.fullmatch(self.name) else [Problem("name", f"{self.name!r} {NAME_RULE}")]
        if self.kind not in list(ReservationKind):
            problems.append(unknown("kind", "kind of reservation", self.kind, list(ReservationKind)))
        if not self.nodes:
            problems.append(Problem("nodes", "must name at least one node", tuple(sorted(known))))
        problems += [unknown(f"nodes[{i}]", "node", n, known) for i, n in enumerate(self.nodes) if n not in known]
        problems += [unknown(f"queues[{i}]", "queue", q, queues) for i, q in enumerate(self.queues) if q not in queues]
        if self.kind == ReservationKind.EVENT and not self.queues:
            problems.append(Problem("queues", "an event is for the jobs of some queue", tuple(sorted(queues))))
        if self.kind == ReservationKind.MAINTENANCE and self.queues:
            problems.append(Problem("queues", "maintenance keeps nodes for nobody; an event is for queues"))
        return problems

    def _times(self, start_ms: int, end_ms: int, every_ms: int, now_ms: int) -> list[Problem]:
        last_ms = FOREVER_MS if every_ms and not self.repeats else end_ms + every_ms * max(0, self.repeats - 1)
        if end_ms <= start_ms:
            return [Problem("end", "lies before the start")]
        if last_ms <= now_ms:
            return [Problem("end", "lies in the past")]
        if every_ms and every_ms < end_ms - start_ms:
            return [Problem("every", "is shorter than the window itself")]
        if not 0 <= self.repeats <= MOST_REPEATS:
            return [Problem("repeats", f"must be 0 (until it is cancelled) to {MOST_REPEATS:,}")]
        if self.repeats and not every_ms:
            return [Problem("every", "is needed with repeats, such as 7d")]
        return []

    @staticmethod
    def _instant(pointer: str, text: str, now_ms: int, problems: list[Problem]) -> int:
        try:
            if text == "now":
                return now_ms
            if text.startswith("+"):
                return now_ms + duration_ms(text[1:])
            return until_ms(text) if pointer == "end" else instant_ms(text)
        except ValueError as error:
            problems.append(Problem(pointer, str(error)))
            return 0

    @staticmethod
    def _length(pointer: str, text: str, problems: list[Problem]) -> int:
        try:
            return duration_ms(text)
        except Malformed as error:
            problems.append(Problem(pointer, str(error)))
            return 0


class Reservations:
    """Every method takes the caller first and raises only ShisuanErrors."""

    def __init__(self, cycle: Cycle) -> None:
        self._cycle = cycle

    def list(self, caller: Caller) -> list[ReservationView]:
        """All of them by name: whoever waits may see for what."""
        with self._cycle.state() as engine:
            found = tuple(engine.reservations())
        return [view(r, self._cycle.now_ms()) for r in sorted(found, key=lambda r: r.name)]

    def add(self, caller: Caller, wish: Wish) -> ReservationView:
        """Make it. Raises Forbidden, InvalidInput; Conflict for a name that is taken by another that is in force."""
        require_operator(caller)

        def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], Reservation]:
            made = wish.reservation(engine, now_ms)
            known = next((r for r in engine.reservations() if r.name == made.name), None)
            if known == made:
                return (), made
            if known is not None and state_of(known, now_ms) in ("now", "coming"):
                raise Conflict(f"there is a reservation {made.name!r} already; cancel it first, or take another name")
            return (ReservationSet(at_ms=now_ms, reservation=made),), made

        return view(self._cycle.call(decide), self._cycle.now_ms())

    def cancel(self, caller: Caller, name: str) -> ReservationView:
        """Its nodes are open to everybody again; harmless when it is cancelled. Raises Forbidden, NotFound."""
        require_operator(caller)

        def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], Reservation]:
            known = {r.name: r for r in engine.reservations()}
            if name not in known:
                raise NotFound(f"no reservation {name!r} (there are: {', '.join(sorted(known)) or 'none'})")
            if known[name].cancelled:
                return (), known[name]
            after = replace(known[name], cancelled=True)
            return (ReservationSet(at_ms=now_ms, reservation=after),), after

        return view(self._cycle.call(decide), self._cycle.now_ms())


def state_of(reservation: Reservation, now_ms: int) -> str:
    """``cancelled``, ``now`` in a window, ``coming`` before one, else ``past``."""
    window = next_window(reservation, now_ms)
    if window is None:
        return "cancelled" if reservation.cancelled else "past"
    return "now" if window[0] <= now_ms else "coming"


def view(reservation: Reservation, now_ms: int) -> ReservationView:
    """As the faces show it. ``next_start_ms``: of the window that lasts or comes next; 0: there is none."""
    window = next_window(reservation, now_ms) or (0, 0)
    return {
        "name": reservation.name,
        "kind": reservation.kind.value,
        "nodes": list(reservation.nodes),
        "queues": list(reservation.queues),
        "start_ms": reservation.start_ms,
        "end_ms": reservation.end_ms,
        "every_ms": reservation.every_ms,
        "repeats": reservation.repeats,
        "reason": reservation.reason,
        "state": state_of(reservation, now_ms),
        "next_start_ms": window[0],
        "next_end_ms": window[1],
    }
