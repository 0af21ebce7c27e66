"""What a video file really is, asked of its streams and not of its name. Imports PyAV only when it looks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from scheduler.report import figures


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """The first video stream of a file. Frames are counted by decoding."""

    codec: str
    profile: str
    width: int
    height: int
    fps_numerator: int
    fps_denominator: int
    frames: int
    duration_ms: int
    pixel_format: str
    primaries: int
    """Colour tags as code points of ITU-T H.273; 2: unspecified."""
    transfer: int
    matrix: int
    full_range: bool
    size_bytes: int

    def json(self) -> dict[str, Any]:
        """For a file beside the artefacts."""
        return asdict(self)

    def lines(self) -> tuple[str, ...]:
        """For people."""
        fps = Fraction(self.fps_numerator, self.fps_denominator)
        rate = str(fps) if fps.denominator == 1 else f"{fps.numerator}/{fps.denominator}"
        tags = f"primaries {self.primaries}, transfer {self.transfer}, matrix {self.matrix} (ITU-T H.273)"
        bt709 = (self.primaries, self.transfer, self.matrix) == (1, 1, 1)
        return (
            f"{self.codec} {self.profile}".strip() + f", {self.width}×{self.height}, {self.pixel_format}",
            f"{figures.count(self.frames, 'frame')} at {rate} frames/s, {figures.duration(self.duration_ms)}, "
            f"{figures.size(self.size_bytes)}",
            f"colour: {'BT.709' if bt709 else tags}, {'full' if self.full_range else 'limited'} range",
        )


_FULL_RANGE = 2  # AVCOL_RANGE_JPEG in libavutil/pixfmt.h


def read(path: Path) -> VideoFacts:
    """Open and decode ``path``. Raises ValueError when it holds no video that decodes."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = sum(1 for _ in container.decode(stream))
            context, rate = stream.codec_context, stream.average_rate or Fraction(0)
            return VideoFacts(
                codec=context.name,
                profile=str(context.profile or ""),
                width=context.width,
                height=context.height,
                fps_numerator=rate.numerator,
                fps_denominator=rate.denominator,
                frames=frames,
                duration_ms=_duration_ms(frames, rate),
                pixel_format=str(context.pix_fmt),
                primaries=int(context.color_primaries),
                transfer=int(context.color_trc),
                matrix=int(context.colorspace),
                full_range=int(context.color_range) == _FULL_RANGE,
                size_bytes=path.stat().st_size,
            )
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} holds no video that decodes: {error}") from error


def _duration_ms(frames: int, rate: Fraction) -> int:
    """Frames over rate: the container's own number is rounded to its time base."""
    return round(1000 * frames / rate) if rate else 0
