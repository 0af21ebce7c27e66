"""Inputs that lie in an S3-compatible store, brought to this node before an attempt begins.

::

    <folder>/objects/<digest>          an object's bytes, named by bucket, key and ETag
    <folder>/trees/<digest>/<name>     one input as a runner sees it: a file, or a folder of hard links to objects

A tree is named by all that is in it, so an input that did not change has the same path for every attempt on this node:
a runner that keeps a scene in memory may keep it. One agent serves one tenant, and so does its cache. What no lease
holds makes room, least recently used first.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from weakref import WeakValueDictionary

from scheduler.model.errors import StorageError
from scheduler.model.order import TaskOrder
from workers.objects import Changed, Found, Objects, Place, connect
from workers.storage import HIDDEN
from workers.tools import remove_tree

LIMIT_GIB = 50
"""``SHISUAN_INPUT_CACHE_GIB`` says otherwise."""
STREAMS = 8
TRIES = 3
"""Of one object whose bytes broke off; a request that fails is repeated by the door itself."""
PART, NEW = ".part-", ".new-"

Staged = tuple[tuple[str, str], ...]
"""URI of an input and the path of its copy."""


class Inputs:
    """One agent's. ``runner_gid`` may read, besides us; 0: nobody else needs to. Any thread that may wait."""

    def __init__(self, folder: Path, *, runner_gid: int = 0, limit_bytes: int | None = None) -> None:
        gib = int(os.environ.get("SHISUAN_INPUT_CACHE_GIB") or LIMIT_GIB)
        self._limit = gib << 30 if limit_bytes is None else limit_bytes
        self._folder, self._gid = folder, runner_gid
        self._objects, self._trees = folder / "objects", folder / "trees"
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._held: dict[str, set[str]] = {}
        """Digests of trees and objects by who needs them."""
        self._ready = False

    def fetch(self, place: Place, holder: str, store: Objects | None = None) -> str:
        """Path of this input's copy, kept until ``holder`` is released. Raises StorageError, OSError."""
        store = store or connect()
        self._prepare()
        single, listing = _listing(store, place)
        name = (place.key or place.bucket).rpartition("/")[2]
        mark = json.dumps([place.uri, single, [(rel, found.etag, found.size) for rel, found in listing]])
        digest = sha256(mark.encode()).hexdigest()
        with self._lock(digest):
            self._hold(holder, digest)
            tree = self._trees / digest
            if tree.is_dir():
                os.utime(tree)
            else:
                self._build(store, place, tree, [(name if single else f"{name}/{rel}", f) for rel, f in listing])
        return str(tree / name)

    def release(self, holder: str) -> None:
        """Nothing is needed for this lease any more."""
        with self._guard:
            self._held.pop(holder, None)

    # -- inside --------------------------------------------------------------------------------------------------

    def _build(self, store: Objects, place: Place, tree: Path, files: Sequence[tuple[str, Found]]) -> None:
        building = Path(mkdtemp(prefix=NEW, dir=self._trees))
        needs = f"building {building}"
        try:
            with ThreadPoolExecutor(STREAMS, thread_name_prefix="shisuan-fetch") as streams:
                bring = [
                    (name, streams.submit(self._object, store, replace(place, key=found.key), found, needs))
                    for name, found in files
                ]
                for name, fetched in bring:
                    target = building / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.link(fetched.result(), target)
            for folder, _, _ in os.walk(building):
                os.chmod(folder, 0o755)  # noqa: S103 - whoever may come here is settled by the folder above all
            building.rename(tree)
        except (FileExistsError, NotADirectoryError) as error:
            raise StorageError(f"{place.uri} holds a key and keys below it: no folder can") from error
        finally:
            if building.is_dir():
                remove_tree(str(building))
            self.release(needs)
        self._make_room()

    def _object(self, store: Objects, place: Place, found: Found, holder: str) -> Path:
        """The object's bytes in a file that nobody changes any more."""
        digest = sha256(json.dumps([place.uri, found.etag, found.size]).encode()).hexdigest()
        path = self._objects / digest
        with self._lock(digest):
            self._hold(holder, digest)
            if path.is_file():
                return path
            part = self._objects / f"{PART}{digest}"
            for left in reversed(range(TRIES)):
                try:
                    with part.open("wb") as file:
                        store.download(place, found.etag, file)
                        file.flush()
                        os.fsync(file.fileno())
                    break
                except Changed as error:
                    raise StorageError(f"input {place.uri} was changed while it was being fetched") from error
                except StorageError:
                    if not left:
                        raise
            part.chmod(0o444)
            part.rename(path)
        return path

    def _make_room(self) -> None:
        """Trees nobody holds go, oldest first, until the objects fit; an object goes with its last tree."""
        with self._guard:
            held = set().union(*self._held.values()) if self._held else set()
            trees = sorted((e for e in os.scandir(self._trees) if not e.name.startswith(NEW)), key=_age)
            free = [entry.path for entry in trees if entry.name not in held]
            while self._drop_single(held) > self._limit and free:
                remove_tree(free.pop(0))

    def _drop_single(self, held: set[str]) -> int:
        """Bytes of the objects that stay."""
        size = 0
        for entry in os.scandir(self._objects):
            info = entry.stat(follow_symlinks=False)
            if info.st_nlink == 1 and entry.name not in held and not entry.name.startswith(PART):
                os.unlink(entry.path)
            else:
                size += info.st_size
        return size

    def _prepare(self) -> None:
        """Make the folders, clear what an earlier agent left half done; nothing is made where nothing is fetched."""
        with self._guard:
            if self._ready:
                return
            for path in (self._folder, self._objects, self._trees):
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(0o711)
            if self._gid:
                os.chown(self._folder, -1, self._gid)
            self._folder.chmod(0o710)
            for entry in (*os.scandir(self._objects), *os.scandir(self._trees)):
                if entry.name.startswith(PART):
                    os.unlink(entry.path)
                elif entry.name.startswith(NEW):
                    remove_tree(entry.path)
            self._ready = True

    def _hold(self, holder: str, digest: str) -> None:
        with self._guard:
            self._held.setdefault(holder, set()).add(digest)

    def _lock(self, digest: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(digest, threading.Lock())


def _age(entry: os.DirEntry[str]) -> tuple[int, str]:
    return entry.stat().st_mtime_ns, entry.name


def _listing(store: Objects, place: Place) -> tuple[bool, list[tuple[str, Found]]]:
    """Whether the input is one object, and its objects with their names below it. Raises StorageError."""
    found = store.head(place) if place.key else None
    if found is not None:
        return True, [("", found)]
    prefix = f"{place.key}/" if place.key else ""
    listing = [(item.key.removeprefix(prefix), item) for item in store.below(place)]
    listing = [(name, item) for name, item in listing if HIDDEN not in name.split("/")]
    if not listing:
        raise StorageError(f"input {place.uri} does not exist")
    for name, item in listing:
        if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
            raise StorageError(f"input {place.uri} holds the key {item.key!r}, which is no file's path")
    return False, listing


def mapped(task: TaskOrder, staged: Staged) -> TaskOrder:
    """The order with the URI of each staged input replaced by its copy's path, in the program's words, its environment
    and a resident's request.
    """
    if not staged:
        return task
    pairs = sorted(staged, key=lambda pair: -len(pair[0]))

    def local(text: str) -> str:
        is_json = text.startswith('{"')
        for uri, path in pairs:
            text = _replaced(text, _as_json(uri), _as_json(path)) if is_json else _replaced(text, uri, path)
        return text

    return replace(
        task,
        argv=tuple(local(word) for word in task.argv),
        env=tuple((name, local(value)) for name, value in task.env),
        request=local(task.request),
    )


def _as_json(text: str) -> str:
    """As :func:`pipelines.request.line` writes it."""
    return json.dumps(text)[1:-1].replace("{", "\\u007b")


_END = frozenset(" \t\n\"'`/\\,;:|&<>()[]{}=?*")
"""What may follow a path in a command line or JSON: anything else belongs to a longer name."""


def _replaced(text: str, uri: str, path: str) -> str:
    """Every whole occurrence: ``s3://b/cut`` is not in ``s3://b/cut2``."""
    done, rest = "", text
    while True:
        before, found, rest = rest.partition(uri)
        done += before
        if not found:
            return done
        done += path if not rest or rest[0] in _END else uri
