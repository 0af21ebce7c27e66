"""The sound of a film whose picture is encoded in chunks: once, whole, in a file of its own."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

from workers import ffmpeg, ffmpeg_process
from workers.encoding import sound
from workers.encoding.film import Temporary, percents, publish
from workers.encoding.request import Request
from workers.encoding.say import say
from workers.ffmpeg_binary import find
from workers.mediacheck import BadMedia
from workers.videocheck import video_index

FILE = "audio.m4a"
ABOUT = "audio.json"
TICKS_PER_S = 1_000_000


def audio(request: Request, scratch: str) -> dict[str, Any]:
    """``audio.m4a`` and ``audio.json`` in the folder of ``out``; only the latter when the source is silent.

    Raises BadMedia or ExecutorError.
    """
    began = time.monotonic()
    folder = Path(request.out).parent
    say("status", "checking the source")
    try:
        facts, _ = video_index(request.input)
    except BadMedia as fault:
        raise BadMedia(f"{request.input} {fault}") from fault
    heard = sound.planned(request, facts)
    about: dict[str, Any] = {"codec": "", "samples": -1}
    if heard:
        binary = find()
        say("status", f"encoding the sound, {heard.samples} samples")
        with Temporary(folder / FILE) as temporary:
            ffmpeg_process.run(
                ffmpeg.audio_argv(binary.path, request.input, str(temporary), heard.filters),
                folder=scratch,
                on_frames=percents(round(facts.duration_s * TICKS_PER_S)),
                stall_s=request.stall_s,
                unit=b"out_time_us=",
            )
            wrong = sound.wrong(temporary, heard.codec, heard.samples)
            if wrong:
                raise BadMedia(f"the sound that ffmpeg made is wrong: {wrong}")
        about = {
            "codec": heard.codec,
            "samples": heard.samples,
            "rate": facts.audio_rate,
            "duration_ms": round(1000 * Fraction(heard.samples, facts.audio_rate or 1)),
            "ffmpeg": {"path": binary.path, "version": binary.version, "sha256": binary.digest},
        }
    publish(folder / ABOUT, json.dumps(about, separators=(",", ":")).encode())
    return about | {"ms": {"encode": round(1000 * (time.monotonic() - began))}}
