"""Text out of part of a log's bytes."""

from __future__ import annotations


def decode_part(data: bytes) -> tuple[str, int]:
    """Text of the bytes and how many were used: a character cut in two at the end is left for the next read."""
    for cut in range(min(3, len(data)) + 1):
        piece = data[: len(data) - cut]
        try:
            return piece.decode(), len(piece)
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data" or error.end != len(piece):
                break
            if error.start < len(piece) - 3:
                break
            if error.start > 0:
                return data[: error.start].decode(errors="replace"), error.start
    return data.decode(errors="replace"), len(data)
