"""What a TRANSCODE step encodes: numbered frames, a folder of them, or a video; made by a step or there already."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from pipelines.media import FrameRange
from pipelines.transcode import Source, TranscodeSpec
from scheduler.jobfile import kinds, paths
from scheduler.jobfile.context import Context, Entry, Found
from scheduler.jobfile.quantity import Malformed

Body = kinds.TranscodeStep | kinds.TranscodeJob
DEFAULT_FPS = "24"
_PRINTF = re.compile(r"%0?(\d?)d", re.ASCII)
_VIDEO = TranscodeSpec(source=Source.VIDEO, input="", file="", output_dir="")


def transcode(context: Context, entry: Entry) -> TranscodeSpec:
    """The step's spec; problems go into the context."""
    body = entry.body
    assert isinstance(body, Body)
    film, found, source, frames = "", Found(""), Source.VIDEO, body.frames
    with context.at(entry.at("outputs")):
        film = context.output_path(entry)
    with context.at(entry.at("input")):
        text = _PRINTF.sub(lambda match: "#" * int(match[1] or 1), body.input)
        found, source, rendered = _source(context, text)
        frames = frames or rendered
    span: tuple[int, int, int] | None = None
    with context.at(entry.at("frames")):
        span = _span(source, found, frames)
    return TranscodeSpec(
        source=source,
        input=found.path,
        first=span[0] if span else _VIDEO.first,
        last=span[1] - 1 if span else _VIDEO.last,
        step=span[2] if span else 1,
        fps=body.fps or ("" if source is Source.VIDEO else DEFAULT_FPS),
        codec=body.codec,
        crf=body.crf,
        preset=body.preset,
        expect_frames=len(range(*span)) if span else 0,
        file=PurePosixPath(film).name,
        output_dir=str(PurePosixPath(film).parent),
        reads=(_readable(source, found.path), *context.reads(entry)),
    )


def _readable(source: Source, path: str) -> str:
    return str(PurePosixPath(path).parent) if source is Source.PATTERN else path


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
    if not any(re.fullmatch(r".*\d+\.png", name) for name in paths.names_in(found.path)):
        raise Malformed(f"{text!r}: no numbered PNG file is in the folder {found.path}")
    return found, Source.FOLDER, None


def _is_pattern(path: str, text: str) -> None:
    name = PurePosixPath(path).name
    if len(re.findall(r"#+", name)) > 1 or not name.endswith(".png"):
        raise Malformed(f"{text!r} must have one run of '#' for the frame number and end in .png")


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
    there = None if found.step or source is Source.FOLDER else _numbers_there(found.path)
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
