"""What a video really is, read with PyAV: every frame, its time, its colour tags in the stream and in the container."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from workers.color import Static, Tags, static_of
from workers.mediacheck import BadMedia, opened

ANNEX_B = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
"""Bitstream filters that put a container's parameter sets back into the stream."""
HASH_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """The first video stream of a file."""

    codec: str
    width: int
    height: int
    pix_fmt: str
    frames: int
    """Decoded, or those the container shows."""
    rate: Fraction | None
    """Frames per second when all frames are equally long, within a tick of the container's clock; else None."""
    average_rate: Fraction
    duration_s: Fraction
    """Exact: the first frame's begin to the last one's end."""
    start_s: Fraction
    tick_s: Fraction
    """The container's clock for this stream."""
    tags: Tags = field(default_factory=Tags)
    """As the container, or else the stream, says."""
    timecode: str = ""
    """Of the first frame."""
    audio: str = ""
    """Codec of the first audio stream."""
    audio_rate: int = 0
    """Samples per second."""
    audio_start_s: Fraction = Fraction(0)
    size_bytes: int = 0
    hashes: tuple[str, ...] = ()
    """One per decoded frame, over the pixels that are shown, when asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Where a video's frames are."""

    stamps: tuple[int, ...]
    """Presentation times of all frames in ticks, ascending."""
    keys: tuple[int, ...]
    """Those of frames at which a decoder can begin."""
    origin_s: Fraction
    """The file's own begin, which ffmpeg's ``-ss`` counts from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstFrame:
    """What a decoder says of the first picture."""

    tags: Tags
    static: Static | None
    interlaced: bool
    depth: int
    """Bits per component."""


def video_facts(path: str | Path, *, decode: bool = True, hashes: bool = False) -> VideoFacts:
    """Facts of the first video stream; ``decode`` unpacks every frame, which alone proves that they are there.

    Raises BadMedia.
    """
    with _Opened(path) as (container, stream):
        digests: list[str] = []
        if decode:
            stamps = [_noted(frame, digests if hashes else None) for frame in _decoded(container, stream)]
        else:
            stamps = [packet.pts for packet in _shown(container, stream)]
        return _video_facts(container, stream, stamps, Path(path).stat().st_size, tuple(digests))


def video_index(path: str | Path) -> tuple[VideoFacts, Index]:
    """Facts without decoding, and where the frames are. Raises BadMedia, also when frames have no times."""
    with _Opened(path) as (container, stream):
        packets = _shown(container, stream)
        facts = _video_facts(container, stream, [packet.pts for packet in packets], Path(path).stat().st_size, ())
        stamps = sorted(packet.pts for packet in packets if packet.pts is not None)
        keys = sorted(packet.pts for packet in packets if packet.pts is not None and packet.is_keyframe)
        if len(stamps) != len(packets):
            raise BadMedia("has frames without a time")
        origin_s = Fraction(container.start_time or 0, 1_000_000)
        return facts, Index(stamps=tuple(stamps), keys=tuple(keys), origin_s=origin_s)


def first_frame(path: str | Path) -> FirstFrame:
    """Decode one frame. Raises BadMedia."""
    with _Opened(path) as (container, stream):
        frame = next(container.decode(stream), None)
        if frame is None:
            raise BadMedia("has no frames")
        return FirstFrame(
            tags=_tags(frame),
            static=_static(frame),
            interlaced=bool(frame.interlaced_frame),
            depth=max(component.bits for component in frame.format.components),
        )


def bitstream(path: str | Path) -> tuple[Tags, Static | None]:
    """Tags and HDR10 numbers in an H.264 or HEVC stream itself: its first frame, decoded knowing nothing of the file.

    Raises BadMedia.
    """
    import av

    with _Opened(path) as (container, stream):
        name = _codec_name(stream)
        if name not in ANNEX_B:
            raise BadMedia(f"is neither H.264 nor HEVC but {name}")
        bare = av.bitstream.BitStreamFilterContext(ANNEX_B[name], stream)
        decoder: Any = av.CodecContext.create(name, "r")
        for packet in container.demux(stream):
            for part in bare.filter(packet):
                for frame in decoder.decode(part):
                    return _tags(frame), _static(frame)
        raise BadMedia("has no frames")


def parameter_sets(path: str | Path) -> bytes:
    """What a decoder must know before the first frame, as the container keeps it. Raises BadMedia."""
    with _Opened(path) as (_, stream):
        return bytes(stream.codec_context.extradata or b"")


def audio_samples(path: str | Path) -> tuple[int, int, Fraction]:
    """Samples per channel that the first audio stream decodes to, samples per second, and when the first one sounds.

    Raises BadMedia.
    """
    import av

    opened(path).close()
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise BadMedia("has no sound")
            stream: Any = container.streams.audio[0]
            count, start_s, end_s = 0, None, Fraction(0)
            for packet in container.demux(stream):
                if packet.pts is not None and packet.duration:
                    end_s = (packet.pts + packet.duration) * Fraction(stream.time_base)
                for frame in packet.decode():
                    if start_s is None:
                        start_s = Fraction(frame.pts or 0) * Fraction(frame.time_base or 0)
                    count += frame.samples
            rate, start_s = int(stream.codec_context.sample_rate), start_s or Fraction(0)
            # A codec fills up its last frame; the last packet's duration says how much of it is meant.
            meant = round((end_s - start_s) * rate) if end_s > start_s else count
            return min(count, meant), rate, start_s
    except av.error.FFmpegError as error:
        raise BadMedia(f"has sound that cannot be decoded: {error.strerror}") from error


class _Opened:
    """A container and its first video stream; FFmpeg's errors become BadMedia."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._container: Any = None

    def __enter__(self) -> tuple[Any, Any]:
        import av

        opened(self._path).close()
        try:
            self._container = av.open(str(self._path))
        except av.error.FFmpegError as error:
            raise BadMedia(f"cannot be decoded: {error.strerror}") from error
        if not self._container.streams.video:
            self._container.close()
            raise BadMedia("has no video")
        return self._container, self._container.streams.video[0]

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import av

        self._container.close()
        if isinstance(error, av.error.FFmpegError):
            raise BadMedia(f"cannot be decoded: {error.strerror}") from error


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    stream.thread_type = "AUTO"
    yield from container.decode(stream)


