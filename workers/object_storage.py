"""The storage door on an S3-compatible server: no locks and no rename, but writes bound to the state they follow from.

::

    <output_dir>/.shisuan/<task>.json            the task's state: the newest attempt's number, and what is published
    <output_dir>/.shisuan/<task>.a<n>/<sha256>   what attempt n brings, named by content
    <output_dir>/<name>                          the published file

Publishing::

    stage    every file goes up under its content's name; nobody else writes there
    commit   the state with the manifest replaces the one it was decided on (``If-Match``): from here on it is published
    forward  the server copies each file to its final name, then the staged ones go; repeated by whoever comes next, if
             this attempt died half way

**The fence** is the state: an attempt that begins puts its number into it, so the commit of an earlier one, which was
decided on an older state, is refused by the server. **Final names** are fenced by the staged files: before a later
attempt publishes, it forwards what an earlier one has published and takes its staged files away. An earlier attempt
that wakes then has nothing left to copy from. An ETag would not do: it names content, and what a later attempt
publishes may be what lay there before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from scheduler.model import codec
from scheduler.model.errors import Fenced, OutputMissing, OutsideRoots, StorageError
from workers.folders import Folder, Roots, digest_of
from workers.objects import SCHEME, Changed, Objects, Place, place_of
from workers.storage import HIDDEN, Manifest, PublishedFile, chosen

TURNS = 20
"""Looks at a state that changes each time before giving up: attempts begin seldom, and only they change it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Of one task in one output folder."""

    number: int = 0
    """The newest attempt that has begun: no earlier one may publish."""
    manifest: Manifest | None = None


def placed(uri: str, roots: Sequence[str]) -> Place:
    """The place of a URI that lies in one of the tenant's ``s3://`` roots. Raises OutsideRoots, StorageError."""
    place = place_of(uri)
    for root in roots:
        if not root.startswith(SCHEME):
            continue
        top = place_of(root)
        inside = not top.key or place.key == top.key or place.key.startswith(f"{top.key}/")
        if place.bucket == top.bucket and inside:
            return place
    valid = ", ".join(roots) or "there are none"
    raise OutsideRoots(f"{place.uri} is outside the tenant's storage roots: {valid}")


class ObjectStorage:
    """``fetch`` brings an input to this node. ``hook`` is called with each step's name: tests die there."""

    def __init__(
        self,
        objects: Objects,
        roots: Sequence[str],
        hook: Callable[[str], None] | None = None,
        *,
        fetch: Callable[[Place], str] | None = None,
    ) -> None:
        self._objects, self._roots, self._fetch = objects, tuple(roots), fetch
        self._hook = hook or (lambda _: None)

    def readable(self, uri: str) -> str:
        """See :class:`workers.storage.Storage`: the path of a copy on this node."""
        place = placed(uri, self._roots)
        if self._fetch is None:
            raise StorageError(f"input {place.uri} cannot be brought to this node")
        return self._fetch(place)

    def claim(self, output_dir: str, task: str, number: int) -> Manifest | None:
        """See :class:`workers.storage.Storage`."""
        door = self._task(output_dir, task)
        self._objects.check_conditions(door.hidden)
        door.fence(number)
        self._hook("fenced")
        return door.settled()

    def published(self, output_dir: str, task: str) -> Manifest | None:
        """See :class:`workers.storage.Storage`."""
        return self._task(output_dir, task).settled()

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
        """See :class:`workers.storage.Storage`."""
        door = self._task(output_dir, task)
        self._objects.check_conditions(door.hidden)
        door.fence(number)
        earlier = door.settled()
        if earlier is not None and not (replace and earlier.number < number):
            return earlier
        with Roots((staged,)).open(staged) as source:
            files = door.stage(source, chosen(outputs, tuple(source.files())), number)
        self._hook("copied")
        manifest = Manifest(task=task, number=number, output_dir=output_dir, files=files, result=result)
        door.commit(manifest)
        self._hook("committed")
        door.forward(manifest)
        door.sweep(number)
        return manifest

    def _task(self, output_dir: str, task: str) -> _TaskDoor:
        return _TaskDoor(self._objects, placed(output_dir, self._roots), task, self._hook)


