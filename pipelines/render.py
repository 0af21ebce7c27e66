"""SCENE and RENDER steps: what a resident Blender child is asked to do.

**The runner's side of the contract.** Both kinds run in one resident child, started as ``{blender} {blender_runner}``.
Each task is one line of JSON on its stdin; it answers with the line protocol on stdout and ends the task with
``shisuan_done: {json}`` or ``shisuan_fail: reason``. Requests are flat; every path is absolute after the agent replaced
``{work}``. The runner makes the folder named by ``out``, or the parent of ``save``, when it is missing.

``{"op": "frame", …}`` renders one frame:

==========  ======================================================================================================
``blend``   absolute path of the .blend
``frame``   the scene's frame number
``width``   pixels; 0: as the file says (then ``height`` is 0 too)
``height``  pixels
``samples`` Cycles samples; 0: as the file says
``engine``  ``CYCLES``
``device``  ``auto`` (a visible card if there is one, else the CPU), ``cpu``, ``cuda``, ``optix``; the last two fail
            with ``shisuan_fail`` when the card is not there
``seed``    Cycles seed; -1: as the file says
``threads`` render threads: the whole vCPUs leased, at least 1
``out``     folder both files go to: ``{work}/outputs``
``exr``     file name of the float OpenEXR, e.g. ``film.0001.exr``
``png``     file name of the 8-bit preview, e.g. ``film.0001.png``
==========  ======================================================================================================

``{"op": "scene", …}`` builds a .blend with a script, from an empty file:

==========  ======================================================================================================
``script``  absolute path of a Python file that has ``build(seed: int, args: dict) -> None`` and works on ``bpy``
``seed``    given to ``build``
``args``    given to ``build``: a JSON object
``save``    the .blend to write: ``{work}/outputs/NAME.blend``
==========  ======================================================================================================
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from pipelines.media import FrameRange, frame_name
from pipelines.request import Template, line
from scheduler.model import codec
from scheduler.model.job import Job, Step
from scheduler.model.lease import attempt_id
from scheduler.model.order import RunnerKind, TaskOrder
from scheduler.model.units import MILLI

BLENDER = ("{blender}", "{blender_runner}")
ENGINES = ("CYCLES",)
DEVICES = ("auto", "cpu", "cuda", "optix")
AS_IN_FILE = 0
SEED_AS_IN_FILE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSpec:
    """``Step.spec`` of a SCENE step."""

    script: str
    """Absolute path."""
    seed: int = 0
    args: str = "{}"
    """Canonical JSON."""
    save: str
    """File name of the .blend."""
    output_dir: str
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderSpec:
    """``Step.spec`` of a RENDER step: one frame per task."""

    blend: str
    """Absolute path; an earlier step of the job may be the one that publishes it."""
    frames: tuple[tuple[int, int, int], ...]
    """Spans of a :class:`FrameRange`; task ``i`` renders the frame at position ``i``."""
    width: int = AS_IN_FILE
    height: int = AS_IN_FILE
    samples: int = AS_IN_FILE
    engine: str = ENGINES[0]
    device: str = DEVICES[0]
    seed: int = SEED_AS_IN_FILE
    base: str
    """File names are ``BASE.0001.exr`` and ``BASE.0001.png``."""
    output_dir: str
    reads: tuple[str, ...] = ()


@lru_cache(maxsize=256)
def decode_scene(spec: str) -> SceneSpec:
    """A SCENE step's spec."""
    value: SceneSpec = codec.loads(SceneSpec, spec)
    return value


@lru_cache(maxsize=256)
def decode_render(spec: str) -> RenderSpec:
    """A RENDER step's spec, decoded once for all its tasks."""
    value: RenderSpec = codec.loads(RenderSpec, spec)
    return value


def threads(step: Step) -> int:
    """Whole vCPUs a task holds, at least one."""
    return max(1, step.resources.cpu_milli // MILLI)


def scene_order(job: Job, step: Step, index: int, number: int) -> TaskOrder:
    """Attempt ``number`` of the one task of a SCENE step."""
    spec = decode_scene(step.spec)
    request = {
        "op": "scene",
        "script": spec.script,
        "seed": spec.seed,
        "args": json.loads(spec.args),
        "save": Template("{work}/outputs/", spec.save),
    }
    return TaskOrder(
        attempt_id=attempt_id(job.id, step.name, index, number),
        number=number,
        runner=RunnerKind.RESIDENT,
        argv=BLENDER,
        request=line(request),
        reads=spec.reads,
        output_dir=spec.output_dir,
        outputs=(spec.save,),
        timeout_ms=step.timeout_ms,
        grace_ms=step.grace_ms,
    )


def frame_order(job: Job, step: Step, index: int, number: int) -> TaskOrder:
    """Attempt ``number`` of the task that renders the frame at position ``index``."""
    spec = decode_render(step.spec)
    frame = FrameRange(spec.frames).at(index)
    exr, png = frame_name(spec.base, frame, "exr"), frame_name(spec.base, frame, "png")
    request = {
        "op": "frame",
        "blend": spec.blend,
        "frame": frame,
        "width": spec.width,
        "height": spec.height,
        "samples": spec.samples,
        "engine": spec.engine,
        "device": spec.device,
        "seed": spec.seed,
        "threads": threads(step),
        "out": Template("{work}/outputs"),
        "exr": exr,
        "png": png,
    }
    return TaskOrder(
        attempt_id=attempt_id(job.id, step.name, index, number),
        number=number,
        runner=RunnerKind.RESIDENT,
        argv=BLENDER,
        request=line(request),
        reads=spec.reads,
        output_dir=spec.output_dir,
        outputs=(exr, png),
        timeout_ms=step.timeout_ms,
        grace_ms=step.grace_ms,
    )
