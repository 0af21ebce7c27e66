"""The service's side of the Executor port on Ray: starts and watches the embedded head and the bridge. Imports no Ray.

What the service may rely on:

* RUNTIME_UP is followed, for each agent there is, by its unacknowledged reports and then by its INVENTORY.
* Per agent, reports come in the order in which things happened, the inventory among them: a lease whose start was
  reported before is in the inventory unless its end was acknowledged.
* An order given before RUNTIME_UP, or that was on its way when RUNTIME_DOWN came, may or may not have arrived. So after
  RUNTIME_UP the service repeats the orders of all open leases whose start it has not heard of (agents ignore what they
  know, and what they knew until its end was acknowledged), and repeats its stops. Lost acknowledgements make reports
  repeat.
* An order given after RUNTIME_UP reaches its agent, however often the agent dies meanwhile, or RUNTIME_DOWN follows.
  It is not told to the agent before the agent's INVENTORY was passed on. An INVENTORY that lacks a lease means: not
  begun there if its start was not reported, lost if it was.
* An agent that refuses an order (its disk is full) has the attempts reported LOST, without a cursor.
* A machine on Ray serves any lane: a move is done at once, and lasts as long as this service.
* A gang that cannot begin on all its nodes is reported LOST without a cursor, and nothing of it runs.
"""

from __future__ import annotations

import itertools
import logging
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from scheduler.model.errors import ExecutorError, NotFound
from scheduler.model.node import CardCut, Lane, Node
from scheduler.model.order import LeaseOrder, LogChunk, Report, ReportKind
from workers.messages import Begin, Connect, End, Line, LogRead, Message, NodeIds, ReadLog, Ready, Recorded, Recut, Told
from workers.ray_head import LOOPBACK, RayHead, clean_environ
from workers.remains import read_kept_log

_log = logging.getLogger(__name__)

WATCH_S = 0.2
READY_S = 90.0
"""A bridge that is not connected by then is killed and tried again."""
BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)
STEADY_S = 3.0
"""A connection that lasted this long ends the backoff: whatever ended it was not its start."""
LOG_BYTES = 4 * 1024 * 1024
"""The bridge's log is put aside when it has grown beyond this."""
LOG_S = 15.0
FAREWELL_S = 120.0
VISITED = "ray.visited"
"""In the home: address of the existing cluster on which our agents are."""


