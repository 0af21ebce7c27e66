"""PURE. Numbers for people: durations, sizes, instants and amounts, each with its unit. The JSON stays exact."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from fractions import Fraction
from typing import Any

from scheduler.model.units import MILLI, MS_PER_HOUR, MS_PER_SECOND

_MS_PER_MINUTE = 60 * MS_PER_SECOND
_MS_PER_DAY = 24 * MS_PER_HOUR

_SKU_UNITS = {
    "card": ("card-hours", MILLI * MS_PER_HOUR),
    "mig": ("MIG-instance-hours", MILLI * MS_PER_HOUR),
    "vcpu": ("vCPU-hours", MILLI * MS_PER_HOUR),
    "memory": ("GiB-hours", 1024 * MS_PER_HOUR),
}


def duration(length_ms: int) -> str:
    """``850 ms``, ``4.2 s``, ``1 min 05 s``, ``3 h 07 min``, ``2 d 04 h``: two leading units, no more."""
    if length_ms < MS_PER_SECOND:
        return f"{max(length_ms, 0)} ms"
    if length_ms < 10 * MS_PER_SECOND:
        return f"{length_ms // 1000}.{length_ms % 1000 // 100} s"
    if length_ms < _MS_PER_MINUTE:
        return f"{length_ms // MS_PER_SECOND} s"
    if length_ms < MS_PER_HOUR:
        return f"{length_ms // _MS_PER_MINUTE} min {length_ms % _MS_PER_MINUTE // MS_PER_SECOND:02d} s"
    if length_ms < _MS_PER_DAY:
        return f"{length_ms // MS_PER_HOUR} h {length_ms % MS_PER_HOUR // _MS_PER_MINUTE:02d} min"
    return f"{length_ms // _MS_PER_DAY} d {length_ms % _MS_PER_DAY // MS_PER_HOUR:02d} h"


def coarse(length_ms: int) -> str:
    """Like :func:`duration`, in whole seconds: for what is redrawn while it grows."""
    return duration(length_ms) if length_ms >= 10 * MS_PER_SECOND else f"{max(length_ms, 0) // MS_PER_SECOND} s"


def instant(at_ms: int, zone: tzinfo | None = None) -> str:
    """Local time with its zone, ``2026-11-22 20:03:11 CST``; a dash for 'not yet'. ``zone`` None: this machine's."""
    if not at_ms:
        return "–"
    return local(at_ms, zone).strftime("%Y-%m-%d %H:%M:%S %Z")


def local(at_ms: int, zone: tzinfo | None = None) -> datetime:
    """``at_ms`` (Unix, ms) as an aware datetime in ``zone``, this machine's zone when None."""
    return datetime.fromtimestamp(at_ms // MS_PER_SECOND, UTC).astimezone(zone)


def memory(mib: int) -> str:
    """``512 MiB`` or ``1.5 GiB``."""
    return f"{mib} MiB" if mib < 1024 else f"{_short(Fraction(mib, 1024), 1)} GiB"


def size(length_bytes: int) -> str:
    """``812 B``, ``3.4 KiB``, ``1.2 MiB``."""
    if length_bytes < 1024:
        return f"{length_bytes} B"
    for unit, scale in (("KiB", 1024), ("MiB", 1024**2)):
        if length_bytes < scale * 1024:
            return f"{_short(Fraction(length_bytes, scale), 1)} {unit}"
    return f"{_short(Fraction(length_bytes, 1024**3), 1)} GiB"


def cpus(milli: int) -> str:
    """``2 CPUs``, ``0.5 CPU``."""
    number = _short(Fraction(milli, MILLI), 2)
    return f"{number} CPU" if milli <= MILLI else f"{number} CPUs"


def used(measured: Mapping[str, Any] | None, length_ms: int) -> str:
    """What an attempt of ``length_ms`` was seen to do, in a line: mean processors, peak memory, the cards' mean share.

    ``1.9 CPUs, 1.2 GiB, GPU 87 %``; a dash where nobody measured it.
    """
    if not measured:
        return "–"
    words = [cpus(_round_half_up(MILLI * int(measured["cpu_ms"]), max(1, length_ms)))]
    if measured["rss_peak_mib"] is not None:
        words.append(memory(int(measured["rss_peak_mib"])))
    if measured["gpu_milli"] is not None:
        words.append(f"GPU {percent(int(measured['gpu_milli']))}")
    return ", ".join(words)


def _round_half_up(over: int, under: int) -> int:
    return (2 * over + under) // (2 * under)


def percent(milli: int) -> str:
    """Thousandths as whole per cent, never ``100 %`` before the end."""
    return f"{milli // 10} %"


def count(number: int, one: str, many: str = "") -> str:
    """``1 task``, ``24 tasks``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def sku_unit(sku: str) -> str:
    """The unit in which amounts of ``sku`` are shown."""
    return _SKU_UNITS[sku][0] if sku in _SKU_UNITS else "units"


def hours(sku: str, amount: int) -> str:
    """An exact usage amount as hours, rounded half-up to 6 decimals for showing only."""
    scale = _SKU_UNITS[sku][1] if sku in _SKU_UNITS else 1
    micro = (2 * amount * 1_000_000 + scale) // (2 * scale)
    return f"{micro // 1_000_000}.{micro % 1_000_000:06d}"


def _short(value: Fraction, digits: int) -> str:
    """At most ``digits`` decimals, no trailing zeros."""
    scaled = round(value * 10**digits)
    whole, rest = divmod(scaled, 10**digits)
    text = f"{rest:0{digits}d}".rstrip("0")
    return f"{whole}.{text}" if text else str(whole)


def axis(offset_ms: int) -> str:
    """A mark on a time axis: ``0``, ``0.5 s``, ``45 s``, ``2:30``, ``1:05:00``."""
    if not offset_ms:
        return "0"
    if offset_ms % MS_PER_SECOND:
        return f"{_short(Fraction(offset_ms, MS_PER_SECOND), 1)} s"
    minutes, seconds = divmod(offset_ms // MS_PER_SECOND, 60)
    if not minutes:
        return f"{seconds} s"
    return f"{minutes}:{seconds:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
