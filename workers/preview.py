"""Linear light to the picture one sees, with the scene's own view transform and look, as Blender itself would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy
import OpenImageIO

from workers.mediacheck import BadMedia

SMALL_WIDTH = 1_280
JPEG_QUALITY = 88
ROWS_AT_ONCE = 64
PNG_LEVEL = 3
"""zlib's: the levels above cost twice the time for a few percent of rendered pictures."""

Picture = numpy.ndarray[Any, numpy.dtype[Any]]


class View:
    """One scene's colour management. Blender's order: exposure, look, view transform, gamma."""

    def __init__(self, color: dict[str, Any], config: str) -> None:
        """``color`` as the render noted it; ``config`` is Blender's OpenColorIO configuration.

        Raises BadMedia when it is not there or lacks the display or view.
        """
        if not Path(config).is_file():
            raise BadMedia("this node has no Blender, whose colour configuration the preview needs: set png: off")
        # OpenImageIO keeps one parsed configuration with its processors, and only that of the environment.
        os.environ["OCIO"] = config
        known = OpenImageIO.ColorConfig(config)
        if color["display"] not in known.getDisplayNames():
            raise BadMedia(f"Blender's colour configuration has no display {color['display']!r}")
        if color["view"] not in known.getViewNames(color["display"]):
            raise BadMedia(f"Blender's colour configuration has no view {color['view']!r}")
        self._display, self._view, self._look = color["display"], color["view"], color["look"]
        self._light = numpy.float32(2.0 ** float(color["exposure"]))
        self._power = numpy.float32(1.0 / float(color["gamma"]))

    def shown(self, linear: Picture) -> Picture:
        """Rows x columns x 3 or 4 (alpha premultiplied) as values from 0 to 1, alpha not premultiplied."""
        alpha = linear[..., 3:]
        light = linear[..., :3] * self._light
        if alpha.size:
            with numpy.errstate(divide="ignore", invalid="ignore"):
                light = numpy.where(alpha > 0, light / alpha, light)
        source = OpenImageIO.ImageBuf(numpy.ascontiguousarray(light, dtype=numpy.float32))
        made = OpenImageIO.ImageBufAlgo.ociodisplay(
            source, self._display, self._view, fromspace="scene_linear", looks=self._look, unpremult=False
        )
        if made.has_error:
            raise BadMedia(f"the preview's colours cannot be computed: {made.geterror()}")
        seen = made.get_pixels(OpenImageIO.FLOAT)
        if self._power != 1:
            seen = numpy.maximum(seen, 0) ** self._power
        return numpy.concatenate([seen, alpha], axis=2).clip(0, 1) if alpha.size else seen.clip(0, 1)


class Png:
    """A PNG written row by row. Raises BadMedia where writing fails; close it."""

    def __init__(self, path: Path, width: int, height: int, channels: int, bits: int) -> None:
        spec = OpenImageIO.ImageSpec(width, height, channels, "uint16" if bits == 16 else "uint8")
        spec.attribute("png:compressionLevel", PNG_LEVEL)
        spec.attribute("oiio:UnassociatedAlpha", 1)
        spec.attribute("oiio:ColorSpace", "sRGB")
        self._name, self._top = path.name, (1 << bits) - 1
        self._type = numpy.uint16 if bits == 16 else numpy.uint8
        self._file = OpenImageIO.ImageOutput.create(str(path))
        if self._file is None or not self._file.open(str(path), spec):
            raise self._failed()

    def write(self, first_row: int, seen: Picture) -> None:
        """Rows from ``first_row`` on, values from 0 to 1."""
        data = (seen * numpy.float32(self._top) + numpy.float32(0.5)).astype(self._type)
        if not self._file.write_scanlines(first_row, first_row + data.shape[0], 0, data):
            raise self._failed()

    def close(self) -> None:
        """Write what is left."""
        if not self._file.close():
            raise self._failed()

    def _failed(self) -> BadMedia:
        return BadMedia(
            f"{self._name} cannot be written: {self._file.geterror() if self._file else OpenImageIO.geterror()}"
        )


class Small:
    """A small picture of a large one, averaged in linear light over whole squares of pixels."""

    def __init__(self, width: int, height: int) -> None:
        self._side = -(-width // SMALL_WIDTH)
        self._width = width // self._side
        self._rows = numpy.zeros((height // self._side, self._width, 3), dtype=numpy.float32)

    def add(self, first_row: int, linear: Picture) -> None:
        """Rows from ``first_row`` on; all of them, in any pieces."""
        side, width = self._side, self._width
        squares = linear[:, : width * side, :3].reshape(linear.shape[0], width, side, 3).mean(axis=2)
        for at, row in enumerate(squares, start=first_row):
            if at // side < self._rows.shape[0]:
                self._rows[at // side] += row / side

    def write(self, path: Path, view: View) -> None:
        """Save a JPEG. Raises BadMedia."""
        seen = view.shown(self._rows)
        picture = OpenImageIO.ImageBuf(numpy.ascontiguousarray((seen * 255 + 0.5).astype(numpy.uint8)))
        picture.specmod().attribute("compression", f"jpeg:{JPEG_QUALITY}")
        if not picture.write(str(path)):
            raise BadMedia(f"{path.name} cannot be written: {picture.geterror()}")
