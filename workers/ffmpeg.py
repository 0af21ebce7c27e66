"""The one door to ffmpeg-python: filter graphs in, argv out. It runs nothing.

ffmpeg-python is not maintained (last release 2019): only its compiler is used, which knows how to escape a graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import ffmpeg

from workers.color import Tags
from workers.ffmpeg_codecs import Film, graph_pixels, options

QUIET = ("-nostdin", "-hide_banner", "-loglevel", "warning", "-nostats")
REPORTING = ("-progress", "pipe:1", "-stats_period", "0.5")
STRICT = ("-xerror",)
"""Stop at the first error of decoding: a film with a hole in it must not look finished."""
ONLY_FILES = {"protocol_whitelist": "file,pipe"}
"""A playlist among the inputs must not fetch from the network."""
LEAST_TIMESCALE = 10_000
AAC = {"acodec": "aac", "b:a": "192k"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A part of a video, by its frames' times in ticks: half-open."""

    begin: int
    end: int | None
    """None: to the end."""
    seek_s: Fraction
    """Where to begin decoding, from the file's own begin; 0: at the beginning."""
    tick_s: Fraction
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """What becomes of the first audio stream."""

    copy: bool
    shift_samples: int = 0
    """How much later than the picture the sound begins; less than 0: so much of it is cut off."""


def probe_argv(binary: str, film: Film) -> tuple[str, ...]:
    """Encode one grey picture the way ``film`` would be, and throw it away."""
    grey = ffmpeg.input("color=c=gray:s=256x256:r=25", format="lavfi")
    out = ffmpeg.output(_coded(grey.video, film), "-", format="null", **{"frames:v": 1, **options(film)})
    return (binary, *QUIET, *ffmpeg.get_args(out))


def frames_argv(binary: str, pattern: str, film: Film) -> tuple[str, ...]:
    """Encode pictures numbered from 0; ``pattern`` is printf's, relative to the working directory."""
    pictures = ffmpeg.input(pattern, format="image2", framerate=str(film.rate), start_number=0, **ONLY_FILES)
    return _argv(binary, film, _coded(pictures.video, film))


def raw_argv(binary: str, width: int, height: int, film: Film) -> tuple[str, ...]:
    """Encode 16-bit RGB pictures that come through standard input, ``width`` x ``height`` pixels each."""
    pictures = ffmpeg.input(
        "pipe:0", format="rawvideo", pixel_format="rgb48le", video_size=(width, height), framerate=str(film.rate)
    )
    return _argv(binary, film, _coded(pictures.video, film))


def video_argv(
    binary: str, source: str, film: Film, *, conform: bool = False, cut: Cut | None = None, sound: Sound | None = None
) -> tuple[str, ...]:
    """Encode a video, or with ``cut`` a part of it. Its pictures keep their number and get exact times; with
    ``conform`` some are repeated or dropped to fit the rate. ``sound``: its first audio stream is kept.
    """
    media = ffmpeg.input(source, **(_seek(cut) if cut else {}), **ONLY_FILES)
    picture = media.video
    if cut:
        ends = {} if cut.end is None else {"end_pts": cut.end}
        picture = picture.filter("settb", expr=str(cut.tick_s)).filter("trim", start_pts=cut.begin, **ends)
    if not conform:
        picture = picture.filter("settb", expr=str(1 / film.rate)).filter("setpts", "N")
    picture = picture.filter("fps", fps=str(film.rate))
    streams = [_coded(picture, film)]
    extra: dict[str, object] = {"frames:v": cut.frames} if cut else {}
    if sound:
        streams.append(media["a:0"] if sound.copy else _shifted(media["a:0"], sound))
        extra |= {"acodec": "copy"} if sound.copy else AAC
    return _argv(binary, film, *streams, **extra)


def audio_argv(binary: str, source: str, out: str, sound: Sound) -> tuple[str, ...]:
    """Encode the first audio stream alone."""
    media = ffmpeg.input(source, **ONLY_FILES)
    made = ffmpeg.output(_shifted(media["a:0"], sound), out, map_metadata=-1, **AAC).overwrite_output()
    return (binary, *QUIET, *REPORTING, *STRICT, *ffmpeg.get_args(made))


def join_argv(binary: str, parts: str, audio: str, film: Film) -> tuple[str, ...]:
    """Copy the parts listed in the file ``parts`` one after the other, and the first audio stream of ``audio``."""
    streams = [ffmpeg.input(parts, format="concat", safe=0, **ONLY_FILES)["v:0"]]
    if audio:
        streams.append(ffmpeg.input(audio, **ONLY_FILES)["a:0"])
    words: dict[str, object] = {"codec": "copy"}
    if film.codec == "hevc" and not film.out.endswith(".mkv"):
        words["tag:v"] = "hvc1"
    return _written(binary, film, *streams, **words)


def _seek(cut: Cut) -> dict[str, object]:
    """With the source's own times kept, so that frames are told apart by them and not by counting from a seek."""
    where = {"ss": f"{float(cut.seek_s):.6f}", "noaccurate_seek": None} if cut.seek_s > 0 else {}
    return {**where, "copyts": None}


def _shifted(audio: Any, sound: Sound) -> Any:
    """The sound's first sample moved to where the picture's first frame is, to the sample."""
    audio = audio.filter("asetpts", "PTS-STARTPTS")
    if sound.shift_samples > 0:
        return audio.filter("adelay", delays=f"{sound.shift_samples}S", all=1)
    if sound.shift_samples < 0:
        return audio.filter("atrim", start_sample=-sound.shift_samples).filter("asetpts", "PTS-STARTPTS")
    return audio


def _coded(picture: Any, film: Film) -> Any:
    """Converted and tagged inside the graph: ffmpeg 8 and newer drop tags given as output options."""
    tags: Tags = film.tags
    picture = picture.filter("crop", film.width, film.height, 0, 0)
    flags = "bicubic+accurate_rnd+full_chroma_int"
    matrix = tags.matrix.removesuffix("nc")
    picture = picture.filter("scale", out_color_matrix=matrix, out_range=tags.range, flags=flags)
    picture = picture.filter("format", graph_pixels(film.encoder, film.bits))
    return picture.filter(
        "setparams",
        color_primaries=tags.primaries,
        color_trc=tags.transfer,
        colorspace=tags.matrix,
        range=tags.range,
    )


def _argv(binary: str, film: Film, *streams: Any, **extra: object) -> tuple[str, ...]:
    return _written(binary, film, *streams, **options(film), **extra)


def _written(binary: str, film: Film, *streams: Any, **words: object) -> tuple[str, ...]:
    words["map_metadata"] = -1
    if film.timecode:
        words |= {"metadata:s:v:0" if film.out.endswith(".mkv") else "timecode": _timecode(film)}
    if not film.out.endswith(".mkv"):
        words |= {"movflags": "+faststart+write_colr", "video_track_timescale": timescale(film.rate)}
    out = ffmpeg.output(*streams, film.out, **words).overwrite_output()
    return (binary, *QUIET, *REPORTING, *STRICT, *ffmpeg.get_args(out))


def _timecode(film: Film) -> str:
    return f"timecode={film.timecode}" if film.out.endswith(".mkv") else film.timecode


def timescale(rate: Fraction) -> int:
    """Ticks per second in which one frame is a whole number of ticks."""
    scale = rate.numerator
    while scale < LEAST_TIMESCALE:
        scale *= 2
    return scale
