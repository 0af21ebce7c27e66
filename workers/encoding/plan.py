"""From a request to the command: what the source really is decides, and what cannot be kept is refused before encoding.

Nothing is cut silently: not bits, not HDR, not frames, not sound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from workers import ffmpeg, frames
from workers.color import HDR, SYSTEMS, system_of
from workers.encoding import sound
from workers.encoding.request import Request
from workers.ffmpeg_binary import Binary, find
from workers.ffmpeg_codecs import Film
from workers.mediacheck import BadMedia
from workers.videocheck import FirstFrame, Index, VideoFacts, first_frame, video_index

HDR_NAMES = {"hlg": "HLG", "pq": "PQ"}
KEYFRAMES_BACK = 1
"""Decoding begins so many keyframes before the last that would do: demuxers that seek by decoding time land late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What to run, and what the result must be."""

    binary: Binary
    argv: tuple[str, ...]
    folder: str
    """ffmpeg's working directory."""
    film: Film
    frames: int
    """Exact number of frames; 0: not known beforehand, ``duration_s`` decides."""
    duration_s: Fraction
    first: int = 0
    """Index of the part's first frame among all."""
    of: int = 0
    """Frames of the whole source; 0: not known."""
    samples: int = -1
    """Samples of sound the result must have; -1: no sound."""
    sound: str = ""
    """``aac`` or the codec that is copied; empty: none."""
    timecode: str = ""
    """Of the source's first frame, for the whole film."""
    feed: Iterable[bytes] | None = None
    """Pictures for ffmpeg's standard input."""
    look: str = ""
    """How scene-linear light becomes a picture."""
    warnings: tuple[str, ...] = ()


def plan(request: Request, out: str, scratch: str) -> Work:
    """The whole film or one chunk of it. Raises BadMedia, and ExecutorError when no encoder works."""
    if request.source == "video":
        return _video(request, out, scratch)
    return _pictures(request, out, scratch)


# --- pictures ---------------------------------------------------------------------------------------------------------


def _pictures(request: Request, out: str, scratch: str) -> Work:
    numbered = frames.numbered(request.source, request.input, request.first, request.last, request.step)
    count = len(numbered)
    _expect(count, request.expect_frames, request.input)
    if request.fps is None:
        raise BadMedia("a sequence of pictures needs a frame rate: set fps")
    part = request.part(count)
    pictures = frames.checked([numbered[index] for index in part])
    color = request.color or "bt709"
    bits = request.bits or (10 if color in HDR else 8)
    warnings = _deep_enough(pictures, color, bits)
    binary = find(request.codec, bits, request.encoder)
    film = _film(request, binary, out, (pictures.width, pictures.height), request.fps, bits=bits, color=color)
    feed: Iterable[bytes] | None = None
    shown = ""
    if pictures.linear:
        from workers.encoding import linear

        look = linear.Look.of(color, display=request.display, view=request.view, config=request.ocio)
        feed, shown = linear.rgb48(pictures.files, look), str(look)
        argv = ffmpeg.raw_argv(binary.path, pictures.width, pictures.height, film)
    else:
        for number, file in enumerate(pictures.files):
            Path(scratch, f"{number:08d}.png").symlink_to(file)
        argv = ffmpeg.frames_argv(binary.path, "%08d.png", film)
    return Work(
        binary=binary,
        argv=argv,
        folder=scratch,
        film=film,
        frames=len(part),
        duration_s=len(part) / film.rate,
        first=part.start,
        of=count,
        feed=feed,
        look=shown,
        warnings=(*warnings, *_cut(film, pictures.width, pictures.height)),
    )


def _deep_enough(pictures: frames.Pictures, color: str, bits: int) -> tuple[str, ...]:
    """HDR from 8-bit pictures shows steps: refused. A deeper film than its pictures is only told."""
    _bits_for(color, bits)
    if pictures.linear or pictures.depth > 8:
        return ()
    if color in HDR:
        raise BadMedia(
            f"the pictures have {pictures.depth} bits, too few for {HDR_NAMES[color]}: give 16-bit PNG or OpenEXR"
        )
    return (f"the pictures have {pictures.depth} bits: a film of 10 bits shows no more",) if bits == 10 else ()


# --- video ------------------------------------------------------------------------------------------------------------


