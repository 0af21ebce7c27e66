"""Reads every card at a steady pace; a card that does not answer in time delays no other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Protocol

from scheduler.model.node import Device
from scheduler.model.sample import Sample

_log = logging.getLogger(__name__)

INTERVAL_MS = 1_000
DEADLINE_MS = 1_000
"""How long a card may take: NVML answers in microseconds, or it hangs in the driver."""
LOOK_AGAIN_EVERY = 60
"""Rounds between two looks at which devices there are."""


class Source(Protocol):
    """What is sampled: :class:`workers.nvml.NvmlTelemetry`."""

    def devices(self) -> tuple[Device, ...]:
        """Devices that are there now."""
        ...

    def sample_of(self, device_id: str) -> Sample:
        """A reading of one; may hang."""
        ...


class Sampler:
    """A thread that gives each round's samples to ``deliver``, one per device, in the devices' order.

    A card whose reading is still under way after the deadline is reported with a ``problem``, and not asked again until
    that reading returns: a hung driver costs one thread per card, not one per round.
    """

    def __init__(
        self,
        source: Source,
        deliver: Callable[[Sequence[Sample]], None],
        *,
        interval_ms: int = INTERVAL_MS,
        deadline_ms: int = DEADLINE_MS,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._source = source
        self._deliver = deliver
        self._interval_ms = interval_ms
        self._deadline_ms = deadline_ms
        self._now_ms = now_ms
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._under_way: dict[str, Future[Sample]] = {}
        self._looking: Future[tuple[Device, ...]] | None = None

    def start(self) -> None:
        """Begin; the thread does not keep the process alive."""
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the round under way. Threads that hang in the driver are left behind."""
        self._stopping.set()
        if self._thread is not None:
            # It hangs too while a driver has never said which devices there are.
            self._thread.join(2 * self._deadline_ms / 1_000)

    def round(self, devices: Sequence[Device]) -> tuple[Sample, ...]:
        """One reading of each device, within the deadline."""
        for device in devices:
            if device.id not in self._under_way:
                reading = self._under_way[device.id] = Future[Sample]()
                # Not an executor's thread: those are joined when the process ends, and a hung driver never returns.
                threading.Thread(target=self._read, args=(device.id, reading), daemon=True).start()
        wait([self._under_way[device.id] for device in devices], timeout=self._deadline_ms / 1_000)
        return tuple(self._result(device.id) for device in devices)

    def _read(self, device_id: str, reading: Future[Sample]) -> None:
        try:
            reading.set_result(self._source.sample_of(device_id))
        except Exception as error:  # noqa: BLE001 (told with the sample: one card's trouble must not end the others')
            problem = f"the reading failed: {error!r}"
            reading.set_result(Sample(device=device_id, at_ms=self._now_ms(), problem=problem))

    def _result(self, device_id: str) -> Sample:
        reading = self._under_way[device_id]
        if not reading.done():
            problem = f"no answer in {self._deadline_ms} ms"
            return Sample(device=device_id, at_ms=self._now_ms(), problem=problem)
        del self._under_way[device_id]
        return reading.result()

    def _run(self) -> None:
        rounds, next_ms = 0, self._monotonic_ms()
        devices: tuple[Device, ...] = ()
        while not self._stopping.is_set():
            if rounds % LOOK_AGAIN_EVERY == 0:
                devices = self._look(devices)
            self._deliver(self.round(devices))
            rounds += 1
            # Paced by the plan, not by the last round's end; rounds that were missed are not made up for.
            next_ms = max(next_ms + self._interval_ms, self._monotonic_ms())
            self._stopping.wait((next_ms - self._monotonic_ms()) / 1_000)

    def _look(self, known: tuple[Device, ...]) -> tuple[Device, ...]:
        """The devices there are now; those ``known`` while the driver does not say. The first answer is waited for."""
        if self._looking is None:
            self._looking = Future()
            threading.Thread(target=self._ask_devices, args=(self._looking,), daemon=True).start()
        wait([self._looking], timeout=self._deadline_ms / 1_000 if known else None)
        if not self._looking.done():
            return known
        answer, self._looking = self._looking.result(), None
        return answer

    def _ask_devices(self, looking: Future[tuple[Device, ...]]) -> None:
        try:
            looking.set_result(self._source.devices())
        except Exception:  # noqa: BLE001 (told in the log: a driver's trouble must not end the thread that samples)
            _log.exception("the devices cannot be listed")
            looking.set_result(())

    @staticmethod
    def _monotonic_ms() -> int:
        return time.monotonic_ns() // 1_000_000
