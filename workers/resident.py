"""Long-lived runners: started once, asked many times, so that what they loaded (a scene, a model) is used again.

A request is one line of JSON on stdin. The runner answers with the line protocol and ends the request with
``shisuan_done: {json}`` or ``shisuan_fail: reason``. After a failure, a crash, a stop, a number of requests or too much
memory the process is replaced: a bad request must not spoil the next one. Residents serve one tenant (the agent does).
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from scheduler.model.order import LeaseOrder, TaskOrder
from workers import environment, spent
from workers.confine import Cell
from workers.process import Child, spawn
from workers.site import Site
from workers.spent import NOTHING, Spent
from workers.tools import remove_tree

_log = logging.getLogger(__name__)

MAX_REQUESTS = 250
"""FLIP Fluids and others saw synchronisation times creep up in processes that render hundreds of frames."""
IDLE_S = 60.0
MAX_IDLE = 4
LEAST_RSS_LIMIT_MIB = 4_096
PIPE_BYTES = 60_000
"""A request up to this size fits the empty pipe, so that writing it does not wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a resident must be to serve a task. Two tasks of equal value may share a process, one after the other."""

    warm_key: str
    """Empty: of this lease only."""
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    devices: tuple[str, ...]
    reads: tuple[tuple[str, str], ...]
    """Real path and the name the order uses."""
    versions: tuple[tuple[int, int, int], ...]
    """Inode, modification time and size of each read path: a sandbox shows the file that was there when it was made."""
    literal: bool

    @classmethod
    def of(cls, order: LeaseOrder, task: TaskOrder, reads: tuple[tuple[str, str], ...]) -> Wanted:
        """What this task needs."""
        return cls(
            warm_key=order.warm_key or f"lease {order.lease_id}",
            argv=task.argv,
            env=task.env,
            devices=order.devices,
            reads=reads,
            versions=tuple(_version(real) for real, _ in reads),
            literal=task.literal,
        )


class Resident:
    """One process. ``answered`` is the current request's end: an exit code, 0 for an answer."""

    def __init__(self, wanted: Wanted, folder: str, lease_id: str) -> None:
        self.wanted = wanted
        self.folder = folder
        self.lease_id = lease_id
        self.served = 0
        self.busy = True
        self.base = NOTHING
        """What the process had used when its last request ended."""
        self.child: Child
        self.answered: asyncio.Future[int]
        self.idle_timer: asyncio.TimerHandle | None = None
        self._feed: Callable[[bytes], bool] | None = None

    def work_of(self, attempt: str) -> str:
        """The attempt's work folder, inside what this process may write."""
        return f"{self.folder}/{attempt}"

    def hear(self, data: bytes) -> None:
        """Output of the process; between requests nobody listens."""
        if self._feed is not None and self._feed(data):
            self._feed = None
            if not self.answered.done():
                self.answered.set_result(0)

    def died(self, exited: asyncio.Future[int]) -> None:
        """The process ended; so did the request."""
        if not self.answered.done():
            self.answered.set_result(exited.result())

    def listen(self, feed: Callable[[bytes], bool]) -> None:
        """From now on the output belongs to this attempt."""
        self.answered = asyncio.get_running_loop().create_future()
        self._feed = feed
        if self.child.exited.done():
            self.died(self.child.exited)

    def settle(self) -> Spent | None:
        """What the process has used by now, where the next request's account begins; None when nothing can be seen."""
        now = self.child.spent or spent.of(self.child.members())
        self.base = now or self.base
        return now

    async def ask(self, request: str) -> None:
        """Send one request. A process that is gone shows in ``answered``."""
        self.served += 1
        line = request.encode() + b"\n"
        try:
            if len(line) <= PIPE_BYTES:
                self.child.write(line)
            else:
                await asyncio.get_running_loop().run_in_executor(None, self.child.write, line)
        except OSError as error:
            _log.info("resident %d is gone: %s", self.child.pid, error)
            self.child.kill()


