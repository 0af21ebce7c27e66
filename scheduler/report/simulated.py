"""Pictures of simulated runs, side by side: use of the park, tasks that wait, and how long jobs took.

Imports matplotlib only when it draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.report import figures
from scheduler.report.canvas import INK, MUTED, PALETTE, plain, sheet
from scheduler.report.timeline import Bar, Row, Timeline, ticks
from scheduler.simulation import measures
from scheduler.simulation.measures import Steps
from scheduler.simulation.outcome import Run, Span

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_SAMPLES = 2_000
"""Points of a line: more than a screen has columns."""


def draw(runs: Mapping[str, Run], target: Path, title: str) -> Path:
    """Write the comparison as PNG. Raises ValueError without runs."""
    if not runs:
        raise ValueError("no run to show")
    with sheet(target, 7.6, title) as figure:
        _compare(figure, runs)
    return target


def _compare(figure: Figure, runs: Mapping[str, Run]) -> None:
    start_ms = min(run.start_ms for run in runs.values())
    end_ms = max(max((span.closed_ms for span in run.spans), default=run.end_ms) for run in runs.values())
    has_cards = any(cards for run in runs.values() for _, cards, _ in run.park)
    held, waiting = figure.add_axes((0.07, 0.53, 0.56, 0.33)), figure.add_axes((0.07, 0.10, 0.56, 0.33))
    waits, jcts = figure.add_axes((0.71, 0.53, 0.27, 0.33)), figure.add_axes((0.71, 0.10, 0.27, 0.33))
    for (name, run), colour in zip(runs.items(), PALETTE, strict=False):
        steps = measures.cards_held(run.spans) if has_cards else measures.cpus_held(run.spans)
        _line(held, steps, start_ms, end_ms, colour, name)
        _line(waiting, measures.tasks_waiting(run), start_ms, end_ms, colour, name, scale=1)
        _distribution(waits, [job.wait_ms for job in run.jobs if job.was_granted], colour)
        _distribution(jcts, [job.jct_ms for job in run.jobs if job.finished_ms], colour)
    first = next(iter(runs.values()))
    offered = measures.cards_offered(first) if has_cards else measures.cpus_offered(first)
    _line(held, offered, start_ms, end_ms, MUTED, "offered", dashed=True)
    _over_time(held, "cards held" if has_cards else "vCPUs held", start_ms, end_ms)
    _over_time(waiting, "tasks that wait", start_ms, end_ms)
    _shares(waits, "jobs that started within")
    _shares(jcts, "jobs that ended within")
    _names(held)


def draw_kinds(run: Run, target: Path, title: str) -> Path:
    """Write who held the park over time, by kind of job, as PNG. Raises ValueError without leases."""
    if not run.spans:
        raise ValueError("nothing ran")
    start_ms, end_ms = run.start_ms, max(span.closed_ms for span in run.spans)
    at_ms = _instants(start_ms, end_ms)
    has_cards = any(span.card_milli for span in run.spans)
    kinds = sorted({span.kind for span in run.spans})
    of_kind = measures.cards_held if has_cards else measures.cpus_held
    layers = [of_kind([s for s in run.spans if s.kind == kind]).at(at_ms) / 1_000 for kind in kinds]
    with sheet(target, 4.4, title) as figure:
        axes = figure.add_axes((0.07, 0.14, 0.91, 0.66))
        axes.stackplot((at_ms - start_ms) / 1_000, layers, labels=kinds, colors=PALETTE, step="post")
        _over_time(axes, "cards held" if has_cards else "vCPUs held", start_ms, end_ms)
        _names(axes)
    return target


def timeline_of(run: Run) -> Timeline:
    """The run card by card (and, for leases without cards, node by node), for a Gantt chart of a small park."""
    places: dict[tuple[str, str], list[Bar]] = {}
    for span in run.spans:
        bar = Bar(
            start_ms=span.granted_ms,
            end_ms=span.closed_ms,
            job_id=span.job_id,
            step=span.step,
            task=span.attempts[0],
            state=span.state.value if span.state else "running",
        )
        for place in _places(run, span):
            places.setdefault(place, []).append(bar)
    rows = tuple(Row(node=node, label=label, bars=tuple(bars)) for (node, label), bars in sorted(places.items()))
    series = dict.fromkeys((span.job_id, span.step) for span in run.spans)
    ends = [span.closed_ms for span in run.spans]
    return Timeline(start_ms=run.start_ms, end_ms=max(ends, default=run.end_ms), rows=rows, series=tuple(series))


def _places(run: Run, span: Span) -> Sequence[tuple[str, str]]:
    if not span.devices:
        return [(node, "vCPUs") for node in dict.fromkeys(span.nodes)]
    wanted = set(span.devices)
    return [(node.name, f"card {d.index}") for node in run.nodes for d in node.devices if d.id in wanted]


def _instants(start_ms: int, end_ms: int) -> NDArray[np.int64]:
    import numpy as np

    return np.linspace(start_ms, max(end_ms - 1, start_ms + 1), _SAMPLES).astype(np.int64)


def _line(  # noqa: PLR0917 (each is a different thing)
    axes: Axes,
    steps: Steps,
    start_ms: int,
    end_ms: int,
    colour: str,
    label: str,
    *,
    scale: int = 1_000,
    dashed: bool = False,
) -> None:
    at_ms = _instants(start_ms, end_ms)
    axes.step(
        (at_ms - start_ms) / 1_000,
        steps.at(at_ms) / scale,
        where="post",
        color=colour,
        label=label,
        linewidth=1.0 if dashed else 1.4,
        linestyle="--" if dashed else "-",
    )


def _distribution(axes: Axes, values_ms: Sequence[int], colour: str) -> None:
    ranked = sorted(max(value, 1) for value in values_ms)
    if ranked:
        axes.step(
            [value / 1_000 for value in ranked],
            [100 * (at + 1) / len(ranked) for at in range(len(ranked))],
            where="post",
            color=colour,
            linewidth=1.6,
        )


def _over_time(axes: Axes, label: str, start_ms: int, end_ms: int) -> None:
    marks = ticks(max(end_ms - start_ms, 1))
    axes.set_xticks([mark / 1_000 for mark in marks], [figures.axis(mark) for mark in marks])
    axes.set_xlim(0, max(end_ms - start_ms, 1) / 1_000)
    axes.set_ylim(bottom=0)
    _frame(axes, label)


def _shares(axes: Axes, label: str) -> None:
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 101)
    axes.set_xlabel("seconds", color=MUTED)
    _frame(axes, f"% of {label}")


def _frame(axes: Axes, label: str) -> None:
    axes.set_ylabel(label, color=INK)
    plain(axes)


def _names(axes: Axes) -> None:
    axes.legend(frameon=False, labelcolor=INK, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=6, borderaxespad=0.2)
