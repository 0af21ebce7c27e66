"""Encodes one film: ``python -P encode_runner.py REQUEST``, with the request documented in ``pipelines/transcode.py``.

Checks the source, runs ffmpeg under a temporary name, reads the result back frame by frame, and only then names it.
Ends with ``shisuan_done: {json}`` and exit code 0, or ``shisuan_fail: reason`` and 1; after SIGTERM there is no file
and the exit code is 143. The result::

    {"frames": 24, "width": 320, "height": 180, "codec": "h264", "pix_fmt": "yuv420p", "fps": "24", "duration": "1",
     "duration_ms": 1000, "bytes": 61234, "audio": "", "color": {"primaries": "bt709", "transfer": "bt709",
     "matrix": "bt709", "range": "tv"}, "warnings": [], "ms": {"check": 9, "encode": 310, "verify": 40},
     "ffmpeg": {"path": "/usr/bin/ffmpeg", "version": "7.1.2"}}
"""

from __future__ import annotations

import sys

if not sys.flags.safe_path and sys.path and sys.path[0] and __file__.startswith(sys.path[0]):
    del sys.path[0]  # this folder has an ffmpeg.py, which must not stand for the package of that name

import json
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

from scheduler.model.errors import ExecutorError
from workers import ffmpeg, ffmpeg_binary, ffmpeg_process, frames
from workers.mediacheck import BadMedia, VideoFacts, video_facts

STALL_S = 120
"""ffmpeg is given up when it has encoded nothing for so long."""
HDR_TRANSFERS = ("smpte2084", "arib-std-b67")
STOPPED_EXIT_CODE = 128 + signal.SIGTERM
AUDIO_START_TOLERANCE_FRAMES = 1


class Stopped(BaseException):
    """SIGTERM came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What to run, and what the result must be."""

    argv: tuple[str, ...]
    folder: str
    """ffmpeg's working directory."""
    film: ffmpeg.Film
    frames: int
    """Exact number of frames; 0: not known beforehand, ``duration_s`` decides."""
    duration_s: Fraction
    audio: bool = False
    warnings: tuple[str, ...] = ()


def say(word: str, text: str) -> None:
    """One protocol line in one write; the newline first, so that no unfinished line of a log swallows it."""
    lead = "\n" if word in ("done", "fail") else ""
    os.write(1, f"{lead}shisuan_{word}: {' '.join(text.split())}\n".encode())


def encode(request: dict[str, Any], scratch: str) -> dict[str, Any]:
    """Make the film. Raises BadMedia or ExecutorError, leaving no file under the final name."""
    began = time.monotonic()
    if request["codec"] != "h264":
        raise BadMedia(f"codec {request['codec']!r} is not supported (valid: h264)")
    binary = ffmpeg_binary.find()
    out = Path(request["out"])
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{os.getpid()}.partial.{out.name}")
    say("status", "checking the source")
    try:
        work = _plan(request, binary.path, str(temporary), scratch)
        checked = time.monotonic()
        say("status", f"encoding {work.frames or 'all'} frames of {work.film.width}x{work.film.height}")
        _run(work, int(request.get("stall_s", STALL_S)))
        encoded = time.monotonic()
        say("status", "reading the film back")
        facts = verify(temporary, work)
        _sync(temporary)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    seconds = {"check": checked - began, "encode": encoded - checked, "verify": time.monotonic() - encoded}
    return {
        **_told(facts),
        "warnings": list(work.warnings),
        "ms": {name: round(1000 * value) for name, value in seconds.items()},
        "ffmpeg": {"path": binary.path, "version": binary.version},
    }


def _plan(request: dict[str, Any], binary: str, out: str, scratch: str) -> Work:
    if request["source"] == "video":
        return _plan_video(request, binary, out, scratch)
    pictures = frames.gather(
        request["source"], request["input"], int(request["first"]), int(request["last"]), int(request["step"])
    )
    count = len(pictures.files)
    _expect(count, int(request["expect_frames"]), request["input"])
    if not request["fps"]:
        raise BadMedia("a sequence of pictures needs a frame rate: set fps")
    film = _film(request, out, pictures.width, pictures.height, Fraction(request["fps"]))
    for number, file in enumerate(pictures.files):
        Path(scratch, f"{number:08d}.png").symlink_to(file)
    return Work(
        argv=ffmpeg.frames_argv(binary, "%08d.png", film),
        folder=scratch,
        film=film,
        frames=count,
        duration_s=count / film.rate,
        warnings=_cut(film, pictures.width, pictures.height),
    )


def _plan_video(request: dict[str, Any], binary: str, out: str, scratch: str) -> Work:
    source = request["input"]
    try:
        facts = video_facts(source, decode=False)
    except BadMedia as fault:
        raise BadMedia(f"{source} {fault}") from fault
    if facts.transfer in HDR_TRANSFERS:
        raise BadMedia(f"{source} is HDR ({facts.transfer}): it would need tone mapping, which is not supported")
    wanted = Fraction(request["fps"]) if request["fps"] else facts.rate
    if wanted is None:
        raise BadMedia(f"{source} has a variable frame rate: set fps to the rate it should get")
    conform = wanted != facts.rate
    if facts.audio and abs(facts.audio_start_s - facts.start_s) * wanted > AUDIO_START_TOLERANCE_FRAMES:
        raise BadMedia(f"{source}: sound and picture begin at different times, which is not supported")
    if not conform:
        _expect(facts.frames, int(request["expect_frames"]), source)
    film = _film(request, out, facts.width, facts.height, wanted)
    count = int(request["expect_frames"]) if conform else facts.frames
    return Work(
        argv=ffmpeg.video_argv(binary, source, film, conform=conform, audio=bool(facts.audio)),
        folder=scratch,
        film=film,
        frames=count,
        duration_s=count / wanted if count else facts.duration_s,
        audio=bool(facts.audio),
        warnings=_cut(film, facts.width, facts.height),
    )


