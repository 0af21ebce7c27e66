"""The engine: where, when, how fast and how right, each beside its anchor -> build/bench/engine.json.

    python -P -m benchmarks.engine TRACES [placement moves speed papers steered mixed forecast farm]

TRACES is a folder with the public traces (BENCHMARKS.md says where they come from). Parts can be run one at a time; the
figures of parts that were not run are kept from the last time, so that one file holds them all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import farm, forecast, mixed, moves, papers, placement, speed, steered
from benchmarks.results import BUILD, Figure, show, write

NAME = "engine"
PARTS: dict[str, Callable[[Path], list[Figure]]] = {
    "placement": lambda traces: placement.figures(traces, quick=False),
    "moves": lambda traces: moves.figures(traces, quick=False),
    "speed": speed.figures,
    "papers": papers.figures,
    "steered": steered.results,
    "mixed": lambda _: mixed.figures(),
    "forecast": forecast.figures,
    "farm": lambda _: farm.figures(),
}


def earlier(parts: Sequence[str]) -> list[Figure]:
    """Figures of the other parts, from the last file; none when there is none."""
    path = BUILD / f"{NAME}.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["notes"].get("figures", {}) if path.exists() else {}
    return [_figure(row) for part, rows in sorted(kept.items()) if part not in parts for row in rows]


def main(argv: Sequence[str]) -> None:
    """Measure the parts named, or all; print and keep."""
    if not argv or any(part not in PARTS for part in argv[1:]):
        sys.exit(f"usage: python -P -m benchmarks.engine TRACES [{' '.join(PARTS)}]")
    traces, parts = Path(argv[0]), tuple(argv[1:]) or tuple(PARTS)
    if not (traces / "openb").is_dir():
        sys.exit(f"{traces} has no folder openb; BENCHMARKS.md says where the traces come from")
    path = BUILD / f"{NAME}.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["notes"].get("figures", {}) if path.exists() else {}
    found: list[Figure] = []
    for part in parts:
        print(f"\n{part} …", flush=True)
        rows = PARTS[part](traces)
        show(rows)
        kept[part] = [_row(figure) for figure in rows]
        found += rows
        write(NAME, [*earlier(parts), *found], notes={"figures": kept})
    missed = [figure.name for figure in found if figure.is_missed]
    print(f"\nnot where we want to be: {', '.join(missed) or 'none'}")


def _row(figure: Figure) -> dict[str, object]:
    anchors = {name: list(runs) for name, runs in figure.anchors.items()}
    return {
        "name": figure.name,
        "runs": list(figure.runs),
        "bound": figure.bound,
        "least": figure.least,
        "anchors": anchors,
    }


def _figure(row: dict[str, object]) -> Figure:
    return Figure(**{**row, "runs": tuple(row["runs"])})  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1:])
