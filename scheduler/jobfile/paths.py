"""Users' paths against a tenant's storage roots. Symlinks are resolved first, so none leads out unseen.

``s3://bucket/key`` names an object, or a folder of objects; whether it is there is seen by the attempt that reads it.
"""

from __future__ import annotations

import os.path
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from scheduler.jobfile.quantity import Malformed

_FILE_SCHEME, _OBJECT_SCHEME = "file://", "s3://"
_KNOWN = ("/absolute/path", "relative/path", "s3://bucket/key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where a tenant may read and write, as it wrote them and as the file system sees them."""

    written: tuple[str, ...]
    real: tuple[str, ...]
    base_dir: str
    """Real folder that relative inputs start from: the job file's, else the first root."""

    @classmethod
    def of(cls, storage_roots: Sequence[str], base_dir: str) -> Roots:
        """The roots of a tenant. Raises Malformed when it has none."""
        written = tuple(root.removeprefix(_FILE_SCHEME) for root in storage_roots if _is_local(root) or is_object(root))
        if not written:
            raise Malformed("this tenant has no storage root; an operator can give it one")
        real = tuple(root.rstrip("/") if is_object(root) else os.path.realpath(root) for root in written)
        return cls(written=written, real=real, base_dir=os.path.realpath(base_dir) if base_dir else real[0])

    @property
    def local(self) -> tuple[str, ...]:
        """The real folders among them."""
        return tuple(root for root in self.real if not is_object(root))

    def input(self, text: str) -> str:
        """Real path of something to read. Raises Malformed.

        Relative ones start at the job file; what is not there is looked for in the first root, where outputs go.
        """
        places = (self.base_dir, self.real[0])
        for start in places:
            if is_object(start) or is_object(text):
                continue
            path = os.path.realpath(Path(start, text))
            if self.holds(path) and _may_be_there(path):
                return path
        return self._inside(text, self.base_dir)

    def output(self, text: str) -> str:
        """Real path of something to write; relative ones start at the first root. Raises Malformed."""
        return self._inside(text, self.real[0])

    def holds(self, path: str) -> bool:
        """Whether a real path is a root or below one."""
        return any(path == root or path.startswith(root.rstrip("/") + "/") for root in self.real)

    def _inside(self, text: str, start: str) -> str:
        if is_object(text) or (is_object(start) and _is_relative(text)):
            return self._object(text, start)
        if not _is_local(text):
            raise Malformed(f"{text!r}: only paths, file:// and s3:// are known", _KNOWN)
        if text.startswith("~"):
            raise Malformed(f"{text!r}: '~' is not expanded; write the whole path")
        path = os.path.realpath(Path(start, text.removeprefix(_FILE_SCHEME)))
        if not self.holds(path):
            which = "" if path == text else f"is {path} and "
            raise Malformed(
                f"{text!r} {which}lies outside the tenant's storage roots; an operator adds one with up --root",
                self.written,
            )
        return path

    def _object(self, text: str, start: str) -> str:
        """A whole URI is taken as it is written; a relative path starts at a root, and may say ``.``."""
        uri = text.rstrip("/") if is_object(text) else f"{start}/{posixpath.normpath(text)}".removesuffix("/.")
        if any(part in ("", ".", "..") for part in uri.removeprefix(_OBJECT_SCHEME).split("/")):
            raise Malformed(f"{text!r} has an empty, '.' or '..' part; write the whole key", ("s3://bucket/key",))
        if not self.holds(uri):
            raise Malformed(f"{text!r} lies outside the tenant's storage roots", self.written)
        return uri


def is_object(text: str) -> bool:
    """Whether it names something in an S3-compatible store."""
    return text.startswith(_OBJECT_SCHEME)


def parent(path: str) -> str:
    """The folder of a path, or of a URI."""
    return path.rpartition("/")[0] if is_object(path) else str(PurePosixPath(path).parent)


def _is_relative(text: str) -> bool:
    return "://" not in text and not text.startswith(("/", "~"))


def _is_local(text: str) -> bool:
    return text.startswith(_FILE_SCHEME) or "://" not in text


def _may_be_there(path: str) -> bool:
    """For a frame pattern: whether its folder is there."""
    return Path(path).exists() or ("#" in Path(path).name and Path(path).parent.is_dir())


def existing_file(path: str, text: str) -> str:
    """``path`` if it is a file; objects are not looked for. Raises Malformed."""
    if is_object(path):
        return path
    if not Path(path).exists():
        raise Malformed(f"{text!r}: there is no file {path}")
    if not Path(path).is_file():
        raise Malformed(f"{text!r}: {path} is not a file")
    return path


def existing(path: str, text: str) -> str:
    """``path`` if there is anything; objects are not looked for. Raises Malformed."""
    if not is_object(path) and not Path(path).exists():
        raise Malformed(f"{text!r}: there is no file or folder {path}")
    return path


def is_folder(path: str) -> bool:
    """Whether a folder is there now. An object's name that has no ending is taken for a folder's."""
    return not PurePosixPath(path).suffix if is_object(path) else Path(path).is_dir()


def names_in(folder: str) -> frozenset[str]:
    """Names of a folder's entries; empty when it cannot be read, which a later check names with the file missed."""
    try:
        return frozenset(entry.name for entry in Path(folder).iterdir())
    except OSError:
        return frozenset()
