"""stub"""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.model.policy import Band
from scheduler.model.queue import Queue, Reservation


class Bands:
    def __init__(self, bands: tuple[Band, ...]) -> None:
        self._bands = bands

    def open(self, name: str, at_ms: int) -> bool:
        return True


class Windows:
    def __init__(self, reservations: Iterable[Reservation], queues: Iterable[Queue], now_ms: int) -> None:
        pass

    def closed(self, queue: str, end_ms: int) -> frozenset[str]:
        return frozenset()

    def first(self, nodes: Iterable[str], queue: str, end_ms: int) -> Reservation:
        raise AssertionError
