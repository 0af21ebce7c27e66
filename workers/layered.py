"""The merged OpenEXR: its channels, their names and precision; written by rows, then read back."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import OpenImageIO

from workers.mediacheck import BadMedia, check_exr_chunks
from workers.pieces import Block, Pieces, pass_of

GUIDES = ("Denoising Albedo", "Denoising Normal", "Denoising Depth")
"""Passes that came only to help the denoiser, unless the file itself asked for them."""
PICTURE = "Combined"
HALF_MOST = 65_504.0
"""Largest half; Blender clips to it too."""


def use_threads(count: int) -> None:
    """For OpenImageIO and OpenEXR, from now on."""
    OpenImageIO.attribute("threads", count)
    OpenImageIO.attribute("exr_threads", count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The channels in the order of a block's last axis."""

    read: tuple[str, ...]
    """Names in the pieces."""
    names: tuple[str, ...]
    """Names in the picture."""
    half: tuple[bool, ...]
    picture: tuple[int, ...]
    """Where R, G, B (and A, where the background is transparent) of the first layer stand."""
    pictures: Mapping[str, tuple[int, int, int]]
    """The same three of every layer, by the layer's name."""

    def replace(self, block: Block, cleaned: Mapping[str, Any], top: int) -> None:
        """Put the denoised pictures' rows from ``top`` on into ``block``."""
        for layer, whole in cleaned.items():
            block[..., self.pictures[layer]] = whole[top : top + block.shape[0]]

    def stored(self, block: Block) -> Block:
        """``block`` as the file will hold it."""
        if not any(self.half):
            return block
        at = [place for place, is_half in enumerate(self.half) if is_half]
        rounded = block.copy()
        rounded[..., at] = block[..., at].clip(-HALF_MOST, HALF_MOST).astype(numpy.float16)
        return rounded


def layout(pieces: Pieces, *, everything: bool, half: bool) -> Layout:
    """As Blender would have written the whole frame: one plain picture, or every pass of every layer.

    Raises BadMedia when a piece holds no picture.
    """
    main, alpha = str(pieces.note["layers"][0]), bool(pieces.note["alpha"])
    kept = [name for name in pieces.channels if everything and not _is_guide(name, pieces.note["guides"])]
    plain = all(name.startswith(f"{main}.{PICTURE}.") for name in kept)
    if plain:
        kept = [f"{main}.{PICTURE}.{letter}" for letter in ("RGBA" if alpha else "RGB")]
    missing = [name for name in kept if name not in pieces.channels]
    pictures = {
        layer: tuple(kept.index(f"{layer}.{PICTURE}.{letter}") for letter in "RGB")
        for layer in pieces.note["layers"]
        if f"{layer}.{PICTURE}.R" in kept
    }
    if missing or main not in pictures:
        raise BadMedia(f"the tiles hold no picture of view layer {main!r}")
    shown = [f"{main}.{PICTURE}.{letter}" for letter in ("RGBA" if alpha else "RGB")]
    return Layout(
        read=tuple(kept),
        names=tuple(name.rpartition(".")[2] if plain else name for name in kept),
        # Blender rounds colours only; depth, normals, vectors and mattes (in small letters) stay whole.
        half=tuple(half and name.rpartition(".")[2] in "RGBA" for name in kept),
        picture=tuple(kept.index(name) for name in shown),
        pictures=pictures,  # type: ignore[arg-type]
    )


def _is_guide(channel: str, asked_for: list[str]) -> bool:
    return pass_of(channel) in GUIDES and channel.split(".", maxsplit=1)[0] not in asked_for


def guided(pieces: Pieces, layer: str) -> tuple[Any, Any, Any]:
    """A layer's whole picture and, where the pieces hold them, albedo and normals in 16 bits: enough to guide."""
    groups = [[f"{layer}.{PICTURE}.{letter}" for letter in "RGB"]]
    guides = [
        [f"{layer}.{GUIDES[0]}.{letter}" for letter in "RGB"],
        [f"{layer}.{GUIDES[1]}.{letter}" for letter in "XYZ"],
    ]
    if all(name in pieces.channels for group in guides for name in group):
        groups += guides
    shape = (pieces.height, pieces.width, 3)
    whole: list[Any] = [numpy.empty(shape, numpy.float16 if at else numpy.float32) for at in range(len(groups))]
    for top, block in pieces.blocks([name for group in groups for name in group]):
        for at, picture in enumerate(whole):
            picture[top : top + block.shape[0]] = block[..., 3 * at : 3 * at + 3]
    return whole[0], *(whole[1:] or (None, None))


class Exr:
    """The file being written. Raises BadMedia where writing fails."""

    def __init__(self, path: Path, layout: Layout, pieces: Pieces, *, cleaned: bool) -> None:
        kind = "half" if all(layout.half) else "float"
        spec = OpenImageIO.ImageSpec(pieces.width, pieces.height, len(layout.names), kind)
        spec.channelnames = layout.names
        if any(layout.half) and not all(layout.half):
            spec.channelformats = tuple(OpenImageIO.TypeDesc("half" if is_half else "float") for is_half in layout.half)
        spec.attribute("compression", "zip")
        spec.attribute("Software", "shisuan")
        spec.attribute("shisuan:tiles", f"{pieces.grid.columns}x{pieces.grid.rows}")
        spec.attribute("shisuan:slices", pieces.grid.slices)
        spec.attribute("shisuan:denoised", int(cleaned))
        spec.attribute("Frame", f"{pieces.note['frame']:03d}")
        for name in ("display", "view", "look"):
            spec.attribute(f"shisuan:{name}", str(pieces.note["color"][name]))
        self._path, self._layout, self.height = path, layout, pieces.height
        self._sums: list[tuple[int, int, int]] = []
        self._file = OpenImageIO.ImageOutput.create(str(path))
        if self._file is None or not self._file.open(str(path), spec):
            raise self._failed()

    def write(self, top: int, block: Block) -> None:
        """Rows from ``top`` on."""
        stored = self._layout.stored(block)
        self._sums.append((top, top + block.shape[0], zlib.crc32(numpy.ascontiguousarray(stored))))
        if not self._file.write_scanlines(top, top + block.shape[0], 0, stored):
            raise self._failed()

    def close(self) -> None:
        """Write what is left."""
        if not self._file.close():
            raise self._failed()

    def verify(self) -> None:
        """Read the file back: every value must be what was written. Raises BadMedia."""
        try:
            check_exr_chunks(self._path)
        except BadMedia as fault:
            raise BadMedia(f"the merged picture {fault}: is the disk full?") from fault
        file = OpenImageIO.ImageInput.open(str(self._path))
        if file is None:
            raise BadMedia(f"the merged picture cannot be read back: {OpenImageIO.geterror()}")
        names = list(file.spec().channelnames)
        at = [names.index(name) for name in self._layout.names]
        for top, end, written in self._sums:
            pixels = file.read_scanlines(0, 0, top, end, 0, 0, len(names), "float")
            if pixels is None or zlib.crc32(numpy.ascontiguousarray(pixels[..., at])) != written:
                raise BadMedia(f"the merged picture differs from its tiles in rows {top} to {end}: is the disk full?")
        file.close()

    def _failed(self) -> BadMedia:
        why = self._file.geterror() if self._file else OpenImageIO.geterror()
        return BadMedia(f"the merged picture cannot be written: {why or 'is the disk full?'}")