def _film(request: dict[str, Any], out: str, width: int, height: int, rate: Fraction) -> ffmpeg.Film:
    if width < 2 or height < 2:
        raise BadMedia(f"the pictures are {width}x{height} pixels: too small for H.264")
    return ffmpeg.Film(
        out=out,
        width=width - width % 2,
        height=height - height % 2,
        rate=rate,
        crf=int(request["crf"]),
        preset=str(request["preset"]),
        threads=int(request["threads"]),
    )


def _cut(film: ffmpeg.Film, width: int, height: int) -> tuple[str, ...]:
    """4:2:0 has one colour sample per 2x2 pixels."""
    if (film.width, film.height) == (width, height):
        return ()
    text = f"the pictures are {width}x{height}; H.264 4:2:0 needs even sides: cut to {film.width}x{film.height}"
    say("status", text)
    return (text,)


def _expect(found: int, expected: int, where: str) -> None:
    if expected and found != expected:
        raise BadMedia(f"{where} has {found} frames, {expected} were expected")


def _run(work: Work, stall_s: int) -> None:
    total = work.frames or round(work.duration_s * work.film.rate)
    told = -1

    def progress(done: int) -> None:
        nonlocal told
        percent = min(99, 100 * done // max(1, total))
        if percent > told:
            told = percent
            say("progress", str(percent))

    progress(0)
    ffmpeg_process.run(work.argv, folder=work.folder, on_frames=progress, stall_s=stall_s)


def verify(path: Path, work: Work) -> VideoFacts:
    """Read the film back. Raises BadMedia when it is not exactly what was asked for."""
    try:
        facts = video_facts(path)
    except BadMedia as fault:
        raise BadMedia(f"the film that ffmpeg made {fault}") from fault
    film = work.film
    wrong = [
        f"{name} is {got}, should be {wanted}"
        for name, got, wanted in (
            ("codec", facts.codec, "h264"),
            ("size", f"{facts.width}x{facts.height}", f"{film.width}x{film.height}"),
            ("pixel format", facts.pix_fmt, "yuv420p"),
            ("frame count", facts.frames, work.frames or facts.frames),
            ("color", (facts.primaries, facts.transfer, facts.matrix, facts.range), ("bt709",) * 3 + ("tv",)),
            ("sound", bool(facts.audio), work.audio),
        )
        if got != wanted
    ]
    if not _has_rate(facts, film.rate):
        wrong.append(f"its frames are not evenly spaced at {film.rate} per second")
    # A conformed source may end anywhere inside its last frame.
    slack_s = facts.tick_s if work.frames else 1 / film.rate + facts.tick_s
    if abs(facts.duration_s - work.duration_s) > slack_s:
        wrong.append(f"it is {float(facts.duration_s):.3f} s long, should be {float(work.duration_s):.3f} s")
    if wrong:
        raise BadMedia(f"the film that ffmpeg made is wrong: {'; '.join(wrong)}")
    return facts


def _has_rate(facts: VideoFacts, rate: Fraction) -> bool:
    """Containers with a coarse clock (Matroska: 1 ms) cannot hold the rate itself, so compare over the whole film."""
    if facts.frames == 1 or facts.rate == rate:
        return True
    return facts.rate is not None and abs(facts.frames / facts.rate - facts.frames / rate) <= 2 * facts.tick_s


def _told(facts: VideoFacts) -> dict[str, Any]:
    return {
        "frames": facts.frames,
        "width": facts.width,
        "height": facts.height,
        "codec": facts.codec,
        "pix_fmt": facts.pix_fmt,
        "fps": str(facts.rate or facts.average_rate),
        "duration": str(facts.duration_s),
        "duration_ms": round(facts.duration_s * 1000),
        "bytes": facts.size_bytes,
        "audio": facts.audio,
        "color": {
            "primaries": facts.primaries,
            "transfer": facts.transfer,
            "matrix": facts.matrix,
            "range": facts.range,
        },
    }


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _on_terminate(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the clean-up
    raise Stopped


def main(argv: list[str]) -> int:
    """Serve one request; gives the exit code."""
    signal.signal(signal.SIGTERM, _on_terminate)
    try:
        with tempfile.TemporaryDirectory(prefix="frames-") as scratch:
            result = encode(json.loads(argv[1]), scratch)
    except Stopped:
        say("status", "stopped")
        return STOPPED_EXIT_CODE
    except (BadMedia, ExecutorError) as error:
        say("fail", str(error))
        return 1
    except (IndexError, KeyError, TypeError, ValueError) as error:
        say("fail", f"the request cannot be read: {type(error).__name__}: {error}")
        return 1
    except OSError as error:
        say("fail", f"{error.strerror}: {error.filename}" if error.filename else str(error))
        return 1
    say("progress", "100")
    say("done", json.dumps(result, separators=(",", ":"), sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
