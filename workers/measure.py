"""Measures running attempts about once a second, off the loop thread; an attempt that is over sooner costs no look.

Processes are read from /proc by one thread for all attempts of the agent, in one pass. Cards are read by the NVML
sampler's own threads, started with the first lease that holds a real card, so that a driver that hangs delays nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from scheduler.model.measured import MOST_POINTS, DeviceUse, Measured, MeasuredBy, RankUse
from scheduler.model.order import LeaseOrder
from scheduler.model.sample import Sample
from workers import procfs, spent
from workers.process import Running
from workers.sampler import Sampler, Source
from workers.spent import Spent

_log = logging.getLogger(__name__)

EVERY_S = 1.0
FIRST_LOOK_ROUNDS = 0.8
"""An attempt is looked at once it is this old, in rounds."""
MOST_POWER_MW = 10_000_000
"""No device takes 10 kW: a counter that grew faster did not count energy."""


class Meter:
    """One attempt's measurements in the making. Any thread."""

    def __init__(self, order: LeaseOrder, running: Running) -> None:
        self.running = running
        self.began_ns = time.monotonic_ns()
        self._order = order
        self._lock = threading.Lock()
        self._last: Spent | None = None
        self._cpu_us = running.base.cpu_us
        """Most seen: when a process leaves the family unreaped, the sum falls."""
        self._rss_sum_mib = self._looks = 0
        self._rss_peak_mib: int | None = None
        self._series = Series(self._cpu_us)
        devices = () if order.simulated else order.devices
        self.cards = {device: CardMeter(device) for device in devices}

    def look(self, now: Spent, at_ns: int) -> None:
        """The processes as they are at ``at_ns``."""
        with self._lock:
            self._last = now
            self._cpu_us = max(self._cpu_us, now.cpu_us)
            self._rss_sum_mib += now.rss_mib or 0
            self._looks += 1
            self._rss_peak_mib = max(self._rss_peak_mib or 0, now.rss_mib or 0)
            gpu = {device: card.take_recent() for device, card in self.cards.items()}
            self._series.add((at_ns - self.began_ns) // 1_000_000, self._cpu_us, now.rss_mib or 0, gpu)

    def card(self, sample: Sample, at_ns: int) -> None:
        """A card of the lease said something, or did not answer."""
        with self._lock:
            self.cards[sample.device].add(sample, at_ns)

    def end(self, final: Spent | None, why_no_cards: str) -> Measured | None:
        """The attempt is over; ``final`` as the kernel told at its end. None when nothing was ever seen of it."""
        with self._lock:
            last = self._last
            if final is None and last is None:
                return None
            base = self.running.base
            ends = [one for one in (final, last) if one is not None]
            devices = tuple(self._series.of_card(card.end()) for card in self.cards.values())
            was_read = any(device.samples for device in devices)
            peaks = [one.rss_mib for one in ends if one.rss_mib is not None]
            peaks += [self._rss_peak_mib] if self._rss_peak_mib is not None else []
            return Measured(
                ranks=(
                    RankUse(
                        node=self._order.node,
                        rank=self._order.rank,
                        source=MeasuredBy.NVML if was_read else MeasuredBy.PROCESS,
                        note="" if was_read or not self.cards else why_no_cards or "no reading in the attempt's time",
                        cpu_ms=(max(self._cpu_us, *(one.cpu_us for one in ends)) - base.cpu_us) // 1_000,
                        rss_peak_mib=max(peaks) if peaks else None,
                        rss_mean_mib=self._rss_sum_mib // self._looks if self._looks else None,
                        read_bytes=_grown(base.read_bytes, [one.read_bytes for one in ends]),
                        written_bytes=_grown(base.written_bytes, [one.written_bytes for one in ends]),
                        samples=self._looks,
                        **self._series.columns(),
                        devices=devices,
                    ),
                )
            )


@dataclass(slots=True)
class CardMeter:
    """One device's readings, added up."""

    device: str
    samples: int = 0
    gaps: int = 0
    first_ns: int = 0
    last_ns: int = 0
    gpu: list[int] = field(default_factory=lambda: [0, 0])
    """Sum and count; likewise the next three."""
    encoder: list[int] = field(default_factory=lambda: [0, 0])
    decoder: list[int] = field(default_factory=lambda: [0, 0])
    power: list[int] = field(default_factory=lambda: [0, 0])
    memory_peak_mib: int | None = None
    energy_mj: int | None = None
    resets: int = 0
    _counter_mj: int | None = None
    _counter_ns: int = 0
    _recent: list[int] = field(default_factory=list)

    def add(self, sample: Sample, at_ns: int) -> None:
        """One round's answer."""
        if sample.problem:
            self.gaps += 1
            return
        self.samples += 1
        self.first_ns, self.last_ns = self.first_ns or at_ns, at_ns
        for value, total in (
            (sample.gpu_percent, self.gpu),
            (sample.encoder_percent, self.encoder),
            (sample.decoder_percent, self.decoder),
            (sample.power_mw, self.power),
        ):
            if value is not None:
                total[0], total[1] = total[0] + value, total[1] + 1
        if sample.gpu_percent is not None:
            self._recent.append(sample.gpu_percent)
        if sample.memory_used_mib is not None:
            self.memory_peak_mib = max(self.memory_peak_mib or 0, sample.memory_used_mib)
        if sample.energy_mj is not None:
            self._count(sample.energy_mj, at_ns)

    def _count(self, counter_mj: int, at_ns: int) -> None:
        """After a reset the counter itself is what was used since; what the reset swallowed is not known."""
        before_mj, passed_ms = self._counter_mj, (at_ns - self._counter_ns) // 1_000_000
        self._counter_mj, self._counter_ns = counter_mj, at_ns
        if before_mj is None:
            self.energy_mj = 0
            return
        was_reset = counter_mj < before_mj
        self.resets += was_reset
        grown_mj = counter_mj if was_reset else counter_mj - before_mj
        if grown_mj <= MOST_POWER_MW * (passed_ms + 1_000) // 1_000:
            self.energy_mj = (self.energy_mj or 0) + grown_mj

    def take_recent(self) -> tuple[int, int]:
        """Sum of per cents and count since the last call."""
        recent, self._recent = self._recent, []
        return sum(recent), len(recent)

    def end(self) -> DeviceUse:
        """Without the series."""
        return DeviceUse(
            device=self.device,
            samples=self.samples,
            gaps=self.gaps,
            covered_ms=(self.last_ns - self.first_ns) // 1_000_000,
            gpu_milli=_milli(self.gpu),
            encoder_milli=_milli(self.encoder),
            decoder_milli=_milli(self.decoder),
            memory_peak_mib=self.memory_peak_mib,
            power_mw=self.power[0] // self.power[1] if self.power[1] else None,
            energy_mj=self.energy_mj,
            energy_resets=self.resets,
        )


@dataclass(slots=True)
class _Point:
    until_ms: int
    cpu_us: int
    """Since the processes began, so that two neighbours are joined by keeping the later."""
    rss_mib: int
    gpu: dict[str, tuple[int, int]]
    looks: int = 1

    def join(self, later: _Point) -> _Point:
        gpu = {d: (a + later.gpu[d][0], n + later.gpu[d][1]) for d, (a, n) in self.gpu.items()}
        rss_mib, looks = max(self.rss_mib, later.rss_mib), self.looks + later.looks
        return _Point(until_ms=later.until_ms, cpu_us=later.cpu_us, rss_mib=rss_mib, gpu=gpu, looks=looks)


class Series:
    """At most :data:`MOST_POINTS` intervals: when there are more, neighbours are joined and the pace is halved."""

    def __init__(self, base_cpu_us: int) -> None:
        self._base_cpu_us = base_cpu_us
        self._points: list[_Point] = []
        self._width = 1

    def add(self, until_ms: int, cpu_us: int, rss_mib: int, gpu: dict[str, tuple[int, int]]) -> None:
        """One look."""
        point = _Point(until_ms=until_ms, cpu_us=cpu_us, rss_mib=rss_mib, gpu=gpu)
        if self._points and self._points[-1].looks < self._width:
            self._points[-1] = self._points[-1].join(point)
            return
        self._points.append(point)
        if len(self._points) > MOST_POINTS:
            self._width *= 2
            pairs = range(0, len(self._points), 2)
            joined = [self._points[at : at + 2] for at in pairs]
            self._points = [pair[0].join(pair[1]) if len(pair) == 2 else pair[0] for pair in joined]

    def columns(self) -> dict[str, tuple[int, ...]]:
        """As fields of :class:`RankUse`."""
        cpu: list[int] = []
        before_ms, before_us = 0, self._base_cpu_us
        for point in self._points:
            cpu.append((point.cpu_us - before_us) // max(1, point.until_ms - before_ms))
            before_ms, before_us = point.until_ms, point.cpu_us
        return {
            "until_ms": tuple(p.until_ms for p in self._points),
            "cpu_series_milli": tuple(cpu),
            "rss_series_mib": tuple(p.rss_mib for p in self._points),
        }

    def of_card(self, use: DeviceUse) -> DeviceUse:
        """With its column."""
        pairs = [p.gpu[use.device] for p in self._points]
        return replace(use, series_milli=tuple(_milli(pair) for pair in pairs) if use.samples else ())


class Measuring:
    """All running attempts of one agent. ``source``: makes the door to the cards, called once one is needed."""

    def __init__(self, source: Callable[[], Source], *, every_s: float = EVERY_S) -> None:
        self._make_source = source
        self._every_s = every_s
        self._meters: set[Meter] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._sampler: Sampler | None = None
        self._source: Source | None = None

    def begin(self, order: LeaseOrder, running: Running) -> Meter:
        """From now on this attempt is measured, until :meth:`end`. Loop thread."""
        meter = Meter(order, running)
        self._meters.add(meter)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shisuan-measure", daemon=True)
            self._thread.start()
        if meter.cards and self._sampler is None:
            self._source = self._make_source()
            self._sampler = Sampler(self._source, self._deliver, interval_ms=round(self._every_s * 1_000))
            self._sampler.start()
        return meter

    def end(self, meter: Meter, final: Spent | None) -> Measured | None:
        """The attempt is over. Loop thread; harmless twice."""
        self._meters.discard(meter)
        return meter.end(final, getattr(self._source, "why_none", "") if meter.cards else "")

    def close(self) -> None:
        """Measure nothing more. What hangs in a driver is left behind."""
        self._stopping.set()
        if self._sampler is not None:
            self._sampler.stop()

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self.look()

    def look(self) -> None:
        """One pass over /proc for all attempts that are old enough; none when there is none."""
        old_ns = time.monotonic_ns() - round(FIRST_LOOK_ROUNDS * self._every_s * 1e9)
        due = [meter for meter in tuple(self._meters) if meter.began_ns <= old_ns]
        if not due:
            return
        try:
            accounts = procfs.Accounts.now()
            for meter in due:
                now = spent.of_family(accounts, meter.running.pid)
                if now is not None and meter in self._meters:
                    meter.look(now, time.monotonic_ns())
        except (OSError, ValueError):
            _log.exception("a look at the processes failed")  # evidence is optional; the attempts go on

    def _deliver(self, samples: Sequence[Sample]) -> None:
        at_ns = time.monotonic_ns()
        for meter in tuple(self._meters):
            for sample in samples:
                if sample.device in meter.cards:
                    meter.card(sample, at_ns)


def _milli(total: Sequence[int]) -> int | None:
    """Mean of per cents, in thousandths; None without any."""
    return (20 * total[0] + total[1]) // (2 * total[1]) if total[1] else None


def _grown(base: int | None, ends: Sequence[int | None]) -> int | None:
    there = [value for value in ends if value is not None]
    return max(0, max(there) - base) if there and base is not None else None
