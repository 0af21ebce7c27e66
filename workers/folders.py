"""Folders held open by descriptor, so that a symbolic link put in place meanwhile leads nowhere.

Paths are resolved once, checked against the roots, then walked component by component without following links
(``O_NOFOLLOW``): what is opened is what was checked.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO
from urllib.parse import unquote

from scheduler.model.errors import OutputMissing, OutsideRoots, StorageError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
COPY_BYTES = 1 << 20


class Folder:
    """An open directory. Names are relative and may hold ``/``; no component may be a symbolic link."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @contextmanager
    def folder(self, name: str, *, create: bool = False) -> Iterator[Folder]:
        """A folder below, by one name. Raises OSError."""
        fd = _enter(self._fd, name, create=create)
        try:
            yield Folder(fd)
        finally:
            os.close(fd)

    @contextmanager
    def parent_of(self, name: str, *, create: bool = False) -> Iterator[tuple[Folder, str]]:
        """The folder that holds ``name``, and its last component."""
        *parts, last = _parts(name)
        fd = os.dup(self._fd)
        try:
            for part in parts:
                fd, old = _enter(fd, part, create=create), fd
                os.close(old)
            yield Folder(fd), last
        finally:
            os.close(fd)

    def open(self, name: str, flags: int) -> int:
        """A descriptor of a file in this folder. Raises OSError."""
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o644, dir_fd=self._fd)

    def read(self, name: str) -> bytes | None:
        """A file's content, or None when there is no such file."""
        try:
            fd = self.open(name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """A new file's content, durable."""
        with open(self.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def size(self, name: str) -> int:
        """Size of a regular file, -1 when there is none."""
        try:
            with self.parent_of(name) as (folder, last):
                info = os.stat(last, dir_fd=folder._fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return -1
        return info.st_size if stat.S_ISREG(info.st_mode) else -1

    def exists(self, name: str) -> bool:
        """Something is there under this one name."""
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def rename(self, old: str, new: str) -> None:
        """Within this folder, replacing ``new``."""
        os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def link(self, old: str, new: str) -> bool:
        """Give ``old`` the name ``new`` if that is free, and take the old name away; False when it was taken."""
        try:
            os.link(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
        except FileExistsError:
            return False
        finally:
            os.unlink(old, dir_fd=self._fd)
        return True

    def make_durable(self, name: str) -> bool:
        """A file, or a folder with all files below, survives a power cut. False when there is neither under this name.

        Raises OSError.
        """
        try:
            info = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(info.st_mode):
            with self.folder(name) as below:
                for file in below.files():
                    with below.parent_of(file) as (folder, last):
                        folder._sync_file(last)
                        folder.sync()
                below.sync()
        elif stat.S_ISREG(info.st_mode):
            self._sync_file(name)
        else:
            return False
        self.sync()
        return True

    def _sync_file(self, name: str) -> None:
        fd = self.open(name, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    @contextmanager
    def regular(self, name: str) -> Iterator[BinaryIO]:
        """A regular file below, open for reading. Raises OutputMissing when it is none."""
        try:
            with self.parent_of(name) as (folder, last):
                fd = folder.open(last, os.O_RDONLY)
        except OSError as error:
            raise OutputMissing(f"output {name!r} cannot be read: {error.strerror}") from error
        with open(fd, "rb") as reading:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OutputMissing(f"output {name!r} is not a regular file")
            yield reading

    def sync(self) -> None:
        """The folder's entries are durable."""
        os.fsync(self._fd)

    def remove_tree(self, name: str) -> None:
        """Take a folder below away, if it is there."""
        if self.exists(name):
            shutil.rmtree(name, dir_fd=self._fd)

    def remove_empty(self, name: str) -> None:
        """Take away a folder in which there is nothing. Raises OSError when there is something."""
        os.rmdir(name, dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Take away what is there under this one name: a folder with all below, a file, or a link itself."""
        try:
            is_folder = stat.S_ISDIR(os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return
        if is_folder:
            shutil.rmtree(name, dir_fd=self._fd)
        else:
            os.unlink(name, dir_fd=self._fd)

    def place(self, stage: Folder, staged: str, name: str) -> None:
        """Move ``staged`` from ``stage`` to ``name``, replacing what is there; durable."""
        with self.parent_of(name, create=True) as (folder, last):
            try:
                os.rename(staged, last, src_dir_fd=stage._fd, dst_dir_fd=folder._fd)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                temporary = f".{last}.shisuan"  # a folder below is another file system: copy next to the final name
                copy_file(stage, staged, folder, temporary)
                folder.rename(temporary, last)
            folder.sync()

    def names(self) -> list[str]:
        """What is in this folder, sorted."""
        return sorted(os.listdir(self._fd))

    def files(self) -> Iterator[str]:
        """Names of all regular files below, sorted; links and special files are not followed and not listed."""
        yield from sorted(_files(self._fd, ""))


class Roots:
    """A tenant's storage roots. ``home`` is the installation's folder: a root above it opens nothing in it."""

    def __init__(self, roots: Sequence[str], *, home: str = "") -> None:
        self._named = tuple(roots)
        self._real = tuple(os.path.realpath(local_path(root)) for root in roots if is_local(root))
        self._home = os.path.realpath(home) if home else ""

    def resolve(self, uri: str) -> str:
        """The real path, after every link, if it lies in a root. Raises OutsideRoots, StorageError."""
        return self._resolve(uri)[0]

    @contextmanager
    def open(self, uri: str, *, create: bool = False) -> Iterator[Folder]:
        """The folder at ``uri``. Raises OutsideRoots, StorageError, OSError."""
        path, root = self._resolve(uri)
        try:
            fd = os.open(root, _DIRECTORY)
        except OSError as error:
            raise StorageError(f"storage root {root} cannot be opened: {error.strerror}") from error
        try:
            for part in path[len(root) :].split("/"):
                if part:
                    fd, old = _enter(fd, part, create=create), fd
                    os.close(old)
            yield Folder(fd)
        finally:
            os.close(fd)

    def _resolve(self, uri: str) -> tuple[str, str]:
        path = local_path(uri)
        real = os.path.realpath(path)
        is_ours = self._home != "" and _is_inside(real, self._home)
        for root in sorted(self._real, key=len, reverse=True):
            if _is_inside(real, root) and (not is_ours or _is_inside(root, self._home)):
                return real, root
        leads = f" (it leads to {real})" if real != os.path.normpath(path) else ""
        valid = ", ".join(self._named) or "there are none"
        raise OutsideRoots(f"{path}{leads} is outside the tenant's storage roots: {valid}")


def is_local(uri: str) -> bool:
    """Whether ``uri`` names a place in this machine's file system, if any."""
    return uri.startswith("file://") or "://" not in uri


def local_path(uri: str) -> str:
    """The path named by an absolute path or ``file://`` URI. Raises StorageError."""
    if uri.startswith("file://"):
        host, slash, rest = uri.removeprefix("file://").partition("/")
        if host not in ("", "localhost"):
            raise StorageError(f"{uri!r} names another machine; say file:///path")
        uri = slash + unquote(rest)
    if not uri.startswith("/") or "\0" in uri:
        raise StorageError(f"{uri!r} is not an absolute path or file:// URI")
    return uri


def copy_file(source: Folder, name: str, target: Folder, new_name: str) -> tuple[int, str]:
    """Copy a regular file, durable; returns size and SHA-256. Raises OutputMissing when it is none."""
    with (
        source.regular(name) as reading,
        open(target.open(new_name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb", buffering=0) as writing,
    ):
        size, digest = _pour(reading.fileno(), writing.fileno())
        os.fsync(writing.fileno())
    return size, digest


def digest_of(reading: BinaryIO) -> tuple[int, str]:
    """Size and SHA-256 of the rest of an open file."""
    digest, size = hashlib.sha256(), 0
    while data := reading.read(COPY_BYTES):
        digest.update(data)
        size += len(data)
    return size, digest.hexdigest()


def _pour(read_fd: int, write_fd: int) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while data := os.read(read_fd, COPY_BYTES):
        digest.update(data)
        size += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(write_fd, view) :]
    return size, digest.hexdigest()


def _enter(fd: int, name: str, *, create: bool) -> int:
    if create:
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=fd)
            os.fsync(fd)
    return os.open(name, _DIRECTORY, dir_fd=fd)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or not parts or "\0" in name:
        raise OutputMissing(f"output name {name!r} leaves the outputs folder")
    return parts


def _files(fd: int, prefix: str) -> Iterator[str]:
    with os.scandir(fd) as entries:
        for entry in list(entries):
            if entry.is_file(follow_symlinks=False):
                yield prefix + entry.name
            elif entry.is_dir(follow_symlinks=False):
                below = os.open(entry.name, _DIRECTORY, dir_fd=fd)
                try:
                    yield from _files(below, f"{prefix}{entry.name}/")
                finally:
                    os.close(below)


def _is_inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")
