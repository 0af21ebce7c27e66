"""Is this file what it should be? Exit codes and file names are no evidence: ffmpeg ends with 0 after a gap.

Each check reads the file itself, returns its facts, and raises BadMedia with a sentence for the job's owner.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
EXR_MAGIC = b"\x76\x2f\x31\x01"
EXR_TILED, EXR_DEEP, EXR_MULTIPART = 0x200, 0x800, 0x1000
EXR_HALF = 1
EXR_LINES_PER_CHUNK = (1, 1, 1, 16, 32, 16, 32, 32, 32, 256)
"""By compression number: none, RLE, ZIPS, ZIP, PIZ, PXR24, B44, B44A, DWAA, DWAB (OpenEXR, ImfCompression.h)."""
BLACK = 1e-4
"""Linear; a third of an 8-bit sRGB step: denoisers leave traces on black frames."""
READ_BYTES = 1 << 20
MAX_EXR_HEADER_BYTES = 16 << 20


class BadMedia(Exception):
    """The file is not there, is damaged, or is not what it claims to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PngFacts:
    """A complete PNG."""

    width: int
    height: int
    bit_depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExrFacts:
    """A complete OpenEXR picture. The data window is half-open: ``(left, top, right, bottom)``."""

    width: int
    height: int
    data_window: tuple[int, int, int, int]
    channels: tuple[str, ...]
    not_finite: int
    """Values that are NaN or infinite."""
    black: bool
    """No colour value reaches what an 8-bit picture could show."""


# --- PNG --------------------------------------------------------------------------------------------------------------


def check_png(path: str | Path, *, decode: bool = False) -> PngFacts:
    """Every chunk there and its checksum right, up to the end mark. ``decode`` also unpacks the pixels: slower."""
    with opened(path) as file:
        head = file.read(len(PNG_MAGIC))
        if not head:
            raise BadMedia("is empty")
        if head != PNG_MAGIC:
            raise BadMedia("is not a PNG")
        facts = _png_header(_png_chunk(file))
        seen = b""
        while seen != b"IEND":
            seen, _ = _png_chunk(file)
    if decode:
        _decode_png(path)
    return facts


def _png_chunk(file: BinaryIO) -> tuple[bytes, bytes]:
    """Next chunk's type and its first MiB; raises BadMedia where it is cut or damaged."""
    head = file.read(8)
    if len(head) < 8:
        raise BadMedia("is cut off")
    length, kind = struct.unpack(">I4s", head)
    checksum, first, left = zlib.crc32(kind), b"", length
    while left:
        data = file.read(min(left, READ_BYTES))
        if not data:
            raise BadMedia("is cut off")
        first = first or data
        checksum = zlib.crc32(data, checksum)
        left -= len(data)
    if file.read(4) != struct.pack(">I", checksum):
        raise BadMedia("is damaged or cut off: a checksum is wrong")
    return kind, first


def _png_header(chunk: tuple[bytes, bytes]) -> PngFacts:
    kind, data = chunk
    if kind != b"IHDR" or len(data) != 13:
        raise BadMedia("is not a PNG: it has no header")
    width, height, depth = struct.unpack(">IIB", data[:9])
    if not width or not height:
        raise BadMedia("is a PNG without pixels")
    return PngFacts(width=width, height=height, bit_depth=depth)


def _decode_png(path: str | Path) -> None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise BadMedia(f"cannot be decoded: {error}") from error


# --- OpenEXR ----------------------------------------------------------------------------------------------------------


def check_exr_chunks(path: str | Path) -> None:
    """Every part of the picture is in the file; the pixels are not read. Raises BadMedia."""
    with opened(path) as file:
        _check_exr_chunks(file)


def check_exr(path: str | Path) -> ExrFacts:
    """All chunks present, and how many values are not finite."""
    check_exr_chunks(path)
    return _exr_pixels(path)


def exr_header(path: str | Path) -> tuple[int, int, int]:
    """Width and height of the picture that is shown (the display window) and bits per component.

    All chunks must be there; pixels are not unpacked. Raises BadMedia.
    """
    with opened(path) as file:
        attributes = _check_exr_chunks(file)
    try:
        left, top, right, bottom = struct.unpack("<4i", attributes["displayWindow"])
        depth = 32 if any(kind != EXR_HALF for kind in _exr_channel_types(attributes["channels"])) else 16
    except (KeyError, struct.error) as error:
        raise BadMedia("is damaged: its header makes no sense") from error
    return right - left + 1, bottom - top + 1, depth


