"""Checkpoints of one task in an S3-compatible store: the same notes and the same rules as in a folder.

A runner saves into a folder of this node. What it says is complete goes up below ``a<n>/step-<s>``; then the notes
``a<n>.json``, which make it count, are written. A later attempt brings the one it begins with to its own node. Each
rank of a gang has a folder on its own node, and only rank 0's goes up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from scheduler.model import codec
from workers.checkpoints import KEPT, Begun, Checkpoints, Notes, step_name
from workers.folders import Folder, Roots, digest_of
from workers.objects import Changed, Objects, Place, connect
from workers.storage import HIDDEN
from workers.tools import remove_tree


class Prefix:
    """A folder of objects, with what :class:`workers.checkpoints.Checkpoints` asks of one."""

    def __init__(self, objects: Objects, place: Place) -> None:
        self._objects, self._place = objects, place

    def read(self, name: str) -> bytes | None:
        """An object's bytes, or None."""
        found = self._objects.read(self._place.below(name))
        return found[0] if found else None

    def names(self) -> list[str]:
        """What is in this folder, sorted."""
        start = len(self._place.key) + 1 if self._place.key else 0
        return sorted({found.key[start:].partition("/")[0] for found in self._objects.below(self._place)})

    def exists(self, name: str) -> bool:
        """An object has this name, or lies below it."""
        below = self._place.below(name)
        return self._objects.head(below) is not None or next(self._objects.below(below), None) is not None

    @contextmanager
    def folder(self, name: str) -> Iterator[Prefix]:
        """A folder below."""
        yield Prefix(self._objects, self._place.below(name))

    def remove(self, name: str) -> None:
        """Take away what has this name and what lies below it."""
        below = self._place.below(name)
        for found in list(self._objects.below(below)):
            self._objects.remove(replace(below, key=found.key))
        self._objects.remove(below)


class ObjectCheckpoints(Checkpoints):
    """One attempt's, on one node. ``local`` is made for the runner; ``fetch`` brings what it begins with."""

    shared = False

    def __init__(
        self, place: Place, number: int, *, local: Path, fetch: Callable[[Place], str], kept: int = KEPT
    ) -> None:
        self._place, self._number, self._kept = place, number, kept
        self._local, self._fetch, self._notes = local, fetch, Notes()
        self._objects = connect()

    def begin(self, mark: str) -> Begun:
        """See :meth:`workers.checkpoints.Checkpoints.begin`; of the earlier ones only what it begins with is read."""
        self._objects.check_conditions(self._place.below(HIDDEN))
        decision = self._place.below(self._decision)
        with self._open() as top:
            decided = top.read(self._decision)
            while decided is None:
                with suppress(Changed):  # another rank decided, or the answer was lost: what is there now counts
                    self._objects.write(decision, self._newest(top).encode(), over="")
                decided = top.read(self._decision)
        resume, uri = "", ""
        if decided:
            came = self._place.below(decided.decode())
            resume, uri = self._fetch(came), came.uri
        own = self._local / f"a{self._number}"
        own.mkdir(parents=True, exist_ok=True)
        self._local.chmod(0o711)
        return Begun(
            own=(str(own), str(own)),
            earlier=((resume, resume),) if resume else (),
            resume=resume,
            told=(self._place.below(own.name).uri, uri),
        )

    def leave(self) -> None:
        """What was not committed is gone with the attempt."""
        remove_tree(str(self._local))

    def _keep(self, top: Any, step: int) -> bool:
        name, target = step_name(step), self._place.below(f"a{self._number}")
        with Roots((str(self._local),)).open(str(self._local / target.key.rpartition("/")[2])) as own:
            if own.size(name) >= 0:
                self._send(own, name, target)
            else:
                files = [file for file in own.files() if file.startswith(f"{name}/")]
                if not files:
                    return False
                for file in files:
                    self._send(own, file, target)
        return True

    def _send(self, own: Folder, name: str, target: Place) -> None:
        with own.regular(name) as reading:
            size, digest = digest_of(reading)
            reading.seek(0)
            self._objects.upload(target.below(name), reading, size=size, sha256=digest)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        yield Prefix(self._objects, self._place)

    def _note(self, top: Any, notes: Notes) -> None:
        """This attempt's agent alone writes them, over what it saw."""
        at = self._place.below(f"a{self._number}.json")
        data = codec.dumps(notes).encode()
        for _ in range(2):
            there = self._objects.read(at)
            if there is None or there[0] != data:
                try:
                    self._objects.write(at, data, over=there[1] if there else "")
                except Changed:
                    continue
            break
        self._notes = notes

    def _make_room(self, top: Any) -> None:
        super()._make_room(top)
        with Roots((str(self._local),)).open(str(self._local / f"a{self._number}")) as own:
            for step, _ in sorted(self._notes.steps)[: -self._kept]:
                own.remove(step_name(step))
