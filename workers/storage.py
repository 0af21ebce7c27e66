"""The storage door: how outputs get their final names, exactly once, and how inputs are checked.

Publishing on POSIX, under one lock per task::

    copy     every file into <output_dir>/.shisuan/<task>.a<attempt>/, fsynced
    commit   <output_dir>/.shisuan/<task>.json (the manifest) appears by rename: from here on the outputs are published
    forward  each file is renamed to its final name; repeated by whoever comes next, if this attempt died half way

A task's fence is the number in its lock file: an attempt with a smaller number may not publish. Outputs are named by
absolute paths or ``file://`` URIs. ``s3://`` URIs have a store of their own, :mod:`workers.object_storage`, which does
the same with conditional writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from fnmatch import fnmatchcase
from typing import Protocol
from urllib.parse import quote

from scheduler.model import codec
from scheduler.model.errors import Fenced, OutputMissing, StorageError
from scheduler.model.lease import attempt_id, parse_attempt_id
from workers.folders import Folder, Roots, copy_file, is_local, local_path
from workers.objects import SCHEME, Place, connect

ALL_FILES = "*"
HIDDEN = ".shisuan"
_FENCE_BYTES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """One output."""

    name: str
    """Relative to the output folder."""
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What one attempt published. Its presence is the commit."""

    task: str
    number: int
    """Attempt number."""
    output_dir: str
    files: tuple[PublishedFile, ...] = ()
    result: str = ""
    """The runner's facts, so that a retry of a published task can report them again."""

    @property
    def uris(self) -> tuple[str, ...]:
        """Final places, in order."""
        return tuple(f"{self.output_dir.rstrip('/')}/{_part(self.output_dir, file.name)}" for file in self.files)


class Storage(Protocol):
    """Where inputs and outputs live, seen from one task of one tenant."""

    def readable(self, uri: str) -> str:
        """The real local path of an input. Raises OutsideRoots or StorageError."""
        ...

    def claim(self, output_dir: str, task: str, number: int) -> Manifest | None:
        """Fence attempts before ``number``; the manifest if the task is published. Raises Fenced, OutsideRoots."""
        ...

    def published(self, output_dir: str, task: str) -> Manifest | None:
        """The manifest of a published task, all of whose files are in place."""
        ...

    def publish(
        self,
        staged: str,
        outputs: Sequence[str],
        output_dir: str,
        task: str,
        number: int,
        *,
        result: str = "",
        replace: bool = False,
    ) -> Manifest:
        """Give the staged files their final names, all or none. Repeating it returns what is there.

        ``replace``: an earlier attempt's outputs give way (a gang's rank runs again because another rank died, or a
        user wants a task made again).

        Raises Fenced, OutputMissing, OutsideRoots, OSError.
        """
        ...


def task_of(attempt: str) -> str:
    """``j17.render.3.a2`` to ``j17.render.3``."""
    job_id, step, index, number = parse_attempt_id(attempt)
    return attempt_id(job_id, step, index, number).rpartition(".")[0]


def open_storage(
    uri: str,
    roots: Sequence[str],
    *,
    home: str = "",
    hook: Callable[[str], None] | None = None,
    fetch: Callable[[Place], str] | None = None,
) -> Storage:
    """The store that holds ``uri`` (empty: the local one). Raises StorageError for a scheme nobody knows.

    ``home`` is the installation's folder: only roots that lie in it give access to anything in it. ``fetch`` brings an
    input that lies elsewhere to this node.
    """
    if uri.startswith(SCHEME):
        from workers.object_storage import ObjectStorage

        return ObjectStorage(connect(), roots, hook, fetch=fetch)
    if not is_local(uri):
        raise StorageError(f"no storage for {uri!r} (valid: absolute paths, file://, s3://)")
    return PosixStorage(roots, hook, home=home)


class PosixStorage:
    """A POSIX file system, local or shared. ``hook`` is called with each step's name: tests die there."""

    def __init__(self, roots: Sequence[str], hook: Callable[[str], None] | None = None, *, home: str = "") -> None:
        self._roots = Roots(roots, home=home)
        self._hook = hook or (lambda _: None)

    def readable(self, uri: str) -> str:
        """See :class:`Storage`."""
        path = self._roots.resolve(uri)
        if not os.path.exists(path):
            raise StorageError(f"input {local_path(uri)} does not exist")
        return path

    def claim(self, output_dir: str, task: str, number: int) -> Manifest | None:
        """See :class:`Storage`."""
        with self._task(output_dir, task) as door:
            door.fence(number)
            self._hook("fenced")
            return door.settled()

    def published(self, output_dir: str, task: str) -> Manifest | None:
        """See :class:`Storage`."""
        if not os.path.isdir(f"{self._roots.resolve(output_dir)}/{HIDDEN}"):
            return None
        with self._task(output_dir, task) as door:
            return door.settled()

    def publish(
        self,
        staged: str,
        outputs: Sequence[str],
        output_dir: str,
        task: str,
        number: int,
        *,
        result: str = "",
        replace: bool = False,
    ) -> Manifest:
        """See :class:`Storage`."""
        with self._task(output_dir, task) as door:
            door.fence(number)
            earlier = door.settled()
            if earlier is not None and not (replace and earlier.number < number):
                return earlier
            with Roots((staged,)).open(staged) as source:
                names = chosen(outputs, tuple(source.files()))
                door.copy(source, names, number, result)
            self._hook("copied")
            manifest = door.commit()
            self._hook("committed")
            door.forward(manifest)
            return manifest

    @contextmanager
    def _task(self, output_dir: str, task: str) -> Iterator[_TaskDoor]:
        with self._roots.open(output_dir, create=True) as final, final.folder(HIDDEN, create=True) as hidden:
            door = _TaskDoor(final, hidden, output_dir=output_dir, task=task, hook=self._hook)
            with door.locked():
                yield door


