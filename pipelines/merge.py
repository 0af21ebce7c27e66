"""MERGE steps: one task per frame puts its tiles and sample slices together, denoises, and makes the preview.

**The runner's side of the contract.** A process per task: ``{python} {merge_runner} REQUEST``, where REQUEST is one
flat JSON object, every path absolute after the agent replaced ``{work}`` and ``{ocio}``. The runner reads ``.exr``
and ``.json`` of each piece (``pipelines/render.py``, op ``tile``), checks that all of them are there, whole, and of
one frame, and verifies what it wrote by reading it back. It ends with ``shisuan_done: {json}`` and exit code 0, or
with ``shisuan_fail: reason`` and another code.

==========  ======================================================================================================
``folder``  where the pieces lie
``prefix``  start of their names; the tile's number follows, counted along the rows from the top left, and with more
            than one slice ``.s`` and the slice's number: ``film.0001.t03.s1``
``digits``  of the tile's number, with leading zeros
``columns`` tiles across
``rows``    tiles down
``slices``  sample slices of each tile
``frame``   the frame's number
``width``   pixels; 0: as the pieces say (one tile)
``height``  pixels
``denoise`` 1: yes, 0: no, -1: as the pieces say
``passes``  ``all`` or ``picture``: what the OpenEXR keeps
``depth``   ``float`` or ``half``, as for whole frames
``bits``    of the PNG: 8 or 16
``ocio``    Blender's OpenColorIO configuration, for the PNG
``threads`` the whole vCPUs leased, at least 1
``out``     folder the files go to: ``{work}/outputs``
``exr``     file name of the OpenEXR
``png``     file name of the PNG; empty: none
``small``   file name of a JPEG of at most 1280 pixels in width; empty: none
==========  ======================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pipelines import tiles
from pipelines.media import FrameRange, frame_name
from pipelines.render import DENOISE_AS_IN_FILE, DEPTHS, PASSES, PNG_BITS, threads
from pipelines.request import Template, line
from scheduler.model import codec
from scheduler.model.job import Job, Step
from scheduler.model.lease import attempt_id
from scheduler.model.order import TaskOrder

SMALL_WIDTH = 1_280
"""Wider frames get a small picture too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSpec:
    """``Step.spec`` of a MERGE step: one frame per task."""

    folder: str
    """Absolute: where the step before publishes the pieces."""
    frames: tuple[tuple[int, int, int], ...]
    """Spans of a :class:`FrameRange`."""
    cut: tiles.Cut
    width: int
    height: int
    base: str
    denoise: int = DENOISE_AS_IN_FILE
    passes: str = PASSES[0]
    depth: str = DEPTHS[0]
    png_bits: int = PNG_BITS[0]
    output_dir: str
    reads: tuple[str, ...] = ()


@lru_cache(maxsize=256)
def decode(spec: str) -> MergeSpec:
    """A MERGE step's spec, decoded once for all its tasks."""
    value: MergeSpec = codec.loads(MergeSpec, spec)
    return value


def order(job: Job, step: Step, index: int, number: int) -> TaskOrder:
    """Attempt ``number`` of the task that merges the frame at position ``index``."""
    spec = decode(step.spec)
    frame = FrameRange(spec.frames).at(index)
    exr = frame_name(spec.base, frame, "exr")
    png = frame_name(spec.base, frame, "png") if spec.png_bits else ""
    small = frame_name(spec.base, frame, "small.jpg") if spec.png_bits and spec.width > SMALL_WIDTH else ""
    request = {
        "folder": spec.folder,
        "prefix": f"{frame_name(spec.base, frame, 't')}",
        "digits": tiles.digits(spec.cut),
        "columns": spec.cut.columns,
        "rows": spec.cut.rows,
        "slices": spec.cut.slices,
        "frame": frame,
        "width": spec.width,
        "height": spec.height,
        "denoise": spec.denoise,
        "passes": spec.passes,
        "depth": spec.depth,
        "bits": spec.png_bits or PNG_BITS[0],
        "ocio": Template("{ocio}"),
        "threads": threads(step),
        "out": Template("{work}/outputs"),
        "exr": exr,
        "png": png,
        "small": small,
    }
    return TaskOrder(
        attempt_id=attempt_id(job.id, step.name, index, number),
        number=number,
        argv=("{python}", "{merge_runner}", line(request)),
        reads=spec.reads,
        output_dir=spec.output_dir,
        outputs=tuple(name for name in (exr, png, small) if name),
        timeout_ms=step.timeout_ms,
        grace_ms=step.grace_ms,
    )
