"""PURE. Numbers for the page's inline SVG: bars, task squares, the Gantt chart. Integers in user units, no styles.

The page's content security policy forbids inline styles, so geometry travels as SVG attributes and colour as classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.report import figures
from scheduler.report.timeline import Timeline, ticks

STATES = ("succeeded", "running", "failed", "cancelled", "waiting")
SQUARES_MAX = 2_000
_COLUMNS = 60
_PITCH = 14
_CHART_WIDTH = 1000
_ROW_HEIGHT = 26
SERIES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle with a class and a tooltip."""

    x: int
    y: int
    width: int
    height: int = 0
    kind: str
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Squares, one per task."""

    width: int
    height: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartRow:
    """One device or slot."""

    y: int
    label: str
    is_simulated: bool
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The Gantt chart: rows, marks ``(x, label)`` and the series' names."""

    width: int
    height: int
    rows: tuple[ChartRow, ...]
    marks: tuple[tuple[int, str], ...]
    series: tuple[str, ...]
    row_height: int = _ROW_HEIGHT


def share(counts: Mapping[str, int], total: int) -> tuple[Box, ...]:
    """A stacked bar of 1000 units: the counts of one step, waiting left out."""
    boxes, at = [], 0
    for state in STATES[:-1]:
        width = 1000 * counts.get(state, 0) // max(1, total)
        if width:
            boxes.append(Box(x=at, y=0, width=width, kind=state))
        at += width
    return tuple(boxes)


def grid(states: Mapping[int, str], count: int, task: str) -> Grid:
    """One square per task ``0 … count-1``; ``states`` leaves out waiting ones; ``task`` is ``j17.render``."""
    columns = min(_COLUMNS, max(1, count))
    boxes = tuple(
        Box(
            x=i % columns * _PITCH,
            y=i // columns * _PITCH,
            width=_PITCH - 3,
            height=_PITCH - 3,
            kind=states.get(i, "waiting"),
            title=f"{task}.{i}",
        )
        for i in range(count)
    )
    return Grid(width=columns * _PITCH, height=-(-count // columns) * _PITCH, boxes=boxes)


def chart(timeline: Timeline) -> Chart:
    """The timeline in a box 1000 units wide."""
    colours = {key: f"s{i % SERIES}" for i, key in enumerate(timeline.series)}

    def x(at_ms: int) -> int:
        return _CHART_WIDTH * (at_ms - timeline.start_ms) // timeline.span_ms

    rows = []
    for number, row in enumerate(timeline.rows):
        boxes = tuple(
            Box(
                x=x(bar.start_ms),
                y=number * _ROW_HEIGHT + 3,
                width=max(1, x(bar.end_ms) - x(bar.start_ms)),
                height=_ROW_HEIGHT - 6,
                kind=f"{colours[bar.job_id, bar.step]} {bar.state}",
                title=f"{bar.task}\n{bar.state}, {figures.duration(bar.end_ms - bar.start_ms)}",
            )
            for bar in row.bars
        )
        label = f"{row.node} · {row.label}"
        rows.append(ChartRow(y=number * _ROW_HEIGHT, label=label, is_simulated=row.simulated, boxes=boxes))
    marks = tuple((x(timeline.start_ms + m), figures.axis(m)) for m in ticks(timeline.span_ms, at_most=8))
    return Chart(
        width=_CHART_WIDTH,
        height=len(rows) * _ROW_HEIGHT,
        rows=tuple(rows),
        marks=marks,
        series=tuple(step for _, step in timeline.series),
    )