class RayExecutor:
    """See :class:`scheduler.control.ports.Executor`. Starts at once, in the background.

    ``address`` empty: an embedded cluster of ``nodes`` on this machine (this machine itself when there are none). Else
    an existing cluster, whose nodes are taken as they are but for those declared in ``nodes``.
    """

    def __init__(self, home: Path | str, *, address: str = "", nodes: Sequence[Node] = (), cpu_milli: int = 0) -> None:
        self._home = Path(home).resolve()
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._address = address
        self._nodes = tuple(nodes) if nodes or address else (this_machine(self._home, cpu_milli),)
        self._head = None if address else RayHead(self._home, self._nodes)
        self._news = threading.Condition()
        self._reports: deque[Report] = deque()
        self._woken = False
        self._facts: dict[str, Node] = {}
        """Of the nodes that were told."""
        self._lanes: dict[str, Lane] = {}
        """Of the nodes that were moved."""
        self._session: _Session | None = None
        self._up_at: float | None = None
        """When the present bridge connected."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="ray-supervisor", daemon=True)
        self._thread.start()

    # -- the port ------------------------------------------------------------------------------------------------

    def start(self, orders: Sequence[LeaseOrder]) -> None:
        """See the port. Orders given while the runtime is down are dropped: see the module's rules."""
        if orders:
            self._send(Begin(orders=tuple(orders)))

    def stop(self, lease_ids: Sequence[str], reason: str) -> None:
        """See the port."""
        if lease_ids:
            self._send(End(lease_ids=tuple(lease_ids), reason=reason))

    def acknowledge(self, cursors: Sequence[str]) -> None:
        """See the port."""
        if cursors:
            self._send(Recorded(cursors=tuple(cursors)))

    def move(self, lanes: Mapping[str, Lane]) -> None:
        """See the port."""
        with self._news:  # the bridge's reader writes these, too
            self._lanes |= lanes
            known = [(name, self._facts[name]) for name in sorted(lanes) if name in self._facts]
        at_ms = time.time_ns() // 1_000_000
        self._tell([Report(kind=ReportKind.NODE, at_ms=at_ms, node=name, facts=facts) for name, facts in known])

    def recut(self, cuts: Mapping[str, Sequence[CardCut]]) -> None:
        """See the port. Simulated cards are cut on paper, which lasts as long as this service; what has begun is not
        given up, because its node answers at once.
        """
        for node, asked in sorted(cuts.items()):
            if asked:
                self._send(Recut(node=node, cuts=tuple(asked)))

    def poll(self, timeout_ms: int) -> tuple[Report, ...]:
        """See the port. Never raises for what happens to Ray: that comes as RUNTIME_DOWN and RUNTIME_UP."""
        with self._news:
            self._news.wait_for(lambda: self._reports or self._woken, timeout_ms / 1_000)
            reports = tuple(self._reports)
            self._reports.clear()
            self._woken = False
            return reports

    def wake(self) -> None:
        """Make a blocked :meth:`poll` return."""
        with self._news:
            self._woken = True
            self._news.notify_all()

    def read_log(self, node: str, attempt_id: str, offset: int, limit: int, rank: int = 0) -> LogChunk:
        """See the port; embedded nodes' logs also while the runtime is down. Raises ExecutorError, NotFound."""
        session = self._session
        error = "the runtime is down"
        if session is not None:
            try:
                return session.read_log(node, attempt_id, offset, limit, rank)
            except ExecutorError as unanswered:
                error = str(unanswered)
            except NotFound:
                if self._head is None:
                    raise
                return read_kept_log(self._home, node, attempt_id, offset, limit, rank)
        if self._head is None:
            raise ExecutorError(error)
        return replace(read_kept_log(self._home, node, attempt_id, offset, limit, rank), end=False)

    def close(self) -> None:
        """Let go of the bridge; Ray and all that runs on it stay."""
        self._closing.set()
        self.wake()
        self._thread.join()

    # -- inside --------------------------------------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        session = self._session
        if session is None:
            _log.info("the runtime is down: %s is dropped", type(message).__name__)
            return
        try:
            session.line.send(message)
        except OSError:
            _log.info("the bridge is going down: %s is dropped", type(message).__name__)

    def _tell(self, reports: Sequence[Report]) -> None:
        with self._news:
            self._reports.extend(map(self._in_its_lane, reports))
            self._news.notify_all()

    def _in_its_lane(self, report: Report) -> Report:
        """The report of a node, with the lane it was moved to."""
        if report.facts is None:
            return report
        facts = replace(report.facts, lane=self._lanes.get(report.node, report.facts.lane))
        self._facts[report.node] = replace(facts, cuts=())
        self._nodes = tuple(  # the next bridge is told how cards are cut by now
            replace(node, devices=facts.devices) if node.name == report.node else node for node in self._nodes
        )
        return replace(report, facts=facts)

    def _supervise(self) -> None:
        failures = 0
        try:
            while not self._closing.is_set():
                self._up_at = None
                try:
                    self._run_once()
                except (ExecutorError, OSError) as error:
                    _log.warning("the runtime is down: %s", error)
                    self._tell([_report(ReportKind.RUNTIME_DOWN, str(error))])
                steady = self._up_at is not None and time.monotonic() - self._up_at > STEADY_S
                failures = 0 if steady else failures + 1
                self._closing.wait(BACKOFF_S[min(failures, len(BACKOFF_S)) - 1] if failures else 0)
        finally:
            if not self._closing.is_set():
                self._tell([_report(ReportKind.RUNTIME_DOWN, "its supervisor failed: restart the service")])

    def _run_once(self) -> None:
        """One bridge's life, from start to death. Raises ExecutorError with what ended it."""
        environ = self._head.environ() if self._head else visitor_environ()
        session = _Session(self._home, environ, tell=self._tell, ready=self._up)  # imports Ray while the head starts
        try:
            session.connect(self._connection())
            while not self._closing.wait(WATCH_S):
                session.check()
                if self._head is not None:
                    self._check_head(self._head, session)
        finally:
            session.end()
            self._session = None

    def _up(self, session: _Session) -> None:
        """From here on orders are delivered; the service hears of it after it is true."""
        self._session, self._up_at = session, time.monotonic()
        self._tell([_report(ReportKind.RUNTIME_UP)])

    def _connection(self) -> Connect:
        if self._head is None:
            (self._home / VISITED).write_text(self._address, encoding="utf-8")
            return Connect(address=self._address, embedded=False, nodes=self._nodes)
        if not self._head.adopt():
            self._head.start()
        return Connect(
            address=self._head.address,
            ip=LOOPBACK,
            nodes=self._nodes,
            node_ids=tuple(sorted(self._head.node_ids.items())),
        )

    @staticmethod
    def _check_head(head: RayHead, session: _Session) -> None:
        if not head.alive():
            raise ExecutorError("the Ray head died")
        missing = head.missing()
        if missing:
            _log.warning("starting Ray again on %s", ", ".join(missing))
            head.revive(missing)
            session.line.send(NodeIds(node_ids=tuple(sorted(head.node_ids.items()))))


