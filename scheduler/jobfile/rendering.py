"""What RENDER and MERGE steps need to know beyond one field each: how frames are cut, on what they can be rendered."""

from __future__ import annotations

from dataclasses import replace

from pipelines.merge import MergeSpec
from pipelines.render import AS_IN_FILE, DENOISE_AS_IN_FILE, NO_PNG, RenderSpec
from pipelines.tiles import SMALLEST_TILE, Cut
from scheduler.jobfile import kinds
from scheduler.jobfile.context import Context, Entry
from scheduler.jobfile.quantity import Malformed
from scheduler.model.catalogue import BY_ID, features
from scheduler.model.job import Resources

Body = kinds.RenderStep | kinds.RenderJob
TILES_SUFFIX = "-tiles"
RAY_TRACING = "rt"
MERGE_BASE_MIB = 256
ROW_BYTES_PER_PIXEL = 48
"""A row of tiles with a dozen channels, or three that are averaged: 7680x1080 pixels of three took 490 MiB in all."""
DENOISE_BASE_MIB = 512
DENOISE_BYTES_PER_PIXEL = 24
"""The picture in 32 bits, albedo and normals in 16; 8K without albedo and normals took 1160 MiB in all."""


def is_cut(body: Body) -> bool:
    """Whether the step's frames are rendered in pieces."""
    return body.tiles is not None or (body.slices or 1) > 1


def pieces_step(entry: Entry) -> str:
    """Name of the step that renders the pieces: ``tiles`` at the top of a file, else ``NAME-tiles``."""
    return f"{entry.name[: 40 - len(TILES_SUFFIX)]}{TILES_SUFFIX}" if entry.place else TILES_SUFFIX[1:]


def cut(context: Context, entry: Entry) -> Cut:
    """How the step's frames are cut; problems go into the context."""
    body = entry.body
    assert isinstance(body, Body)
    columns, rows = body.tiles or (1, 1)
    slices = body.slices or 1
    with context.at(entry.at("tiles")):
        _tiles_fit(body, columns, rows)
    with context.at(entry.at("slices")):
        _slices_fit(body, slices)
    return Cut(columns=columns, rows=rows, slices=slices)


def _tiles_fit(body: Body, columns: int, rows: int) -> None:
    if body.tiles is None:
        return
    if body.resolution is None:
        raise Malformed("tiles are windows in pixels, so the step needs its resolution, such as 7680x4320")
    width, height = body.resolution
    if width // columns < SMALLEST_TILE or height // rows < SMALLEST_TILE:
        raise Malformed(
            f"{columns}x{rows} tiles of {width}x{height} pixels would be smaller than {SMALLEST_TILE} pixels a side; "
            f"the most here is {max(1, width // SMALLEST_TILE)}x{max(1, height // SMALLEST_TILE)}"
        )


def _slices_fit(body: Body, slices: int) -> None:
    if slices == 1:
        return
    if body.samples is None:
        raise Malformed("slices share out the samples, so the step needs its samples, such as 64")
    if slices > body.samples:
        raise Malformed(f"{slices} slices cannot share {body.samples} samples; the most here is {body.samples}")


def frames_spec(context: Context, entry: Entry, blend: str, output_dir: str, reads: tuple[str, ...]) -> RenderSpec:
    """What is rendered, uncut."""
    body = entry.body
    assert isinstance(body, Body)
    width, height = body.resolution or (AS_IN_FILE, AS_IN_FILE)
    return RenderSpec(
        blend=blend,
        frames=body.frames.spans,
        width=width,
        height=height,
        samples=body.samples or AS_IN_FILE,
        engine=body.engine.upper(),
        device=body.device,
        denoise=DENOISE_AS_IN_FILE if body.denoise is None else int(body.denoise),
        passes=body.passes,
        depth=body.depth,
        png_bits=int(body.png) if body.png.isdigit() else NO_PNG,
        base=context.base,
        output_dir=output_dir,
        reads=reads,
    )


def merge_spec(whole: RenderSpec, pieces: RenderSpec) -> MergeSpec:
    """How the pieces become what ``whole`` says."""
    return MergeSpec(
        folder=pieces.output_dir,
        frames=whole.frames,
        cut=pieces.cut,
        width=whole.width,
        height=whole.height,
        base=whole.base,
        denoise=whole.denoise,
        passes=whole.passes,
        depth=whole.depth,
        png_bits=whole.png_bits,
        output_dir=whole.output_dir,
        reads=(pieces.output_dir,),
    )


def merge_resources(spec: MergeSpec, needed: Resources) -> Resources:
    """A merge uses the CPU. Denoising holds the whole picture in memory, all else a row of tiles at a time."""
    pixels = spec.width * spec.height
    row_mib = pixels // spec.cut.rows * ROW_BYTES_PER_PIXEL // 2**20
    denoise_mib = 0 if spec.denoise == 0 else DENOISE_BASE_MIB + pixels * DENOISE_BYTES_PER_PIXEL // 2**20
    return replace(
        needed,
        memory_mib=max(needed.memory_mib, MERGE_BASE_MIB + row_mib + denoise_mib),
        cards=0,
        card_milli=0,
        card_models=(),
        card_memory_mib=0,
        mig_profile="",
        features=(),
        same_island=False,
        licences=(),
    )


def on_device(body: Body, needed: Resources) -> Resources:
    """``needed`` with what the step's ``device`` asks of a card. Raises Malformed when it cannot be there."""
    if body.device not in ("cuda", "optix"):
        return needed
    if not (needed.cards or needed.card_milli):
        why = "the park has no card now" if body.resources.accelerators else "no card is asked for"
        raise Malformed(f"device {body.device} renders on a card, but {why}; write accelerators: 1 or device: auto")
    if body.device == "cuda":
        return needed
    known = [model for model in needed.card_models if model in BY_ID]
    if known and len(known) == len(needed.card_models) and not any(RAY_TRACING in features(m) for m in known):
        able = tuple(model for model in sorted(BY_ID) if RAY_TRACING in features(model))
        raise Malformed(f"{', '.join(known)} has no ray-tracing cores, which OptiX needs; write device: cuda", able)
    return replace(needed, features=tuple(sorted({*needed.features, RAY_TRACING})))
