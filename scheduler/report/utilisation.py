"""PURE. How busy each card and each node's processors were while they were held, from leases and measurements.

Held comes from the leases, busy from what was measured; where nothing was measured (a lost attempt, a simulated card, a
driver that does not say) that is told, not guessed. A card shared by several attempts shows the mean of what they saw,
because the driver's figure is the card's own; processors add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler.report import figures

Json = Mapping[str, Any]

BINS = 240
"""Columns of the picture."""
WHOLE_MILLI = 1_000
_MJ_PER_WH = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One card, MIG instance, or all processors of a node. Shares in thousandths of it."""

    node: str
    label: str
    is_card: bool
    is_simulated: bool = False
    sources: tuple[str, ...] = ()
    """What the busy share rests on; empty when nothing was measured."""
    held_milli: int = 0
    """Of the window."""
    busy_milli: int | None = None
    """Of what was held and measured."""
    measured_milli: int = 0
    """Of what was held."""
    energy_mj: int | None = None
    """Measured by the card's own counter while it was held."""
    held: tuple[int, ...] = ()
    """Of each column."""
    busy: tuple[int, ...] = ()
    """Of each column: never more than held on a card; processors may be lent more than was held."""

    @property
    def cells(self) -> tuple[str, ...]:
        """For a table: where, what, held, busy inside held, measured, source, energy."""
        return (
            self.node,
            self.label + (" (SIMULATED)" if self.is_simulated else ""),
            figures.percent(self.held_milli),
            "–" if self.busy_milli is None else figures.percent(self.busy_milli),
            figures.percent(self.measured_milli) if self.held_milli else "–",
            " + ".join(self.sources) or "not measured",
            "–" if self.energy_mj is None else f"{self.energy_mj / _MJ_PER_WH:.2f} Wh",
        )

    @property
    def sentence(self) -> str:
        """``n1 card 0 L40S: held 81 %, busy 76 % of that (nvml)``"""
        busy = "not measured" if self.busy_milli is None else f"busy {figures.percent(self.busy_milli)} of that"
        source = f" ({' + '.join(self.sources)})" if self.sources else ""
        return f"{self.node} {self.cells[1]}: held {figures.percent(self.held_milli)}, {busy}{source}"


