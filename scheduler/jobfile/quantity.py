"""The small spellings inside fields: sizes, durations, CPUs, cards, instants, arrays.

Every function takes what YAML gave and returns an integer quantity or a small value; mistakes raise :class:`Malformed`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pipelines.media import FrameRange
from scheduler.model.units import MILLI, MS_PER_HOUR, MS_PER_SECOND

MIB = 1_048_576
MAX_CPUS = 4_096
MAX_CARDS = 1_024
MAX_TILES = 64
"""Per side."""
MAX_MEMORY_MIB = 64 * 1_048_576
MAX_DURATION_MS = 365 * 24 * MS_PER_HOUR
PRIORITIES = {"low": 30, "normal": 50, "high": 70, "urgent": 90}
"""The classes: by the park's default a job may stop those of a class below in its queue."""

# Bounded digits: Decimal would happily make an integer of 10**9 digits from "1e999999999".
_NUMBER = re.compile(r"([-+]?\d{1,12}(?:\.\d{1,9})?)\+?", re.ASCII)
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([A-Za-z]*)\s*\+?", re.ASCII)
_BYTES = {"": 1024**3, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BYTES |= {"ki": 1024, "mi": MIB, "gi": 1024**3, "ti": 1024**4}
_DURATION = re.compile(r"(\d{1,9})(ms|s|m|h|d)", re.ASCII)
_DURATION_MS = {"ms": 1, "s": MS_PER_SECOND, "m": 60 * MS_PER_SECOND, "h": MS_PER_HOUR, "d": 24 * MS_PER_HOUR}
# NVIDIA MIG user guide, "GPU instance profiles": optional compute slices, slices, memory, attributes.
_MIG = re.compile(r"(?:\d+c\.)?\d+g\.\d+gb(?:[+-][a-z.]+)*", re.ASCII)
_MODEL = re.compile(r"[A-Za-z][A-Za-z0-9 ._-]{0,63}", re.ASCII)


class Malformed(ValueError):
    """A field's value cannot be understood. ``choices`` and ``nearest`` go into the Problem."""

    def __init__(self, message: str, choices: Sequence[str] = (), nearest: str = "") -> None:
        super().__init__(message)
        self.choices = tuple(choices)
        self.nearest = nearest


def shown(value: object) -> str:
    """A value as an error quotes it: short, texts in quotes."""
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _decimal(value: object, what: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Malformed(f"must be {what}, got {shown(value)}")
    match = _NUMBER.fullmatch(str(value).strip())
    if match is None:
        raise Malformed(f"must be {what}, got {shown(value)}")
    return Decimal(match[1])


def cpu_milli(value: Any) -> int:
    """``4``, ``"4+"``, ``0.5``. A task gets exactly what it asks for, so ``4+`` means 4."""
    number = _decimal(value, "a number of CPUs such as 4, 0.5 or '4+'")
    milli = int(number * MILLI)
    if milli < 1 or milli != number * MILLI or number > MAX_CPUS:
        raise Malformed(f"must be from 0.001 to {MAX_CPUS} CPUs in thousandths, got {shown(value)}")
    return milli


def memory_mib(value: Any) -> int:
    """``"8GiB"``, ``"8Gi"``, ``"512MiB"``, ``"8GB"`` (10**9), or plain GiB as in SkyPilot; rounded up to MiB."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Malformed(f"must be a size such as 8GiB, 512MiB or 8 (GiB), got {shown(value)}")
    match = _SIZE.fullmatch(str(value).strip())
    unit = match[2].lower().removesuffix("b") if match else "?"
    if match is None or unit not in _BYTES:
        raise Malformed(f"must be a size such as 8GiB, 512MiB or 8 (GiB), got {shown(value)}")
    mib = math.ceil(Fraction(match[1]) * _BYTES[unit] / MIB)
    if not 1 <= mib <= MAX_MEMORY_MIB:
        raise Malformed(f"must be from 1 MiB to {MAX_MEMORY_MIB // 1_048_576} TiB, got {shown(value)}")
    return mib


def duration_ms(value: Any) -> int:
    """``30m``, ``1h30m``, ``90s``, ``2d``, or a whole number of seconds."""
    if isinstance(value, int) and not isinstance(value, bool):
        total = value * MS_PER_SECOND
    else:
        total = _duration_text_ms(value)
    if not 1 <= total <= MAX_DURATION_MS:
        raise Malformed(f"must be longer than nothing and at most 365d, got {shown(value)}")
    return total


def backoff_ms(value: Any) -> int:
    """A duration of at most an hour; ``0``: none."""
    if value in (0, "0", "0s") and not isinstance(value, bool):
        return 0
    return _at_most(value, MS_PER_HOUR, "1h")


def backoff_max_ms(value: Any) -> int:
    """A duration of at most a day."""
    return _at_most(value, 24 * MS_PER_HOUR, "1d")


def _at_most(value: Any, most_ms: int, shown_most: str) -> int:
    length_ms = duration_ms(value)
    if length_ms > most_ms:
        raise Malformed(f"must be at most {shown_most}, got {shown(value)}")
    return length_ms


def _duration_text_ms(value: object) -> int:
    text = value.replace(" ", "") if isinstance(value, str) else ""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise Malformed(f"must be a duration such as 90s, 30m, 1h30m or 2d, got {shown(value)}")
    return sum(int(number) * _DURATION_MS[unit] for number, unit in parts)


def priority(value: Any) -> int:
    """0 to 100, or ``low``, ``normal``, ``high``, ``urgent``."""
    if isinstance(value, str) and value.lower() in PRIORITIES:
        return PRIORITIES[value.lower()]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
        raise Malformed(f"must be 0 to 100 or a name, got {shown(value)}", tuple(PRIORITIES))
    return value


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant, or a time after submission; never both."""

    at_ms: int = 0
    after_ms: int = 0
    text: str = ""

    def instant_ms(self, now_ms: int) -> int:
        """The instant it means for a job submitted at ``now_ms``."""
        return self.at_ms or now_ms + self.after_ms


def deadline(value: Any) -> Deadline:
    """``2026-12-01T09:00:00+08:00`` or ``+6h``."""
    form = "an instant with a zone such as 2026-12-01T09:00:00+08:00, or a time from now such as +6h"
    if not isinstance(value, str):
        raise Malformed(f"must be {form}, got {shown(value)}")
    if value.startswith("+"):
        return Deadline(after_ms=duration_ms(value[1:]), text=value)
    try:
        instant = datetime.fromisoformat(value.strip())
    except ValueError:
        raise Malformed(f"must be {form}, got {shown(value)}") from None
    if instant.tzinfo is None:
        raise Malformed(f"needs a time zone such as {value.strip()}+08:00, or Z for UTC")
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    since = instant - epoch
    # At least 1, because 0 means "not given"; every instant before today is refused later anyway.
    return Deadline(at_ms=max(1, (since.days * 86_400 + since.seconds) * MS_PER_SECOND), text=value)


@dataclass(frozen=True, slots=True)
class Array:
    """The users' numbers of an array's tasks, and how many may run at once (0: no limit)."""

    indices: FrameRange
    max_parallel: int = 0


def frames(value: Any) -> FrameRange:
    """``"1-24"``, ``"1-100x2"``, ``7``, ``[1, 5, "10-20"]``."""
    items = value if isinstance(value, list) else [value]
    if not items or any(isinstance(item, bool) or not isinstance(item, int | str) for item in items):
        raise Malformed(f"must be a range such as 1-24, 1-100x2 or a list of numbers and ranges, got {shown(value)}")
    try:
        return FrameRange.parse(",".join(str(item) for item in items))
    except ValueError as error:
        raise Malformed(str(error)) from None


def array(value: Any) -> Array:
    """``"0-239%16"`` (Slurm's spelling), ``4`` (0 to 3), or ``{count: 240, max_parallel: 16}``."""
    if isinstance(value, dict):
        stray = sorted(value.keys() - {"count", "max_parallel"})
        if stray or "count" not in value:
            raise Malformed("a mapping here has the fields", ("count", "max_parallel"))
        return _counted(value["count"], value.get("max_parallel", 0))
    if isinstance(value, int) and not isinstance(value, bool):
        return _counted(value, 0)
    if not isinstance(value, str):
        raise Malformed(f"must be like 0-239%16, 4, or {{count: 240, max_parallel: 16}}, got {shown(value)}")
    text, percent, limit = value.partition("%")
    if percent and (re.fullmatch(r"\d{1,9}", limit.strip(), re.ASCII) is None or int(limit) < 1):
        raise Malformed(f"after % comes how many tasks may run at once, at least 1, got {shown(limit)}")
    return Array(frames(text), int(limit) if percent else 0)


def _counted(count: object, limit: object) -> Array:
    for what, number, least in (("count", count, 1), ("max_parallel", limit, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise Malformed(f"{what} must be a whole number, at least {least}, got {shown(number)}")
    assert isinstance(count, int)
    assert isinstance(limit, int)
    if count > 100_000_000:
        raise Malformed(f"count must be at most 100000000, got {count}")
    return Array(FrameRange(((0, count, 1),)), limit)


@dataclass(frozen=True, slots=True)
class Cards:
    """A wish for cards: whole ones, a fraction of one, MIG instances, or one if the park has any (``auto``)."""

    models: tuple[str, ...] = ()
    """As the user spelled them; any of them will do."""
    count: int = 0
    milli: int = 0
    mig_profile: str = ""
    auto: bool = False


def cards(value: Any) -> Cards:
    """``H100:8``, ``{H100: 8}``, ``H100``, ``2``, ``L40S:0.5``, ``1g.10gb:2``, ``auto``; a list: any of these."""
    if value == "auto":
        return Cards(count=1, auto=True)
    if isinstance(value, dict | list):
        items = list(value.items()) if isinstance(value, dict) else value
        wishes = [_cards_entry(item) for item in items]
        if not wishes:
            raise Malformed("is empty; leave it out for no card")
        if len({(wish.count, wish.milli, wish.mig_profile) for wish in wishes}) > 1:
            raise Malformed("a choice of models needs the same count for each")
        names = tuple(dict.fromkeys(name for wish in wishes for name in wish.models))
        return Cards(names, wishes[0].count, wishes[0].milli, wishes[0].mig_profile)
    return _cards_entry(value)


def _cards_entry(entry: Any) -> Cards:
    if isinstance(entry, tuple):
        name, amount = entry
    elif isinstance(entry, str) and re.fullmatch(r"[\d.]+", entry, re.ASCII) is None:
        name, _, text = entry.partition(":")
        amount = text if ":" in entry else 1
    else:
        name, amount = "", entry
    name = name.strip()
    if name and _MIG.fullmatch(name.lower()):
        count, milli = _cards_amount(amount)
        if milli:
            raise Malformed(f"a MIG instance cannot be shared: the count must be whole, got {shown(amount)}")
        return Cards((), count, 0, name.lower())
    if (name or isinstance(entry, tuple) or ":" in str(entry)) and _MODEL.fullmatch(name) is None:
        raise Malformed(f"must be like H100:8, {{H100: 8}}, 2, L40S:0.5 or 1g.10gb:2, got {shown(name)}")
    count, milli = _cards_amount(amount)
    return Cards((name,) if name else (), count, milli)


def _cards_amount(amount: object) -> tuple[int, int]:
    number = _decimal(amount, "a number of cards such as 8, or a fraction of one such as 0.5")
    if number <= 0:
        raise Malformed(
            f"must be at least 1 card, or a fraction such as 0.5, got {shown(amount)}; leave it out for no card"
        )
    if number < 1:
        milli = int(number * MILLI)
        if milli < 1 or milli != number * MILLI:
            raise Malformed(f"a fraction of a card is counted in thousandths, got {shown(amount)}")
        return 0, milli
    if number != int(number):
        raise Malformed(f"must be whole cards, or a fraction below 1, got {shown(amount)}")
    if number > MAX_CARDS:
        raise Malformed(f"must be at most {MAX_CARDS} cards for one node, got {shown(amount)}")
    return int(number), 0


def resolution(value: Any) -> tuple[int, int]:
    """``[1920, 1080]`` or ``"1920x1080"``, in pixels."""
    pair = _pair(value, "1920x1080 or [1920, 1080]")
    # Blender's own limits for one side (RenderSettings.resolution_x in its Python API).
    if not all(4 <= side <= 65_536 for side in pair):
        raise Malformed(f"each side must be 4 to 65536 pixels, got {pair[0]}x{pair[1]}")
    return pair


def tiles(value: Any) -> tuple[int, int]:
    """``[4, 2]`` or ``"4x2"``: columns, rows."""
    pair = _pair(value, "4x4 or [4, 4], columns by rows")
    if not all(1 <= side <= MAX_TILES for side in pair):
        raise Malformed(f"must be 1 to {MAX_TILES} tiles across and down, got {pair[0]}x{pair[1]}")
    return pair


def _pair(value: Any, form: str) -> tuple[int, int]:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,6})\s*[xX×]\s*(\d{1,6})", value.strip(), re.ASCII)):
        return int(match[1]), int(match[2])
    if isinstance(value, list) and len(value) == 2 and all(type(item) is int for item in value):
        return value[0], value[1]
    raise Malformed(f"must be like {form}, got {shown(value)}")
