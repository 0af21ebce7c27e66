"""The logs of attempts in their tenant's storage, where they outlive the pod that they were written in.

::

    <root>/.shisuan/logs/<job>@<submitted>/<step>/<index>.a<n>[.r<rank>].log           a file, on POSIX
    <root>/.shisuan/logs/<job>@<submitted>/<step>/<index>.a<n>[.r<rank>].log/<piece>   objects, in a bucket

An object cannot be appended to, so a log lies there in pieces of :data:`PIECE_BYTES`: only the last one grows, by being
written again. Which piece holds a byte follows from its offset, so that reading lists nothing. Every write says where
in the log its bytes belong: repeated, it changes nothing, and what a crash cut off is simply not there yet.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Protocol

from scheduler.model.errors import StorageError
from scheduler.model.order import KeptFile, LogChunk
from workers.decoding import decode_part
from workers.folders import Folder, Roots, is_local
from workers.object_storage import placed
from workers.objects import SCHEME, Objects, Place, connect

PIECE_BYTES = 256 * 1024
"""Of one object, and of one write: what is read at once at most (``MOST_LOG_BYTES``)."""
_DIGITS = 6
"""Of a piece's number: they sort as they follow each other, up to 256 GiB."""


class Shelf(Protocol):
    """A tenant's kept logs, by URI. All raise StorageError (OutsideRoots) and OSError."""

    grain: int
    """Offsets of writes are multiples of this."""

    def put(self, uri: str, offset: int, data: bytes, *, durable: bool = False) -> None:
        """These bytes belong at ``offset`` of the log; at most up to the end of a piece."""
        ...

    def read(self, uri: str, offset: int, limit: int) -> bytes | None:
        """What there is from ``offset`` on; fewer than ``limit`` bytes end where the log does. None: no such log."""
        ...

    def below(self, uri: str) -> Iterator[KeptFile]:
        """All that lies in the folder ``uri``."""
        ...

    def remove(self, uri: str) -> None:
        """Take one of these away, if it is there, and the folders that are empty then."""
        ...


def open_shelf(uri: str, roots: Sequence[str], *, home: str = "") -> Shelf:
    """The shelf that holds ``uri``; ``home`` as in :class:`Roots`. Raises StorageError for a scheme nobody knows."""
    if uri.startswith(SCHEME):
        return ObjectShelf(connect(), roots)
    if not is_local(uri):
        raise StorageError(f"no storage for {uri!r} (valid: absolute paths, file://, s3://)")
    return PosixShelf(roots, home=home)


def read_kept(shelf: Shelf, uri: str, offset: int, limit: int, *, is_over: bool) -> LogChunk | None:
    """Part of a log as the Executor port gives it; None: there is no such log. ``is_over``: nobody writes it now."""
    data = shelf.read(uri, offset, limit)
    if data is None:
        return None
    text, used = decode_part(data)
    if is_over and not used and len(data) < limit:
        text, used = data.decode(errors="replace"), len(data)  # a character that was cut off for ever
    return LogChunk(text=text, next_offset=offset + used, end=is_over and used == len(data) < limit)


class PosixShelf:
    """A folder that pods and the control plane both see. No component below a root is followed if it is a link."""

    grain = 1

    def __init__(self, roots: Sequence[str], *, home: str = "") -> None:
        self._roots = Roots(roots, home=home)

    def put(self, uri: str, offset: int, data: bytes, *, durable: bool = False) -> None:
        """See :class:`Shelf`."""
        folder_uri, _, name = uri.rpartition("/")
        with self._roots.open(folder_uri, create=True) as folder:
            fd = folder.open(name, os.O_WRONLY | os.O_CREAT)
            try:
                view = memoryview(data)
                while view:
                    done = os.pwrite(fd, view, offset)
                    view, offset = view[done:], offset + done
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)

    def read(self, uri: str, offset: int, limit: int) -> bytes | None:
        """See :class:`Shelf`."""
        folder_uri, _, name = uri.rpartition("/")
        try:
            with self._roots.open(folder_uri) as folder:
                fd = folder.open(name, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with open(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise StorageError(f"{uri} is not a regular file")
            return _read_up_to(file.fileno(), offset, limit)

    def below(self, uri: str) -> Iterator[KeptFile]:
        """See :class:`Shelf`."""
        try:
            with self._roots.open(uri) as folder:
                yield from [KeptFile(uri=f"{uri}/{name}", size=folder.size(name)) for name in folder.files()]
        except (FileNotFoundError, NotADirectoryError):
            return

    def remove(self, uri: str) -> None:
        """See :class:`Shelf`."""
        folder_uri, _, name = uri.rpartition("/")
        try:
            with self._roots.open(folder_uri) as folder:
                folder.remove(name)
            while "/.shisuan/logs/" in folder_uri:
                above, _, name = folder_uri.rpartition("/")
                with self._roots.open(above) as folder:
                    if not _removed_if_empty(folder, name):
                        return
                folder_uri = above
        except (FileNotFoundError, NotADirectoryError):
            return  # somebody else was here


class ObjectShelf:
    """An S3-compatible store."""

    grain = PIECE_BYTES

    def __init__(self, objects: Objects, roots: Sequence[str]) -> None:
        self._objects, self._roots = objects, tuple(roots)

    def put(self, uri: str, offset: int, data: bytes, *, durable: bool = False) -> None:
        """See :class:`Shelf`. What a server has taken is durable."""
        number, within = divmod(offset, PIECE_BYTES)
        if within or len(data) > PIECE_BYTES:
            raise ValueError(f"{len(data)} bytes at {offset} are no piece")
        self._objects.put(self._piece(uri, number), data)

    def read(self, uri: str, offset: int, limit: int) -> bytes | None:
        """See :class:`Shelf`."""
        found, is_there = b"", False
        while len(found) < limit:
            number, within = divmod(offset + len(found), PIECE_BYTES)
            piece = self._objects.read(self._piece(uri, number))
            if piece is None:
                break
            is_there = True
            found += piece[0][within : within + limit - len(found)]
            if len(piece[0]) < PIECE_BYTES:
                break
        if not is_there and offset and self._objects.head(self._piece(uri, 0)) is not None:
            is_there = True
        return found if is_there else None

    def below(self, uri: str) -> Iterator[KeptFile]:
        """See :class:`Shelf`."""
        place = placed(uri, self._roots)
        for found in self._objects.below(place):
            name = found.key.removeprefix(f"{place.key}/")
            yield KeptFile(uri=f"{uri}/{name}", size=found.size)

    def remove(self, uri: str) -> None:
        """See :class:`Shelf`."""
        self._objects.remove(placed(uri, self._roots))

    def _piece(self, uri: str, number: int) -> Place:
        return placed(uri, self._roots).below(f"{number:0{_DIGITS}d}")


def _read_up_to(fd: int, offset: int, limit: int) -> bytes:
    found = b""
    while len(found) < limit and (piece := os.pread(fd, limit - len(found), offset + len(found))):
        found += piece
    return found


def _removed_if_empty(folder: Folder, name: str) -> bool:
    try:
        folder.remove_empty(name)
    except OSError:
        return False
    return True
