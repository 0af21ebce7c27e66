"""The pieces of one frame as their renders left them: all there, whole, of one frame; then read row by row of tiles.

A piece is an OpenEXR and a JSON note about it (``pipelines/render.py``, op ``tile``). Where a tile was rendered in
sample slices, their average weighted by sample counts is what one render of all samples gives; passes that are not
averages (depth, position, object and material numbers) are those of the first slice, as they are those of the first
sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import OpenImageIO

from workers.mediacheck import BadMedia, check_exr_chunks

NOT_AVERAGED = ("Depth", "Position", "IndexOB", "IndexMA")
"""Blender's names of passes that hold one sample's value."""
SAME = ("frame", "full", "layers", "denoise", "guides", "alpha", "color", "engine", "blender")
"""Facts that all pieces of a frame must share."""
GAP_SHOWN = 8

Block = numpy.ndarray[Any, numpy.dtype[numpy.float32]]
"""Rows x columns x channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What the request says about the cut."""

    folder: Path
    prefix: str
    digits: int
    columns: int
    rows: int
    slices: int

    def name(self, tile: int, slice_: int) -> str:
        """A piece's file name without ending."""
        return f"{self.prefix}{tile:0{self.digits}d}" + (f".s{slice_}" if self.slices > 1 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One rendered piece. The window is half-open, from the frame's top left corner."""

    path: Path
    window: tuple[int, int, int, int]
    samples: int
    note: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """All pieces of one frame, checked against each other."""

    grid: Grid
    tiles: tuple[tuple[Piece, ...], ...]
    """Per tile, its slices in order."""
    width: int
    height: int
    channels: tuple[str, ...]
    note: dict[str, Any]
    """What all pieces share (:data:`SAME`)."""
    warnings: tuple[str, ...]

    @property
    def all(self) -> Iterator[Piece]:
        """Every piece, tile by tile."""
        for slices in self.tiles:
            yield from slices

    def blocks(self, channels: Sequence[str]) -> Iterator[tuple[int, Block]]:
        """``(first row, block)`` for each row of tiles, from the top: the whole width of ``channels``.

        Raises BadMedia for a piece that cannot be decoded or holds values that are not numbers.
        """
        for row in range(self.grid.rows):
            line = self.tiles[row * self.grid.columns : (row + 1) * self.grid.columns]
            _, top, _, bottom = line[0][0].window
            block = numpy.empty((bottom - top, self.width, len(channels)), dtype=numpy.float32)
            for slices in line:
                left, _, right, _ = slices[0].window
                block[:, left:right] = _averaged(slices, channels)
            yield top, block


def gather(grid: Grid, width: int, height: int, frame: int) -> Pieces:
    """Find and check the pieces of ``frame``. Raises BadMedia naming those that are missing, cut off or foreign."""
    names = [[grid.name(tile, s) for s in range(grid.slices)] for tile in range(grid.columns * grid.rows)]
    _all_there(grid.folder, [name for row in names for name in row], frame)
    tiles = tuple(tuple(_piece(grid.folder, name) for name in row) for row in names)
    first = tiles[0][0]
    pieces = [piece for row in tiles for piece in row]
    for piece in pieces:
        _belongs(piece, first, frame)
    full = tuple(first.note["full"])
    if (width, height) not in (full, (0, 0)):
        raise BadMedia(f"the tiles of frame {frame} are of {full[0]}x{full[1]} pixels, {width}x{height} were asked for")
    _covers(grid, tiles, full)
    layouts = {piece.path: _channels(piece.path) for piece in pieces}
    odd = [path.name for path, found in layouts.items() if found != layouts[first.path]]
    if odd:
        raise BadMedia(f"the tiles of frame {frame} hold different passes: {odd[0]} is not like {first.path.name}")
    return Pieces(
        grid=grid,
        tiles=tiles,
        width=full[0],
        height=full[1],
        channels=layouts[first.path],
        note={name: first.note[name] for name in SAME},
        warnings=_warnings(pieces),
    )


def _warnings(pieces: Sequence[Piece]) -> tuple[str, ...]:
    """What the renders had to say, each once. A tile may be black in a picture that is not."""
    told = dict.fromkeys(text for piece in pieces for text in piece.note["warnings"] if "entirely black" not in text)
    devices = sorted({piece.note["device"] for piece in pieces})
    mixed = [f"its tiles were rendered on different kinds of device: {', '.join(devices)}"] if len(devices) > 1 else []
    return (*told, *mixed)


def _all_there(folder: Path, names: Sequence[str], frame: int) -> None:
    missing = [f"{name}{end}" for name in names for end in (".exr", ".json") if not (folder / f"{name}{end}").is_file()]
    if missing:
        shown = ", ".join(missing[:GAP_SHOWN]) + (" and more" if len(missing) > GAP_SHOWN else "")
        raise BadMedia(f"{len(missing)} files of the tiles of frame {frame} are missing in {folder}: {shown}")


def _piece(folder: Path, name: str) -> Piece:
    path = folder / f"{name}.exr"
    try:
        note = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        left, top, right, bottom = (int(edge) for edge in note["window"])
        samples = int(note["samples"])
        missing = [field for field in (*SAME, "warnings", "ms", "device") if field not in note]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadMedia(f"{name}.json cannot be read: {error}") from error
    if missing or samples < 1:
        raise BadMedia(f"{name}.json is not a note about a tile: it lacks {', '.join(missing) or 'samples'}")
    try:
        check_exr_chunks(path)
    except BadMedia as fault:
        raise BadMedia(f"tile {path.name} {fault}") from fault
    return Piece(path=path, window=(left, top, right, bottom), samples=samples, note=note)


def _belongs(piece: Piece, first: Piece, frame: int) -> None:
    if piece.note["frame"] != frame:
        raise BadMedia(f"tile {piece.path.name} is of frame {piece.note['frame']}, not of {frame}")
    for name in SAME:
        if piece.note[name] != first.note[name]:
            raise BadMedia(
                f"tiles {first.path.name} and {piece.path.name} differ in {name} ({first.note[name]} and "
                f"{piece.note[name]}), which would show as seams"
            )


def _covers(grid: Grid, tiles: Sequence[Sequence[Piece]], full: tuple[int, int]) -> None:
    """The windows lie side by side, in the order of their numbers, and end where the frame ends."""
    at_y = 0
    for row in range(grid.rows):
        line = tiles[row * grid.columns : (row + 1) * grid.columns]
        at_x, below = 0, line[0][0].window[3]
        for slices in line:
            right = slices[0].window[2]
            for piece in slices:
                if piece.window != (at_x, at_y, right, below) or right <= at_x or below <= at_y:
                    raise BadMedia(f"tile {piece.path.name} covers {piece.window}: it does not join its neighbours")
            at_x = right
        if at_x != full[0]:
            raise BadMedia(f"the tiles end at column {at_x} of {full[0]}")
        at_y = below
    if at_y != full[1]:
        raise BadMedia(f"the tiles end at row {at_y} of {full[1]}")


def _channels(path: Path) -> tuple[str, ...]:
    with _opened(path) as file:
        return tuple(file.spec().channelnames)


def _averaged(slices: Sequence[Piece], channels: Sequence[str]) -> Block:
    first = _read(slices[0], channels)
    if len(slices) == 1:
        return first
    total = first.astype(numpy.float64) * slices[0].samples
    for piece in slices[1:]:
        total += _read(piece, channels).astype(numpy.float64) * piece.samples
    total /= sum(piece.samples for piece in slices)
    mean = total.astype(numpy.float32)
    fixed = [at for at, name in enumerate(channels) if pass_of(name) in NOT_AVERAGED]
    mean[..., fixed] = first[..., fixed]
    return mean


def _read(piece: Piece, channels: Sequence[str]) -> Block:
    left, top, right, bottom = piece.window
    with _opened(piece.path) as file:
        spec = file.spec()
        if (spec.width, spec.height) != (right - left, bottom - top):
            wanted = f"{right - left}x{bottom - top}"
            raise BadMedia(f"tile {piece.path.name} is of {spec.width}x{spec.height} pixels, not of {wanted}")
        pixels = file.read_image("float")
        if pixels is None:
            raise BadMedia(f"tile {piece.path.name} cannot be decoded: {file.geterror()}")
        at = [spec.channelnames.index(name) for name in channels]
    found: Block = pixels.reshape(bottom - top, right - left, -1)
    found = found if at == list(range(found.shape[2])) else found[..., at]
    bad = found.size - int(numpy.isfinite(found).sum())
    if bad:
        raise BadMedia(f"tile {piece.path.name} has {bad} values that are not numbers (NaN or infinity)")
    return found


def pass_of(channel: str) -> str:
    """``ViewLayer.Combined.R`` to ``Combined``."""
    parts = channel.split(".")
    return parts[-2] if len(parts) > 1 else ""


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    file = OpenImageIO.ImageInput.open(str(path))
    if file is None:
        raise BadMedia(f"{path.name} cannot be read: {OpenImageIO.geterror()}")
    try:
        yield file
    finally:
        file.close()
