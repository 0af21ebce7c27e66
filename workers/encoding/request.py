"""The runner's request as a value. Its fields are documented in ``pipelines/transcode.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from workers.color import SYSTEMS
from workers.ffmpeg_codecs import PIXELS, SOFTWARE
from workers.mediacheck import BadMedia

STALL_S = 120
"""ffmpeg is given up when it has encoded nothing for so long."""
OPS = ("film", "chunk", "audio", "join")
SOUNDS = ("aac", "copy", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One task."""

    op: str
    source: str
    input: str
    first: int
    last: int
    step: int
    fps: Fraction | None
    """None: the source's."""
    codec: str
    bits: int
    """0: as the source has."""
    crf: int
    preset: str
    encoder: str
    color: str
    """Empty: as the source says."""
    display: str
    view: str
    ocio: str
    audio: str
    threads: int
    out: str
    expect_frames: int
    """0: not known beforehand."""
    chunk: int
    chunks: int
    parts: str
    """Folder of the chunks."""
    sound: str
    """Folder of the audio step's outputs; empty: there is none."""
    stall_s: int

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Request:
        """Raises BadMedia for a value that is none, KeyError, TypeError and ValueError for one that is missing."""
        found = cls(
            op=str(given.get("op", OPS[0])),
            source=given["source"],
            input=given["input"],
            first=int(given["first"]),
            last=int(given["last"]),
            step=int(given["step"]),
            fps=Fraction(given["fps"]) if given["fps"] else None,
            codec=given["codec"],
            bits=int(given.get("bits", 0)),
            crf=int(given["crf"]),
            preset=given["preset"],
            encoder=given.get("encoder", "software"),
            color=given.get("color", ""),
            display=given.get("display", ""),
            view=given.get("view", ""),
            ocio=given.get("ocio", ""),
            audio=given.get("audio", SOUNDS[0]),
            threads=int(given["threads"]),
            out=given["out"],
            expect_frames=int(given["expect_frames"]),
            chunk=int(given.get("chunk", 0)),
            chunks=int(given.get("chunks", 1)),
            parts=given.get("parts", ""),
            sound=given.get("sound", ""),
            stall_s=int(given.get("stall_s", STALL_S)),
        )
        for name, value, valid in (
            ("op", found.op, OPS),
            ("codec", found.codec, tuple(SOFTWARE)),
            ("bits", found.bits, (0, *PIXELS)),
            ("color", found.color, ("", *SYSTEMS)),
            ("audio", found.audio, SOUNDS),
        ):
            if value not in valid:
                raise BadMedia(f"{name} {value!r} is not supported (valid: {', '.join(str(v) for v in valid if v)})")
        if not 0 <= found.chunk < found.chunks:
            raise BadMedia(f"chunk {found.chunk} is not one of {found.chunks}")
        return found

    def part(self, count: int) -> range:
        """Indices of this task's frames among ``count``. Raises BadMedia when there are none."""
        if self.chunks > count:
            raise BadMedia(f"{self.input} has {count} frames, too few for {self.chunks} chunks")
        return range(self.chunk * count // self.chunks, (self.chunk + 1) * count // self.chunks)
