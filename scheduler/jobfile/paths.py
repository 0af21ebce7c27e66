"""Users' paths against a tenant's storage roots. Symlinks are resolved first, so none leads out unseen."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scheduler.jobfile.quantity import Malformed

_FILE_SCHEME = "file://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where a tenant may read and write, as it wrote them and as the file system sees them."""

    written: tuple[str, ...]
    real: tuple[str, ...]
    base_dir: str
    """Real folder that relative inputs start from: the job file's, else the first root."""

    @classmethod
    def of(cls, storage_roots: Sequence[str], base_dir: str) -> Roots:
        """Local roots of a tenant. Raises Malformed when it has none."""
        written = tuple(root.removeprefix(_FILE_SCHEME) for root in storage_roots if _is_local(root))
        if not written:
            raise Malformed("this tenant has no local storage root; an operator can give it one")
        real = tuple(os.path.realpath(root) for root in written)
        return cls(written=written, real=real, base_dir=os.path.realpath(base_dir) if base_dir else real[0])

    def input(self, text: str) -> str:
        """Real path of something to read. Raises Malformed.

        Relative ones start at the job file; what is not there is looked for in the first root, where outputs go.
        """
        places = (self.base_dir, self.real[0])
        for start in places:
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
        if not _is_local(text):
            raise Malformed(f"{text!r}: only local paths and file:// are known", ("/absolute/path", "relative/path"))
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


def _is_local(text: str) -> bool:
    return text.startswith(_FILE_SCHEME) or "://" not in text


def _may_be_there(path: str) -> bool:
    """For a frame pattern: whether its folder is there."""
    return Path(path).exists() or ("#" in Path(path).name and Path(path).parent.is_dir())


def existing_file(path: str, text: str) -> str:
    """``path`` if it is a file. Raises Malformed."""
    if not Path(path).exists():
        raise Malformed(f"{text!r}: there is no file {path}")
    if not Path(path).is_file():
        raise Malformed(f"{text!r}: {path} is not a file")
    return path


def existing(path: str, text: str) -> str:
    """``path`` if there is anything. Raises Malformed."""
    if not Path(path).exists():
        raise Malformed(f"{text!r}: there is no file or folder {path}")
    return path


def is_folder(path: str) -> bool:
    """Whether a folder is there now."""
    return Path(path).is_dir()


def names_in(folder: str) -> frozenset[str]:
    """Names of a folder's entries; empty when it cannot be read, which a later check names with the file missed."""
    try:
        return frozenset(entry.name for entry in Path(folder).iterdir())
    except OSError:
        return frozenset()