class _TaskDoor:
    """One task's files in one output folder, under its lock."""

    def __init__(
        self, final: Folder, hidden: Folder, *, output_dir: str, task: str, hook: Callable[[str], None]
    ) -> None:
        self._final, self._hidden, self._output_dir, self._task = final, hidden, output_dir, task
        self._key = quote(task, safe="-_.@")
        self._hook = hook
        self._lock_fd = -1

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One publisher per task at a time, on this machine and, where the file system has flock, on others."""
        self._lock_fd = self._hidden.open(f"{self._key}.lock", os.O_RDWR | os.O_CREAT)
        try:
            flock(self._lock_fd, LOCK_EX)
            yield
        finally:
            os.close(self._lock_fd)

    def fence(self, number: int) -> None:
        """Let no attempt before ``number`` publish any more. Raises Fenced when a later one did this already."""
        text = os.pread(self._lock_fd, _FENCE_BYTES, 0).strip()
        newest = int(text) if text.isdigit() else 0
        if newest > number:
            raise Fenced(f"attempt {number} of {self._task} is fenced: attempt {newest} has begun")
        if newest < number:
            os.pwrite(self._lock_fd, b"%*d\n" % (_FENCE_BYTES - 1, number), 0)
            os.fsync(self._lock_fd)

    def settled(self) -> Manifest | None:
        """The committed manifest, rolled forward. None when there is none, or its files were changed or taken away."""
        text = self._hidden.read(f"{self._key}.json")
        if text is None:
            return None
        manifest: Manifest = codec.loads(Manifest, text)
        self.forward(manifest)
        sizes = (self._final.size(file.name) for file in manifest.files)
        if any(size != file.size for size, file in zip(sizes, manifest.files, strict=True)):
            return None
        return manifest

    def copy(self, source: Folder, names: Sequence[str], number: int, result: str) -> None:
        """Bring the files into a folder beside their final places; leftovers of attempts that died are taken away."""
        for number_before in range(1, number + 1):
            self._hidden.remove_tree(self._stage(number_before))
        files: list[PublishedFile] = []
        with self._hidden.folder(self._stage(number), create=True) as stage:
            for at, name in enumerate(names):
                size, digest = copy_file(source, name, stage, str(at))
                files.append(PublishedFile(name=name, size=size, sha256=digest))
                self._hook("file copied")
            stage.sync()
        self._manifest = Manifest(
            task=self._task, number=number, output_dir=self._output_dir, files=tuple(files), result=result
        )

    def commit(self) -> Manifest:
        """The manifest appears."""
        temporary = f"{self._key}.json.new"
        self._hidden.write(temporary, codec.dumps(self._manifest).encode())
        self._hook("manifest written")
        self._hidden.rename(temporary, f"{self._key}.json")
        self._hidden.sync()
        return self._manifest

    def forward(self, manifest: Manifest) -> None:
        """Finish what the manifest promises; what is in place already is left."""
        stage_name = self._stage(manifest.number)
        if not self._hidden.exists(stage_name):
            return
        with self._hidden.folder(stage_name) as stage:
            for at, file in enumerate(manifest.files):
                if stage.exists(str(at)):
                    self._final.place(stage, str(at), file.name)
                    self._hook("file placed")
        self._hidden.remove_tree(stage_name)

    def _stage(self, number: int) -> str:
        return f"{self._key}.a{number}"


def chosen(outputs: Sequence[str], found: Sequence[str]) -> tuple[str, ...]:
    """The files to publish: declared names must be there, patterns must match something, ``*`` takes what there is.

    Raises OutputMissing.
    """
    taken: dict[str, None] = {}
    for wanted in outputs:
        if wanted in found:
            names: tuple[str, ...] = (wanted,)
        elif wanted == ALL_FILES:
            names = tuple(found)
        else:
            names = tuple(name for name in found if fnmatchcase(name, wanted))
            if not names:
                here = f"; there is {', '.join(found[:5])}" if found else "; the outputs folder is empty"
                raise OutputMissing(f"the runner ended well but left no {wanted!r}{here}")
        taken.update(dict.fromkeys(names))
    for name in taken:
        if name.startswith(f"{HIDDEN}/"):
            raise OutputMissing(f"output {name!r} cannot be published: the folder {HIDDEN} is ours")
    return tuple(taken)


def _part(output_dir: str, name: str) -> str:
    return quote(name) if output_dir.startswith("file://") else name
