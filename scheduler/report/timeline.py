"""PURE. Who held what when, as rows and bars: the layout shared by the Gantt PNG and the page's SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One attempt on one row; ``[start_ms, end_ms)``."""

    start_ms: int
    end_ms: int
    job_id: str
    step: str
    task: str
    """Attempt id."""
    state: str
    """``starting`` for leased time before the runner's start, else the attempt's state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One device, or one slot, of one node."""

    node: str
    label: str
    simulated: bool = False
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All rows, and the window they span. ``series`` are the (job, step) pairs, for colours."""

    start_ms: int
    end_ms: int
    rows: tuple[Row, ...]
    series: tuple[tuple[str, str], ...]

    @property
    def span_ms(self) -> int:
        """Length of the window, at least 1."""
        return max(1, self.end_ms - self.start_ms)


Json = Mapping[str, Any]


def build(leases: Sequence[Json], attempts: Iterable[Json], nodes: Sequence[Json], now_ms: int) -> Timeline:
    """Lay out ``GET /v1/leases``, attempts and nodes. Open leases end at ``now_ms``.

    A lease with devices is drawn on its devices; one without, on the lowest slot of its node that is free: as many
    slots appear as leases were held at once.
    """
    tries = {str(a["id"]): a for a in attempts}
    ordered = sorted(leases, key=lambda lease: (lease["granted_ms"], int(str(lease["id"])[1:])))
    places: dict[tuple[str, int, str], list[Bar]] = {}
    slots = _Slots()
    for lease in ordered:
        bars = _bars(lease, tries, now_ms)
        for part in lease.get("allocations", ()):
            for place in _places(part, slots, lease, now_ms):
                places.setdefault(place, []).extend(bars)
    rows = tuple(_row(place, places[place], nodes) for place in sorted(places))
    series = sorted({(b.job_id, b.step): b.start_ms for r in rows for b in reversed(r.bars)}.items(), key=_first_seen)
    starts = [b.start_ms for r in rows for b in r.bars] or [now_ms]
    ends = [b.end_ms for r in rows for b in r.bars] or [now_ms]
    return Timeline(start_ms=min(starts), end_ms=max(ends), rows=rows, series=tuple(key for key, _ in series))


def _first_seen(item: tuple[tuple[str, str], int]) -> tuple[int, str, int, str]:
    (job_id, step), start_ms = item
    return int(job_id[1:]), job_id, start_ms, step


class _Slots:
    """Slots per node; each remembers until when it is taken."""

    def __init__(self) -> None:
        self._until: dict[str, list[int]] = {}

    def take(self, node: str, start_ms: int, end_ms: int) -> int:
        taken_until = self._until.setdefault(node, [])
        slot = next((i for i, until in enumerate(taken_until) if until <= start_ms), len(taken_until))
        taken_until[slot : slot + 1] = [end_ms]
        return slot


def _places(part: Json, slots: _Slots, lease: Json, now_ms: int) -> list[tuple[str, int, str]]:
    """Sort keys of the rows this allocation is drawn on: node, devices before slots, device id or slot number."""
    node = str(part["node"])
    if devices := part.get("devices"):
        return [(node, 0, str(d)) for d in devices]
    slot = slots.take(node, int(lease["granted_ms"]), int(lease.get("closed_ms") or now_ms))
    return [(node, 1, f"{slot:05d}")]


def _bars(lease: Json, tries: Mapping[str, Json], now_ms: int) -> list[Bar]:
    """Starting time first, then each attempt; the time between two attempts of a lease is the later one's start."""
    end_ms = int(lease.get("closed_ms") or now_ms)
    at_ms = int(lease["granted_ms"])
    base = Bar(
        start_ms=at_ms, end_ms=end_ms, job_id=str(lease["job_id"]), step=str(lease["step"]), task="", state="starting"
    )
    bars: list[Bar] = []
    for key in lease.get("attempts", ()):
        one = tries.get(str(key), {})
        began, ended = int(one.get("started_ms", 0)), int(one.get("finished_ms", 0) or end_ms)
        if not began:
            continue
        if began > at_ms:
            bars.append(replace(base, start_ms=at_ms, end_ms=began, task=str(key)))
        bars.append(
            replace(base, start_ms=max(began, at_ms), end_ms=min(ended, end_ms), task=str(key), state=str(one["state"]))
        )
        at_ms = min(ended, end_ms)
    if not bars:
        bars.append(replace(base, task=str(next(iter(lease.get("attempts", ())), ""))))
    return bars


def _row(place: tuple[str, int, str], bars: list[Bar], nodes: Sequence[Json]) -> Row:
    node, is_slot, key = place
    if is_slot:
        return Row(node=node, label=f"slot {int(key)}", bars=tuple(bars))
    known = {str(d["id"]): d for n in nodes for d in n.get("devices", ())}
    device = known.get(key, {})
    name = f"card {device['index']} {device['model']}" if device else key
    if device.get("profile"):
        name = f"{name} {device['profile']}"
    return Row(node=node, label=name, simulated=bool(device.get("simulated")), bars=tuple(bars))


_STEPS_MS = (
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    7_200_000,
    14_400_000,
    43_200_000,
    86_400_000,
)


def ticks(span_ms: int, at_most: int = 10) -> tuple[int, ...]:
    """Round offsets in ms for an axis of ``span_ms``: not more than ``at_most`` intervals."""
    step = next(
        (s for s in _STEPS_MS if span_ms <= s * at_most), _STEPS_MS[-1] * (1 + span_ms // _STEPS_MS[-1] // at_most)
    )
    return tuple(range(0, span_ms + 1, step))
