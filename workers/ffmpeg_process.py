"""Runs one ffmpeg to its end: progress, stalls, and its errors in a sentence. It dies with us when we are stopped."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from scheduler.model.errors import ExecutorError

TAIL_BYTES = 8 * 1024
WAKE_S = 1.0
FRAMES = b"frame="

_CAUSES = (
    ("No space left on device", "the disk is full"),
    ("File too large", "the film is larger than a file may be here"),
    ("Cannot allocate memory", "the memory is used up"),
    ("Permission denied", "a file may not be read or written"),
    ("Unknown encoder", "this ffmpeg lacks the encoder"),
    ("Invalid data found when processing input", "the source is damaged"),
    ("moov atom not found", "the source is incomplete"),
    ("Error while decoding", "the source is damaged"),
    ("Error submitting packet to decoder", "the source is damaged"),
)
"""Words in ffmpeg's messages and what they mean, most telling first."""


def run(
    argv: Sequence[str],
    *,
    folder: str,
    on_frames: Callable[[int], None],
    stall_s: int,
    feed: Iterable[bytes] | None = None,
    unit: bytes = FRAMES,
) -> None:
    """Run ffmpeg; ``on_frames`` hears how many frames are encoded, or what else ``unit`` counts. ``feed`` is written to
    its standard input. Raises ExecutorError when it fails or stalls, and what ``feed`` raises.
    """
    # In our own process group, so that whoever kills the group takes ffmpeg with it.
    process = subprocess.Popen(
        argv,
        cwd=folder,
        stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    feeder = None if feed is None else _Feeder(process, feed)
    try:
        tail = _follow(process, on_frames, stall_s, unit)
        code = process.wait(timeout=stall_s)
    except subprocess.TimeoutExpired as error:
        raise ExecutorError(f"ffmpeg did not end within {stall_s} s after its last word") from error
    finally:
        process.kill()
        process.wait()
        if feeder is not None:
            feeder.join()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    if feeder is not None and feeder.fault is not None:
        raise feeder.fault
    if code:
        raise ExecutorError(_sentence(code, tail))


class _Feeder(threading.Thread):
    """Writes pictures to ffmpeg while the main thread listens to it. Its own failure ends ffmpeg and is kept."""

    def __init__(self, process: subprocess.Popen[bytes], feed: Iterable[bytes]) -> None:
        super().__init__(name="feed", daemon=True)
        self.fault: Exception | None = None
        self._process, self._feed = process, feed
        self.start()

    def run(self) -> None:
        """Until all is written, or ffmpeg stops reading: then its exit says why."""
        pipe = self._process.stdin
        assert pipe is not None
        try:
            for data in self._feed:
                pipe.write(data)
            pipe.close()
        except BrokenPipeError:
            return
        except Exception as error:  # noqa: BLE001 - raised again by run()
            self.fault = error
            self._process.kill()
        finally:
            with suppress(OSError):
                pipe.close()


def _follow(process: subprocess.Popen[bytes], on_frames: Callable[[int], None], stall_s: int, unit: bytes) -> str:
    """Until both pipes close. Gives the end of what ffmpeg said on stderr, which is also passed on to our log."""
    assert process.stdout is not None
    assert process.stderr is not None
    held, tail, frames, moved_s = b"", b"", -1, time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(timeout=WAKE_S):
                data = os.read(key.fd, 65_536)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    sys.stderr.buffer.write(data)
                    sys.stderr.flush()
                    tail = (tail + data)[-TAIL_BYTES:]
                else:
                    *lines, held = (held + data).split(b"\n")
                    latest = max([frames, *_counts(lines, unit)])
                    if latest > frames:
                        frames, moved_s = latest, time.monotonic()
                        on_frames(frames)
                    elif b"progress=end" in lines:
                        moved_s = time.monotonic()
            if time.monotonic() - moved_s > stall_s:
                raise ExecutorError(f"ffmpeg encoded nothing for {stall_s} s (at frame {max(0, frames)}): stopped")
    return tail.decode("utf-8", errors="replace")


def _counts(lines: Sequence[bytes], unit: bytes) -> list[int]:
    """How far it is, from the ``frame=12`` lines of ``-progress``."""
    values = [line.removeprefix(unit).strip() for line in lines if line.startswith(unit)]
    return [int(value) for value in values if value.isdigit()]


def _sentence(code: int, tail: str) -> str:
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    last = f" ({lines[-1]})" if lines else ""
    if code < 0:
        return f"ffmpeg was killed by {signal.Signals(-code).name}{last}"
    for words, meaning in _CAUSES:
        if words in tail:
            return f"ffmpeg failed: {meaning}{last}"
    return f"ffmpeg failed with exit code {code}{last}"
