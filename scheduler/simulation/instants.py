"""Instants at which a plan may change though nothing happens: edges of price bands and of reserved windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scheduler.model.policy import Band
from scheduler.model.queue import Reservation

MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
UTC8_MS = 8 * 60 * MINUTE_MS


def next_edge(bands: Iterable[Band], reservations: Iterable[Reservation], now_ms: int) -> int:
    """The first edge after ``now_ms``; 0: there is none."""
    edges = [*_of_bands(bands, now_ms), *_of_windows(reservations, now_ms)]
    return min((edge for edge in edges if edge > now_ms), default=0)


def _of_bands(bands: Iterable[Band], now_ms: int) -> Iterator[int]:
    midnight_ms = (now_ms + UTC8_MS) // DAY_MS * DAY_MS - UTC8_MS
    for band in bands:
        for minute in (band.start_minute, band.end_minute):
            yield midnight_ms + minute * MINUTE_MS
            yield midnight_ms + minute * MINUTE_MS + DAY_MS


def _of_windows(reservations: Iterable[Reservation], now_ms: int) -> Iterator[int]:
    for window in reservations:
        if window.cancelled:
            continue
        at = max(0, (now_ms - window.start_ms) // window.every_ms) if window.every_ms else 0
        for number in (at, at + 1):
            if window.every_ms or number == 0:
                if window.repeats and number >= window.repeats:
                    continue
                yield window.start_ms + number * window.every_ms
                yield window.end_ms + number * window.every_ms
