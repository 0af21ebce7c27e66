"""What an attempt was seen to do: processor time, memory, bytes moved, and its cards' work. Evidence, never a bill.

Each rank measures itself on its own node; an attempt's measurement is all of them side by side, so nothing is lost by
adding up. Everything optional is None where the machine or the driver does not say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MOST_POINTS = 60
"""A series has at most this many: an hour's render is told in minutes, a minute's in seconds."""


class MeasuredBy(StrEnum):
    """What a measurement rests on."""

    NVML = "nvml"
    """The driver's readings of the cards, beside the processes'."""
    PROCESS = "process"
    """The kernel's accounts of the processes alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """One card or MIG instance while the attempt held it. Shares are thousandths of the driver's own per cents."""

    device: str
    samples: int = 0
    """Readings the driver answered."""
    gaps: int = 0
    """Rounds in which it did not answer."""
    covered_ms: int = 0
    """From the first reading to the last: the energy's interval."""
    gpu_milli: int | None = None
    """Mean share of time in which some kernel ran."""
    encoder_milli: int | None = None
    decoder_milli: int | None = None
    memory_peak_mib: int | None = None
    """Most memory held on the device, by anyone."""
    power_mw: int | None = None
    """Mean of the readings."""
    energy_mj: int | None = None
    """The counter's growth over ``covered_ms``; growth before and after a reset is added, what a reset swallowed is
    not guessed."""
    energy_resets: int = 0
    """How often the counter began anew (driver reload, card reset)."""
    series_milli: tuple[int | None, ...] = ()
    """``gpu_milli`` of each interval of the rank's series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankUse:
    """One rank's processes, and the devices it held."""

    node: str
    rank: int = 0
    source: MeasuredBy = MeasuredBy.PROCESS
    note: str = ""
    """Why the cards were not read, in a sentence; empty when they were, or when none was held."""
    cpu_ms: int = 0
    """User and system time of all processes, ended ones too. At least this much: what left the family unseen between
    two samples is not in it."""
    rss_peak_mib: int | None = None
    """Largest sum of resident memory at a sample, or the largest process's own peak; shared pages count in each."""
    rss_mean_mib: int | None = None
    """Mean over the samples."""
    read_bytes: int | None = None
    """Through system calls, from caches too."""
    written_bytes: int | None = None
    samples: int = 0
    """Looks at the processes while they ran; an attempt shorter than a second has none, and exact totals."""
    until_ms: tuple[int, ...] = ()
    """Ends of the series' intervals, in ms after the attempt's start; each begins where the one before it ended."""
    cpu_series_milli: tuple[int, ...] = ()
    """Mean processors in use in each interval, in thousandths."""
    rss_series_mib: tuple[int, ...] = ()
    """Most resident memory in each interval."""
    devices: tuple[DeviceUse, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All ranks of one attempt, by rank."""

    ranks: tuple[RankUse, ...]

    @property
    def source(self) -> MeasuredBy:
        """NVML where any rank's cards were read."""
        return MeasuredBy.NVML if any(r.source is MeasuredBy.NVML for r in self.ranks) else MeasuredBy.PROCESS

    @property
    def cpu_ms(self) -> int:
        """Over all ranks."""
        return sum(r.cpu_ms for r in self.ranks)

    @property
    def rss_peak_mib(self) -> int | None:
        """Sum of the ranks' peaks: an upper bound of the peak of the sum. None when one does not say."""
        return _sum(r.rss_peak_mib for r in self.ranks)

    @property
    def read_bytes(self) -> int | None:
        """Over all ranks; None when one does not say."""
        return _sum(r.read_bytes for r in self.ranks)

    @property
    def written_bytes(self) -> int | None:
        """Over all ranks; None when one does not say."""
        return _sum(r.written_bytes for r in self.ranks)

    @property
    def devices(self) -> tuple[DeviceUse, ...]:
        """Over all ranks."""
        return tuple(device for r in self.ranks for device in r.devices)

    @property
    def notes(self) -> tuple[str, ...]:
        """Why cards were not read: each reason once."""
        return tuple(dict.fromkeys(r.note for r in self.ranks if r.note))

    def gpu_milli(self) -> int | None:
        """Mean over the devices that were read; None without."""
        return mean(d.gpu_milli for d in self.devices)


def together(parts: Iterable[Measured | None]) -> Measured | None:
    """One measurement of a gang's ranks; None when no rank has any."""
    ranks = [rank for part in parts if part is not None for rank in part.ranks]
    return Measured(ranks=tuple(sorted(ranks, key=lambda r: r.rank))) if ranks else None


def mean(values: Iterable[int | None]) -> int | None:
    """Rounded half up over the values that are there; None without any."""
    there = [value for value in values if value is not None]
    return (2 * sum(there) + len(there)) // (2 * len(there)) if there else None


def summary(measured: Measured) -> dict[str, Any]:
    """What usage evidence repeats of it: the totals, without the series. Values are plain JSON."""
    devices = [
        {
            "device": d.device,
            "samples": d.samples,
            "gaps": d.gaps,
            "covered_ms": d.covered_ms,
            "gpu_milli": d.gpu_milli,
            "memory_peak_mib": d.memory_peak_mib,
            "power_mw": d.power_mw,
            "energy_mj": d.energy_mj,
            "energy_resets": d.energy_resets,
        }
        for d in measured.devices
    ]
    told: dict[str, Any] = {
        "source": measured.source.value,
        "cpu_ms": measured.cpu_ms,
        "rss_peak_mib": measured.rss_peak_mib,
        "read_bytes": measured.read_bytes,
        "written_bytes": measured.written_bytes,
        "samples": sum(r.samples for r in measured.ranks),
    }
    told |= {"devices": devices} if devices else {}
    return told | ({"notes": list(measured.notes)} if measured.notes else {})


def _sum(values: Iterable[int | None]) -> int | None:
    found = list(values)
    return None if any(value is None for value in found) else sum(value or 0 for value in found)
