"""The one door to ffmpeg-python: filter graphs in, argv out. It runs nothing.

ffmpeg-python is not maintained (last release 2019): only its compiler is used, which knows how to escape a graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import ffmpeg

QUIET = ("-nostdin", "-hide_banner", "-loglevel", "warning", "-nostats")
REPORTING = ("-progress", "pipe:1", "-stats_period", "0.5")
STRICT = ("-xerror",)
"""Stop at the first error of decoding: a film with a hole in it must not look finished."""
ONLY_FILES = {"protocol_whitelist": "file,pipe"}
"""A playlist among the inputs must not fetch from the network."""
BT709 = {"color_primaries": "bt709", "color_trc": "bt709", "colorspace": "bt709", "range": "tv"}
GOP_SECONDS = 2
LEAST_TIMESCALE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """The H.264 film to make. 8-bit 4:2:0, BT.709, limited range, closed groups of pictures."""

    out: str
    """Absolute path; its ending names the container."""
    width: int
    """Pixels, even; what an odd source has more is cut off at the right and the bottom."""
    height: int
    rate: Fraction
    """Frames per second."""
    crf: int
    preset: str
    threads: int


def probe_argv(binary: str) -> tuple[str, ...]:
    """Encode one grey picture with everything a real film needs, and throw it away."""
    grey = ffmpeg.input("color=c=gray:s=64x64:r=25", format="lavfi")
    picture = _bt709(grey.video, 64, 64)
    out = ffmpeg.output(picture, "-", format="null", vcodec="libx264", **{"frames:v": 1, "fps_mode": "passthrough"})
    return (binary, *QUIET, *ffmpeg.get_args(out))


def frames_argv(binary: str, pattern: str, film: Film) -> tuple[str, ...]:
    """Encode pictures numbered from 0; ``pattern`` is printf's, relative to the working directory."""
    pictures = ffmpeg.input(pattern, format="image2", framerate=str(film.rate), start_number=0, **ONLY_FILES)
    return _argv(binary, film, _bt709(pictures.video, film.width, film.height))


def video_argv(binary: str, source: str, film: Film, *, conform: bool, audio: bool) -> tuple[str, ...]:
    """Encode a video. Its pictures keep their number and get exact times; with ``conform`` some are repeated or dropped
    to fit the rate. ``audio``: its first audio stream is kept, as AAC.
    """
    media = ffmpeg.input(source, **ONLY_FILES)
    picture = media.video
    if not conform:
        picture = picture.filter("settb", expr=str(1 / film.rate)).filter("setpts", "N")
    picture = picture.filter("fps", fps=str(film.rate))
    streams = [_bt709(picture, film.width, film.height)]
    if audio:
        streams.append(media["a:0"])
    return _argv(binary, film, *streams, audio=audio)


def _bt709(picture: Any, width: int, height: int) -> Any:
    """Converted and tagged inside the graph: ffmpeg 8 and newer drop tags given as output options."""
    picture = picture.filter("crop", width, height, 0, 0)
    flags = "bicubic+accurate_rnd+full_chroma_int"
    picture = picture.filter("scale", out_color_matrix="bt709", out_range="tv", flags=flags)
    return picture.filter("format", "yuv420p").filter("setparams", **BT709)


def _argv(binary: str, film: Film, *streams: Any, audio: bool = False) -> tuple[str, ...]:
    options: dict[str, object] = {
        "vcodec": "libx264",
        "preset": film.preset,
        "crf": film.crf,
        "threads": film.threads,
        "fps_mode": "passthrough",
        "g": max(1, round(film.rate * GOP_SECONDS)),
        "flags": "+cgop",
        "map_metadata": -1,
    }
    if not film.out.endswith(".mkv"):
        options |= {"movflags": "+faststart", "video_track_timescale": _timescale(film.rate)}
    if audio:
        options |= {"acodec": "aac", "b:a": "192k"}
    out = ffmpeg.output(*streams, film.out, **options).overwrite_output()
    return (binary, *QUIET, *REPORTING, *STRICT, *ffmpeg.get_args(out))


def _timescale(rate: Fraction) -> int:
    """Ticks per second in which one frame is a whole number of ticks."""
    scale = rate.numerator
    while scale < LEAST_TIMESCALE:
        scale *= 2
    return scale
