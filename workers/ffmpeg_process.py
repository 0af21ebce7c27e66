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
BUSY_SHARE = 0.02
"""Of the time an encoder may be silent, how much it must have worked to be waited for again."""
PATIENT_ROUNDS = 15
"""How often at most."""
FEEDER_S = 10.0
"""How long the thread that reads pictures may hang in a read after ffmpeg is gone."""
FRAMES = b"frame="

_CAUSES = (
    ("No space left on device", "the disk is full"),
    ("File too large", "the film is larger than a file may be here"),
    ("Cannot allocate memory", "the memory is used up"),
    ("Permission denied", "a file may not be read or written"),
    ("Could not find tag for codec", "the film's container cannot hold this sound: use audio: aac, or .mkv"),
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
            feeder.join(timeout=FEEDER_S)
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
    watch = _Watch(process.pid, stall_s)
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
                        watch.renew()
                        on_frames(frames)
                    elif b"progress=end" in lines:
                        moved_s = time.monotonic()
            if time.monotonic() - moved_s > stall_s:
                watch.expired(max(0, frames))
                moved_s = time.monotonic()
    return tail.decode("utf-8", errors="replace")


class _Watch:
    """An encoder that looks ahead is silent for minutes on large pictures: it is stalled if it does not work either."""

    def __init__(self, pid: int, stall_s: int) -> None:
        self._pid, self._stall_s = pid, stall_s
        self.renew()

    def renew(self) -> None:
        """It moved."""
        self._rounds, self._cpu_s = 0, _cpu_s(self._pid)

    def expired(self, frames: int) -> None:
        """It said nothing for the time. Raises ExecutorError unless it worked, and not for too long."""
        cpu_s = _cpu_s(self._pid)
        worked = cpu_s - self._cpu_s >= BUSY_SHARE * self._stall_s
        self._rounds, self._cpu_s = self._rounds + 1, cpu_s
        if not worked or self._rounds >= PATIENT_ROUNDS:
            silent_s = self._rounds * self._stall_s
            raise ExecutorError(f"ffmpeg encoded nothing for {silent_s} s (at frame {frames}): stopped")


def _cpu_s(pid: int) -> float:
    """Processor seconds of a process (proc(5), fields 14 and 15 of stat); 0 where it cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _counts(lines: Sequence[bytes], unit: bytes) -> list[int]:
    """How far it is, from the ``frame=12`` lines of ``-progress``."""
    values = [line.removeprefix(unit).strip() for line in lines if line.startswith(unit)]
    return [int(value) for value in values if value.isdigit()]


def _sentence(code: int, tail: str) -> str:
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    last = f" ({lines[-1]})" if lines else ""
    if code == -signal.SIGXFSZ:
        return "ffmpeg failed: the film is larger than a file may be here (SIGXFSZ)"
    if code < 0:
        return f"ffmpeg was killed by {signal.Signals(-code).name}{last}"
    for words, meaning in _CAUSES:
        if words in tail:
            return f"ffmpeg failed: {meaning}{last}"
    return f"ffmpeg failed with exit code {code}{last}"