def _video(request: Request, out: str, scratch: str) -> Work:
    source = request.input
    try:
        facts, index = video_index(source)
        first = first_frame(source)
    except BadMedia as fault:
        raise BadMedia(f"{source} {fault}") from fault
    rate, conform = _rate(request, facts)
    color, bits, warnings = _kept(request, first)
    part = request.part(facts.frames)
    if not conform:
        _expect(facts.frames, request.expect_frames, source)
    binary = find(request.codec, bits, request.encoder)
    film = _film(request, binary, out, (facts.width, facts.height), rate, bits=bits, color=color)
    chunked = request.op == "chunk"
    film = replace(
        film, static=first.static if color == "pq" else None, timecode="" if conform or chunked else facts.timecode
    )
    cut = _part(index, part, facts.tick_s) if chunked else None
    heard = None if chunked else sound.planned(request, facts)
    count = len(part) if chunked else request.expect_frames if conform else facts.frames
    return Work(
        binary=binary,
        argv=ffmpeg.video_argv(
            binary.path, source, film, conform=conform, cut=cut, sound=heard.filters if heard else None
        ),
        folder=scratch,
        film=film,
        frames=count,
        duration_s=count / rate if count else facts.duration_s,
        first=part.start,
        of=facts.frames,
        samples=heard.samples if heard else -1,
        sound=heard.codec if heard else "",
        timecode="" if conform else facts.timecode,
        warnings=(*warnings, *_cut(film, facts.width, facts.height)),
    )


def _rate(request: Request, facts: VideoFacts) -> tuple[Fraction, bool]:
    """Frames per second, and whether frames must be repeated or dropped for it."""
    wanted = request.fps or facts.rate
    if wanted is None:
        raise BadMedia(f"{request.input} has a variable frame rate: set fps to the rate it should get")
    conform = wanted != facts.rate
    if conform and request.op == "chunk":
        has = f"{facts.rate} frames per second" if facts.rate else "a variable frame rate"
        raise BadMedia(
            f"{request.input} has {has} and cannot be cut into chunks at {wanted}: "
            "conform it first, with a transcode that has fps and no chunks"
        )
    return wanted, conform


def _kept(request: Request, first: FirstFrame) -> tuple[str, int, tuple[str, ...]]:
    """Colour system, bits and warnings. Raises BadMedia where keeping what the source has is not possible."""
    source, has, said = request.input, first.tags, system_of(first.tags)
    if first.interlaced:
        raise BadMedia(f"{source} is interlaced: deinterlace it first, its fields would be mixed")
    color = request.color or said or "bt709"
    if said in HDR and color not in HDR:
        raise BadMedia(
            f"{source} is HDR ({has.transfer}): {color} would need tone mapping, which is not supported; "
            f"keep it with color: {said} and bits: 10"
        )
    if said and said != color:
        raise BadMedia(f"{source} is {HDR_NAMES.get(said, 'SDR')} ({has.transfer}): it cannot become {color}")
    if color == "bt709" and has.primaries == "bt2020":
        raise BadMedia(f"{source} has the wide colours of bt2020: turning them into bt709 is not supported")
    bits = request.bits or (10 if first.depth > 8 else 8)
    _bits_for(color, bits)
    warnings = []
    if not said and color in HDR:
        if first.depth < 10:
            raise BadMedia(f"{source} has {first.depth} bits, too few for {HDR_NAMES[color]}")
        warnings.append(f"{source} does not say what its colours are: taken as {HDR_NAMES[color]}, as the job says")
    if first.depth > bits:
        warnings.append(f"{source} has {first.depth} bits, the film {bits}")
    return color, bits, tuple(warnings)


def _bits_for(color: str, bits: int) -> None:
    if color in HDR and bits != 10:
        raise BadMedia(f"{HDR_NAMES[color]} needs 10 bits, {bits} are asked for: set bits: 10")


def _part(index: Index, part: range, tick_s: Fraction) -> ffmpeg.Cut:
    begin = index.stamps[part.start]
    before = [key for key in index.keys if key <= begin]
    seek_s = Fraction(0)
    if len(before) > KEYFRAMES_BACK:
        seek_s = max(Fraction(0), before[-1 - KEYFRAMES_BACK] * tick_s - index.origin_s)
    end = index.stamps[part.stop] if part.stop < len(index.stamps) else None
    return ffmpeg.Cut(begin=begin, end=end, seek_s=seek_s, tick_s=tick_s, frames=len(part))


# --- both -------------------------------------------------------------------------------------------------------------


def _film(
    request: Request, binary: Binary, out: str, size: Sequence[int], rate: Fraction, *, bits: int, color: str
) -> Film:
    width, height = size
    if width < 2 or height < 2:
        raise BadMedia(f"the pictures are {width}x{height} pixels: too small for {request.codec}")
    assert color in SYSTEMS
    return Film(
        out=out,
        width=width - width % 2,
        height=height - height % 2,
        rate=rate,
        encoder=binary.encoder,
        bits=bits,
        crf=request.crf,
        preset=request.preset,
        threads=request.threads,
        color=color,
    )


def _cut(film: Film, width: int, height: int) -> tuple[str, ...]:
    """4:2:0 has one colour sample per 2x2 pixels."""
    if (film.width, film.height) == (width, height):
        return ()
    return (f"the pictures are {width}x{height}; 4:2:0 needs even sides: cut to {film.width}x{film.height}",)


def _expect(found: int, expected: int, where: str) -> None:
    if expected and found != expected:
        raise BadMedia(f"{where} has {found} frames, {expected} were expected")
