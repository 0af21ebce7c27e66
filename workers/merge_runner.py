"""Puts one frame together: ``python -P merge_runner.py REQUEST``, the request as documented in ``pipelines/merge.py``.

Reads the pieces row by row of tiles, so that a picture of any size takes little memory; only denoising holds a whole
picture, once. Writes under temporary names, reads the OpenEXR back and compares, and only then names the files. Ends
with ``shisuan_done: {json}`` and exit code 0, or ``shisuan_fail: reason`` and 1; after SIGTERM with 143::

    {"op": "merge", "frame": 1, "width": 7680, "height": 4320, "tiles": 16, "slices": 1, "samples": 4, "channels": 3,
     "denoised": false, "black": false, "device": "cpu", "bytes": 91234567, "warnings": [], "peak_rss_mib": 420,
     "ms": {"check": 20, "merge": 5100, "denoise": 0, "write": 3900, "preview": 4400, "verify": 1800},
     "tiles_ms": {"open": 41, "sync": 812, "render": 144000, "write": 2100}}

``merge`` is reading and averaging; ``tiles_ms`` sums what the pieces took.
"""

from __future__ import annotations

import sys

if not sys.flags.safe_path and sys.path and sys.path[0] and __file__.startswith(sys.path[0]):
    del sys.path[0]  # this folder has an ffmpeg.py, which must not stand for the package of that name

import json
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy

from workers import denoise, layered, preview
from workers.mediacheck import BLACK, BadMedia, check_png
from workers.pieces import Block, Grid, Pieces, gather

STOPPED_EXIT_CODE = 128 + signal.SIGTERM


class Stopped(BaseException):
    """SIGTERM came."""


@dataclass(slots=True)
class Watch:
    """Milliseconds per kind of work."""

    ms: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def on(self, work: str) -> Iterator[None]:
        """Count the block's time as ``work``."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.ms[work] += round(1000 * (time.monotonic() - began))


def say(word: str, text: str) -> None:
    """One protocol line in one write; the newline first, so that no unfinished line of a log swallows it."""
    lead = "\n" if word in ("done", "fail") else ""
    os.write(1, f"{lead}shisuan_{word}: {' '.join(text.split())}\n".encode())


def merge(request: dict[str, Any]) -> dict[str, Any]:
    """Make the frame's files. Raises BadMedia or OSError, leaving none under its final name."""
    layered.use_threads(int(request["threads"]))
    watch = Watch()
    grid = Grid(
        folder=Path(request["folder"]),
        prefix=request["prefix"],
        digits=int(request["digits"]),
        columns=int(request["columns"]),
        rows=int(request["rows"]),
        slices=int(request["slices"]),
    )
    frame = int(request["frame"])
    say("status", f"checking the {grid.columns * grid.rows * grid.slices} pieces of frame {frame}")
    with watch.on("check"):
        pieces = gather(grid, int(request["width"]), int(request["height"]), frame)
        layout = layered.layout(pieces, everything=request["passes"] == "all", half=request["depth"] == "half")
        wanted = int(request["denoise"])
        is_denoised = bool(pieces.note["denoise"] if wanted < 0 else wanted)
    cleaned = _denoised(pieces, layout, watch, int(request["threads"])) if is_denoised else {}
    out = Path(request["out"])
    out.mkdir(parents=True, exist_ok=True)
    names = {kind: request[kind] for kind in ("exr", "png", "small") if request[kind]}
    temporary = {kind: out / f".{os.getpid()}.partial.{name}" for kind, name in names.items()}
    try:
        faces = _Faces(pieces, request, temporary, len(layout.picture))
        exr = layered.Exr(temporary["exr"], layout, pieces, cleaned=is_denoised)
        black = _write(_rows(pieces, layout, cleaned), layout, watch, exr, faces)
        for kind, path in temporary.items():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.replace(out / names[kind])
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    size = (out / request["exr"]).stat().st_size
    return _told(pieces, layout, watch) | {"frame": frame, "denoised": is_denoised, "black": black, "bytes": size}


def _denoised(pieces: Pieces, layout: layered.Layout, watch: Watch, threads: int) -> dict[str, Any]:
    """The pictures of all layers without noise, by layer."""
    done: dict[str, Any] = {}
    for layer in layout.pictures:
        say("status", f"denoising {layer or 'the picture'}")
        with watch.on("merge"):
            color, albedo, normal = layered.guided(pieces, layer)
        with watch.on("denoise"):
            denoise.denoise(color, albedo, normal, threads=threads)
        if not numpy.isfinite(color).all():
            raise BadMedia("the denoised picture has values that are not numbers (NaN or infinity)")
        done[layer] = color
    return done


