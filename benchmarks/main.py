"""The main job's figures in one run: renders, transcodes, trainings, and the whole demo. Run by ``make bench-main``.

Parts can be named: ``python -P -m benchmarks.main render train``. Each part measures its peers beside ours.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import render, train, transcode
from benchmarks.installation import SHISUAN
from benchmarks.results import Figure, show, write

DEMO_MOST_S = 600
"""What a person waits for a demo, downloads aside."""


def demo_figures(folder: Path) -> Sequence[Figure]:
    """Wall time of the whole demo, from the command to its last line, nothing of it prepared."""
    began = time.monotonic()
    with (folder / "demo.log").open("wb") as log:
        done = subprocess.run([SHISUAN, "demo", "--folder", folder], stdout=log, stderr=log, check=False)
    seconds = time.monotonic() - began
    subprocess.run([SHISUAN, "--home", folder / "home", "down"], capture_output=True, check=True)
    if done.returncode:
        raise RuntimeError(f"the demo failed:\n{(folder / 'demo.log').read_text(encoding='utf-8')[-3_000:]}")
    return [Figure(name="demo_seconds", runs=(seconds,), bound=DEMO_MOST_S)]


def _transcode(folder: Path) -> Sequence[Figure]:
    del folder
    figures, notes = transcode.measure()
    for name, value in notes.items():
        print(f"  {name}: {value}")
    return figures


PARTS: Mapping[str, Callable[[Path], Sequence[Figure]]] = {
    "render": render.figures,
    "transcode": _transcode,
    "train": train.measure,
    "demo": demo_figures,
}


def main(argv: Sequence[str]) -> None:
    """Measure the parts named, or all; print, keep."""
    unknown = sorted(set(argv) - PARTS.keys())
    if unknown:
        sys.exit(f"no part {', '.join(unknown)} (valid: {', '.join(PARTS)})")
    found: list[Figure] = []
    for name in argv or PARTS:
        print(f"{name} …", flush=True)
        with tempfile.TemporaryDirectory(prefix="shisuan-bench-") as folder:
            part = PARTS[name](Path(folder))
        show(part)
        found += part
    write("main", found, notes={"parts": list(argv or PARTS)})
    missed = [figure.name for figure in found if figure.is_missed]
    if missed:
        sys.exit(f"outside the bound: {', '.join(missed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
