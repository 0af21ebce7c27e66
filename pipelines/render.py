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
``denoise`` 1: yes, 0: no, -1: as the file says
``passes``  ``all``: every pass of the file's view layers, in a multi-layer OpenEXR if there is more than the picture;
            ``picture``: the picture alone
``depth``   ``float`` or ``half``: the picture's values in the OpenEXR (Blender keeps depth, normals and the like float)
``out``     folder the files go to: ``{work}/outputs``
``exr``     file name of the OpenEXR, e.g. ``film.0001.exr``
``png``     file name of the PNG, e.g. ``film.0001.png``; empty: none
``bits``    of the PNG: 8 or 16
==========  ======================================================================================================

``{"op": "tile", …}`` renders one piece of a frame: the fields of ``frame`` without ``png`` and ``bits``, and

==========  ======================================================================================================
``left``    the piece's window in pixels from the frame's top left corner, half-open; all four 0: the whole frame
``top``     with ``right`` and ``bottom``
``offset``  first of the samples it takes, of ``samples`` in all
``length``  how many it takes; 0: all of them (then adaptive sampling stays as in the file)
``note``    file name of a JSON file about the piece, which the merge reads: ``film.0001.t03.json``
==========  ======================================================================================================

A piece is never denoised; ``denoise`` says whether the merged frame will be, so that albedo and normals come with it.

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

from pipelines import tiles
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
DEPTHS = ("float", "half")
PASSES = ("all", "picture")
PNG_BITS = (8, 16)
NO_PNG = 0
AS_IN_FILE = 0
DENOISE_AS_IN_FILE = -1
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
    """``Step.spec`` of a RENDER step: one frame, or one piece of a frame, per task."""

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
    """File names are ``BASE.0001.exr`` and ``BASE.0001.png``; of pieces ``BASE.0001.t03.s1.exr`` and ``.json``."""
    cut: tiles.Cut = tiles.WHOLE
    """With more than one piece, task ``i`` renders piece ``i`` (see ``pipelines/tiles.py``)."""
    denoise: int = DENOISE_AS_IN_FILE
    passes: str = PASSES[0]
    depth: str = DEPTHS[0]
    png_bits: int = PNG_BITS[0]
    """0: no PNG."""
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
    """Attempt ``number`` of the task that renders the frame, or the piece of a frame, at position ``index``."""
    spec = decode_render(step.spec)
    request, outputs = _piece(spec, index) if spec.cut.pieces > 1 else _frame(spec, index)
    return TaskOrder(
        attempt_id=attempt_id(job.id, step.name, index, number),
        number=number,
        runner=RunnerKind.RESIDENT,
        argv=BLENDER,
        request=line({**request, "threads": threads(step), "out": Template("{work}/outputs")}),
        reads=spec.reads,
        output_dir=spec.output_dir,
        outputs=outputs,
        timeout_ms=step.timeout_ms,
        grace_ms=step.grace_ms,
    )


def _frame(spec: RenderSpec, index: int) -> tuple[dict[str, object], tuple[str, ...]]:
    frame = FrameRange(spec.frames).at(index)
    exr = frame_name(spec.base, frame, "exr")
    png = frame_name(spec.base, frame, "png") if spec.png_bits else ""
    files = {"exr": exr, "png": png, "bits": spec.png_bits or PNG_BITS[0], "depth": spec.depth}
    return {"op": "frame", **_what(spec, frame), **files}, (exr, png) if png else (exr,)


def _piece(spec: RenderSpec, index: int) -> tuple[dict[str, object], tuple[str, ...]]:
    piece = tiles.piece_at(spec.cut, index)
    frame = FrameRange(spec.frames).at(piece.position)
    name = tiles.piece_name(spec.base, frame, piece, spec.cut)
    window = tiles.Window(left=0, top=0, right=0, bottom=0)
    if spec.cut.tiles > 1:
        window = tiles.window(spec.cut, piece.tile, spec.width, spec.height)
    offset, length = tiles.sample_span(spec.cut, piece.slice, spec.samples) if spec.cut.slices > 1 else (0, 0)
    request = {
        "op": "tile",
        **_what(spec, frame),
        "left": window.left,
        "top": window.top,
        "right": window.right,
        "bottom": window.bottom,
        "offset": offset,
        "length": length,
        "exr": f"{name}.exr",
        "note": f"{name}.json",
        # Averaging and denoising start from what was rendered; only then is rounding to half right.
        "depth": spec.depth if length == 0 and spec.denoise == 0 else DEPTHS[0],
    }
    return request, (f"{name}.exr", f"{name}.json")


def _what(spec: RenderSpec, frame: int) -> dict[str, object]:
    """The part of a request that says what is rendered."""
    return {
        "blend": spec.blend,
        "frame": frame,
        "width": spec.width,
        "height": spec.height,
        "samples": spec.samples,
        "engine": spec.engine,
        "device": spec.device,
        "seed": spec.seed,
        "denoise": spec.denoise,
        "passes": spec.passes,
    }
