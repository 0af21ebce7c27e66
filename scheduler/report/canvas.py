"""The sheet every chart is drawn on: its colours, its heading, and axes without ornament."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scheduler.report.fonts import cjk_family, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), then four of Paul Tol's muted one: told apart by
# colour-blind readers too.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B59F00", "#7F7F7F"),
    *("#332288", "#882255", "#44AA99", "#999933"),
)
INK = "#24292f"
MUTED = "#57606a"
LINES = "#d0d7de"
PALE = "#f6f8fa"
WIDTH_IN = 12


@contextmanager
def sheet(target: Path, height_in: float, title: str, subtitle: str = "") -> Iterator[Figure]:
    """A white figure 12 inches wide, to draw on below its heading; written to ``target`` as PNG in the end.

    Imports matplotlib, which takes a while, and draws without a display.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    family = cjk_family()
    with mpl.rc_context({"font.family": ["DejaVu Sans", *([family] if family else [])], "font.size": 10}):
        figure = Figure(figsize=(WIDTH_IN, height_in), dpi=110, facecolor="white")
        FigureCanvasAgg(figure)
        heading = shown(title, has_cjk=bool(family))
        figure.text(0.012, 1 - 0.30 / height_in, heading, fontsize=14, fontweight="bold", color=INK, va="center")
        figure.text(0.012, 1 - 0.60 / height_in, subtitle, fontsize=9.5, color=MUTED, va="center")
        yield figure
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target)


def plain(axes: Axes, *, grid: Literal["both", "x"] = "both") -> None:
    """Only light grid lines behind what is drawn: no frame, no tick marks."""
    axes.grid(axis=grid, color=LINES, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=MUTED)
    for side in axes.spines.values():
        side.set_visible(False)
