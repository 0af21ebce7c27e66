"""One film or one chunk: planned, encoded under a temporary name, read back, and only then named."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workers import ffmpeg_process
from workers.encoding import verify
from workers.encoding.plan import Work, plan
from workers.encoding.request import Request
from workers.encoding.say import say
from workers.ffmpeg_binary import Binary
from workers.videocheck import VideoFacts, parameter_sets

ABOUT = ".json"
"""Beside each chunk lies what is known of it."""


def film(request: Request, scratch: str) -> dict[str, Any]:
    """The whole film. Raises BadMedia or ExecutorError, leaving no file under the final name."""
    return _made(request, scratch)[1]


def chunk(request: Request, scratch: str) -> dict[str, Any]:
    """One chunk and, under its name with ``.json``, what the join needs to know. Raises like :func:`film`."""
    work, told, facts = _made(request, scratch)
    about = told | {
        "chunk": request.chunk,
        "chunks": request.chunks,
        "first": work.first,
        "end": work.first + facts.frames,
        "of": work.of,
        "parameters": hashlib.sha256(parameter_sets(request.out)).hexdigest(),
        "film": _alike(work),
    }
    publish(Path(request.out + ABOUT), json.dumps(about | {"hashes": facts.hashes}, separators=(",", ":")).encode())
    return about


def _alike(work: Work) -> dict[str, Any]:
    """What the join must know to make one film of the chunks."""
    film = work.film
    return {
        "width": film.width,
        "height": film.height,
        "rate": str(film.rate),
        "encoder": film.encoder,
        "bits": film.bits,
        "color": film.color,
        "static": asdict(film.static) | {"display": list(film.static.display)} if film.static else None,
        "timecode": work.timecode,
    }


def _made(request: Request, scratch: str) -> tuple[Work, dict[str, Any], VideoFacts]:
    began = time.monotonic()
    out = Path(request.out)
    say("status", "checking the source")
    with Temporary(out) as temporary:
        work = plan(request, str(temporary), scratch)
        for warning in work.warnings:
            say("status", warning)
        checked = time.monotonic()
        size = f"{work.film.width}x{work.film.height}"
        say("status", f"encoding {work.frames or 'all'} frames of {size} with {work.film.encoder}")
        run(work, request.stall_s)
        encoded = time.monotonic()
        say("status", "reading the film back")
        facts = verify.film(
            temporary,
            work.film,
            frames=work.frames,
            duration_s=work.duration_s,
            samples=work.samples,
            audio=work.sound,
        )
    seconds = {"check": checked - began, "encode": encoded - checked, "verify": time.monotonic() - encoded}
    notes = [*work.warnings, *([work.binary.note] if work.binary.note else [])]
    return work, told(facts, work.binary, seconds, notes) | {"threads": work.film.threads, "look": work.look}, facts


class Temporary:
    """A hidden name beside the final one: what is there in the end is synced and renamed, or taken away."""

    def __init__(self, out: Path) -> None:
        self._out = out
        out.parent.mkdir(parents=True, exist_ok=True)
        self._path = out.with_name(f".{os.getpid()}.partial.{out.name}")

    def __enter__(self) -> Path:
        return self._path

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                with self._path.open("rb") as file:
                    os.fsync(file.fileno())
                self._path.replace(self._out)
        finally:
            self._path.unlink(missing_ok=True)


def publish(path: Path, data: bytes) -> None:
    """Write a small file so that it is there whole or not at all. Raises OSError."""
    with Temporary(path) as temporary:
        temporary.write_bytes(data)


def run(work: Work, stall_s: int) -> None:
    """Run ffmpeg and tell how far it is. Raises ExecutorError, and what the feed raises."""
    total = work.frames or round(work.duration_s * work.film.rate)
    ffmpeg_process.run(work.argv, folder=work.folder, on_frames=percents(total), stall_s=stall_s, feed=work.feed)


def percents(total: int) -> Callable[[int], None]:
    """Tells each whole percent once."""
    told = -1

    def progress(done: int) -> None:
        nonlocal told
        percent = min(99, 100 * done // max(1, total))
        if percent > told:
            told = percent
            say("progress", str(percent))

    progress(0)
    return progress


def told(facts: VideoFacts, binary: Binary, seconds: dict[str, float], warnings: list[str]) -> dict[str, Any]:
    """What the attempt's record keeps of a film."""
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
            "primaries": facts.tags.primaries,
            "transfer": facts.tags.transfer,
            "matrix": facts.tags.matrix,
            "range": facts.tags.range,
        },
        "timecode": facts.timecode,
        "frames_sha256": hashlib.sha256("".join(facts.hashes).encode()).hexdigest(),
        "warnings": warnings,
        "ms": {name: round(1000 * value) for name, value in seconds.items()},
        "encoder": binary.encoder,
        "ffmpeg": {"path": binary.path, "version": binary.version, "sha256": binary.digest},
    }