class _Session:
    """One bridge process and the line to it."""

    def __init__(
        self,
        home: Path,
        environ: dict[str, str],
        *,
        tell: Callable[[Sequence[Report]], None],
        ready: Callable[[_Session], None],
    ) -> None:
        ours, theirs = socket.socketpair()
        log = home / "logs" / "bridge.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        command = [sys.executable, "-P", "-m", "workers.ray_bridge", "--home", str(home), "--fd", str(theirs.fileno())]
        with theirs, log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                env=environ | {"SHISUAN_HOME": str(home)},
                start_new_session=True,
            )
        self.line = Line(ours)
        self._tell, self._on_ready = tell, ready
        self._ready = threading.Event()
        self._numbers = itertools.count(1)
        self._asked: dict[int, Future[LogRead]] = {}
        self._reader = threading.Thread(target=self._read, name="bridge-reader", daemon=True)
        self._reader.start()

    def connect(self, where: Connect) -> None:
        """Wait until it is connected to Ray. Raises ExecutorError or OSError."""
        self.line.send(where)
        until = time.monotonic() + READY_S
        while not self._ready.wait(WATCH_S):
            self.check()
            if time.monotonic() > until:
                raise ExecutorError(f"no connection to Ray at {where.address} within {READY_S:.0f} s")

    def check(self) -> None:
        """Raises ExecutorError when the bridge is dead."""
        code = self._process.poll()
        if code is not None or not self._reader.is_alive():
            raise ExecutorError(f"the bridge to Ray ended (exit code {code})")

    def read_log(self, node: str, attempt_id: str, offset: int, limit: int, rank: int = 0) -> LogChunk:
        """Raises NotFound, or ExecutorError when there is no answer."""
        number, answer = next(self._numbers), Future[LogRead]()
        self._asked[number] = answer
        try:
            self.line.send(
                ReadLog(number=number, node=node, attempt_id=attempt_id, offset=offset, limit=limit, rank=rank)
            )
            read = answer.result(LOG_S)
        except (OSError, FutureTimeout) as error:
            raise ExecutorError(f"node {node} does not answer: {error!r}") from None
        finally:
            self._asked.pop(number, None)
        if read.chunk is None:
            raise NotFound(read.error)
        return read.chunk

    def end(self) -> None:
        """Kill it and wait until nothing more can come from it."""
        self.line.close()
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        for message in self.line.receive():
            match message:
                case Told(reports=reports):
                    self._tell(reports)
                case LogRead(number=number):
                    if number in self._asked:
                        self._asked[number].set_result(message)
                case Ready():
                    self._on_ready(self)
                    self._ready.set()


def this_machine(home: Path, cpu_milli: int = 0) -> Node:
    """The one node of an embedded cluster that declares none; ``cpu_milli`` offered to jobs, 0: all."""
    from workers.facts import local_node

    node = local_node(platform.node() or "local", home=home)
    return replace(node, cpu_milli=cpu_milli) if cpu_milli else node


def visitor_environ() -> dict[str, str]:
    """For talking to somebody else's cluster: Ray's own settings (its token among them) are the user's."""
    return clean_environ() | {name: value for name, value in os.environ.items() if name.startswith("RAY_")}


def shutdown(home: Path | str) -> bool:
    """End all that runs for this home: its embedded Ray with its files, or its agents on an existing cluster.

    Returns whether anything ran. Raises ExecutorError when an existing cluster does not answer.
    """
    home = Path(home).resolve()
    visited = home / VISITED
    left = visited.exists()
    if left:
        _leave(home, visited.read_text(encoding="utf-8"))
        visited.unlink()
    return RayHead(home).remove() or left


def _leave(home: Path, address: str) -> None:
    command = [sys.executable, "-P", "-m", "workers.ray_bridge", "--home", str(home), "--leave", address]
    try:
        done = subprocess.run(
            command, env=visitor_environ(), cwd=home, timeout=FAREWELL_S, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise ExecutorError(f"Ray at {address} does not answer; agents of {home} may still run there") from None
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or ["no reason was given"]
        raise ExecutorError(f"agents of {home} may still run on Ray at {address}: {words[-1]}")


def _report(kind: ReportKind, message: str = "") -> Report:
    return Report(kind=kind, at_ms=time.time_ns() // 1_000_000, message=message)
