"""OpenEXR pictures as 16-bit RGB: scene-linear light becomes what a screen takes, without passing through 8 bits.

BT.709 goes through OpenColorIO (inside OpenImageIO). HLG and PQ follow BT.2100 with BT.2408's reference white: the
value 1.0 of the scene becomes 75 % of HLG, or 203 cd/m² of PQ.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.color import HDR
from workers.mediacheck import BadMedia

BUILT_IN = "ocio://default"
LINEAR = ("lin_rec709_scene", "lin_rec709", "Linear Rec.709 (sRGB)", "Linear Rec.709", "scene_linear")
"""How configurations name the light Blender writes, likeliest first."""
DISPLAYS = ("Rec.1886 Rec.709 - Display", "Rec.1886", "sRGB - Display", "sRGB")
"""What is taken for BT.709 unless the job says, best first; else the configuration's own."""
# BT.2087, table 2: linear BT.709 to linear BT.2020.
TO_2020 = ((0.6274, 0.3293, 0.0433), (0.0691, 0.9195, 0.0114), (0.0164, 0.0880, 0.8956))
# BT.2100, table 5 (HLG) and table 4 (PQ).
HLG_A, HLG_B, HLG_C = 0.17883277, 0.28466892, 0.55991073
HLG_WHITE = 0.264962560420704
"""The light that gives 75 % of signal."""
PQ_M1, PQ_M2, PQ_C1, PQ_C2, PQ_C3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
PQ_WHITE = 203 / 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How light becomes values."""

    color: str
    config: str
    display: str = ""
    view: str = ""

    @classmethod
    def of(cls, color: str, *, display: str, view: str, config: str) -> Look:
        """With what is left empty filled in. Raises BadMedia for a display or view that is not there."""
        if color in HDR:
            return cls(color=color, config="")
        import OpenImageIO

        config = config or os.environ.get("OCIO", "") or BUILT_IN
        colors = OpenImageIO.ColorConfig(config)
        fault = colors.geterror()
        if fault:
            raise BadMedia(f"the colour configuration {config} cannot be read: {fault}")
        displays = list(colors.getDisplayNames())
        display = display or next((name for name in DISPLAYS if name in displays), displays[0] if displays else "")
        if display not in displays:
            raise BadMedia(f"display {display!r} is not in {config} (valid: {', '.join(displays)})")
        views = list(colors.getViewNames(display))
        view = view or colors.getDefaultViewName(display)
        if view not in views:
            raise BadMedia(f"view {view!r} is not one of {display} (valid: {', '.join(views)})")
        return cls(color=color, config=config, display=display, view=view)

    def __str__(self) -> str:
        return f"{self.display}, {self.view}" if self.display else f"BT.2100 {self.color.upper()}, BT.2408 white"


def rgb48(files: Sequence[Path], look: Look) -> Iterator[bytes]:
    """Each picture as rows of R, G, B in 16 bits, little-endian. Raises BadMedia for one that cannot be shown."""
    shown = _screen(look) if look.display else _hlg if look.color == "hlg" else _pq
    for file in files:
        try:
            light = _light(file)
            yield _quantised(shown(light))
        except BadMedia as fault:
            raise BadMedia(f"{file.name} {fault}") from fault


def _light(file: Path) -> Any:
    """Linear RGB over the display window, as a float32 array. Raises BadMedia."""
    import numpy
    import OpenImageIO

    buffer = OpenImageIO.ImageBuf(str(file))
    if not buffer.read(force=True, convert=OpenImageIO.FLOAT):
        raise BadMedia(f"cannot be decoded: {buffer.geterror()}")
    names = list(buffer.spec().channelnames)
    picked = OpenImageIO.ImageBufAlgo.channels(buffer, _rgb(names))
    whole = OpenImageIO.ImageBufAlgo.crop(picked, picked.roi_full)
    pixels = whole.get_pixels(OpenImageIO.FLOAT)
    if pixels is None or whole.has_error:
        raise BadMedia(f"cannot be decoded: {whole.geterror()}")
    bad = pixels.size - int(numpy.isfinite(pixels).sum())
    if bad:
        raise BadMedia(f"holds {bad} values that are not finite")
    return pixels


def _rgb(names: Sequence[str]) -> tuple[str, str, str]:
    """The picture's channels: plain ones, else the combined pass. Raises BadMedia."""
    for lead in ("", *sorted({name[:-1] for name in names if name.endswith("Combined.R")})):
        wanted = (f"{lead}R", f"{lead}G", f"{lead}B")
        if set(wanted) <= set(names):
            return wanted
    raise BadMedia(f"has no R, G and B (it has {', '.join(names[:8])})")


def _screen(look: Look) -> Any:
    import OpenImageIO

    colors = OpenImageIO.ColorConfig(look.config)
    known = {*colors.getColorSpaceNames(), *(a for n in colors.getColorSpaceNames() for a in colors.getAliases(n))}
    source = next((name for name in LINEAR if name in known), LINEAR[-1])

    def shown(light: Any) -> Any:
        made = OpenImageIO.ImageBufAlgo.ociodisplay(
            OpenImageIO.ImageBuf(light), look.display, look.view, source, "", False, colorconfig=look.config
        )
        if made.has_error:
            raise BadMedia(f"cannot be shown: {made.geterror()}")
        return made.get_pixels(OpenImageIO.FLOAT)

    return shown


def _wide(light: Any) -> Any:
    import numpy

    return numpy.maximum(light @ numpy.array(TO_2020, dtype=numpy.float32).T, 0)


def _hlg(light: Any) -> Any:
    import numpy

    scene = _wide(light) * numpy.float32(HLG_WHITE)
    above = HLG_A * numpy.log(numpy.maximum(12 * scene - HLG_B, 1e-9)) + HLG_C
    return numpy.where(scene <= 1 / 12, numpy.sqrt(3 * scene), above)


def _pq(light: Any) -> Any:
    power = (_wide(light) * PQ_WHITE) ** PQ_M1
    return ((PQ_C1 + PQ_C2 * power) / (1 + PQ_C3 * power)) ** PQ_M2


def _quantised(values: Any) -> bytes:
    import numpy

    rounded: bytes = numpy.rint(numpy.clip(values, 0, 1) * 65_535).astype("<u2").tobytes()
    return rounded
