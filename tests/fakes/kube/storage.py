"""Objects, their versions and their history: what etcd and the watch cache are to a server."""

import base64
import bisect
import itertools
import json
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, str]
"""Namespace (empty for kinds without) and name."""
HISTORY = 20_000
"""Changes of a kind a watch can resume over; older ones are forgotten."""
FIRST = 1_000
"""The version a server begins with: nobody resumes from before."""
SNAPSHOTS = 64
"""Lists that can be continued at the same time."""


class Expired(Exception):
    """The resourceVersion or continue token is older than what is kept."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of an object. ``obj`` is never changed."""

    obj: Mapping[str, Any]
    raw: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one object."""

    version: int
    key: Key
    before: Stored | None
    after: Stored | None
    last: Stored
    """The object as a watcher is shown it: as it is, or was last."""


@dataclass(slots=True)
class Table:
    """The objects of one kind."""

    objects: dict[Key, Stored] = field(default_factory=dict)
    log: list[Change] = field(default_factory=list)
    compacted: int = FIRST
    """Changes up to this version are forgotten."""
    _sorted: list[Key] | None = None

    def ordered(self) -> list[Key]:
        """In etcd's order."""
        if self._sorted is None:
            self._sorted = sorted(self.objects)
        return self._sorted

    def put(self, change: Change) -> None:
        if change.after is None:
            del self.objects[change.key]
        else:
            self.objects[change.key] = change.after
        if (change.before is None) != (change.after is None):
            self._sorted = None
        self.log.append(change)
        if len(self.log) > HISTORY:
            self.forget(self.log[len(self.log) // 2].version)

    def forget(self, version: int) -> None:
        self.compacted = max(self.compacted, version)
        del self.log[: self._after(version)]

    def since(self, version: int) -> Iterator[Change]:
        """Changes after ``version``. Raises Expired."""
        if version < self.compacted:
            raise Expired(f"too old resource version: {version} ({self.compacted})")
        return itertools.islice(self.log, self._after(version), None)

    def _after(self, version: int) -> int:
        return bisect.bisect_right(self.log, version, key=lambda c: c.version)


class Storage:
    """Every table under one lock; ``changed`` wakes the watchers."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.version = FIRST
        self._tables: defaultdict[tuple[str, str], Table] = defaultdict(Table)
        self._numbers = itertools.count()
        self._snapshots: OrderedDict[str, tuple[int, list[Stored]]] = OrderedDict()
        self.owned: defaultdict[str, set[tuple[tuple[str, str], Key]]] = defaultdict(set)
        """Uid of an owner to the objects that name it."""
        self.uids: dict[str, tuple[tuple[str, str], Key]] = {}

    def table(self, name: tuple[str, str]) -> Table:
        return self._tables[name]

    def drop_table(self, name: tuple[str, str]) -> None:
        self._tables.pop(name, None)

    def get(self, table: tuple[str, str], key: Key) -> Stored | None:
        return self._tables[table].objects.get(key)

    def write(self, table: tuple[str, str], key: Key, obj: Mapping[str, Any] | None) -> Stored:
        """Set or (None) delete an object; the version it now has. The caller holds the lock."""
        self.version += 1
        before = self._tables[table].objects.get(key)
        shown = obj if obj is not None else before.obj
        made = {**shown, "metadata": {**shown["metadata"], "resourceVersion": str(self.version)}}
        stored = Stored(made, json.dumps(made, separators=(",", ":")).encode(), self.version)
        after = stored if obj is not None else None
        self._tables[table].put(Change(self.version, key, before, after, stored))
        self._index(table, key, before, after)
        self.changed.notify_all()
        return stored

    def _index(self, table: tuple[str, str], key: Key, before: Stored | None, after: Stored | None) -> None:
        for stored, add in ((before, False), (after, True)):
            if stored is None:
                continue
            meta = stored.obj["metadata"]
            owners = [owner["uid"] for owner in meta.get("ownerReferences") or ()]
            if add:
                self.uids[meta["uid"]] = (table, key)
            else:
                self.uids.pop(meta["uid"], None)
            for uid in owners:
                (self.owned[uid].add if add else self.owned[uid].discard)((table, key))

    def compact(self, table: tuple[str, str] | None = None) -> None:
        """Forget all history: who resumes a watch from before is told 410, and lists cannot be continued."""
        with self.lock:
            self.version += 1  # so that even the newest version known outside is too old
            for name in [table] if table is not None else list(self._tables):
                self._tables[name].forget(self.version)
            self._snapshots.clear()

    # ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────

    def page(
        self, table: tuple[str, str], matches: Callable[[Key, Stored], bool], limit: int, token: str
    ) -> tuple[int, list[Stored], str, int]:
        """Version, items, token of the next page, and how many items it leaves. Raises Expired."""
        with self.lock:
            if token:
                version, found = self._resume(token)
            else:
                objects, version = self._tables[table].objects, self.version
                found = [objects[key] for key in self._tables[table].ordered() if matches(key, objects[key])]
            if not limit or len(found) <= limit:
                return version, found, "", 0
            rest = found[limit:]
            made = base64.urlsafe_b64encode(
                json.dumps({"rv": version, "left": len(rest), "n": next(self._numbers)}).encode()
            )
            self._snapshots[made.decode()] = (version, rest)
            while len(self._snapshots) > SNAPSHOTS:
                self._snapshots.popitem(last=False)
            return version, found[:limit], made.decode(), len(rest)

    def _resume(self, token: str) -> tuple[int, list[Stored]]:
        if token not in self._snapshots:
            raise Expired("The provided continue parameter is too old to display a consistent list result.")
        return self._snapshots[token]

    # ── watches ──────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(
        self,
        table: tuple[str, str],
        version: int,
        matches: Callable[[Key, Stored], bool],
        *,
        until: float,
        bookmark_s: float,
        is_open: Callable[[], bool],
    ) -> Iterator[tuple[str, Stored | int] | None]:
        """``(type, object)`` per change, ``("BOOKMARK", version)`` now and then, until the monotonic instant ``until``.

        None now and then in between, so that the caller notices a client that left. Raises Expired.
        """
        next_bookmark = time.monotonic() + bookmark_s
        while is_open():
            with self.lock:
                changes = list(self._tables[table].since(version))
                if not changes:
                    now = time.monotonic()
                    if now < min(until, next_bookmark):
                        self.changed.wait(min(until, next_bookmark, now + 1) - now)
                    changes = list(self._tables[table].since(version))
                reached = self.version
            for change in changes:
                event = seen(change, matches)
                if event is not None:
                    yield event
            version = max(version, reached)
            now = time.monotonic()
            if now >= min(until, next_bookmark):
                yield "BOOKMARK", version
                next_bookmark = now + bookmark_s
            if now >= until:
                return
            yield None


def seen(change: Change, matches: Callable[[Key, Stored], bool]) -> tuple[str, Stored] | None:
    """What a watcher with a selector sees of a change: objects enter and leave what it selects."""
    was = change.before is not None and matches(change.key, change.before)
    is_now = change.after is not None and matches(change.key, change.after)
    if not was and not is_now:
        return None
    return ("MODIFIED" if was and is_now else "ADDED" if is_now else "DELETED"), change.last
