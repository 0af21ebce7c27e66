"""What a film's colours mean: the tags of SDR, HLG and PQ, and the numbers that travel with HDR10.

Code points are ITU-T H.273's, in ffmpeg's spelling; the systems are BT.709 and BT.2100; the numbers are those of
SMPTE ST 2086 and CTA-861.3 (MaxCLL, MaxFALL).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

PRIMARIES = {1: "bt709", 5: "bt470bg", 6: "smpte170m", 9: "bt2020", 12: "smpte432"}
TRANSFERS = {
    1: "bt709",
    6: "smpte170m",
    8: "linear",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    18: "arib-std-b67",
}
MATRICES = {0: "gbr", 1: "bt709", 5: "bt470bg", 6: "smpte170m", 9: "bt2020nc", 10: "bt2020c"}
RANGES = {1: "tv", 2: "pc"}

MASTERING_BYTES = 10 * 8 + 2 * 4
"""FFmpeg's AVMasteringDisplayMetadata: ten pairs of int, two flags."""
CHROMATICITY_STEPS, LUMINANCE_STEPS = 50_000, 10_000
"""H.265 D.2.28 counts chromaticity in 1/50,000 and luminance in 1/10,000 cd/m²."""


@dataclass(frozen=True, slots=True)
class Tags:
    """Empty: not said."""

    primaries: str = ""
    transfer: str = ""
    matrix: str = ""
    range: str = ""

    @classmethod
    def of(cls, primaries: int, transfer: int, matrix: int, range_: int) -> Tags:
        """From H.273 code points; FFmpeg's for the range."""
        return cls(
            PRIMARIES.get(primaries, ""), TRANSFERS.get(transfer, ""), MATRICES.get(matrix, ""), RANGES.get(range_, "")
        )

    def __str__(self) -> str:
        return "/".join(part or "none" for part in (self.primaries, self.transfer, self.matrix, self.range))


SYSTEMS = {
    "bt709": Tags("bt709", "bt709", "bt709", "tv"),
    "hlg": Tags("bt2020", "arib-std-b67", "bt2020nc", "tv"),
    "pq": Tags("bt2020", "smpte2084", "bt2020nc", "tv"),
}
"""A job's ``color`` and the tags its film must carry."""
HDR = ("hlg", "pq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """HDR10's static metadata in the units of the bitstream; empty or 0: not there."""

    display: tuple[int, ...] = ()
    """``(Gx, Gy, Bx, By, Rx, Ry, WPx, WPy)`` in 1/50,000 and ``(max, min)`` luminance in 1/10,000 cd/m²."""
    max_cll: int = 0
    """cd/m²."""
    max_fall: int = 0
    """cd/m²."""

    @property
    def mastering_text(self) -> str:
        """As x264 and x265 take it; empty without a display."""
        if not self.display:
            return ""
        gx, gy, bx, by, rx, ry, wx, wy, most, least = self.display
        return f"G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({most},{least})"


def system_of(tags: Tags) -> str:
    """``hlg``, ``pq``, ``bt709`` for what is shown as SDR, and empty for a video that does not say."""
    by_transfer = {"arib-std-b67": "hlg", "smpte2084": "pq", "": ""}
    return by_transfer.get(tags.transfer, "bt709")


def static_of(mastering: bytes, light: bytes) -> Static | None:
    """From FFmpeg's side data of a frame; None when there is none."""
    display: tuple[int, ...] = ()
    if len(mastering) >= MASTERING_BYTES:
        numbers = struct.unpack("=20i", mastering[:80])
        has_primaries, has_luminance = struct.unpack("=2i", mastering[80:88])
        if has_primaries and has_luminance:
            red, green, blue, white = (_pair(numbers[at : at + 4]) for at in (0, 4, 8, 12))
            least, most = (_steps(numbers[at], numbers[at + 1], LUMINANCE_STEPS) for at in (16, 18))
            display = (*green, *blue, *red, *white, most, least)
    max_cll, max_fall = struct.unpack("=2I", light[:8]) if len(light) >= 8 else (0, 0)
    return Static(display=display, max_cll=max_cll, max_fall=max_fall) if display or max_cll or max_fall else None


def _pair(numbers: tuple[int, ...]) -> tuple[int, int]:
    return _steps(*numbers[:2], CHROMATICITY_STEPS), _steps(*numbers[2:], CHROMATICITY_STEPS)


def _steps(numerator: int, denominator: int, steps: int) -> int:
    return round(Fraction(numerator, denominator) * steps) if denominator else 0
