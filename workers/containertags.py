"""The colour tags a container itself carries, read from its bytes: a demuxer mixes them with those of the stream."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from workers.color import Tags
from workers.mediacheck import BadMedia, opened

MATROSKA_MAGIC = b"\x1a\x45\xdf\xa3"
MAX_HEADER_BYTES = 64 << 20
_SAMPLE_ENTRY_BYTES = 78
"""Of a VisualSampleEntry before its boxes (ISO/IEC 14496-12, 12.1.3), without the eight of its own head."""
# Matroska (RFC 9559): the masters on the way to the colours, and the four elements.
_SEGMENT, _TRACKS, _TRACK, _VIDEO, _COLOUR = 0x18538067, 0x1654AE6B, 0xAE, 0xE0, 0x55B0
_MATRIX, _RANGE, _TRANSFER, _PRIMARIES = 0x55B1, 0x55B9, 0x55BA, 0x55BB
_UNKNOWN = 2
"""H.273's code point for "not said"."""
_MASTERS = (_SEGMENT, _TRACKS, _TRACK, _VIDEO, _COLOUR)


def container_tags(path: str | Path) -> Tags:
    """Of the first video track of an MP4, MOV or Matroska file; empty where it says nothing. Raises BadMedia."""
    with opened(path) as file:
        magic = file.read(4)
        file.seek(0)
        try:
            return _matroska(file) if magic == MATROSKA_MAGIC else _mp4(file)
        except (struct.error, IndexError) as error:
            raise BadMedia("has a damaged header") from error


# --- MP4 and MOV ------------------------------------------------------------------------------------------------------


def _mp4(file: BinaryIO) -> Tags:
    movie = _movie(file)
    for name, track in _boxes(movie):
        if name != b"trak":
            continue
        media = _inside(_inside(track, b"mdia"), b"minf")
        if not _inside(media, b"vmhd"):
            continue
        entries = _inside(_inside(media, b"stbl"), b"stsd")[8:]
        _, entry = next(_boxes(entries), (b"", b""))
        colour = _inside(entry[_SAMPLE_ENTRY_BYTES:], b"colr")
        if colour[:4] not in (b"nclx", b"nclc"):
            return Tags()
        primaries, transfer, matrix = struct.unpack(">3H", colour[4:10])
        # QuickTime's nclc has no range; ISO's nclx has it in the highest bit.
        range_ = 0 if colour[:4] == b"nclc" else 2 if colour[10] & 0x80 else 1
        return Tags.of(primaries, transfer, matrix, range_)
    raise BadMedia("has no video track")


def _movie(file: BinaryIO) -> bytes:
    """The ``moov`` box, wherever it lies."""
    while len(head := file.read(8)) == 8:
        size, name = struct.unpack(">I4s", head)
        used = 8
        if size == 1:
            size, used = struct.unpack(">Q", file.read(8))[0], 16
        if name == b"moov":
            return file.read(min(size - used, MAX_HEADER_BYTES))
        if size < used:
            break
        file.seek(size - used, 1)
    raise BadMedia("has no index (moov)")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    while len(data) >= 8:
        size, name = struct.unpack(">I4s", data[:8])
        if size < 8:
            return
        yield name, data[8:size]
        data = data[size:]


def _inside(data: bytes, wanted: bytes) -> bytes:
    return next((body for name, body in _boxes(data) if name == wanted), b"")


# --- Matroska ---------------------------------------------------------------------------------------------------------


def _matroska(file: BinaryIO) -> Tags:
    found: dict[int, int] = {}
    end = file.seek(0, 2)
    file.seek(0)
    _elements(file, end, found)
    primaries, transfer, matrix = (found.get(name, _UNKNOWN) for name in (_PRIMARIES, _TRANSFER, _MATRIX))
    return Tags.of(primaries, transfer, matrix, found.get(_RANGE, 0))


def _elements(file: BinaryIO, end: int, found: dict[int, int]) -> None:
    """Walks the masters that lead to the colours, passing over everything else."""
    while file.tell() < end:
        name = _number(file, keep_marker=True)
        size = _number(file, keep_marker=False)
        begin = file.tell()
        if name in _MASTERS:
            _elements(file, min(end, begin + size), found)
        elif name in (_MATRIX, _RANGE, _TRANSFER, _PRIMARIES):
            found.setdefault(name, int.from_bytes(file.read(size), "big"))
        if name == _TRACKS:
            file.seek(end)
            return
        file.seek(begin + size)


def _number(file: BinaryIO, *, keep_marker: bool) -> int:
    """An EBML variable-length integer; raises IndexError at the end of the file."""
    first = file.read(1)[0]
    if not first:
        raise BadMedia("has a damaged header")
    length = 9 - first.bit_length()
    value = first if keep_marker else first ^ (1 << (8 - length))
    return int.from_bytes(bytes([value]) + file.read(length - 1), "big")