HEADER = ("NODE", "DEVICE", "HELD", "BUSY WHILE HELD", "MEASURED", "SOURCE", "ENERGY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Utilisation:
    """All rows over ``[start_ms, end_ms)``."""

    start_ms: int
    end_ms: int
    rows: tuple[Row, ...]

    @property
    def span_ms(self) -> int:
        """Length of the window, at least 1."""
        return max(1, self.end_ms - self.start_ms)


def build(
    leases: Sequence[Json], attempts: Iterable[Json], nodes: Sequence[Json], now_ms: int, *, everything: bool = False
) -> Utilisation:
    """From ``GET /v1/leases``, attempts and nodes; open leases end at ``now_ms``. ``everything``: also devices that
    nobody held.
    """
    tries = {str(a["id"]): a for a in attempts}
    start_ms = min((int(lease["granted_ms"]) for lease in leases), default=now_ms - 1)
    end_ms = max((int(lease["closed_ms"]) or now_ms for lease in leases), default=now_ms)
    rows = _Rows(nodes, start_ms, max(end_ms, start_ms + 1))
    for lease in leases:
        until_ms = int(lease["closed_ms"]) or now_ms
        for rank, part in enumerate(lease.get("allocations", ())):
            rows.hold(part, int(lease["granted_ms"]), until_ms)
            for attempt in (tries.get(str(key)) for key in lease.get("attempts", ())):
                if attempt is not None and attempt.get("measured"):
                    rows.measure(attempt, rank, part)
    if everything:
        rows.add_all()
    return Utilisation(start_ms=start_ms, end_ms=max(end_ms, start_ms + 1), rows=rows.done())


@dataclass(slots=True)
class _Sum:
    """One row in the making; areas are ms x thousandths, per column."""

    held: list[int] = field(default_factory=lambda: [0] * BINS)
    busy: list[int] = field(default_factory=lambda: [0] * BINS)
    measured: list[int] = field(default_factory=lambda: [0] * BINS)
    sources: set[str] = field(default_factory=set)
    energy_mj: int | None = None


class _Rows:
    def __init__(self, nodes: Sequence[Json], start_ms: int, end_ms: int) -> None:
        self._nodes = {str(n["name"]): n for n in nodes}
        self._devices = {str(d["id"]): d for n in nodes for d in n.get("devices", ())}
        self._start_ms, self._end_ms = start_ms, end_ms
        self._sums: dict[tuple[str, bool, str], _Sum] = {}

    def hold(self, part: Json, start_ms: int, end_ms: int) -> None:
        """An allocation's time."""
        node = str(part["node"])
        share = _share(int(part.get("cpu_milli", 0)), self._cpu_milli(node))
        self._put(self._sum(node, "").held, start_ms, end_ms, share)
        for device in part.get("devices", ()):
            share = int(part.get("card_milli", 0)) or WHOLE_MILLI
            self._put(self._sum(node, str(device)).held, start_ms, end_ms, share)

    def measure(self, attempt: Json, rank: int, part: Json) -> None:
        """What one rank of an attempt was seen to do."""
        for use in attempt["measured"]["ranks"]:
            if int(use["rank"]) == rank:
                self._processors(attempt, use, part)
                for device in use["devices"]:
                    self._card(attempt, use, device, part)

    def add_all(self) -> None:
        """Rows of everything that is there."""
        for name, node in self._nodes.items():
            if node.get("state") != "lost":
                self._sum(name, "")
                for device in node.get("devices", ()):
                    self._sum(name, str(device["id"]))

    def done(self) -> tuple[Row, ...]:
        """In order of node; processors before cards, cards by index."""
        return tuple(self._row(*key, self._sums[key]) for key in sorted(self._sums, key=self._place))

    def _place(self, key: tuple[str, bool, str]) -> tuple[Any, ...]:
        node, is_card, device = key
        return (node, is_card, int(self._devices.get(device, {}).get("index", 0)), device)

    def _processors(self, attempt: Json, use: Json, part: Json) -> None:
        total = self._sum(str(use["node"]), "")
        total.sources.add("process")
        cpu_milli = self._cpu_milli(str(use["node"]))
        for start_ms, end_ms, level in _cpu_levels(attempt, use):
            self._put(total.busy, start_ms, end_ms, _share(level, cpu_milli))
        began, ended = _span(attempt)
        self._put(total.measured, began, ended, _share(int(part.get("cpu_milli", 0)), cpu_milli))

    def _card(self, attempt: Json, use: Json, device: Json, part: Json) -> None:
        total = self._sum(str(use["node"]), str(device["device"]))
        if device["energy_mj"] is not None:
            total.energy_mj = (total.energy_mj or 0) + int(device["energy_mj"])
        share = int(part.get("card_milli", 0)) or WHOLE_MILLI
        for start_ms, end_ms, level in _card_levels(attempt, use, device):
            total.sources.add(str(use["source"]))
            self._put(total.busy, start_ms, end_ms, level * share // WHOLE_MILLI)
            self._put(total.measured, start_ms, end_ms, share)

    def _row(self, node: str, is_card: bool, device: str, total: _Sum) -> Row:
        known = self._devices.get(device, {})
        label = f"card {known['index']} {known['model']} {known.get('profile', '')}".strip() if known else device
        held, busy, measured = sum(total.held), sum(total.busy), sum(total.measured)
        return Row(
            node=node,
            label=label if is_card else f"{figures.cpus(self._cpu_milli(node))}",
            is_card=is_card,
            is_simulated=bool(known.get("simulated")),
            sources=tuple(sorted(total.sources)),
            held_milli=min(WHOLE_MILLI, held // (self._end_ms - self._start_ms)),
            busy_milli=WHOLE_MILLI * busy // measured if measured else None,
            measured_milli=min(WHOLE_MILLI, WHOLE_MILLI * measured // held) if held else 0,
            energy_mj=total.energy_mj,
            held=self._levels(total.held),
            busy=self._levels(total.busy),
        )

    def _sum(self, node: str, device: str) -> _Sum:
        return self._sums.setdefault((node, bool(device), device), _Sum())

    def _cpu_milli(self, node: str) -> int:
        return int(self._nodes.get(node, {}).get("cpu_milli", 0))

    def _edge_ms(self, column: int) -> int:
        """Where the column begins, after the window's start; whole milliseconds, so columns differ in width by one."""
        return -(-column * (self._end_ms - self._start_ms) // BINS)

    def _levels(self, areas: Sequence[int]) -> tuple[int, ...]:
        widths = [max(1, self._edge_ms(at + 1) - self._edge_ms(at)) for at in range(BINS)]
        return tuple(min(WHOLE_MILLI, area // width_ms) for area, width_ms in zip(areas, widths, strict=True))

    def _put(self, columns: list[int], start_ms: int, end_ms: int, level: int) -> None:
        """Add ``level`` x time to the columns that ``[start_ms, end_ms)`` touches, without losing a millisecond."""
        span_ms = self._end_ms - self._start_ms
        at_ms, end_ms = max(start_ms, self._start_ms), min(end_ms, self._end_ms)
        while at_ms < end_ms:
            column = (at_ms - self._start_ms) * BINS // span_ms
            upto_ms = min(end_ms, self._start_ms + self._edge_ms(column + 1))
            columns[column] += level * (upto_ms - at_ms)
            at_ms = upto_ms


def _share(part: int, whole: int) -> int:
    return WHOLE_MILLI * part // whole if whole else 0


def _span(attempt: Json) -> tuple[int, int]:
    return int(attempt["started_ms"]), int(attempt["finished_ms"])


def _intervals(attempt: Json, use: Json) -> Iterator[tuple[int, int]]:
    """The series' intervals as instants, cut at the attempt's end."""
    began, ended = _span(attempt)
    at_ms = began
    for until_ms in use["until_ms"]:
        upto_ms = min(began + int(until_ms), ended)
        yield at_ms, upto_ms
        at_ms = max(at_ms, upto_ms)


def _cpu_levels(attempt: Json, use: Json) -> Iterator[tuple[int, int, int]]:
    """``(start, end, thousandths of a processor)``; what the series does not tell fills the rest of the time."""
    began, ended = _span(attempt)
    at_ms, left_us = began, 1_000 * int(use["cpu_ms"])
    for (start_ms, end_ms), level in zip(_intervals(attempt, use), use["cpu_series_milli"], strict=True):
        yield start_ms, end_ms, int(level)
        at_ms, left_us = max(at_ms, end_ms), left_us - int(level) * (end_ms - start_ms)
    if at_ms < ended:
        yield at_ms, ended, max(0, left_us) // (ended - at_ms)


def _card_levels(attempt: Json, use: Json, device: Json) -> Iterator[tuple[int, int, int]]:
    """``(start, end, thousandths)`` where the driver said something."""
    if not device["series_milli"]:
        if device["gpu_milli"] is not None:
            yield *_span(attempt), int(device["gpu_milli"])
        return
    for (start_ms, end_ms), level in zip(_intervals(attempt, use), device["series_milli"], strict=True):
        if level is not None:
            yield start_ms, end_ms, int(level)
