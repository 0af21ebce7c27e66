"""What each encoder is told, as ffmpeg's options: quality, threads, groups of pictures, tags, HDR10's numbers.

Nothing here may depend on the machine: the same film with the same encoder must give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from workers.color import SYSTEMS, Static, Tags

GOP_SECONDS = 2
SOFTWARE = {"h264": "libx264", "hevc": "libx265"}
NVENC = {"h264": "h264_nvenc", "hevc": "hevc_nvenc"}
CODEC_OF = {encoder: codec for table in (SOFTWARE, NVENC) for codec, encoder in table.items()}
PIXELS = {8: "yuv420p", 10: "yuv420p10le"}
"""What the film must hold, by bits."""
NVENC_PRESETS = {
    "ultrafast": "p1",
    "superfast": "p1",
    "veryfast": "p2",
    "faster": "p3",
    "fast": "p3",
    "medium": "p4",
    "slow": "p5",
    "slower": "p6",
    "veryslow": "p7",
}
PROFILES = {("h264", 8): "high", ("h264", 10): "high10", ("hevc", 8): "main", ("hevc", 10): "main10"}
FRAME_THREADS = ((32, 5), (16, 4), (8, 3), (4, 2))
"""x265's own rule by threads (encoder.cpp), fixed here: left to itself it counts the machine's cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """The film to make: 4:2:0, limited range, closed groups of pictures."""

    out: str
    """Absolute path; its ending names the container."""
    width: int
    """Pixels, even; what an odd source has more is cut off at the right and the bottom."""
    height: int
    rate: Fraction
    """Frames per second."""
    encoder: str
    """ffmpeg's name of it."""
    bits: int = 8
    """Per component: 8 or 10."""
    crf: int
    preset: str
    threads: int
    color: str = "bt709"
    static: Static | None = None
    """HDR10's numbers, for PQ."""
    timecode: str = ""
    """Of the first frame."""

    @property
    def codec(self) -> str:
        """``h264`` or ``hevc``."""
        return CODEC_OF[self.encoder]

    @property
    def tags(self) -> Tags:
        """What the film must say about its colours."""
        return SYSTEMS[self.color]

    @property
    def pix_fmt(self) -> str:
        """What a decoder must find."""
        return PIXELS[self.bits]


def graph_pixels(encoder: str, bits: int) -> str:
    """What the filter graph hands the encoder: NVENC takes 10 bits as P010 only."""
    return "p010le" if bits == 10 and encoder in NVENC.values() else PIXELS[bits]


def options(film: Film) -> dict[str, object]:
    """Output options of the video stream."""
    found: dict[str, object] = {
        "vcodec": film.encoder,
        "threads": film.threads,
        "fps_mode": "passthrough",
        "g": max(1, round(film.rate * GOP_SECONDS)),
    }
    found |= _BY_ENCODER[film.encoder](film)
    if film.codec == "hevc" and not film.out.endswith(".mkv"):
        found["tag:v"] = "hvc1"  # Apple's players refuse hev1
    return found


def _x264(film: Film) -> dict[str, object]:
    words = _vui(film.tags)
    if film.static:
        if film.static.display:
            words["mastering-display"] = film.static.mastering_text
        if film.static.max_cll or film.static.max_fall:
            words["cll"] = f"{film.static.max_cll},{film.static.max_fall}"
    return {"preset": film.preset, "crf": film.crf, "flags": "+cgop", "x264-params": _joined(words)}


def _x265(film: Film) -> dict[str, object]:
    frame_threads = next((count for least, count in FRAME_THREADS if film.threads >= least), 1)
    words: dict[str, object] = {
        "log-level": "error",
        "pools": film.threads,
        "frame-threads": frame_threads,
        "open-gop": 0,
        **_vui(film.tags),
        "range": "limited",
    }
    if film.color == "pq":
        words |= {"hdr10": 1, "repeat-headers": 0}
    if film.static:
        if film.static.display:
            words["master-display"] = film.static.mastering_text
        if film.static.max_cll or film.static.max_fall:
            words["max-cll"] = f"{film.static.max_cll},{film.static.max_fall}"
    return {"preset": film.preset, "crf": film.crf, "x265-params": _joined(words)}


def _nvenc(film: Film) -> dict[str, object]:
    return {
        "preset": NVENC_PRESETS[film.preset],
        "profile:v": PROFILES[film.codec, film.bits],
        "rc": "vbr",
        "cq": max(1, film.crf),
        "b:v": 0,
        "forced-idr": 1,
        "strict_gop": 1,
        "flags": "+cgop",
    }


def _vui(tags: Tags) -> dict[str, object]:
    return {"colorprim": tags.primaries, "transfer": tags.transfer, "colormatrix": tags.matrix}


def _joined(words: Mapping[str, object]) -> str:
    return ":".join(f"{name}={value}" for name, value in words.items())


_BY_ENCODER = {"libx264": _x264, "libx265": _x265, "h264_nvenc": _nvenc, "hevc_nvenc": _nvenc}
