"""A picture of how a training run learned: loss and throughput over steps, with where it was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.report import figures
from scheduler.report.canvas import INK, MUTED, PALETTE, plain, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What the run said at one step. A rate of 0 was not told."""

    step: int
    loss: float
    tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One attempt's points, in order of step."""

    label: str
    points: tuple[Point, ...]


def draw(curves: Sequence[Curve], target: Path, title: str) -> Path:
    """Write loss (and throughput, where told) of consecutive attempts as PNG. Raises ValueError without points."""
    told = [curve for curve in curves if curve.points]
    if not told:
        raise ValueError("the run reported no loss")
    with sheet(target, 6, title, _subtitle(told)) as figure:
        _plot(figure, told)
    return target


def _plot(figure: Figure, curves: Sequence[Curve]) -> None:
    has_rate = any(p.tokens_per_s for c in curves for p in c.points)
    loss = figure.add_axes((0.07, 0.40 if has_rate else 0.11, 0.91, 0.45 if has_rate else 0.74))
    for at, curve in enumerate(curves):
        colour = PALETTE[at % len(PALETTE)]
        steps = [p.step for p in curve.points]
        loss.plot(steps, [p.loss for p in curve.points], color=colour, linewidth=1.8, label=curve.label)
        if at:
            loss.axvline(steps[0], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    loss.set_ylabel("loss", color=INK)
    _frame(loss)
    if len(curves) > 1:
        loss.legend(frameon=False, labelcolor=INK, loc="upper right")
    if has_rate:
        _rates(figure, loss, curves)
    else:
        loss.set_xlabel("step", color=INK)


def _rates(figure: Figure, above: Axes, curves: Sequence[Curve]) -> None:
    axes = figure.add_axes((0.07, 0.10, 0.91, 0.22), sharex=above)
    for at, curve in enumerate(curves):
        told = [p for p in curve.points if p.tokens_per_s]
        axes.plot(
            [p.step for p in told], [p.tokens_per_s for p in told], color=PALETTE[at % len(PALETTE)], linewidth=1.2
        )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("tokens/s", color=INK)
    axes.set_xlabel("step", color=INK)
    _frame(axes)


def _frame(axes: Axes) -> None:
    plain(axes)
    axes.margins(x=0.01)


def _subtitle(curves: Sequence[Curve]) -> str:
    points = [p for curve in curves for p in curve.points]
    first, last = points[0], points[-1]
    rates = sorted(p.tokens_per_s for p in points if p.tokens_per_s)
    rate = f"; median {rates[len(rates) // 2]:,.0f} tokens/s" if rates else ""
    tries = f" in {figures.count(len(curves), 'attempt')}" if len(curves) > 1 else ""
    return f"loss {first.loss:.3f} at step {first.step} to {last.loss:.3f} at step {last.step}{tries}{rate}"
