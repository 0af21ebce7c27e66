"""A picture of who held what when, from a timeline. Imports matplotlib only when it draws."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scheduler.report import figures
from scheduler.report.canvas import INK, MUTED, PALE, PALETTE, plain, sheet
from scheduler.report.timeline import Bar, Row, Timeline, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

_LEGEND_COLUMNS = 6
_BAD = ("failed", "timed_out", "lost", "cancelled", "preempted")
_ROWS_MAX = 120


def draw(timeline: Timeline, target: Path, title: str) -> Path:
    """Write the Gantt chart as PNG to ``target``; only the first 120 rows of a large cluster."""
    rows = timeline.rows[:_ROWS_MAX]
    legend_rows = math.ceil(len(_keys(timeline)) / _LEGEND_COLUMNS)
    below = 0.60 + 0.25 * legend_rows
    height = 1.05 + below + 0.42 * max(1, len(rows))
    with sheet(target, height, title, _subtitle(timeline)) as figure:
        axes = figure.add_axes((0.12, below / height, 0.86, 1 - (below + 0.90) / height))
        for y, row in enumerate(rows):
            _draw_row(axes, timeline, row, y)
        _frame(axes, timeline, rows)
        _legend(axes, timeline)
    return target


def colour_of(timeline: Timeline, job_id: str, step: str) -> str:
    """The colour of a job's step in this timeline."""
    return PALETTE[timeline.series.index((job_id, step)) % len(PALETTE)]


def _draw_row(axes: Axes, timeline: Timeline, row: Row, y: int) -> None:
    for bar in row.bars:
        left, width = (bar.start_ms - timeline.start_ms) / 1000, (bar.end_ms - bar.start_ms) / 1000
        axes.barh(y, width, left=left, height=0.74, **_look(timeline, bar))


def _look(timeline: Timeline, bar: Bar) -> dict[str, Any]:
    colour = colour_of(timeline, bar.job_id, bar.step)
    if bar.state == "starting":
        return {"facecolor": PALE, "edgecolor": colour, "hatch": "////", "linewidth": 0.6}
    edge = "#cf222e" if bar.state in _BAD else "white"
    return {"facecolor": colour, "edgecolor": edge, "linewidth": 1.4 if bar.state in _BAD else 0.6}


def _frame(axes: Axes, timeline: Timeline, rows: tuple[Row, ...]) -> None:
    labels = [f"{row.node} · {row.label}" + (" (SIMULATED)" if row.simulated else "") for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    marks = ticks(timeline.span_ms)
    axes.set_xticks([m / 1000 for m in marks], [figures.axis(m) for m in marks])
    axes.set_xlim(0, timeline.span_ms / 1000 * 1.005)
    plain(axes, grid="x")


def _keys(timeline: Timeline) -> list[Patch]:
    from matplotlib.patches import Patch

    one_job = len({job for job, _ in timeline.series}) == 1
    named = timeline.series[: len(PALETTE)]
    keys = [
        Patch(color=colour_of(timeline, job, step), label=step if one_job else f"{job} {step}") for job, step in named
    ]
    keys.append(Patch(facecolor=PALE, edgecolor=MUTED, hatch="////", label="starting"))
    if any(bar.state in _BAD for row in timeline.rows for bar in row.bars):
        keys.append(Patch(facecolor="white", edgecolor="#cf222e", label="failed, lost or stopped"))
    return keys


def _legend(axes: Axes, timeline: Timeline) -> None:
    keys = _keys(timeline)
    axes.legend(
        handles=keys,
        loc="upper left",
        bbox_to_anchor=(0, -0.36 / max(1.0, 0.42 * len(timeline.rows))),
        frameon=False,
        ncols=min(len(keys), _LEGEND_COLUMNS),
        borderaxespad=0.6,
        handlelength=1.4,
        labelcolor=INK,
    )


def _subtitle(timeline: Timeline) -> str:
    tasks = len({bar.task for row in timeline.rows for bar in row.bars})
    busy_ms = sum(b.end_ms - b.start_ms for r in timeline.rows for b in r.bars)
    share = math.floor(100 * busy_ms / (timeline.span_ms * max(1, len(timeline.rows))))
    return (
        f"{figures.count(tasks, 'attempt')} over {figures.duration(timeline.span_ms)}, "
        f"from {figures.instant(timeline.start_ms)}; rows held {share} % of the time"
    )