def _rows(pieces: Pieces, layout: layered.Layout, cleaned: dict[str, Any]) -> Iterator[tuple[int, Block]]:
    for top, block in pieces.blocks(layout.read):
        layout.replace(block, cleaned, top)
        yield top, block


def _write(
    rows: Iterator[tuple[int, Block]], layout: layered.Layout, watch: Watch, exr: layered.Exr, faces: _Faces
) -> bool:
    """Write and verify all files in one pass. True for a black frame."""
    brightest = 0.0
    say("status", "writing")
    while True:
        with watch.on("merge"):
            top, block = next(rows, (0, None))
        if block is None:
            break
        with watch.on("write"):
            exr.write(top, block)
        brightest = max(brightest, float(block[..., layout.picture[:3]].max()))
        with watch.on("preview"):
            faces.add(top, block[..., layout.picture])
        say("progress", str(90 * (top + block.shape[0]) // exr.height))
    with watch.on("write"):
        exr.close()
    with watch.on("preview"):
        faces.close()
    say("status", "reading the picture back")
    with watch.on("verify"):
        exr.verify()
    return brightest < BLACK


class _Faces:
    """The PNG and the small picture, where they are asked for."""

    def __init__(self, pieces: Pieces, request: dict[str, Any], files: dict[str, Path], channels: int) -> None:
        self._files = files
        if "png" not in files:
            return
        self._view = preview.View(pieces.note["color"], request["ocio"])
        self._png = preview.Png(files["png"], pieces.width, pieces.height, channels, int(request["bits"]))
        self._small = preview.Small(pieces.width, pieces.height) if "small" in files else None

    def add(self, top: int, linear: Any) -> None:
        """Rows from ``top`` on."""
        if "png" not in self._files:
            return
        for at in range(0, linear.shape[0], preview.ROWS_AT_ONCE):
            rows = linear[at : at + preview.ROWS_AT_ONCE]
            self._png.write(top + at, self._view.shown(rows))
        if self._small is not None:
            self._small.add(top, linear)

    def close(self) -> None:
        """Finish and check the files."""
        if "png" not in self._files:
            return
        self._png.close()
        try:
            check_png(self._files["png"])
        except BadMedia as fault:
            raise BadMedia(f"the PNG {fault}: is the disk full?") from fault
        if self._small is not None:
            self._small.write(self._files["small"], self._view)


def _told(pieces: Pieces, layout: layered.Layout, watch: Watch) -> dict[str, Any]:
    spent: Counter[str] = Counter()
    for piece in pieces.all:
        spent.update(piece.note["ms"])
    of_color = pieces.note["color"]
    left_out = [name.replace("_", " ") for name in ("curves", "white_balance") if of_color.get(name)]
    return {
        "op": "merge",
        "width": pieces.width,
        "height": pieces.height,
        "tiles": len(pieces.tiles),
        "slices": pieces.grid.slices,
        "samples": sum(piece.samples for piece in pieces.tiles[0]),
        "channels": len(layout.read),
        "device": next(pieces.all).note["device"],
        "warnings": [*pieces.warnings, *(f"the preview leaves out the scene's {name}" for name in left_out)],
        "ms": {name: watch.ms[name] for name in ("check", "merge", "denoise", "write", "preview", "verify")},
        "tiles_ms": dict(spent),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _on_terminate(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the clean-up
    raise Stopped


def main(argv: list[str]) -> int:
    """Serve one request; gives the exit code."""
    signal.signal(signal.SIGTERM, _on_terminate)
    try:
        result = merge(json.loads(argv[1]))
    except Stopped:
        say("status", "stopped")
        return STOPPED_EXIT_CODE
    except BadMedia as error:
        say("fail", str(error))
        return 1
    except (IndexError, KeyError, TypeError, ValueError) as error:
        say("fail", f"the request cannot be read: {type(error).__name__}: {error}")
        return 1
    except OSError as error:
        say("fail", f"{error.strerror}: {error.filename}" if error.filename else str(error))
        return 1
    except MemoryError:
        say("fail", "not enough memory for this picture: ask for more memory")
        return 1
    say("progress", "100")
    say("done", json.dumps(result, separators=(",", ":"), sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
