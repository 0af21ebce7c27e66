"""A picture of how busy each device was while it was held. Imports matplotlib only when it draws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.report import figures
from scheduler.report.canvas import INK, LINES, MUTED, PALE, PALETTE, plain, sheet
from scheduler.report.timeline import ticks
from scheduler.report.utilisation import BINS, WHOLE_MILLI, Row, Utilisation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HELD = LINES
_CARD = PALETTE[2]
_PROCESSORS = PALETTE[0]
_ROWS_MAX = 120
_ROW_IN = 0.62


def draw(found: Utilisation, target: Path, title: str) -> Path:
    """Write the chart as PNG to ``target``; only the first 120 rows. Raises ValueError without rows."""
    if not found.rows:
        raise ValueError("no device to show")
    rows = found.rows[:_ROWS_MAX]
    height = 1.9 + _ROW_IN * len(rows)
    with sheet(target, height, title, _subtitle(found)) as figure:
        axes = figure.add_axes((0.17, 0.85 / height, 0.68, 1 - 1.75 / height))
        for y, row in enumerate(rows):
            _draw_row(axes, found, row, y)
        _frame(axes, found, rows)
        _legend(axes, rows)
    return target


def _draw_row(axes: Axes, found: Utilisation, row: Row, y: int) -> None:
    """A strip from ``y + 0.4`` (0 %) up to ``y - 0.4`` (100 %): the axis runs downwards."""
    edges = [at * found.span_ms / BINS / 1_000 for at in range(BINS + 1)]
    floor = y + 0.4
    axes.axhspan(y - 0.4, floor, facecolor=PALE, zorder=0)
    for columns, colour in ((row.held, _HELD), (row.busy, _CARD if row.is_card else _PROCESSORS)):
        levels = [floor - 0.8 * share / WHOLE_MILLI for share in columns]
        axes.stairs(levels, edges, baseline=floor, fill=True, color=colour, linewidth=0)
    axes.text(1.01, y, _figures(row), transform=axes.get_yaxis_transform(), fontsize=8.8, color=MUTED, va="center")


def _figures(row: Row) -> str:
    busy = "not measured" if row.busy_milli is None else f"busy {figures.percent(row.busy_milli)} of that"
    source = f" ({' + '.join(row.sources)})" if row.sources else ""
    return f"held {figures.percent(row.held_milli)}\n{busy}{source}" if row.held_milli else "free"


def _frame(axes: Axes, found: Utilisation, rows: tuple[Row, ...]) -> None:
    labels = [f"{row.node}\n{row.label}" + (" (SIMULATED)" if row.is_simulated else "") for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    marks = ticks(found.span_ms)
    axes.set_xticks([m / 1000 for m in marks], [figures.axis(m) for m in marks])
    axes.set_xlim(0, found.span_ms / 1000)
    plain(axes, grid="x")
    axes.tick_params(axis="y", labelsize=8.8)


def _legend(axes: Axes, rows: tuple[Row, ...]) -> None:
    from matplotlib.patches import Patch

    keys = [Patch(color=_HELD, label="held")]
    if any(row.is_card and row.measured_milli for row in rows):
        keys.append(Patch(color=_CARD, label="card busy (NVML)"))
    if any(not row.is_card and row.measured_milli for row in rows):
        keys.append(Patch(color=_PROCESSORS, label="processors busy (measured on the attempts' processes)"))
    axes.legend(
        handles=keys,
        loc="upper left",
        bbox_to_anchor=(0, -0.36 / (_ROW_IN * len(rows))),
        frameon=False,
        ncols=len(keys),
        borderaxespad=0.6,
        handlelength=1.4,
        labelcolor=INK,
    )


def _subtitle(found: Utilisation) -> str:
    cards = sum(row.is_card for row in found.rows)
    parts = [figures.count(cards, "card")] if cards else []
    parts.append(figures.count(len({row.node for row in found.rows}), "node"))
    return f"{', '.join(parts)} over {figures.duration(found.span_ms)}, from {figures.instant(found.start_ms)}"
