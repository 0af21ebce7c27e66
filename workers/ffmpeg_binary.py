"""Which ffmpeg and which encoder this node uses: the first that encodes a picture. A listed encoder proves nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from scheduler.model.errors import ExecutorError
from workers.ffmpeg import probe_argv
from workers.ffmpeg_codecs import NVENC, PIXELS, SOFTWARE, Film

PROBE_TIMEOUT_S = 30
AUTO, HARDWARE = "auto", "nvenc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """An ffmpeg that encodes."""

    path: str
    version: str
    """``7.1.2-static``, as it calls itself."""
    encoder: str
    """The one that was tried: ``libx265``."""
    note: str = ""
    """Why a card is not used although there is one."""

    @property
    def digest(self) -> str:
        """SHA-256 of the program: the same film needs the same one to give the same bits. Raises OSError."""
        return _sha256(self.path)


@lru_cache(maxsize=4)
def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(codec: str = "h264", bits: int = 8, encoder: str = "software") -> Binary:
    """``SHISUAN_FFMPEG`` if set, else the system's, else the one of the imageio-ffmpeg wheel.

    ``encoder``: ``software``; ``nvenc``, on the card the task holds; ``auto``, that where it works, else software.
    Raises ExecutorError that says what was wrong with each.
    """
    if encoder == HARDWARE or (encoder == AUTO and _holds_card()):
        found, faults = _first(NVENC[codec], bits)
        if found:
            return found
        if encoder == HARDWARE:
            raise ExecutorError(
                f"NVENC cannot encode {codec} with {bits} bits on this node ({faults}): "
                "use a card that has it, or encoder: software"
            )
        note = f"the card is not used: {faults}"
    else:
        note = ""
    found, faults = _first(SOFTWARE[codec], bits, note)
    if found:
        return found
    raise ExecutorError(
        f"no ffmpeg with a working {SOFTWARE[codec]} for {bits} bits on this node ({faults}): "
        "install ffmpeg 5.1 or newer"
    )


def abilities(encoder: str = "software") -> tuple[str, ...]:
    """What this node encodes, tried out: ``hevc 10-bit``."""
    found = []
    for codec in SOFTWARE:
        for bits in PIXELS:
            with suppress(ExecutorError):
                find(codec, bits, encoder)
                found.append(f"{codec} {bits}-bit")
    return tuple(found)


def _holds_card() -> bool:
    return bool(os.environ.get("CUDA_VISIBLE_DEVICES", ""))


def _first(encoder: str, bits: int, note: str = "") -> tuple[Binary | None, str]:
    faults: list[str] = []
    for path in _candidates():
        fault = _fault(path, encoder, bits)
        if not fault:
            return Binary(path=path, version=_version(path), encoder=encoder, note=note), ""
        faults.append(f"{path}: {fault}")
    return None, "; ".join(faults) or "none found"


def _candidates() -> Iterator[str]:
    named = os.environ.get("SHISUAN_FFMPEG", "")
    if named:
        yield named
        return
    system = shutil.which("ffmpeg")
    if system:
        yield system
    try:
        import imageio_ffmpeg

        yield imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return


def _fault(path: str, encoder: str, bits: int) -> str:
    film = Film(
        out="-", width=256, height=256, rate=Fraction(25), encoder=encoder, bits=bits, crf=30, preset="ultrafast",
        threads=1,
    )  # fmt: skip
    try:
        done = subprocess.run(
            probe_argv(path, film),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PROBE_TIMEOUT_S,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return f"one picture took longer than {PROBE_TIMEOUT_S} s"
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode == 0:
        return ""
    return _cause(done.stderr) or f"exit code {done.returncode}"


def _cause(log: str) -> str:
    """The line that names the cause: ffmpeg's last ones only say that it ends."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in _TELLING)]
    return (telling or lines or [""])[0 if telling else -1]


_TELLING = ("Cannot load", "No capable devices", "OpenEncodeSessionEx failed", "Unknown encoder", "not supported")


def _version(path: str) -> str:
    """From the first line, ``ffmpeg version 7.1 Copyright ...``."""
    shown = subprocess.run([path, "-version"], capture_output=True, text=True, check=False, timeout=PROBE_TIMEOUT_S)
    words = shown.stdout.split(maxsplit=3)
    return words[2] if len(words) > 2 else ""
