"""One end of a network line inside an event loop: whole lines in and out, bounded, and what comes in held to its types.

The other side may be anybody until it was admitted, and somebody's code may have taken over a bridge after that.
"""

from __future__ import annotations

import asyncio
import types
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any

from workers.messages import Message, pack, unpack

HELLO_BYTES = 8 * 1024
"""Longest line of somebody who has not been admitted."""
LINE_BYTES = 32 * 1024 * 1024
BACKLOG_BYTES = 64 * 1024 * 1024
"""A peer that lets so much wait is given up."""
READ_BYTES = 256 * 1024
INTEGER_LIMIT = 1 << 63
"""What a database column holds."""


class Wire:
    """Not thread-safe: all of it belongs to the loop."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, limit_bytes: int = LINE_BYTES
    ) -> None:
        self._reader, self._writer = reader, writer
        self.limit_bytes = limit_bytes
        self._rest = bytearray()

    async def line(self, silent_s: float | None = None) -> bytes:
        """The next line, without its end. Raises OSError at the end of file or when nothing at all came for
        ``silent_s`` (TimeoutError), ValueError for a line beyond the limit.
        """
        seen = 0
        while (end := self._rest.find(b"\n", seen)) < 0:
            seen = len(self._rest)
            self._check(seen)
            async with asyncio.timeout(silent_s):
                data = await self._reader.read(READ_BYTES)
            if not data:
                raise ConnectionResetError("the other side closed the line")
            self._rest += data
        self._check(end)
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return line

    def _check(self, length: int) -> None:
        if length > self.limit_bytes:
            raise ValueError(f"a line of more than {self.limit_bytes} bytes")

    def send(self, line: bytes) -> None:
        """Queue whole lines, ends included. Raises OSError when the line is closed or its peer takes nothing."""
        transport = self._writer.transport
        if transport.is_closing():
            raise ConnectionResetError("the line is closed")
        if transport.get_write_buffer_size() > BACKLOG_BYTES:
            self.abort()
            raise ConnectionAbortedError(f"the other side lets more than {BACKLOG_BYTES} bytes wait")
        self._writer.write(line)

    def tell(self, message: Message) -> None:
        """Queue a message. Raises as :meth:`send`."""
        self.send(pack(message))

    async def flushed(self) -> None:
        """Wait while the peer is behind. Raises OSError."""
        await self._writer.drain()

    async def finish(self, within_s: float) -> None:
        """Send what is queued and close; what the peer has not taken ``within_s`` is dropped."""
        self._writer.close()
        try:
            async with asyncio.timeout(within_s):
                await self._writer.wait_closed()
        except OSError:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        self._writer.transport.abort()


def heard(line: bytes) -> Message:
    """The message in a stranger's line: its fields are what their annotations say. Raises ValueError."""
    try:
        message = unpack(line)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"no message: {type(error).__name__}") from None
    kind: Any = type(message)
    if not _fits(kind)(message):
        raise ValueError(f"a {type(message).__name__} with a field of another type")
    return message


@cache
def _fits(hint: Any) -> Callable[[Any], bool]:
    """Whether a decoded value is what the annotation says; the codec takes JSON's own types as they come."""
    if hint is str:
        return _is_text
    if hint is int:
        return lambda value: type(value) is int and -INTEGER_LIMIT <= value < INTEGER_LIMIT
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        members = [_fits(member) for member in typing.get_args(hint)]
        return lambda value: any(fits(value) for fits in members)
    if typing.get_origin(hint) is tuple:
        return _tuple_fits(typing.get_args(hint))
    if isinstance(hint, type) and is_dataclass(hint):
        return _class_fits(hint)
    if isinstance(hint, type) and (issubclass(hint, Enum) or hint in (bool, float, types.NoneType)):
        return lambda value: type(value) is hint
    raise TypeError(f"no check for {hint!r}")


def _is_text(value: Any) -> bool:
    """Also that it can be written anywhere: JSON can escape halves of characters."""
    return type(value) is str and (value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value))


def _tuple_fits(hints: tuple[Any, ...]) -> Callable[[Any], bool]:
    if len(hints) == 2 and hints[1] is Ellipsis:
        one = _fits(hints[0])
        return lambda value: type(value) is tuple and all(one(item) for item in value)
    each = [_fits(hint) for hint in hints]
    return lambda value: type(value) is tuple and all(fits(item) for fits, item in zip(each, value, strict=True))


def _class_fits(cls: type) -> Callable[[Any], bool]:
    hints = typing.get_type_hints(cls)
    checks = [(field.name, _fits(hints[field.name])) for field in fields(cls)]
    return lambda value: type(value) is cls and all(fits(getattr(value, name)) for name, fits in checks)
