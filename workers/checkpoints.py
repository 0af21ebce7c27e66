"""Checkpoints of one task, over its attempts: who may write where, which count, which one the next attempt begins with.

::

    <folder>/a1/step-40       written by attempt 1's own processes (a file or a folder), nobody else's
    <folder>/a1.json          written by attempt 1's agent: what it has seen committed, and from where the loss went bad
    <folder>/a2.resume        written by attempt 2's agents, once: what attempt 2 begins with

A checkpoint counts when its agent saw it under its final name, made it durable and noted it. An attempt that lost its
lease goes on in its own folder and harms nobody: what it commits after a later attempt has begun does not count. All
ranks of an attempt begin with the same checkpoint, because the first of them decides and the others read that.
Folders are held by descriptor: a link put in place by a job leads nowhere (see :mod:`workers.folders`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from scheduler.model import codec
from scheduler.model.errors import StorageError
from workers.folders import Folder, Roots, local_path

KEPT = 2
"""Newest checkpoints of a task that are kept; older ones are removed when a newer one is committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What an attempt's agent has noted."""

    steps: tuple[tuple[int, int], ...] = ()
    """Step and instant (Unix ms) of each commit, in order."""
    bad_from: int = -1
    """The loss went bad: checkpoints at or after this step are not to be trusted. -1: it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What an attempt may write, read and begin with. Real paths, and the names its processes know them by."""

    own: tuple[str, str]
    earlier: tuple[tuple[str, str], ...] = ()
    resume: str = ""
    """By its name; empty: from the beginning."""
    told: tuple[str, str] = ("", "")
    """What users are told of ``own`` and ``resume``, where the names of its processes are this node's alone."""


class Checkpoints:
    """One attempt's. Everything touches the disk: call it from a thread that may wait."""

    shared = True
    """All ranks of the attempt see one folder."""

    def __init__(self, roots: Roots, folder: str, number: int, *, kept: int = KEPT) -> None:
        self._roots, self._folder, self._number, self._kept = roots, folder, number, kept
        self._name = local_path(folder).rstrip("/")
        self._notes = Notes()

    def begin(self, mark: str) -> Begun:
        """Make the attempt's own folder and settle what it begins with. ``mark`` tells this rank's file from others'.

        Raises OutsideRoots, StorageError, OSError.
        """
        with self._open() as top:
            with top.folder(f"a{self._number}", create=True):
                pass
            decided = top.read(self._decision)
            if decided is None:
                top.write(f".{self._decision}.{mark}", self._newest(top).encode())
                top.link(f".{self._decision}.{mark}", self._decision)
                top.sync()
                decided = top.read(self._decision) or b""
            earlier = [f"a{n}" for n in range(1, self._number) if top.exists(f"a{n}")]
        resume = decided.decode()
        real = self._roots.resolve(self._folder)
        return Begun(
            own=(f"{real}/a{self._number}", f"{self._name}/a{self._number}"),
            earlier=tuple((f"{real}/{name}", f"{self._name}/{name}") for name in earlier),
            resume=f"{self._name}/{resume}" if resume else "",
        )

    def commit(self, step: int, now_ms: int) -> bool:
        """Note ``step`` if its checkpoint is there; older ones make room. False when it is not, or counts no more."""
        with self._open() as top:
            if any(number > self._number for number in _begun(top)):
                return False
            if not self._keep(top, step):
                return False
            steps = (*(entry for entry in self._notes.steps if entry[0] != step), (step, now_ms))
            self._note(top, replace(self._notes, steps=steps))
            self._make_room(top)
        return True

    def distrust(self, from_step: int) -> None:
        """Checkpoints of this attempt at or after ``from_step`` do not count any more."""
        with self._open() as top:
            self._note(top, replace(self._notes, bad_from=max(0, from_step)))

    def leave(self) -> None:
        """The attempt is over."""

    # -- inside --------------------------------------------------------------------------------------------------

    def _keep(self, top: Folder, step: int) -> bool:
        with top.folder(f"a{self._number}") as own:
            return own.make_durable(step_name(step))

    @property
    def _decision(self) -> str:
        return f"a{self._number}.resume"

    @contextmanager
    def _open(self) -> Iterator[Folder]:
        with self._roots.open(self._folder, create=True) as top:
            yield top

    def _note(self, top: Folder, notes: Notes) -> None:
        fresh = f"a{self._number}.json.new"
        top.write(fresh, codec.dumps(notes).encode())
        top.rename(fresh, f"a{self._number}.json")
        top.sync()
        self._notes = notes

    def _newest(self, top: Folder) -> str:
        """``a1/step-40``: of the highest step that counts, the latest attempt's."""
        found = [pair for pair in _trusted(top, self._number - 1) if _is_there(top, *pair)]
        if not found:
            return ""
        step, attempt = max(found)
        return f"a{attempt}/{step_name(step)}"

    def _make_room(self, top: Folder) -> None:
        """Keep the newest ones of all attempts, this one's included."""
        everything = [pair for pair in _trusted(top, self._number) if _is_there(top, *pair)]
        for step, attempt in sorted(everything)[: -self._kept]:
            with top.folder(f"a{attempt}") as folder:
                folder.remove(step_name(step))


def _begun(top: Folder) -> Iterator[int]:
    """Attempts that have settled what they begin with."""
    for name in top.names():
        number = name.removeprefix("a").removesuffix(".resume")
        if name == f"a{number}.resume" and number.isdigit():
            yield int(number)


def _trusted(top: Folder, last: int) -> Iterator[tuple[int, int]]:
    """``(step, attempt)`` of what attempts 1 to ``last`` committed and nothing speaks against."""
    notes = {n: _read(top, n) for n in range(1, last + 1)}
    spoiled = {
        (top.read(f"a{n}.resume") or b"").decode()
        for n, noted in notes.items()
        if noted.bad_from == 0  # not one good loss came after what it began with
    }
    for n, noted in notes.items():
        for step, _ in noted.steps:
            if not 0 <= noted.bad_from <= step and f"a{n}/{step_name(step)}" not in spoiled:
                yield step, n


def _read(top: Folder, number: int) -> Notes:
    data = top.read(f"a{number}.json")
    if data is None:
        return Notes()
    try:
        noted: Notes = codec.loads(Notes, data)
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"the notes a{number}.json on this task's checkpoints are damaged: {error}") from error
    return noted


def _is_there(top: Folder, step: int, attempt: int) -> bool:
    if not top.exists(f"a{attempt}"):
        return False
    with top.folder(f"a{attempt}") as folder:
        return folder.exists(step_name(step))


def step_name(step: int) -> str:
    """Under which a checkpoint lies in its attempt's folder."""
    return f"step-{step}"