def _exr_channel_types(data: bytes) -> list[int]:
    """Pixel types of a ``chlist``: names that end in NUL, each with 16 bytes of which the first four are the type."""
    types: list[int] = []
    while len(data) > 1:
        data = data.partition(b"\0")[2]
        types.append(struct.unpack("<i", data[:4])[0])
        data = data[16:]
    return types


def _check_exr_chunks(file: BinaryIO) -> dict[str, bytes]:
    """The header's attributes. Readers show a picture with holes as black, or print to the terminal: look at the chunk
    table first.
    """
    head = file.read(8)
    if not head:
        raise BadMedia("is empty")
    if len(head) < 8 or head[:4] != EXR_MAGIC:
        raise BadMedia("is not an OpenEXR picture")
    flags = struct.unpack("<I", head[4:])[0]
    attributes = _exr_header(file)
    if flags & (EXR_MULTIPART | EXR_DEEP) or (flags & EXR_TILED and "chunkCount" not in attributes):
        return attributes  # left to OpenEXR, which refuses most damage by itself
    count = _exr_chunk_count(attributes)
    table = file.read(8 * count)
    if len(table) < 8 * count:
        raise BadMedia("is cut off inside its chunk table")
    end = file.seek(0, 2)
    lead = 20 if flags & EXR_TILED else 8
    for number, offset in enumerate(struct.unpack(f"<{count}Q", table)):
        if offset == 0 or offset + lead > end:
            raise BadMedia(f"is incomplete: chunk {number} of {count} is missing")
        file.seek(offset + lead - 4)
        if offset + lead + struct.unpack("<I", file.read(4))[0] > end:
            raise BadMedia(f"is incomplete: chunk {number} of {count} is cut off")
    return attributes


def _exr_header(file: BinaryIO) -> dict[str, bytes]:
    """Attributes of the first header."""
    attributes: dict[str, bytes] = {}
    while name := _exr_text(file):
        _exr_text(file)  # the type, which the name implies
        length = struct.unpack("<I", _exactly(file, 4))[0]
        if length > MAX_EXR_HEADER_BYTES:
            raise BadMedia("is damaged: its header makes no sense")
        attributes[name] = _exactly(file, length)
    return attributes


def _exr_text(file: BinaryIO) -> str:
    text = bytearray()
    while (byte := _exactly(file, 1)) != b"\0":
        text += byte
        if len(text) > 255:
            raise BadMedia("is damaged: its header makes no sense")
    return text.decode("utf-8", errors="replace")


def _exactly(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise BadMedia("is cut off inside its header")
    return data


def _exr_chunk_count(attributes: dict[str, bytes]) -> int:
    if "chunkCount" in attributes:
        return int(struct.unpack("<I", attributes["chunkCount"])[0])
    try:
        _, top, _, bottom = struct.unpack("<4i", attributes["dataWindow"])
        lines = EXR_LINES_PER_CHUNK[attributes["compression"][0]]
    except (KeyError, IndexError, struct.error) as error:
        raise BadMedia("is damaged: its header makes no sense") from error
    return max(0, -(-(bottom - top + 1) // lines))


def _exr_pixels(path: str | Path) -> ExrFacts:
    import numpy
    import OpenEXR

    try:
        with OpenEXR.File(str(path)) as file:
            header = dict(file.header())
            channels = {name: numpy.asarray(channel.pixels) for name, channel in file.channels().items()}
            bad = sum(int(p.size - numpy.isfinite(p).sum()) for p in channels.values() if p.dtype.kind == "f")
            colour = [p[..., :3] if p.ndim == 3 else p for name, p in channels.items() if name != "A"]
            lit = any(p.size and p.max() >= BLACK for p in colour)
    except (ValueError, RuntimeError, TypeError) as error:
        raise BadMedia(f"cannot be decoded: {error}") from error
    (left, top), (right, bottom) = (tuple(int(v) for v in corner) for corner in header["dataWindow"])
    return ExrFacts(
        width=right - left + 1,
        height=bottom - top + 1,
        data_window=(left, top, right + 1, bottom + 1),
        channels=tuple(sorted(channel.name for channel in header["channels"])),
        not_finite=bad,
        black=not lit,
    )


def opened(path: str | Path) -> BinaryIO:
    """The file, to read. Raises BadMedia."""
    try:
        return Path(path).open("rb")
    except FileNotFoundError as error:
        raise BadMedia("is missing") from error
    except OSError as error:
        raise BadMedia(f"cannot be read: {error.strerror}") from error
