"""Joins chunks: copied one after the other, in the order of their integers, with the sound put in once, then read back.

Every chunk tells which frames it holds and the hash of each. The join refuses chunks that do not follow each other or
were not made alike, and a film whose frames, decoded, are not the chunks' frames in order.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from workers import ffmpeg, ffmpeg_process
from workers.color import Static
from workers.encoding import audio, sound, verify
from workers.encoding.film import ABOUT, Temporary, percents, told
from workers.encoding.request import Request
from workers.encoding.say import say
from workers.ffmpeg_binary import Binary, find
from workers.ffmpeg_codecs import Film
from workers.mediacheck import BadMedia
from workers.videocheck import video_facts

ALIKE = ("encoder", "parameters", "film", "chunks", "of")
"""What all chunks must share; ``parameters`` are the stream's parameter sets, of which the film has one copy."""


def join(request: Request, scratch: str) -> dict[str, Any]:
    """The film of all chunks. Raises BadMedia or ExecutorError, leaving no file under the final name."""
    began = time.monotonic()
    say("status", "checking the chunks")
    parts = [Path(chunk_path(request.parts, number)) for number in range(request.chunks)]
    abouts = [_about(part) for part in parts]
    count = _contiguous(abouts, request)
    binary = find()  # nothing is encoded here: any program that works will do
    out = Path(request.out)
    heard, codec, samples = _sound(request)
    with Temporary(out) as temporary:
        film = _film(abouts[0]["film"], str(temporary), request)
        listed = Path(scratch, "parts.txt")
        listed.write_text("".join(f"file {_quoted(str(part))}\n" for part in parts), encoding="utf-8")
        checked = time.monotonic()
        say("status", f"joining {len(parts)} chunks of {count} frames")
        ffmpeg_process.run(
            ffmpeg.join_argv(binary.path, str(listed), heard, film),
            folder=scratch,
            on_frames=percents(count),
            stall_s=request.stall_s,
        )
        joined = time.monotonic()
        say("status", "reading the film back")
        facts = verify.film(temporary, film, frames=count, duration_s=count / film.rate, samples=samples, audio=codec)
        _same_frames(facts.hashes, abouts)
    seconds = {"check": checked - began, "join": joined - checked, "verify": time.monotonic() - joined}
    warnings = list(dict.fromkeys(text for about in abouts for text in about["warnings"]))
    result = told(facts, Binary(path=binary.path, version=binary.version, encoder=film.encoder), seconds, warnings)
    return result | {"chunks": len(parts), "threads": abouts[0]["threads"]}


def chunk_path(pattern: str, number: int) -> str:
    """``/x/chunk.####.mp4`` with the number in place of the run of ``#`` in the file's name."""
    folder, _, name = pattern.rpartition("/")
    return f"{folder}/" + re.sub("#+", lambda run: f"{number:0{len(run[0])}d}", name)


def _about(part: Path) -> dict[str, Any]:
    path = Path(str(part) + ABOUT)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadMedia(f"{path} is missing: chunk {part.name} was not finished") from error
    except ValueError as error:
        raise BadMedia(f"{path} is damaged: {error}") from error
    return found


def _contiguous(abouts: Sequence[dict[str, Any]], request: Request) -> int:
    """Number of frames of all chunks. Raises BadMedia unless they follow each other from 0 to the source's end."""
    end = 0
    for number, about in enumerate(abouts):
        if about["chunk"] != number or about["first"] != end or about["end"] - about["first"] != len(about["hashes"]):
            raise BadMedia(
                f"chunk {number} holds frames {about['first']} to {about['end'] - 1} as number {about['chunk']}, "
                f"should begin at {end}: the source changed, or another job wrote here"
            )
        end = about["end"]
        for name in ALIKE:
            if about[name] != abouts[0][name]:
                raise BadMedia(
                    f"chunk {number} was not made like chunk 0: its {name} is {about[name]}, not {abouts[0][name]}"
                )
    if end != abouts[0]["of"] or len(abouts) != abouts[0]["chunks"]:
        raise BadMedia(f"the chunks hold {end} of {abouts[0]['of']} frames")
    if request.expect_frames and end != request.expect_frames:
        raise BadMedia(f"the chunks hold {end} frames, {request.expect_frames} were expected")
    return end


def _film(made: dict[str, Any], out: str, request: Request) -> Film:
    static = made["static"]
    return Film(
        out=out,
        width=made["width"],
        height=made["height"],
        rate=Fraction(made["rate"]),
        encoder=made["encoder"],
        bits=made["bits"],
        crf=request.crf,
        preset=request.preset,
        threads=request.threads,
        color=made["color"],
        static=Static(**static | {"display": tuple(static["display"])}) if static else None,
        timecode=made["timecode"],
    )


def _sound(request: Request) -> tuple[str, str, int]:
    """File, codec and samples of the sound; empty and -1: the film is silent."""
    if request.source != "video" or request.audio == "none":
        return "", "", -1
    if request.audio == "copy":
        heard = sound.planned(request, video_facts(request.input, decode=False))
        return (request.input, heard.codec, heard.samples) if heard else ("", "", -1)
    about = _about(Path(request.sound, audio.ABOUT.removesuffix(ABOUT)))
    if not about["codec"]:
        return "", "", -1
    return str(Path(request.sound, audio.FILE)), str(about["codec"]), int(about["samples"])


def _quoted(path: str) -> str:
    """As the concat demuxer reads it."""
    return "'" + path.replace("'", r"'\''") + "'"


def _same_frames(found: Sequence[str], abouts: Sequence[dict[str, Any]]) -> None:
    wanted = [digest for about in abouts for digest in about["hashes"]]
    for number, (got, should) in enumerate(zip(found, wanted, strict=True)):
        if got != should:
            raise BadMedia(f"frame {number} of the joined film is not the one its chunk has: the join is wrong")
