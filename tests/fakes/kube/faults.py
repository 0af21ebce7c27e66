"""What goes wrong on purpose: once, several times, or by chance from a seed."""

import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Loss(StrEnum):
    """A connection that ends without an answer."""

    NONE = ""
    REQUEST = "request"
    """Before anything was done."""
    ANSWER = "answer"
    """After it was done: the client cannot know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How one request fails; it meets requests of these verbs, resources and name (empty: any)."""

    verbs: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    name: str = ""
    status: int = 0
    """429, 500, 503, 504: answered at once, nothing is done."""
    retry_after_s: int | None = None
    delay_s: float = 0
    """Before the request is looked at."""
    loss: Loss = Loss.NONE
    cut_after: int = -1
    """A watch breaks in the middle of a line after so many events."""
    weight: int = 1
    """In a storm: how often beside the others."""

    def meets(self, verb: str, resource: str, name: str) -> bool:
        return (
            (not self.verbs or verb in self.verbs)
            and (not self.resources or resource in self.resources)
            and (not self.name or name == self.name)
        )


@dataclass(slots=True)
class Faults:
    """The faults a server has in store."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _queued: list[tuple[Fault, list[int]]] = field(default_factory=list)
    _storm: tuple[random.Random, float, tuple[Fault, ...]] | None = None
    met: int = 0

    def add(self, fault: Fault, times: int = 1) -> None:
        """The next ``times`` requests that it meets fail so."""
        with self._lock:
            self._queued.append((fault, [times]))

    def storm(self, seed: int, share: float, kinds: Iterable[Fault]) -> None:
        """From now on this share of requests fails, in one of these ways, drawn from ``seed``."""
        with self._lock:
            self._storm = (random.Random(seed), share, tuple(kinds))

    def calm(self) -> None:
        """No more faults."""
        with self._lock:
            self._queued.clear()
            self._storm = None

    def draw(self, verb: str, resource: str, name: str) -> Fault | None:
        """What happens to this request."""
        with self._lock:
            fault = self._drawn(verb, resource, name)
            self.met += fault is not None
            return fault

    def _drawn(self, verb: str, resource: str, name: str) -> Fault | None:
        for position, (fault, left) in enumerate(self._queued):
            if fault.meets(verb, resource, name):
                left[0] -= 1
                if not left[0]:
                    del self._queued[position]
                return fault
        if self._storm is None:
            return None
        dice, share, kinds = self._storm
        fitting = [fault for fault in kinds if fault.meets(verb, resource, name)]
        if not fitting or dice.random() >= share:
            return None
        return dice.choices(fitting, [fault.weight for fault in fitting])[0]
