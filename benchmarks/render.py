"""Rendering: frames through a worker's warm Blender against a process per frame and a plain warm process; exact merges.

Run by ``make bench-main`` or alone: ``python -P -m benchmarks.render``. Ours takes the product's own path: a job file,
its planners' orders, the agent with its sandbox, publishing included. The peers are the same Blender, scene and
settings driven by a script of a few lines. Each frame is rendered all three ways in turn, so that a machine that is
busy meanwhile is busy for all of them. They give the same pixels, or the benchmark fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy
import OpenEXR

from benchmarks.results import Figure, show, write
from pipelines.plan import order
from scheduler import jobfile
from scheduler.model.lease import AttemptState
from scheduler.model.order import LeaseOrder, Report, ReportKind
from scheduler.model.queue import Queue, Tenant
from workers.agent import Agent
from workers.tools import find_tools

FRAMES, HEADS = 8, 60
SIZE = (320, 180)
SAMPLES = 4
WARM_LEAST, PERSISTENT_LEAST = 2.5, 2.0
SLICES_MOST = 1e-6
SCENE = '''
import math, random
import bpy
def build(seed, args):
    """Heads that are each subdivided anew for every render, and a moving camera: preparing costs more than sampling."""
    rng, scene = random.Random(seed), bpy.context.scene
    scene.render.engine, scene.frame_end = "CYCLES", args["frames"]
    scene.cycles.use_denoising = False
    scene.world = bpy.data.worlds.new("sky")
    for at in range(args["heads"]):
        spot = (2.6 * (at % 10) - 12, 2.6 * (at // 10), 0)
        bpy.ops.mesh.primitive_monkey_add(location=spot, rotation=(0, 0, rng.random()))
        bpy.context.object.modifiers.new("smooth", "SUBSURF").render_levels = args["levels"]
    bpy.ops.object.light_add(type="SUN", rotation=(0.6, 0.3, 0))
    bpy.ops.object.camera_add(rotation=(1.2, 0, 0))
    camera = scene.camera = bpy.context.object
    for frame in range(1, args["frames"] + 1):
        camera.location = (0.4 * frame - 1, -14, 6)
        camera.keyframe_insert("location", frame=frame)
'''
PLAIN = """
import os, sys
import bpy
words = sys.argv[sys.argv.index("--") + 1:] if "--" in sys.argv else sys.argv[1:]
blend, out, width, height, samples, threads = words
bpy.ops.wm.open_mainfile(filepath=blend)
scene = bpy.context.scene
render = scene.render
render.resolution_x, render.resolution_y, render.resolution_percentage = int(width), int(height), 100
render.threads_mode, render.threads = "FIXED", int(threads)
scene.cycles.samples = int(samples)
render.image_settings.file_format, render.image_settings.color_depth = "OPEN_EXR", "32"
render.image_settings.color_mode = "RGB"
for line in sys.stdin:
    scene.frame_set(int(line))
    render.filepath = f"{out}/plain.{int(line):04d}.exr"
    bpy.ops.render.render(write_still=True)
    os.write(2, b"rendered" + bytes([10]))
