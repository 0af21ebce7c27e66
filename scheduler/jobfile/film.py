"""What a TRANSCODE step encodes: numbered frames, a folder of them, or a video; made by a step or there already."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import PurePosixPath

from pipelines.media import FrameRange
from pipelines.transcode import CRF, HDR, SOUNDS, Source, TranscodeSpec
from scheduler.jobfile import kinds, paths
from scheduler.jobfile.context import Context, Entry, Found
from scheduler.jobfile.quantity import Malformed

Body = kinds.TranscodeStep | kinds.TranscodeJob
DEFAULT_FPS = "24"
MAX_CHUNKS = 9_999
PICTURES = (".png", ".exr")
_PRINTF = re.compile(r"%0?(\d?)d", re.ASCII)
_VIDEO = TranscodeSpec(source=Source.VIDEO, input="", file="", output_dir="")


def transcode(context: Context, entry: Entry) -> TranscodeSpec:
    """The whole film's spec; problems go into the context."""
    body = entry.body
    assert isinstance(body, Body)
    film, found, source, frames, ocio = "", Found(""), Source.VIDEO, body.frames, ""
    with context.at(entry.at("outputs")):
        film = context.output_path(entry)
    with context.at(entry.at("input")):
        text = _PRINTF.sub(lambda match: "#" * int(match[1] or 1), body.input)
        found, source, rendered = _source(context, text)
        frames = frames or rendered
    span: tuple[int, int, int] | None = None
    with context.at(entry.at("frames")):
        span = _span(source, found, frames)
    with context.at(entry.at("ocio")):
        ocio = _config(context, body.ocio)
    _fits_together(context, entry, source)
    return TranscodeSpec(
        source=source,
        input=found.path,
        first=span[0] if span else _VIDEO.first,
        last=span[1] - 1 if span else _VIDEO.last,
        step=span[2] if span else 1,
        fps=body.fps or ("" if source is Source.VIDEO else DEFAULT_FPS),
        codec=body.codec,
        bits=body.bits or 0,
        color=body.color or "",
        encoder=body.encoder,
        crf=CRF[body.codec] if body.crf is None else body.crf,
        preset=body.preset,
        threads=body.threads or 0,
        audio=body.audio or SOUNDS[0],
        display=body.display or "",
        view=body.view or "",
        ocio=ocio,
        expect_frames=len(range(*span)) if span else 0,
        file=PurePosixPath(film).name,
        output_dir=paths.parent(film),
        reads=(
            _readable(source, found.path),
            *((paths.parent(ocio),) if ocio else ()),
            *context.reads(entry),
        ),
    )


def _config(context: Context, text: str | None) -> str:
    if text is None:
        return ""
    found = context.input(text)
    return found.path if found.step else paths.existing_file(found.path, text)


def _fits_together(context: Context, entry: Entry, source: Source) -> None:
    """Fields that exclude each other."""
    body = entry.body
    assert isinstance(body, Body)
    with context.at(entry.at("bits")):
        if body.color in HDR and body.bits == 8:
            raise Malformed(f"color {body.color} needs 10 bits: 8 would show steps", ("10",), "10")
    with context.at(entry.at("audio")):
        if source is not Source.VIDEO and body.audio in ("aac", "copy"):
            raise Malformed("numbered frames have no sound; leave audio out", ("none",))
    with context.at(entry.at("display")):
        if (body.display or body.view or body.ocio) and (source is Source.VIDEO or body.color in HDR):
            why = f"color {body.color} has a conversion of its own" if body.color in HDR else "the input is a video"
            raise Malformed(f"display, view and ocio are for OpenEXR frames to bt709, but {why}")
    with context.at(entry.at("chunk_frames")):
        if body.chunks and body.chunk_frames:
            raise Malformed("chunks and chunk_frames exclude each other; leave one out")


