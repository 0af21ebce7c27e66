"""How a benchmark's figures are shown and kept: one table on the screen, one JSON file under ``build/bench``."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

BUILD = Path(__file__).parents[1] / "build" / "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number. ``runs`` are the raw values it is the median of; the unit is the last word of the name."""

    name: str
    runs: tuple[float, ...]
    bound: float | None = None
    """The value it must not exceed, where there is one."""
    least: float | None = None
    """The value it must reach, where there is one."""
    anchors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Peers or limits measured in the same run, raw values by name."""

    @property
    def value(self) -> float:
        """Median of the runs."""
        return statistics.median(self.runs)

    @property
    def is_missed(self) -> bool:
        """Whether it lies outside its bound."""
        too_much = self.bound is not None and self.value > self.bound
        return too_much or (self.least is not None and self.value < self.least)

    @property
    def spread(self) -> str:
        """Least and greatest run."""
        return f"{min(self.runs):.3g}-{max(self.runs):.3g}" if len(self.runs) > 1 else "1 run"


def show(figures: Sequence[Figure]) -> None:
    """Print the table: figure, ours, bound, each peer with the ratio ours/peer, spread."""
    width = max(len(f.name) for f in figures)
    print(f"{'figure':<{width}}  {'ours':>10}  {'bound':>8}  {'spread':>14}  peers measured in the same run")
    for f in figures:
        bound = "" if f.bound is None else f"<= {f.bound:g}"
        bound = bound if f.least is None else f">= {f.least:g}"
        peers = ", ".join(
            f"{name} {statistics.median(runs):.3g} (ours/peer {f.value / statistics.median(runs):.2f})"
            for name, runs in sorted(f.anchors.items())
        )
        print(f"{f.name:<{width}}  {f.value:>10.3f}  {bound:>8}  {f.spread:>14}  {peers}")


def write(name: str, figures: Sequence[Figure], *, notes: Mapping[str, object] | None = None) -> Path:
    """Keep figures, anchors and raw runs in ``build/bench/NAME.json`` and say where."""
    BUILD.mkdir(parents=True, exist_ok=True)
    body = {
        "figures": {f.name: f.value for f in figures},
        "anchors": {a: statistics.median(runs) for f in figures for a, runs in sorted(f.anchors.items())},
        "runs": {f.name: {"ours": f.runs, **f.anchors} for f in figures},
        "machine": machine(),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "notes": dict(notes or {}),
    }
    path = BUILD / f"{name}.json"
    path.write_text(json.dumps(body, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"raw numbers: {path}")
    return path


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "cpus": os.cpu_count(),
        "memory_mib": memory_mib,
        "load_1min": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit measured, with ``+`` when the working tree differs from it; ``unknown`` outside a checkout."""
    root = Path(__file__).parents[1]
    head, dirty = (
        subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False).stdout.strip()
        for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain"))
    )
    return head + ("+" if dirty else "") if head else "unknown"