def _shown(container: Any, stream: Any) -> list[Any]:
    """Raises BadMedia when frames that the container lists are not there: a cut-off file with its index in front."""
    packets = [packet for packet in container.demux(stream) if packet.size]
    if len(packets) < stream.frames:
        raise BadMedia(f"is cut off: it lists {stream.frames} frames and holds {len(packets)}")
    return [packet for packet in packets if not packet.is_discard]


def _noted(frame: Any, digests: list[str] | None) -> int | None:
    """The frame's time; its hash goes into ``digests``."""
    if digests is not None:
        digests.append(_hash(frame))
    stamp: int | None = frame.pts
    return stamp


def _hash(frame: Any) -> str:
    """Over the planes without the padding at the end of lines, which differs between decoders."""
    digest = hashlib.sha256()
    for plane, component in zip(frame.planes, frame.format.components, strict=False):
        data, used = memoryview(plane), component.width * ((component.bits + 7) // 8)
        if used == plane.line_size:
            digest.update(data[: used * component.height])
        else:
            for line in range(component.height):
                digest.update(data[line * plane.line_size : line * plane.line_size + used])
    return digest.hexdigest()[: 2 * HASH_BYTES]


def _tags(source: Any) -> Tags:
    return Tags.of(int(source.color_primaries), int(source.color_trc), int(source.colorspace), int(source.color_range))


def _static(frame: Any) -> Static | None:
    from av.sidedata.sidedata import Type

    mastering, light = (
        frame.side_data.get(kind) for kind in (Type.MASTERING_DISPLAY_METADATA, Type.CONTENT_LIGHT_LEVEL)
    )
    return static_of(bytes(mastering) if mastering else b"", bytes(light) if light else b"")


def _codec_name(stream: Any) -> str:
    name: str = stream.codec_context.name
    return "h264" if name == "libx264" else name


def _video_facts(
    container: Any, stream: Any, stamps: list[int | None], size_bytes: int, hashes: tuple[str, ...]
) -> VideoFacts:
    if not stamps:
        raise BadMedia("has no frames")
    codec, tick = stream.codec_context, Fraction(stream.time_base)
    average = Fraction(stream.average_rate or stream.guessed_rate or 0)
    known = sorted(stamp for stamp in stamps if stamp is not None)
    rate = _even_rate(known, tick, average) if len(known) == len(stamps) else None
    sound = container.streams.audio[0] if container.streams.audio else None
    said = (*(item.metadata for item in container.streams), container.metadata)
    return VideoFacts(
        codec=_codec_name(stream),
        width=codec.width,
        height=codec.height,
        pix_fmt=codec.pix_fmt or "",
        frames=len(stamps),
        rate=rate,
        average_rate=average,
        duration_s=_duration_s(known, tick, rate or average),
        start_s=known[0] * tick if known else Fraction(0),
        tick_s=tick,
        tags=_tags(codec),
        timecode=next((text for words in said for key, text in words.items() if key.lower() == "timecode"), ""),
        audio=sound.codec_context.name if sound else "",
        audio_rate=int(sound.codec_context.sample_rate or 0) if sound else 0,
        audio_start_s=Fraction(sound.start_time or 0) * Fraction(sound.time_base) if sound else Fraction(0),
        size_bytes=size_bytes,
        hashes=hashes,
    )


def _even_rate(stamps: list[int], tick: Fraction, rate: Fraction) -> Fraction | None:
    """``rate`` if frame n begins at n/rate within a tick for every n, else None."""
    if rate <= 0:
        return None
    even = all(abs((stamp - stamps[0]) * tick - n / rate) <= tick for n, stamp in enumerate(stamps))
    return rate if even else None


def _duration_s(stamps: list[int], tick: Fraction, rate: Fraction) -> Fraction:
    """The last frame is as long as the others."""
    if not stamps or rate <= 0:
        return Fraction(0)
    return (stamps[-1] - stamps[0]) * tick + 1 / rate