class Residents:
    """The residents of one agent. On the loop thread only."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._all: dict[str, Resident] = {}
        self._made = 0

    def lend(self, order: LeaseOrder, wanted: Wanted) -> Resident:
        """An idle resident of this kind, or a new one. Idle ones of another kind must leave the lease's devices.

        Raises OSError or ExecutorError when it cannot be started.
        """
        held = set(order.devices)
        chosen = next((r for r in self._all.values() if not r.busy and r.wanted == wanted), None)
        for other in [r for r in self._all.values() if not r.busy and r is not chosen]:
            if held & set(other.wanted.devices):
                self._close(other)
        if chosen is None:
            return self._start(order, wanted)
        chosen.busy, chosen.lease_id = True, order.lease_id
        if chosen.idle_timer is not None:
            chosen.idle_timer.cancel()
        return chosen

    def give_back(self, resident: Resident, *, healthy: bool, memory_mib: int = 0) -> None:
        """The borrower needs it no more. The process stays only if it is fit for another request."""
        if not resident.busy:  # it was closed meanwhile
            return
        resident.busy = False
        limit_mib = max(LEAST_RSS_LIMIT_MIB, 2 * memory_mib)
        fit = healthy and resident.served < MAX_REQUESTS and not resident.child.exited.done()
        if not fit or (resident.base.rss_mib or 0) > limit_mib:
            self._close(resident)
            return
        resident.idle_timer = asyncio.get_running_loop().call_later(IDLE_S, self._close, resident)
        idle = [r for r in self._all.values() if not r.busy]
        for oldest in idle[: max(0, len(idle) - MAX_IDLE)]:
            self._close(oldest)

    def lease_ended(self, lease_id: str) -> None:
        """A resident without a warm key ends with its lease."""
        for resident in list(self._all.values()):
            if not resident.busy and resident.wanted.warm_key == f"lease {lease_id}":
                self._close(resident)

    async def close(self) -> None:
        """End all of them and wait until they are gone."""
        ending = list(self._all.values())
        for resident in ending:
            self._close(resident)
        for resident in ending:
            await resident.child.exited

    def _start(self, order: LeaseOrder, wanted: Wanted) -> Resident:
        self._made += 1
        folder = str(self._site.work / f"resident-{self._made}")
        os.mkdir(folder, 0o700)
        self._site.confinement.hand_over(folder)
        resident = Resident(wanted, folder, order.lease_id)
        argv, env = wanted.argv, dict(wanted.env)
        if not wanted.literal:
            argv = self._site.tools.argv(argv, folder)
            env = {name: self._site.tools.text(value, folder) for name, value in env.items()}
        devices = () if order.simulated else order.devices
        cell = Cell(
            work=folder,
            reads=wanted.reads,
            devices=devices,
            hidden=str(self._site.home),
            programs=self._site.tools.programs(wanted.argv),
        )
        command = self._site.confinement.command(argv, environment.of_resident(order, env, folder), cell)
        resident.child = spawn(command, resident.hear, stdin=subprocess.PIPE)
        resident.child.exited.add_done_callback(lambda exited: self._died(resident, exited))
        self._all[folder] = resident
        return resident

    def _died(self, resident: Resident, exited: asyncio.Future[int]) -> None:
        if hasattr(resident, "answered"):
            resident.died(exited)  # whoever ended it: a request that waits for an answer must not wait for ever
        if not resident.busy:
            self._forget(resident)

    def _close(self, resident: Resident) -> None:
        if resident.idle_timer is not None:
            resident.idle_timer.cancel()
        if resident.child.exited.done():
            self._forget(resident)
        else:
            resident.busy = False
            resident.child.kill()
            self._all.pop(resident.folder, None)

    def _forget(self, resident: Resident) -> None:
        self._all.pop(resident.folder, None)
        self._site.ended.add(resident.folder)
        remove_tree(resident.folder)


def _version(path: str) -> tuple[int, int, int]:
    try:
        info = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (info.st_ino, info.st_mtime_ns, info.st_size)
