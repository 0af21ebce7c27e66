"""One spawned runner: a session of its own, its combined output on one pipe, and how it ends.

Everything here runs on the agent's one loop thread: the kernel's parent-death signal follows the thread that spawned.
There is no thread per task: the pipe and a pidfd are watched by the loop. ``subprocess`` is used without a
``preexec_fn`` so that it can ``vfork``, whose cost does not grow with the agent's memory.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scheduler.model.lease import AttemptState
from workers import procfs, spent
from workers.spent import NOTHING, Spent

READ_BYTES = 64 * 1024
DRAIN_READS = 256
"""Reads of what is left in the pipe after the end; bounds a descendant that escaped and goes on writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to execute, after confinement and placeholders."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    sandboxed: bool = False
    """``argv`` is bubblewrap: exit code 128+n means signal n, and SIGTERM must reach the processes inside."""
    args_fd_data: bytes = b""
    """NUL-separated arguments that bubblewrap reads from the descriptor named in ``argv`` by ``{args_fd}``."""

    @contextmanager
    def opened(self) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
        """The final argv and the descriptors the child inherits, open for the time of the start."""
        if not self.args_fd_data:
            yield self.argv, ()
            return
        fd = os.memfd_create("args")
        try:
            os.write(fd, self.args_fd_data)
            os.lseek(fd, 0, os.SEEK_SET)
            yield tuple(str(fd) if word == "{args_fd}" else word for word in self.argv), (fd,)
        finally:
            os.close(fd)


class Running:
    """What an attempt runs as: it ends by itself, or is ended politely and then by force."""

    def __init__(self, pid: int, start_ticks: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.pid, self.start_ticks = pid, start_ticks
        self.exited: asyncio.Future[int] = self._loop.create_future()
        """Exit code, negative for a signal."""
        self.ending: AttemptState | None = None
        """Set once somebody ended it: TIMED_OUT, CANCELLED or PREEMPTED."""
        self._killer: asyncio.TimerHandle | None = None
        self.base: Spent = NOTHING
        """What the processes had used before this attempt: a resident and a shared sandbox serve several."""
        self.spent: Spent | None = None
        """What they had used when it ended, where the kernel told; it counts from their own beginning."""

    def end(self, state: AttemptState, grace_ms: int) -> None:
        """SIGTERM now, SIGKILL after ``grace_ms``. The first caller's ``state`` counts."""
        if self.exited.done():
            return
        first, self.ending = self.ending is None, self.ending or state
        if grace_ms <= 0:
            self.kill()
        if not first or grace_ms <= 0:
            return
        self.terminate()
        self._killer = self._loop.call_later(grace_ms / 1_000, self.kill)

    def kill(self) -> None:
        """SIGKILL to all of it."""
        raise NotImplementedError

    def terminate(self) -> None:
        """SIGTERM to all of it."""
        raise NotImplementedError

    def over(self, code: int) -> None:
        """It ended with this exit code."""
        if self._killer is not None:
            self._killer.cancel()
        self.exited.set_result(code)


class Child(Running):
    """A running process group. Build it with :func:`spawn`."""

    def __init__(self, popen: subprocess.Popen[bytes], command: Command, on_output: Callable[[bytes], object]) -> None:
        super().__init__(popen.pid, procfs.start_ticks(popen.pid))
        self._popen = popen
        self._sandboxed = command.sandboxed
        self.on_output = on_output
        assert popen.stdout is not None
        self._out = popen.stdout.fileno()
        os.set_blocking(self._out, False)
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._out, self._readable)
        self._loop.add_reader(self._pidfd, self._died)

    def kill(self) -> None:
        """SIGKILL to the group; in a sandbox this takes everything inside with it."""
        if not self.exited.done():
            _signal_group(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM to the group; in a sandbox to what runs inside, which is killed when it has not begun yet."""
        if not self._sandboxed:
            _signal_group(self.pid, signal.SIGTERM)
            return
        inside = procfs.sandbox_members(self.pid)
        for pid in inside:
            _signal_process(pid, signal.SIGTERM)
        if not inside:
            self.kill()

    def write(self, data: bytes) -> None:
        """Put ``data`` on its stdin. Raises OSError when it is gone."""
        assert self._popen.stdin is not None
        view = memoryview(data)
        while view:
            view = view[os.write(self._popen.stdin.fileno(), view) :]

    def members(self) -> tuple[int, ...]:
        """Processes of the group that are the runner's, without the sandbox's own."""
        return procfs.sandbox_members(self.pid) if self._sandboxed else tuple(procfs.group_members(self.pid))

    def _readable(self) -> None:
        try:
            data = os.read(self._out, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self.on_output(data)
        else:
            self._loop.remove_reader(self._out)

    def _died(self) -> None:
        """The leader is a zombie now: until it is reaped its id, and so its group, is still ours."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _signal_group(self.pid, signal.SIGKILL)
        moved = spent.moved_bytes((self.pid,))  # a zombie still tells
        _, status, usage = os.wait4(self.pid, 0)
        self._popen.returncode = code = os.waitstatus_to_exitcode(status)
        if not self._sandboxed:  # bubblewrap ends without reaping what it ran: its account is its own alone
            self.spent = spent.of_ended(usage, moved)
        self._loop.remove_reader(self._out)
        self.drain()
        assert self._popen.stdout is not None
        self._popen.stdout.close()
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        self.over(signal_of(code) if self._sandboxed else code)

    def drain(self) -> None:
        """Read what is in the pipe now."""
        for _ in range(DRAIN_READS):
            try:
                data = os.read(self._out, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            self.on_output(data)


def spawn(command: Command, on_output: Callable[[bytes], object], *, stdin: int = subprocess.DEVNULL) -> Child:
    """Start it. Raises OSError (no such program, no permission, no memory). Call from the loop thread only."""
    with command.opened() as (argv, fds):
        popen = subprocess.Popen(
            argv,
            env=command.env,
            cwd=command.cwd,
            stdin=stdin,
            bufsize=0,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=fds,
        )
    return Child(popen, command, on_output)


def signal_of(code: int) -> int:
    """Shells and bubblewrap tell of signal n as 128 + n; here that is -n."""
    return 128 - code if 128 < code < 128 + signal.NSIG else code


def sentence(code: int) -> str:
    """An exit code in words: ``killed by SIGSEGV``, ``exit code 3``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class LogWriter:
    """An attempt's log file: made at the first byte, cut at a cap with a last line that says so."""

    def __init__(self, path: Path, cap_bytes: int) -> None:
        self._path = path
        self._left = cap_bytes
        self._cap = cap_bytes
        self._fd = -1

    def write(self, data: bytes) -> None:
        """Append. Raises OSError when the disk refuses."""
        if self._left < 0:
            return
        piece = data[: self._left]
        self._put(piece)
        self._left -= len(piece)
        if len(piece) < len(data):
            self._put(b"\n[shisuan: the log is cut here at %d bytes]\n" % self._cap)
            self._left = -1

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _put(self, data: bytes) -> None:
        if not data:
            return
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o600)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _signal_process(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
