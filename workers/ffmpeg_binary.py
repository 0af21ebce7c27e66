"""Which ffmpeg this node uses: the first that encodes a picture with libx264. A listed encoder proves nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from scheduler.model.errors import ExecutorError
from workers.ffmpeg import probe_argv

PROBE_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """An ffmpeg that encodes."""

    path: str
    version: str
    """``7.1.2-static``, as it calls itself."""


def find() -> Binary:
    """``SHISUAN_FFMPEG`` if set, else the system's, else the one of the imageio-ffmpeg wheel.

    Raises ExecutorError that says what was wrong with each.
    """
    faults: list[str] = []
    for path in _candidates():
        fault = _fault(path)
        if not fault:
            return Binary(path=path, version=_version(path))
        faults.append(f"{path}: {fault}")
    tried = "; ".join(faults) or "none found"
    raise ExecutorError(f"no ffmpeg with a working libx264 on this node ({tried}): install ffmpeg 5.1 or newer")


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


def _fault(path: str) -> str:
    try:
        done = subprocess.run(
            probe_argv(path),
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
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def _version(path: str) -> str:
    """From the first line, ``ffmpeg version 7.1 Copyright ...``."""
    shown = subprocess.run([path, "-version"], capture_output=True, text=True, check=False, timeout=PROBE_TIMEOUT_S)
    words = shown.stdout.split(maxsplit=3)
    return words[2] if len(words) > 2 else ""