os._exit(0)
"""
JOB = """
apiVersion: shisuan/v1
kind: Pipeline
name: bench
steps:
  - {{name: frames, kind: render, {what}, frames: 1-{frames}, outputs: frames}}
  - {{name: tiles, kind: render, {what}, frames: 1, tiles: 4x4, outputs: tiles}}
  - {{name: slices, kind: render, {what}, frames: 1, slices: 4, outputs: slices}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Seconds of each frame, each way, and where the frames lie."""

    ours_s: tuple[float, ...]
    process_s: tuple[float, ...]
    warm_s: tuple[float, ...]
    root: Path
    facts: tuple[dict[str, object], ...]
    """Of our frames."""


def measure(folder: Path, *, heads: int = HEADS, levels: int = 2, threads: int = 2) -> Rendered:
    """Render the frames all three ways, in turn. Raises AssertionError when pixels differ."""
    script, root = folder / "heavy.py", folder / "storage"
    script.write_text(SCENE, encoding="utf-8")
    root.mkdir()
    what = (
        f"scene: {{script: {script}, seed: 7, args: {{heads: {heads}, levels: {levels}, frames: {FRAMES}}}}}, "
        f"resolution: {SIZE[0]}x{SIZE[1]}, samples: {SAMPLES}, denoise: false, "
        f"resources: {{cpus: {threads}, memory: 2GiB}}"
    )
    farm = Farm(folder, root, JOB.format(what=what, frames=FRAMES))
    ours_s, process_s, warm_s, facts = [], [], [], []
    try:
        farm.run("frames-scene")
        blend = next(root.glob("jobs/*/frames-scene/*.blend"))
        with Plain(blend, folder / "warm", threads) as warm:
            for frame in range(1, FRAMES + 1):  # the first frame's time includes each way's start
                began = time.monotonic()
                facts += farm.run("frames", frame - 1)
                ours_s.append(time.monotonic() - began)
                warm_s.append(warm.render(frame))
                began = time.monotonic()
                with Plain(blend, folder / "process", threads) as process:
                    process.render(frame)
                process_s.append(time.monotonic() - began)
        for step in ("tiles-scene", "tiles-tiles", "tiles", "slices-scene", "slices-tiles", "slices"):
            farm.run(step)
    finally:
        farm.close()
    for frame in range(1, FRAMES + 1):
        mine = root / "frames" / f"bench.{frame:04d}.exr"
        for peer in ("process", "warm"):
            difference = greatest_difference(mine, folder / peer / f"plain.{frame:04d}.exr")
            assert difference == 0, f"frame {frame} differs from the {peer} render by {difference}"
    return Rendered(
        ours_s=tuple(ours_s), process_s=tuple(process_s), warm_s=tuple(warm_s), root=root, facts=tuple(facts)
    )


class Plain:
    """A Blender that renders the frames whose numbers it is given, without anything of ours."""

    def __init__(self, blend: Path, out: Path, threads: int) -> None:
        tools = find_tools()
        out.mkdir(exist_ok=True)
        script = out / "plain.py"
        script.write_text(PLAIN, encoding="utf-8")
        words = [str(script), *([] if tools.blender_is_python else ["--"]), str(blend), str(out)]
        words += map(str, (*SIZE, SAMPLES, threads))
        start = ["-P"] if tools.blender_is_python else ["-b", "--factory-startup", "-P"]
        self._process = subprocess.Popen(
            [tools.blender, *start, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def render(self, frame: int) -> float:
        """Seconds until this frame's file is there. Raises AssertionError when Blender ends instead."""
        began = time.monotonic()
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        self._process.stdin.write(f"{frame}\n")
        self._process.stdin.flush()
        said: list[str] = []
        for line in self._process.stderr:
            if line == "rendered\n":
                return time.monotonic() - began
            said.append(line)
        raise AssertionError(f"Blender ended: {''.join(said[-5:])}")

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class Farm:
    """One agent that runs a job's steps, one lease after the other, as the control plane would order them."""

    def __init__(self, folder: Path, root: Path, text: str) -> None:
        roots = (str(folder), str(root))
        self._roots = (str(root), str(folder))
        tenant = Tenant(name="bench", storage_roots=self._roots)
        draft = jobfile.read(text, tenant=tenant, queues=(Queue(name="default"),), base_dir=roots[0], now_ms=0)
        self._job = draft.job("j1", "bench")
        self._agent = Agent(node="n1", tenant="bench", home=folder / "home", confinement="auto")
        self._cursor = ""

    def run(self, name: str, only: int | None = None) -> list[dict[str, object]]:
        """Facts of the step's tasks, or of one of them, in their order. Raises AssertionError when one fails."""
        step = next(step for step in self._job.steps if step.name == name)
        indices = range(step.count) if only is None else (only,)
        lease = LeaseOrder(
            lease_id=f"l-{name}-{indices[0]}",
            tenant="bench",
            node="n1",
            tasks=tuple(order(self._job, step, index, 1) for index in indices),
            cpu_milli=step.resources.cpu_milli,
            memory_mib=step.resources.memory_mib,
            warm_key=step.warm_key,
            roots=self._roots,
        )
        self._agent.submit([lease])
        ends: list[Report] = []
        while len(ends) < len(indices):
            reports = self._agent.poll(self._cursor, 1_000)
            self._cursor = next((r.cursor for r in reversed(reports) if r.cursor), self._cursor)
            ends += [r for r in reports if r.kind is ReportKind.FINISHED and r.lease_id == lease.lease_id]
        failed = [end.message for end in ends if end.state is not AttemptState.SUCCEEDED]
        assert not failed, failed[0]
        return [json.loads(end.result) for end in ends]

    def close(self) -> None:
        """End the agent and its Blender."""
        self._agent.close()


def greatest_difference(one: Path, other: Path) -> float:
    """Greatest absolute difference of any value of any channel. Raises AssertionError when channels or sizes differ."""
    first, second = _channels(one), _channels(other)
    assert sorted(first) == sorted(second), f"{one.name}: {sorted(first)} and {sorted(second)}"
    assert all(first[name].shape == second[name].shape for name in first)
    return max(float(numpy.abs(first[name].astype(float) - second[name]).max()) for name in first)


def relative_error(one: Path, other: Path) -> float:
    """The greatest difference, as a share of the other picture's greatest value."""
    top = max(float(numpy.abs(pixels).max()) for pixels in _channels(other).values())
    return greatest_difference(one, other) / top


def _channels(path: Path) -> dict[str, numpy.ndarray]:
    with OpenEXR.File(str(path), separate_channels=True) as file:
        return {name: channel.pixels.copy() for name, channel in file.channels().items()}


def figures(folder: Path) -> list[Figure]:
    """Everything measured in one run. Raises AssertionError when a render fails or pixels differ."""
    found = measure(folder)
    whole = found.root / "frames" / "bench.0001.exr"
    ours_s, process_s, warm_s = sum(found.ours_s), sum(found.process_s), sum(found.warm_s)
    seconds = {"frame_process_each_seconds": found.process_s, "frame_plain_warm_seconds": found.warm_s}
    return [
        Figure(name="render_warm_speedup", runs=(process_s / ours_s,), least=WARM_LEAST),
        Figure(name="render_persistent_speedup", runs=(warm_s / ours_s,), least=PERSISTENT_LEAST),
        Figure(name="render_frame_seconds", runs=found.ours_s, anchors=seconds),
        Figure(
            name="tiles_max_pixel_difference",
            runs=(greatest_difference(found.root / "tiles" / "bench.0001.exr", whole),),
            bound=0,
        ),
        Figure(
            name="sample_slices_relative_error",
            runs=(relative_error(found.root / "slices" / "bench.0001.exr", whole),),
            bound=SLICES_MOST,
        ),
    ]


def main() -> None:
    """Measure, print, keep."""
    with tempfile.TemporaryDirectory(prefix="shisuan-bench-") as folder:
        found = figures(Path(folder))
    show(found)
    write(
        "render", found, notes={"frames": FRAMES, "heads": HEADS, "size": "x".join(map(str, SIZE)), "samples": SAMPLES}
    )
    missed = [figure.name for figure in found if figure.is_missed]
    if missed:
        sys.exit(f"outside the bound: {', '.join(missed)}")


if __name__ == "__main__":
    main()
