"""The agent of one node and one tenant, without Ray: takes orders, runs them, keeps its reports until acknowledged.

Callers' threads only touch the table and the outbox. Everything that runs is driven by one loop thread, which is also
the only one that spawns: the kernel's parent-death signal follows the spawning thread.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from scheduler.model.errors import ExecutorError, NotFound
from scheduler.model.lease import AttemptState
from scheduler.model.order import LeaseOrder, LogChunk, Report, ReportKind
from workers import procfs
from workers.confine import choose
from workers.decoding import decode_part
from workers.lease_run import LeaseRun
from workers.measure import EVERY_S, Measuring
from workers.nvml import NvmlTelemetry
from workers.outbox import Outbox
from workers.recovery import recover, sweep
from workers.resident import Residents
from workers.sampler import Source
from workers.site import Site, attempt_name, now_ms
from workers.staging import Inputs
from workers.table import LeaseKey, Table
from workers.tools import Tools, find_tools

_log = logging.getLogger(__name__)

HEARTBEAT_MS = 10_000
LOCK_WAIT_S = 10.0
DISK_THREADS = 4
LOG_THREADS = 4
CLOSED_REASON = "the agent was closed"
PREEMPT_WORD = "preempt"
"""A stop whose reason begins with this ends attempts as PREEMPTED, any other as CANCELLED."""


class Agent:
    """All methods may be called from any thread. Building one kills what an earlier agent of this folder left behind.

    Raises ExecutorError when another agent holds the folder.
    """

    def __init__(
        self,
        *,
        node: str,
        tenant: str,
        home: Path,
        confinement: str = "auto",
        tools: Tools | None = None,
        heartbeat_ms: int = HEARTBEAT_MS,
        lock_wait_s: float = LOCK_WAIT_S,
        telemetry: Callable[[], Source] = NvmlTelemetry,
        measure_every_s: float = EVERY_S,
    ) -> None:
        self.node, self.tenant = node, tenant
        home = home.resolve()
        self._folder = home / "nodes" / node / tenant
        _make_folders(self._folder)
        self._lock_fd = _lock(self._folder / "lock", lock_wait_s)
        self._tools = tools or find_tools()
        self._confinement = choose(confinement, self._folder, self._tools)
        self._table = Table(self._folder / "table.log")
        self._outbox = Outbox(self._table)
        recover(self._table, self._folder, node=node, tenant=tenant, uid=self._confinement.uid)
        self._disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="shisuan-disk")
        self._logs = ThreadPoolExecutor(LOG_THREADS, thread_name_prefix="shisuan-logs")
        self._site = Site(
            node=node,
            tenant=tenant,
            home=home,
            folder=self._folder,
            table=self._table,
            outbox=self._outbox,
            tools=self._tools,
            confinement=self._confinement,
            disk=self._disk,
            logs=self._logs,
            measuring=Measuring(telemetry, every_s=measure_every_s),
            inputs=Inputs(self._folder / "inputs", runner_gid=self._confinement.uid),
        )
        self._runs: dict[LeaseKey, LeaseRun] = {}
        self._residents = Residents(self._site)
        self._heartbeat_ms = heartbeat_ms
        self._beat_ms = now_ms()
        self._orders = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._drive, name="shisuan-agent", daemon=True)
        self._thread.start()

    # -- any thread ----------------------------------------------------------------------------------------------

    def submit(self, orders: Sequence[LeaseOrder]) -> None:
        """Take orders; known leases are ignored. They are on disk when this returns.

        Raises ExecutorError for another tenant's order or after close, OSError when the disk refuses.
        """
        for order in orders:
            if order.tenant != self.tenant or order.node != self.node:
                raise ExecutorError(
                    f"lease {order.lease_id} is for {order.tenant} on {order.node}, "
                    f"this agent serves {self.tenant} on {self.node}"
                )
            for task in order.tasks:
                attempt_name(task.attempt_id, order.rank)
        with self._orders:
            if self._closed:
                raise ExecutorError("the agent is closed")
            fresh = self._table.accept(orders)
            if fresh:
                self._table.sync()
                self._loop.call_soon_threadsafe(self._launch, fresh)

    def stop(self, lease_ids: Sequence[str], reason: str) -> None:
        """SIGTERM, grace, SIGKILL, all ranks that are here. Unknown and finished leases are ignored."""
        wanted = frozenset(lease_ids)
        with self._orders:  # behind every submit that came before
            if not self._closed:
                self._loop.call_soon_threadsafe(self._stop, wanted, reason)

    def poll(self, after_cursor: str = "", wait_ms: int = 0, limit: int = 1_000) -> tuple[Report, ...]:
        """Unacknowledged reports later than ``after_cursor`` in order, then newest progress; waits for the first one.

        Progress reports have no cursor and are told once.
        """
        return self._outbox.take(after_cursor, wait_ms, limit)

    def acknowledge(self, cursors: Sequence[str]) -> None:
        """These reports are recorded elsewhere. Unknown ones are ignored."""
        self._table.acknowledge(cursors)

    def inventory(self) -> Report:
        """The leases this agent knows: running, or finished and not acknowledged."""
        return Report(
            kind=ReportKind.INVENTORY,
            at_ms=now_ms(),
            node=self.node,
            tenant=self.tenant,
            leases=self._table.lease_ids(),
        )

    def read_log(self, attempt_id: str, offset: int = 0, limit: int = 64 * 1024, rank: int = 0) -> LogChunk:
        """Part of an attempt's output from byte ``offset``. Raises NotFound for a rank that never ran here."""
        path, is_open = self._log_of(attempt_id, rank)
        data = b""
        if path is not None:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(limit)
        text, used = decode_part(data)
        return LogChunk(text=text, next_offset=offset + used, end=not is_open and used == len(data) < limit)

    def heartbeat(self) -> int:
        """When the loop last turned, in ms: an agent whose loop hangs answers calls but is not alive."""
        return self._beat_ms

    def level(self) -> str:
        """A sentence for ``doctor``: how runners are kept apart here."""
        return self._confinement.sentence

    def close(self) -> None:
        """Kill what runs, record it as LOST, let go of the folder. The next agent offers what was not acknowledged."""
        with self._orders:
            if self._closed:
                return
            self._closed = True
        self._outbox.close()
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._shut()))
        self._thread.join()
        self._disk.shutdown(wait=True)
        self._logs.shutdown(wait=False, cancel_futures=True)
        self._table.close()
        os.close(self._lock_fd)

    # -- loop thread ---------------------------------------------------------------------------------------------

    def _drive(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._beat)
        self._loop.run_forever()
        procfs.kill_all(lambda: set(procfs.marked(str(self._site.work))))
        self._loop.close()

    async def _shut(self) -> None:
        """Everything that runs is killed and recorded; then the loop stops."""
        while self._runs:
            for run in list(self._runs.values()):
                run.stop(AttemptState.LOST, CLOSED_REASON, grace_ms=0)
            await asyncio.sleep(0.01)
        await self._residents.close()
        self._site.measuring.close()
        self._loop.stop()

    def _launch(self, orders: tuple[LeaseOrder, ...]) -> None:
        for order in orders:
            key = (order.lease_id, order.rank)
            run = self._runs[key] = LeaseRun(self._site, self._residents, order)
            task = self._loop.create_task(run.run())
            task.add_done_callback(partial(self._ended, key))

    def _ended(self, key: LeaseKey, done: asyncio.Task[None]) -> None:
        del self._runs[key]
        if not done.cancelled() and (error := done.exception()) is not None:
            # The table refuses (disk full, broken): what was not recorded cannot be told. Recovery reports it as lost.
            _log.critical("lease %s: the attempt table cannot be written: %r", key[0], error)
            os.abort()

    def _stop(self, lease_ids: frozenset[str], reason: str) -> None:
        state = AttemptState.PREEMPTED if reason.startswith(PREEMPT_WORD) else AttemptState.CANCELLED
        for (lease_id, _), run in list(self._runs.items()):
            if lease_id in lease_ids:
                run.stop(state, reason)

    def _beat(self) -> None:
        self._beat_ms = now_ms()
        for run in self._runs.values():
            run.heartbeat(self._heartbeat_ms)
        if self._site.ended:
            if self._confinement.name != "bubblewrap":
                self._disk.submit(sweep, str(self._site.work), frozenset(self._site.ended))
            self._site.ended.clear()
        self._loop.call_later(min(1.0, self._heartbeat_ms / 1_000), self._beat)

    # -- logs ----------------------------------------------------------------------------------------------------

    def _log_of(self, attempt_id: str, rank: int) -> tuple[Path | None, bool]:
        """The log, and whether the rank still runs."""
        try:
            path = self._site.log_path(attempt_id, rank)
        except ValueError:
            raise NotFound(f"no attempt {attempt_id!r}") from None
        ranks = self._table.ranks_of(attempt_id)
        if path.exists():
            return path, ranks.get(rank, False)
        if rank not in ranks:
            raise NotFound(f"no log of attempt {attempt_id!r} on node {self.node!r}")
        return None, ranks[rank]


def _make_folders(folder: Path) -> None:
    """Runners with a user id of their own may pass through to their work folder, and list nothing on the way."""
    for path, mode in ((folder / "work", 0o711), (folder / "logs", 0o700), (folder, 0o711), (folder.parent, 0o711)):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)


def _lock(path: Path, wait_s: float) -> int:
    """An exclusive lock on the folder; a dying predecessor gets ``wait_s``. The kernel drops it with the process."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(fd)
                raise ExecutorError(f"another agent holds {path.parent}") from None
            time.sleep(0.05)
        else:
            return fd
