"""How one frame is cut into tiles and sample slices, and which task renders which piece: integer arithmetic only.

A frame of ``columns`` x ``rows`` tiles and ``slices`` sample slices is ``columns * rows * slices`` tasks. Tiles are
counted along the rows from the top left corner; the slices of a tile follow each other, and a frame's pieces lie side
by side, so that a warm process renders many pieces of the frame it has prepared.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.media import frame_name

SMALLEST_TILE = 8
"""Pixels; below that a tile costs more than it renders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Pixels of a picture, counted from the top left corner, half-open."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How a frame is cut. One tile and one slice: not at all."""

    columns: int = 1
    rows: int = 1
    slices: int = 1

    @property
    def tiles(self) -> int:
        """Tiles of a frame."""
        return self.columns * self.rows

    @property
    def pieces(self) -> int:
        """Tasks of a frame."""
        return self.tiles * self.slices


WHOLE = Cut()
"""One piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one task renders."""

    position: int
    """Of its frame in the step's frame range."""
    tile: int
    slice: int


def piece_at(cut: Cut, index: int) -> Piece:
    """The piece of task ``index``."""
    position, rest = divmod(index, cut.pieces)
    tile, slice_ = divmod(rest, cut.slices)
    return Piece(position=position, tile=tile, slice=slice_)


def index_of(cut: Cut, piece: Piece) -> int:
    """The task that renders ``piece``: the inverse of :func:`piece_at`."""
    return piece.position * cut.pieces + piece.tile * cut.slices + piece.slice


def edges(length: int, parts: int) -> tuple[int, ...]:
    """``parts + 1`` borders from 0 to ``length``; the parts differ by a pixel at most."""
    return tuple(length * part // parts for part in range(parts + 1))


def window(cut: Cut, tile: int, width: int, height: int) -> Window:
    """Pixels of tile number ``tile``. Raises IndexError outside ``[0, cut.tiles)``."""
    if not 0 <= tile < cut.tiles:
        raise IndexError(f"tile {tile} must be in [0, {cut.tiles})")
    row, column = divmod(tile, cut.columns)
    across, down = edges(width, cut.columns), edges(height, cut.rows)
    return Window(left=across[column], top=down[row], right=across[column + 1], bottom=down[row + 1])


def sample_span(cut: Cut, slice_: int, samples: int) -> tuple[int, int]:
    """``(offset, length)``: the samples slice number ``slice_`` takes; together the slices take each one once."""
    borders = edges(samples, cut.slices)
    return borders[slice_], borders[slice_ + 1] - borders[slice_]


def digits(cut: Cut) -> int:
    """Digits of a tile's number in file names."""
    return max(2, len(str(cut.tiles - 1)))


def piece_name(base: str, frame: int, piece: Piece, cut: Cut) -> str:
    """``film.0001.t03`` or ``film.0001.t03.s1``, without ending."""
    slice_ = f".s{piece.slice}" if cut.slices > 1 else ""
    return f"{frame_name(base, frame, 't')}{piece.tile:0{digits(cut)}d}{slice_}"