def chunk_count(context: Context, entry: Entry, spec: TranscodeSpec) -> int:
    """Number of chunks; 1: the film is encoded whole. Problems go into the context."""
    body, count = entry.body, spec.expect_frames
    assert isinstance(body, Body)
    with context.at(entry.at("chunks")):
        if body.chunks and count and body.chunks > count:
            raise Malformed(f"{body.chunks} chunks of {count} frames would leave some empty; write {count} or less")
    with context.at(entry.at("chunk_frames")):
        if body.chunk_frames and not count:
            raise Malformed("nobody knows at submission how many frames there are; write chunks instead")
        if body.chunk_frames and -(-count // body.chunk_frames) > MAX_CHUNKS:
            raise Malformed(f"would make more than {MAX_CHUNKS} chunks of {count} frames")
    if body.chunk_frames:
        return max(1, -(-count // body.chunk_frames))
    return body.chunks or 1


def chunked(spec: TranscodeSpec, chunks: int, parts: str, sound: str) -> tuple[TranscodeSpec, TranscodeSpec]:
    """Specs of the chunks and of the join, from the whole film's. ``parts`` and ``sound`` are folders; the latter is
    empty when no step encodes sound.
    """
    part = replace(spec, chunks=chunks, output_dir=parts)
    needed = (spec.input,) if spec.source is Source.VIDEO and spec.audio == "copy" else ()
    reads = (parts, *((sound,) if sound else ()), *needed)
    return part, replace(spec, chunks=chunks, parts=parts, sound=sound, reads=reads)


def _readable(source: Source, path: str) -> str:
    return paths.parent(path) if source is Source.PATTERN else path


def _source(context: Context, text: str) -> tuple[Found, Source, FrameRange | None]:
    """What is encoded, and its frames when a render step makes them. Raises Malformed."""
    found = context.input(text)
    made_by = context.entries[found.step].body if found.step else None
    is_render = isinstance(made_by, kinds.RenderStep)
    if isinstance(made_by, kinds.RenderStep) and made_by.png == "off":
        raise Malformed(f"{text!r}: step {found.step!r} makes no PNG; a film needs its png: 8, or 16")
    if is_render and found.path == context.outputs_of(found.step):
        found = Found(f"{found.path}/{context.base}.####.png", found.step)
    if "#" in PurePosixPath(found.path).name:
        _is_pattern(found.path, text)
        return found, Source.PATTERN, made_by.frames if isinstance(made_by, kinds.RenderStep) else None
    if found.step:
        folder = not PurePosixPath(found.path).suffix and not isinstance(made_by, kinds.TranscodeStep)
        return found, Source.FOLDER if folder else Source.VIDEO, None
    paths.existing(found.path, text)
    if not paths.is_folder(found.path):
        return found, Source.VIDEO, None
    if not paths.is_object(found.path) and not any(
        re.fullmatch(r".*\d+\.(png|exr)", name) for name in paths.names_in(found.path)
    ):
        raise Malformed(f"{text!r}: no numbered PNG or OpenEXR file is in the folder {found.path}")
    return found, Source.FOLDER, None


def _is_pattern(path: str, text: str) -> None:
    name = PurePosixPath(path).name
    if len(re.findall(r"#+", name)) > 1 or not name.endswith(PICTURES):
        raise Malformed(f"{text!r} must have one run of '#' for the frame number and end in .png or .exr")


def _span(source: Source, found: Found, frames: FrameRange | None) -> tuple[int, int, int] | None:
    """One half-open range of frame numbers; None leaves it to what is there. Raises Malformed."""
    if not found.path:
        return None
    if source is Source.VIDEO:
        if frames is not None:
            raise Malformed(
                "a range of a video cannot be encoded yet; leave frames out, or give numbered frames as input"
            )
        return None
    unseen = found.step or source is Source.FOLDER or paths.is_object(found.path)
    there = None if unseen else _numbers_there(found.path)
    if frames is None:
        return None if source is Source.FOLDER else _whole_run(found, there)
    if len(frames.spans) != 1:
        raise Malformed(f"a film needs one range such as 1-24 or 1-99x2, got {frames}")
    if there is not None:
        _all_there(frames, there, found.path)
    return frames.spans[0]


def _numbers_there(pattern: str) -> frozenset[int]:
    before, hashes, after = re.split(r"(#+)", PurePosixPath(pattern).name)
    form = re.compile(re.escape(before) + r"(\d+)" + re.escape(after), re.ASCII)
    found = (form.fullmatch(entry) for entry in paths.names_in(str(PurePosixPath(pattern).parent)))
    return frozenset(
        int(match[1]) for match in found if match and len(match[1]) == max(len(hashes), len(str(int(match[1]))))
    )


def _whole_run(found: Found, there: Collection[int] | None) -> tuple[int, int, int]:
    if there is None and not found.step:
        raise Malformed(f"is required: nobody looks into {paths.parent(found.path)} before the job runs")
    if there is None:
        raise Malformed(f"is required: nobody knows before step {found.step!r} ran which frames it makes")
    if not there:
        raise Malformed(f"no file matches {found.path}")
    first, last = min(there), max(there)
    _all_there(FrameRange(((first, last + 1, 1),)), there, found.path)
    return first, last + 1, 1


def _all_there(frames: FrameRange, there: Collection[int], pattern: str) -> None:
    missing = [number for number in frames if number not in there]
    if missing:
        some = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise Malformed(f"{len(missing)} of {len(frames)} frames are not there: {some} of {pattern}")
