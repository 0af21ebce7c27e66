"""Where a task's process runs: a work folder and a sandbox of its own, or one of both for all tasks of a lease.

Making a sandbox costs more than a short task does. Tasks of one lease belong to one tenant and one step and read the
same files, so a lease of several tasks keeps one sandbox with a shell in it, and the shell starts them one after the
other. Between two tasks the shell kills whatever the first one left running, the agent empties the work folder, and a
sandbox in which something stayed behind (``/tmp``, ``/dev/shm``) is given up for a new one.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

from scheduler.model.errors import ExecutorError
from scheduler.model.order import LeaseOrder, RunnerKind, TaskOrder
from workers import procfs, spent
from workers.confine import Cell
from workers.environment import PATH
from workers.process import Child, Running, signal_of, spawn
from workers.procfs import MARK
from workers.site import Site, attempt_name, make_work
from workers.spent import NOTHING
from workers.tools import remove_tree

Reads = tuple[tuple[str, str], ...]
"""Real path, and the name the order uses."""
Inodes = tuple[tuple[int, int], ...]
"""Device and inode of each: a sandbox goes on showing the file that was there when it was made, and holds its inode."""
Feed = Callable[[bytes], object]

PRELUDE = b"""exec 2>/dev/null
left() { set -- /tmp/* /tmp/.[!.]* /tmp/..?* /dev/* /dev/.[!.]* /dev/shm/* /dev/shm/.[!.]*; here=$*; }
end() { while kill -9 -1; do (:); done; left; if [ "$here" = "$clean" ]; then echo "$1 0"; else echo "$1 1"; fi >&0; }
left; clean=$here
"""
"""Its standard input is one end of a socket pair: commands come in, ``exit-code used`` goes out. ``kill -9 -1`` spares
the caller and pid 1, which the shell is, and fails once nothing else is there; the empty subshell makes it reap."""

SAID_BYTES = 16
LINE_CHARS = 10_000
"""Longer commands get a sandbox of their own: a line must fit the socket's buffer, however it is quoted."""
# fmt: off
_SHELL_OWN = frozenset((
    "_", "DIRSTACK", "EPOCHREALTIME", "EPOCHSECONDS", "EUID", "FUNCNAME", "GROUPS",
    "HISTCMD", "IFS", "LINENO", "OLDPWD", "OPTARG", "OPTERR", "OPTIND",
    "PIPESTATUS", "POSIXLY_CORRECT", "PPID", "PWD", "RANDOM", "SECONDS", "SHELLOPTS",
    "SHLVL", "SRANDOM", "UID",
))
# fmt: on
"""Variables that shells set or obey; with one of them the task's environment would not be what the order says."""


class Place(Protocol):
    """One task's room, from its work folder to its end."""

    work: str

    def start(self, argv: tuple[str, ...], env: Mapping[str, str], feed: Feed) -> Running:
        """Start the task. Raises ExecutorError, OSError."""
        ...

    async def leave(self) -> None:
        """The task is over, or was never started."""
        ...


class OwnPlace:
    """For one task."""

    def __init__(
        self, site: Site, order: LeaseOrder, task: TaskOrder, reads: Reads, writes: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self._site = site
        self.work = str(site.work / attempt_name(task.attempt_id, order.rank))
        make_work(self.work, site.confinement)
        self._cell = replace(_cell(site, order, task, reads, self.work), writes=writes)

    def start(self, argv: tuple[str, ...], env: Mapping[str, str], feed: Feed) -> Running:
        """A process group of its own."""
        return spawn(self._site.confinement.command(argv, env, self._cell), feed)

    async def leave(self) -> None:
        """Nothing stays."""
        await remove_work(self._site, self.work)


class Turn(Running):
    """One task in the lease's shell."""

    def __init__(self, shell: Child) -> None:
        super().__init__(shell.pid, shell.start_ticks)
        self._shell = shell

    def kill(self) -> None:
        """The sandbox goes with it."""
        if not self.exited.done():
            self._shell.kill()

    def terminate(self) -> None:
        """The shell is not told: as pid 1 it does not count among the members."""
        self._shell.terminate()


class SharedPlace:
    """For all tasks of a lease in turn. On the loop thread only."""

    def __init__(self, site: Site, order: LeaseOrder) -> None:
        self._site, self._order = site, order
        self.work = ""
        self._kind: object = None
        self._cell: Cell
        self._shell: Child | None = None
        self._line: socket.socket
        self._said = b""
        self._turn: Turn | None = None
        self._used = False
        self._spent = NOTHING
        """What the shell had reaped when its last task ended."""

    async def enter(self, task: TaskOrder, reads: Reads, inodes: Inodes) -> SharedPlace:
        """Ready for this task; a sandbox that shows other files, or files replaced since, is closed.

        Raises ExecutorError, OSError.
        """
        kind = (reads, inodes, self._site.tools.programs(task.argv))
        if self._shell is not None and (kind != self._kind or self._shell.exited.done()):
            await self.close()
        if self._shell is None:
            self._kind = kind
            self._open(task, reads)
        return self

    def start(self, argv: tuple[str, ...], env: Mapping[str, str], feed: Feed) -> Running:
        """Tell the shell. One that is gone shows in the task's end."""
        assert self._shell is not None
        program = self._site.confinement.program(argv, env, self._cell)
        words = " ".join(map(shlex.quote, (program, *argv[1:])))
        settings = " ".join([f"{name}={shlex.quote(value)}" for name, value in env.items()])
        line = f"( export {settings} && exec {words} ) </dev/null 2>&1; end $?\n"
        self._shell.on_output = feed
        self._turn = Turn(self._shell)
        self._turn.base = self._spent
        try:
            self._line.sendall(os.fsencode(line))
        except OSError:
            self._shell.kill()
        return self._turn

    async def leave(self) -> None:
        """Make it as new for the next task, or give it up."""
        turn, self._turn = self._turn, None
        ended = turn is None or turn.exited.done()
        if self._shell is None or self._shell.exited.done() or not ended or self._used or not await self._emptied():
            await self.close()

    async def close(self) -> None:
        """Nothing stays."""
        shell, self._shell = self._shell, None
        if shell is not None:
            shell.kill()
            await shell.exited
            asyncio.get_running_loop().remove_reader(self._line)
            self._line.close()
        if self.work:
            work, self.work = self.work, ""
            await remove_work(self._site, work)

    # -- the shell -----------------------------------------------------------------------------------------------

    def _open(self, task: TaskOrder, reads: Reads) -> None:
        site = self._site
        work = str(site.work / attempt_name(task.attempt_id, self._order.rank))
        make_work(work, site.confinement)
        self.work, self._said, self._used, self._spent = work, b"", False, NOTHING
        self._cell = _cell(site, self._order, task, reads, work)
        command = site.confinement.shell({"PATH": PATH, MARK: work}, self._cell)
        if command is None:
            raise ExecutorError("this node has no shell for a lease of many tasks")
        self._line, inside = socket.socketpair()
        with inside:
            self._shell = spawn(command, _nobody_listens, stdin=inside.fileno())
        self._line.setblocking(False)
        self._line.sendall(PRELUDE)
        asyncio.get_running_loop().add_reader(self._line, self._hear)
        self._shell.exited.add_done_callback(partial(self._died, self._shell))

    def _hear(self) -> None:
        try:
            data = self._line.recv(SAID_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._said += data
        if not data:
            asyncio.get_running_loop().remove_reader(self._line)
        elif self._said.endswith(b"\n") or len(self._said) > SAID_BYTES:
            said, self._said = self._said, b""
            self._ended(said.split())

    def _ended(self, words: list[bytes]) -> None:
        """All of the task's processes are dead: what they printed is in the pipe."""
        assert self._shell is not None
        turn = self._turn
        if turn is None or turn.exited.done() or len(words) != 2 or not all(word.isdigit() for word in words):
            self._shell.kill()  # somebody else than our shell speaks
            return
        self._shell.drain()
        self._shell.on_output = _nobody_listens
        self._used = words[1] != b"0"
        turn.spent = spent.of(procfs.children(self._shell.pid), with_rss=False)
        self._spent = turn.spent or self._spent
        turn.over(signal_of(int(words[0])))

    def _died(self, shell: Child, exited: asyncio.Future[int]) -> None:
        if shell is self._shell and self._turn is not None and not self._turn.exited.done():
            self._turn.over(exited.result())

    # -- the folder ----------------------------------------------------------------------------------------------

    async def _emptied(self) -> bool:
        if _was_left_empty(self.work):
            return True
        return await asyncio.get_running_loop().run_in_executor(self._site.disk, _empty, self.work)


def shareable(site: Site, order: LeaseOrder) -> bool:
    """The lease's tasks may run in one sandbox, and a shell can start each exactly as the order says."""
    first = order.tasks[0]
    if len(order.tasks) == 1 or order.ranks > 1 or first.checkpoints:
        return False
    if site.confinement.shell({}, _cell(site, order, first, (), "/")) is None:
        return False
    return all(t.runner is RunnerKind.PROCESS and t.reads == first.reads and _is_plain(t) for t in order.tasks)


def _is_plain(task: TaskOrder) -> bool:
    chars = 0
    for word in task.argv:
        chars += len(word)
        if "\0" in word:
            return False
    for name, value in task.env:
        chars += len(name) + len(value)
        if "\0" in value or not (name.isascii() and name.isidentifier()):
            return False
        if name in _SHELL_OWN or name.startswith("BASH"):
            return False
    return chars <= LINE_CHARS


async def remove_work(site: Site, work: str) -> None:
    """Take a work folder away; the two empty folders of a task without files go the short way."""
    site.ended.add(work)
    try:
        os.rmdir(f"{work}/outputs")
        os.rmdir(work)
    except OSError:
        await asyncio.get_running_loop().run_in_executor(site.disk, remove_tree, work)


def _cell(site: Site, order: LeaseOrder, task: TaskOrder, reads: Reads, work: str) -> Cell:
    return Cell(
        work=work,
        reads=reads,
        programs=site.tools.programs(task.argv),
        devices=() if order.simulated else order.devices,
        hidden=str(site.home),
        network=order.ranks > 1,
    )


def _was_left_empty(work: str) -> bool:
    """The short way, for tasks without files."""
    try:
        os.chmod(work, 0o700)
        os.rmdir(f"{work}/outputs")
        if os.listdir(work):
            return False
        os.mkdir(f"{work}/outputs", 0o700)
        return True
    except OSError:
        return False


def _empty(work: str) -> bool:
    """Leave nothing but a fresh ``outputs``. Works on names below a folder that is nobody's to replace."""
    try:
        with os.scandir(work) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(entry.path)
                else:
                    os.unlink(entry.path)
        os.mkdir(f"{work}/outputs", 0o700)
        return os.listdir(work) == ["outputs"]
    except OSError:
        return False


def _nobody_listens(_: bytes) -> None:
    """Between two tasks nothing is there to print."""