class _TaskDoor:
    """One task's objects in one output folder."""

    def __init__(self, objects: Objects, final: Place, task: str, hook: Callable[[str], None]) -> None:
        self._objects, self._final, self._task, self._hook = objects, final, task, hook
        self.hidden = final.below(HIDDEN)
        self._key = quote(task, safe="-_.@")
        self._state_at = self.hidden.below(f"{self._key}.json")

    def fence(self, number: int) -> None:
        """Let no attempt before ``number`` publish any more. Raises Fenced when a later one did this already."""
        self._change(number, lambda state: replace(state, number=number))

    def commit(self, manifest: Manifest) -> None:
        """The manifest appears, unless a later attempt has begun. Raises Fenced."""
        self._change(manifest.number, lambda _: State(number=manifest.number, manifest=manifest))

    def _change(self, number: int, change: Callable[[State], State]) -> None:
        for _ in range(TURNS):
            state, etag = self._state()
            if state.number > number:
                raise Fenced(f"attempt {number} of {self._task} is fenced: attempt {state.number} has begun")
            wanted = change(state)
            if state == wanted:
                return
            try:
                self._objects.write(self._state_at, codec.dumps(wanted).encode(), over=etag)
            except Changed:
                continue  # somebody else's change, or ours whose answer was lost
            return
        raise StorageError(f"the state of {self._task} in {self._final.uri} changes again and again")

    def settled(self) -> Manifest | None:
        """The committed manifest, rolled forward. None when there is none, or its files were changed or taken away."""
        manifest = self._state()[0].manifest
        if manifest is None:
            return None
        self.forward(manifest)
        for file in manifest.files:
            found = self._objects.head(self._final.below(file.name))
            if found is None or found.size != file.size:
                return None
        return manifest

    def stage(self, source: Folder, names: Sequence[str], number: int) -> tuple[PublishedFile, ...]:
        """Bring the files up. Raises OutputMissing."""
        return tuple(self._staged(source, name, number) for name in names)

    def _staged(self, source: Folder, name: str, number: int) -> PublishedFile:
        with source.regular(name) as reading:
            before = os.fstat(reading.fileno())
            size, digest = digest_of(reading)
            reading.seek(0)
            with os.fdopen(os.dup(reading.fileno()), "rb") as sent:  # boto3 may close what it has sent
                self._objects.upload(self._stage(number).below(digest), sent, size=size, sha256=digest)
            after = os.fstat(reading.fileno())
        if (before.st_size, before.st_mtime_ns) != (size, after.st_mtime_ns):
            raise OutputMissing(f"output {name!r} was changed while it was being published")
        self._hook("file copied")
        return PublishedFile(name=name, size=size, sha256=digest)

    def forward(self, manifest: Manifest) -> None:
        """Finish what the manifest promises; what has its final name already is left."""
        stage = self._stage(manifest.number)
        there = {found.key.rpartition("/")[2] for found in self._objects.below(stage)}
        for file in manifest.files:
            if file.sha256 in there:
                self._objects.copy(stage.below(file.sha256), self._final.below(file.name), size=file.size)
                self._hook("file placed")
        for digest in sorted(there):
            self._objects.remove(stage.below(digest))

    def sweep(self, number: int) -> None:
        """Take away what attempts before ``number``, which died, had brought."""
        for before in range(1, number):
            for found in self._objects.below(self._stage(before)):
                self._objects.remove(replace(self.hidden, key=found.key))

    def _state(self) -> tuple[State, str]:
        """The state and its ETag; empty when no attempt has begun. Raises StorageError when it is damaged."""
        got = self._objects.read(self._state_at)
        if got is None:
            return State(), ""
        try:
            state: State = codec.loads(State, got[0])
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(f"{self._state_at.uri} is damaged: {error}") from error
        return state, got[1]

    def _stage(self, number: int) -> Place:
        return self.hidden.below(f"{self._key}.a{number}")
