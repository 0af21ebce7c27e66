"""What cutting a film into chunks costs: processor time of K chunk tasks and the join against one task for the whole.

Run by ``make bench-main``, or alone: ``python -P -m benchmarks.transcode``. Both encode the same frames with the same
program, preset, quality and number of threads, turn about; each task is the real runner as the agent starts it, so
start-up, probing, decoding up to a chunk's begin, reading back and hashing count on both sides. The time is what the
runner and its ffmpeg used of a processor (``wait4``): other work on the machine changes it less than the clock's.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import Figure, show, write
from workers import ffmpeg_binary

ROUNDS = 3
CHUNKS = 2
FRAMES = 360
CONTENT = "mandelbrot=size=640x360:rate=25:maxiter=300:end_scale=0.01"
WAY: Mapping[str, object] = {"codec": "hevc", "bits": 10, "crf": 18, "preset": "slow", "threads": 1}
"""A master, as ``examples/transcode.yaml`` makes it: where encoding is slow enough to be worth cutting."""
BOUND_PERCENT = 10
RUNNER = Path(__file__).parents[1] / "workers" / "encode_runner.py"


@dataclass(frozen=True, slots=True)
class Task:
    """One runner's end."""

    cpu_s: float
    facts: Mapping[str, Any]


def make_source(path: Path) -> None:
    """The clip, the same on every machine: a dive into the Mandelbrot set, with a keyframe every two seconds."""
    words = ["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", CONTENT, "-frames:v", str(FRAMES)]
    coded = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "10", "-pix_fmt", "yuv420p", "-g", "50"]
    subprocess.run([ffmpeg_binary.find().path, *words, *coded, str(path)], check=True)


def run(op: str, source: Path, out: Path, **more: object) -> Task:
    """One task in a process of its own. Raises RuntimeError with its reason when it fails."""
    request = {
        "op": op,
        "source": "video",
        "input": str(source),
        "first": -1,
        "last": -1,
        "step": 1,
        "fps": "",
        "encoder": "software",
        "audio": "none",
        "out": str(out),
        "expect_frames": FRAMES,
        **WAY,
        **more,
    }
    argv = [sys.executable, "-P", str(RUNNER), json.dumps(request)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    last = said.strip().splitlines()[-1] if said.strip() else ""
    if process.returncode:
        raise RuntimeError(f"{op} failed: {last}")
    return Task(usage.ru_utime + usage.ru_stime, json.loads(last.removeprefix("shisuan_done: ")))


def whole(source: Path, folder: Path) -> Task:
    """The film in one task. Raises RuntimeError."""
    return run("film", source, folder / "whole.mp4")


def chunked(source: Path, folder: Path) -> Task:
    """The film in chunks, joined: the processor time of all tasks, the join's facts. Raises RuntimeError."""
    tasks = [
        run("chunk", source, folder / f"chunk.{number:04d}.mp4", chunk=number, chunks=CHUNKS)
        for number in range(CHUNKS)
    ]
    joined = run("join", source, folder / "joined.mp4", chunks=CHUNKS, parts=f"{folder}/chunk.####.mp4")
    abouts = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("chunk.*.json"))]
    _check(joined.facts, [digest for about in abouts for digest in about["hashes"]])
    return Task(sum(task.cpu_s for task in tasks) + joined.cpu_s, joined.facts)


def _check(facts: Mapping[str, Any], hashes: list[str]) -> None:
    """The joined film decodes to the chunks' frames, in order, and has them all. Raises RuntimeError."""
    if facts["frames"] != FRAMES or len(hashes) != FRAMES:
        raise RuntimeError(f"{facts['frames']} frames joined, {len(hashes)} in chunks, {FRAMES} in the source")
    if facts["frames_sha256"] != hashlib.sha256("".join(hashes).encode()).hexdigest():
        raise RuntimeError("the joined film's frames are not its chunks' frames")


def measure(rounds: int = ROUNDS) -> tuple[list[Figure], dict[str, object]]:
    """Figures and notes for ``benchmarks.results``. Raises RuntimeError when a film is not what it should be."""
    pairs: list[tuple[Task, Task]] = []
    with tempfile.TemporaryDirectory(prefix="shisuan-bench-") as name:
        folder = Path(name)
        source = folder / "source.mp4"
        make_source(source)
        for _ in range(rounds):
            pairs.append((whole(source, folder), chunked(source, folder)))
            one, parts = pairs[-1]
            if parts.facts["frames"] != one.facts["frames"]:
                raise RuntimeError(f"{parts.facts['frames']} frames joined, {one.facts['frames']} encoded whole")
    figure = Figure(
        name="chunked_extra_cpu_percent",
        runs=tuple(100 * (parts.cpu_s / one.cpu_s - 1) for one, parts in pairs),
        bound=BOUND_PERCENT,
    )
    one, parts = pairs[-1]
    notes: dict[str, object] = {
        "clip": f"{CONTENT}, {FRAMES} frames",
        "chunks": CHUNKS,
        "encoder": dict(WAY),
        "whole_cpu_seconds": [round(one.cpu_s, 2) for one, _ in pairs],
        "chunked_cpu_seconds": [round(parts.cpu_s, 2) for _, parts in pairs],
        "chunked_extra_bytes_percent": round(100 * (parts.facts["bytes"] / one.facts["bytes"] - 1), 2),
    }
    return [figure], notes


def main() -> None:
    """Measure, print, keep."""
    figures, notes = measure()
    show(figures)
    write("transcode", figures, notes=notes)
    missed = [f.name for f in figures if f.bound is not None and f.value > f.bound]
    if missed:
        sys.exit(f"over the bound: {', '.join(missed)}")


if __name__ == "__main__":
    main()
