"""A picture of who held what when, from a timeline. Imports matplotlib only when it draws."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scheduler.report import figures
from scheduler.report.fonts import cjk_family, shown
from scheduler.report.timeline import Bar, Row, Timeline, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), then four of Paul Tol's muted one: told apart by
# colour-blind readers too.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B59F00", "#7F7F7F"),
    *("#332288", "#882255", "#44AA99", "#999933"),
)
_LEGEND_COLUMNS = 6
_BAD = ("failed", "timed_out", "lost", "cancelled", "preempted")
INK = "#24292f"
MUTED = "#57606a"
_ROWS_MAX = 120


def draw(timeline: Timeline, target: Path, title: str) -> Path:
    """Write the Gantt chart as PNG to ``target``; only the first 120 rows of a large cluster."""
    import matplotlib as mpl

    family = cjk_family()
    with mpl.rc_context({"font.family": ["DejaVu Sans", *([family] if family else [])], "font.size": 10}):
        return _draw(timeline, target, shown(title, has_cjk=bool(family)))


def _draw(timeline: Timeline, target: Path, title: str) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = timeline.rows[:_ROWS_MAX]
    keys = _keys(timeline)
    legend_rows = math.ceil(len(keys) / _LEGEND_COLUMNS)
    below = 0.60 + 0.25 * legend_rows
    height = 1.05 + below + 0.42 * max(1, len(rows))
    figure = Figure(figsize=(12, height), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.12, below / height, 0.86, 1 - (below + 0.90) / height))
    for y, row in enumerate(rows):
        _draw_row(axes, timeline, row, y)
    _frame(axes, timeline, rows)
    _legend(axes, timeline, keys)
    figure.text(0.012, 1 - 0.30 / height, title, fontsize=14, fontweight="bold", color=INK, va="center")
    figure.text(0.012, 1 - 0.60 / height, _subtitle(timeline), fontsize=9.5, color=MUTED, va="center")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
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
        return {"facecolor": "#f6f8fa", "edgecolor": colour, "hatch": "////", "linewidth": 0.6}
    edge = "#cf222e" if bar.state in _BAD else "white"
    return {"facecolor": colour, "edgecolor": edge, "linewidth": 1.4 if bar.state in _BAD else 0.6}


def _frame(axes: Axes, timeline: Timeline, rows: tuple[Row, ...]) -> None:
    labels = [f"{row.node} · {row.label}" + (" (SIMULATED)" if row.simulated else "") for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    marks = ticks(timeline.span_ms)
    axes.set_xticks([m / 1000 for m in marks], [figures.axis(m) for m in marks])
    axes.set_xlim(0, timeline.span_ms / 1000 * 1.005)
    axes.grid(axis="x", color="#d0d7de", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=MUTED)
    for side in axes.spines.values():
        side.set_visible(False)


def _keys(timeline: Timeline) -> list[Patch]:
    from matplotlib.patches import Patch

    one_job = len({job for job, _ in timeline.series}) == 1
    named = timeline.series[: len(PALETTE)]
    keys = [
        Patch(color=colour_of(timeline, job, step), label=step if one_job else f"{job} {step}") for job, step in named
    ]
    keys.append(Patch(facecolor="#f6f8fa", edgecolor=MUTED, hatch="////", label="starting"))
    if any(bar.state in _BAD for row in timeline.rows for bar in row.bars):
        keys.append(Patch(facecolor="white", edgecolor="#cf222e", label="failed, lost or stopped"))
    return keys


def _legend(axes: Axes, timeline: Timeline, keys: list[Patch]) -> None:
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
