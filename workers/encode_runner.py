"""Encodes films: ``python -P encode_runner.py REQUEST``, with the request documented in ``pipelines/transcode.py``.

Checks the source, runs ffmpeg under a temporary name, reads the result back frame by frame, and only then names it.
Ends with ``shisuan_done: {json}`` and exit code 0, or ``shisuan_fail: reason`` and 1; after SIGTERM there is no file
and the exit code is 143. The result of a film, a chunk and a join::

    {"frames": 24, "width": 320, "height": 180, "codec": "h264", "pix_fmt": "yuv420p", "fps": "24", "duration": "1",
     "duration_ms": 1000, "bytes": 61234, "audio": "", "color": {"primaries": "bt709", "transfer": "bt709",
     "matrix": "bt709", "range": "tv"}, "timecode": "", "frames_sha256": "…", "warnings": [],
     "ms": {"check": 9, "encode": 310, "verify": 40}, "encoder": "libx264", "threads": 1,
     "ffmpeg": {"path": "/usr/bin/ffmpeg", "version": "7.1.2", "sha256": "…"}}
"""

from __future__ import annotations

import sys

if not sys.flags.safe_path and sys.path and sys.path[0] and __file__.startswith(sys.path[0]):
    del sys.path[0]  # this folder has an ffmpeg.py, which must not stand for the package of that name

import json
import signal
import tempfile
from collections.abc import Callable
from typing import Any, NoReturn

from scheduler.model.errors import ExecutorError
from workers.encoding.audio import audio
from workers.encoding.film import chunk, film
from workers.encoding.join import join
from workers.encoding.request import Request
from workers.encoding.say import say
from workers.mediacheck import BadMedia

STOPPED_EXIT_CODE = 128 + signal.SIGTERM
OPS: dict[str, Callable[[Request, str], dict[str, Any]]] = {
    "film": film,
    "chunk": chunk,
    "audio": audio,
    "join": join,
}


class Stopped(BaseException):
    """SIGTERM came."""


def _on_terminate(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the clean-up
    raise Stopped


def _request(argv: list[str]) -> Request:
    """Raises BadMedia."""
    try:
        return Request.of(json.loads(argv[1]))
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BadMedia(f"the request cannot be read: {type(error).__name__}: {error}") from error


def main(argv: list[str]) -> int:
    """Serve one request; gives the exit code."""
    signal.signal(signal.SIGTERM, _on_terminate)
    try:
        request = _request(argv)
        with tempfile.TemporaryDirectory(prefix="frames-") as scratch:
            result = OPS[request.op](request, scratch)
    except Stopped:
        say("status", "stopped")
        return STOPPED_EXIT_CODE
    except (BadMedia, ExecutorError) as error:
        say("fail", str(error))
        return 1
    except OSError as error:
        say("fail", f"{error.strerror}: {error.filename}" if error.filename else str(error))
        return 1
    say("done", json.dumps(result, separators=(",", ":")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
