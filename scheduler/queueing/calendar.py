"""What time has to say: windows that are kept for someone, price bands of the day, floors per kind of job."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from scheduler.model.policy import Band, Floor
from scheduler.model.queue import Amounts, Reservation, ReservationKind
from scheduler.queueing.order import NONE, minus, plus

FOREVER_MS = 1 << 62
"""An instant behind all others."""
WINDOWS_MAX = 1_000
"""A gap is looked for behind this many windows: years of daily ones."""
MINUTE_MS = 60_000
DAY_MINUTES = 24 * 60
ZONE_MINUTES = 8 * 60
"""Bands are read at UTC+8."""


def windows(reservation: Reservation, from_ms: int, to_ms: int) -> tuple[tuple[int, int], ...]:
    """``(start, end)`` of each of its windows that shares time with ``[from_ms, to_ms)``; none of a cancelled one."""
    found: list[tuple[int, int]] = []
    number = _first(reservation, from_ms)
    while number is not None and (window := _window(reservation, number))[0] < to_ms:
        found.append(window)
        number = number + 1 if _has(reservation, number + 1) else None
    return tuple(found)


def next_window(reservation: Reservation, at_ms: int) -> tuple[int, int] | None:
    """Its first window that has not ended at ``at_ms``; None: there is none."""
    number = _first(reservation, at_ms)
    return None if number is None else _window(reservation, number)


class Calendar:
    """The reservations in force, by node."""

    def __init__(self, reservations: Iterable[Reservation]) -> None:
        self._of_node: dict[str, list[Reservation]] = {}
        for reservation in sorted(reservations, key=lambda r: r.name):
            if not reservation.cancelled:
                for node in reservation.nodes:
                    self._of_node.setdefault(node, []).append(reservation)

    @property
    def nodes(self) -> Collection[str]:
        """Nodes that any reservation is about; all others are always open."""
        return self._of_node.keys()

    def closed(self, node: str, queues: Collection[str], start_ms: int, end_ms: int) -> Reservation | None:
        """Whose window first keeps a task off ``node`` that would run in ``[start_ms, end_ms)``; None: it may run.

        ``queues``: the job's queue and those above it. The queues of an EVENT use its nodes in its windows.
        """
        first = self._next(node, queues, start_ms)
        return first[1] if first is not None and first[0] < max(end_ms, start_ms + 1) else None

    def open_until_ms(self, node: str, queues: Collection[str], at_ms: int) -> int:
        """Until when ``node`` is open for the queues from ``at_ms`` on: ``at_ms`` when it is closed, or FOREVER_MS."""
        first = self._next(node, queues, at_ms)
        return max(first[0], at_ms) if first is not None else FOREVER_MS

    def opens_ms(self, node: str, queues: Collection[str], at_ms: int, length_ms: int) -> int:
        """First instant from ``at_ms`` on at which ``node`` stays open for ``length_ms``.

        FOREVER_MS when it is not found behind the next WINDOWS_MAX windows.
        """
        for _ in range(WINDOWS_MAX):
            first = self._next(node, queues, at_ms)
            if first is None or first[0] >= at_ms + max(length_ms, 1):
                return at_ms
            at_ms = first[0] + first[1].end_ms - first[1].start_ms
        return FOREVER_MS

    def _next(self, node: str, queues: Collection[str], at_ms: int) -> tuple[int, Reservation] | None:
        """The first window that has not ended at ``at_ms`` and keeps the queues off: its start and whose it is."""
        found: tuple[int, Reservation] | None = None
        for reservation in self._of_node.get(node, ()):
            number = _first(reservation, at_ms)
            if number is None or _is_for(reservation, queues):
                continue
            start_ms = _window(reservation, number)[0]
            if found is None or start_ms < found[0]:
                found = start_ms, reservation
        return found


class Bands:
    """Price bands of the day. A band whose start is its end lasts all day."""

    def __init__(self, bands: Iterable[Band]) -> None:
        self._bands = {band.name: band for band in bands}

    def is_open(self, name: str, at_ms: int) -> bool:
        """The band lasts at ``at_ms``. One that does not exist never does; no name means at any time."""
        return self.next_opening_ms(name, at_ms) == at_ms

    def next_opening_ms(self, name: str, at_ms: int) -> int | None:
        """The first instant from ``at_ms`` on at which the band lasts; None: there is no such band."""
        if not name:
            return at_ms
        band = self._bands.get(name)
        if band is None:
            return None
        minutes = at_ms // MINUTE_MS + ZONE_MINUTES
        today = minutes % DAY_MINUTES
        length = (band.end_minute - band.start_minute) % DAY_MINUTES or DAY_MINUTES
        if (today - band.start_minute) % DAY_MINUTES < length:
            return at_ms
        ahead = (band.start_minute - today) % DAY_MINUTES
        return (at_ms // MINUTE_MS + ahead) * MINUTE_MS


class Floors:
    """Kinds of job that are not kept below their share while they wait. A trial takes as it hands out."""

    def __init__(self, floors: Iterable[Floor], held: Mapping[str, Amounts], totals: Amounts) -> None:
        """``held`` by kind of job."""
        self._floors = {floor.kind: floor.permille for floor in floors}
        self._held = dict(held)
        self._totals = totals

    def is_below(self, kind: str, amounts: Amounts) -> bool:
        """A waiting lease of ``kind`` goes before everybody: what its kind holds is below its floor.

        Measured on cards (MIG instances for work on those) and, for work without any, on vCPUs.
        """
        permille = self._floors.get(kind, 0)
        at = next((at for at in (2, 3) if amounts[at]), 0)
        return self._held.get(kind, NONE)[at] * 1_000 < permille * self._totals[at]

    def take(self, kind: str, amounts: Amounts) -> None:
        """A lease of ``kind`` was handed out."""
        self._held[kind] = plus(self._held.get(kind, NONE), amounts)

    def give(self, kind: str, amounts: Amounts) -> None:
        """A lease of ``kind`` was given back."""
        self._held[kind] = minus(self._held.get(kind, NONE), amounts)


def _window(reservation: Reservation, number: int) -> tuple[int, int]:
    shift_ms = number * reservation.every_ms
    return reservation.start_ms + shift_ms, reservation.end_ms + shift_ms


def _has(reservation: Reservation, number: int) -> bool:
    if reservation.cancelled or reservation.end_ms <= reservation.start_ms:
        return False
    return number == 0 or (reservation.every_ms > 0 and (reservation.repeats == 0 or number < reservation.repeats))


def _first(reservation: Reservation, at_ms: int) -> int | None:
    """Number of its first window that has not ended at ``at_ms``."""
    behind_ms = at_ms - reservation.end_ms
    number = 0 if behind_ms < 0 else behind_ms // reservation.every_ms + 1 if reservation.every_ms > 0 else 1
    return number if _has(reservation, number) else None


def _is_for(reservation: Reservation, queues: Collection[str]) -> bool:
    return reservation.kind is ReservationKind.EVENT and not set(queues).isdisjoint(reservation.queues)
