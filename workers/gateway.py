"""The service's end of the lines from bridges in clusters of their own, which dial home. Imports no Ray.

Per cluster the rules of :mod:`workers.runtime` hold, told through ``tell``: RUNTIME_UP, then per agent its
unacknowledged reports and its INVENTORY; RUNTIME_DOWN when the line is lost. A cluster has one line: a bridge that
dials again replaces its own earlier one, whose end the network may have swallowed.

Whoever reaches the port may say anything. Until ``admit`` let it in it has one short line and a few seconds, and the
one that waits longest goes when too many wait; after that its lines are bounded and held to their types.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

from scheduler.model.errors import ExecutorError, NotFound, ShisuanError
from scheduler.model.node import Node
from scheduler.model.order import LeaseOrder, LogChunk, Report, ReportKind
from workers.messages import (
    PROTOCOL,
    Beat,
    Begin,
    End,
    Hello,
    LogRead,
    Message,
    ReadLog,
    Ready,
    Recorded,
    Refused,
    Told,
    Welcome,
    pack,
)
from workers.wire import HELLO_BYTES, LINE_BYTES, Wire, heard

_log = logging.getLogger(__name__)

BEAT_MS = 2_000
SILENT_MS = 8_000
"""A leader that was paused is found out by its bridges within this, and they dial the next one."""
HELLO_S = 5.0
"""For everything up to the first line, a TLS handshake included."""
WAITING_LIMIT = 256
"""Connections that are not admitted yet; all clusters dial a new leader at the same moment."""
LINES_LIMIT = 4_096
DOOR_THREADS = 4
LOG_S = 15.0
PAUSE_S = 0.2
"""Before accepting again when this process has no descriptors left."""
FAREWELL_S = 1.0
NAME_CHARS = 253
"""Longest name of a Kubernetes object."""


class Gateway:
    """Listens at once. All methods may be called from any thread.

    ``tell`` gets a cluster's name and its reports in order, ``admit`` says why a bridge may not come in, or nothing: it
    checks the token first and then that our epoch still stands. It runs in a thread of its own and may take a moment;
    ``tell`` runs in the gateway's and must return at once. ``nodes`` are declared facts, for nodes that are not to be
    asked. Raises OSError when the port cannot be had.
    """

    def __init__(
        self,
        *,
        epoch: int,
        tell: Callable[[str, Sequence[Report]], None],
        admit: Callable[[Hello], str],
        host: str = "",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        nodes: Sequence[Node] = (),
        beat_ms: int = BEAT_MS,
        silent_ms: int = SILENT_MS,
        waiting_limit: int = WAITING_LIMIT,
        lines_limit: int = LINES_LIMIT,
        hello_s: float = HELLO_S,
    ) -> None:
        self._tell, self._admit, self._tls = tell, admit, tls
        self._welcome = Welcome(epoch=epoch, beat_ms=beat_ms, silent_ms=silent_ms, nodes=tuple(nodes))
        self._waiting_limit, self._lines_limit, self._hello_s = waiting_limit, lines_limit, hello_s
        self._lock = threading.Lock()
        self._bridges: dict[str, _Bridge] = {}
        self._waiting: dict[asyncio.Task[None], None] = {}
        """Connections that are not admitted, the oldest first."""
        self._closed = False
        self._door = ThreadPoolExecutor(DOOR_THREADS, thread_name_prefix="admit")
        self._listening = _listen(host, port)
        self.port: int = self._listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._drive, name="gateway", daemon=True)
        self._thread.start()

    # -- any thread ----------------------------------------------------------------------------------------------

    def start(self, cluster: str, orders: Sequence[LeaseOrder]) -> bool:
        """Send orders to the bridge of that cluster; False: it is not connected and nothing was sent.

        After True they reach their agents, or RUNTIME_DOWN follows.
        """
        return self._send(cluster, Begin(orders=tuple(orders)))

    def stop(self, cluster: str, lease_ids: Sequence[str], reason: str) -> bool:
        """As :meth:`start`, for stops."""
        return self._send(cluster, End(lease_ids=tuple(lease_ids), reason=reason))

    def acknowledge(self, cluster: str, cursors: Sequence[str]) -> bool:
        """As :meth:`start`, for reports that are recorded."""
        return self._send(cluster, Recorded(cursors=tuple(cursors)))

    def read_log(  # noqa: PLR0917 (as the Executor port has them)
        self, cluster: str, node: str, attempt_id: str, offset: int, limit: int, rank: int = 0
    ) -> LogChunk:
        """Part of an attempt's log. Raises NotFound, or ExecutorError when there is no answer."""
        bridge = self._bridge(cluster)
        if bridge is None:
            raise ExecutorError(f"cluster {cluster} is not connected")
        number, answer = next(bridge.numbers), Future[LogRead]()
        asked = ReadLog(number=number, node=node, attempt_id=attempt_id, offset=offset, limit=limit, rank=rank)
        bridge.asked[number] = answer
        try:
            if not (bridge.ready and self._in_loop(bridge.send, pack(asked))):  # looked at after it was entered
                raise ExecutorError(f"cluster {cluster} is not connected")
            read = answer.result(LOG_S)
        except FutureTimeout:
            raise ExecutorError(f"cluster {cluster} does not answer within {LOG_S:.0f} s") from None
        finally:
            bridge.asked.pop(number, None)
        if read.chunk is None:
            raise NotFound(read.error)
        return read.chunk

    def clusters(self) -> tuple[str, ...]:
        """Those whose bridge is connected now."""
        with self._lock:
            return tuple(sorted(name for name, bridge in self._bridges.items() if bridge.ready))

    def drop(self, cluster: str) -> None:
        """The cluster is gone: hang up and say no more of it. ``admit`` decides whether it may come back."""
        with self._lock:
            bridge = self._bridges.pop(cluster, None)
        if bridge is not None:
            bridge.ready = False
            self._in_loop(bridge.end, "the cluster is gone")

    def close(self) -> None:
        """Hang up on all; after this nothing more is told. What the clusters run goes on."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    # -- inside, any thread --------------------------------------------------------------------------------------

    def _send(self, cluster: str, message: Message) -> bool:
        bridge = self._bridge(cluster)
        return bridge is not None and self._in_loop(bridge.send, pack(message))

    def _bridge(self, cluster: str) -> _Bridge | None:
        with self._lock:
            bridge = self._bridges.get(cluster)
        return bridge if bridge is not None and bridge.ready else None

    def _in_loop(self, call: Callable[..., object], *args: object) -> bool:
        """Calls come in the order in which they were asked for."""
        with self._lock:
            if self._closed:
                return False
            self._loop.call_soon_threadsafe(call, *args)
            return True

    # -- inside, the loop ----------------------------------------------------------------------------------------

    def _drive(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._spawn(self._accept())
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._door.shutdown(wait=False, cancel_futures=True)  # a database that hangs is not waited for
            self._loop.close()
            self._listening.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        task.add_done_callback(_complain)
        return task

    async def _accept(self) -> None:
        while True:
            try:
                end, peer = await self._loop.sock_accept(self._listening)
            except OSError as error:  # no descriptors left, or the caller hung up while it waited
                _log.warning("the gateway cannot accept: %s", error)
                await asyncio.sleep(PAUSE_S)
                continue
            while len(self._waiting) >= self._waiting_limit:
                longest = next(iter(self._waiting))
                del self._waiting[longest]
                longest.cancel()
            self._waiting[self._spawn(self._meet(end, str(peer[0])))] = None
            await asyncio.sleep(0)  # callers that come without a pause do not keep the others waiting

    async def _meet(self, end: socket.socket, peer: str) -> None:
        """One connection from its first byte to its last."""
        task, wire = asyncio.current_task(), None
        assert task is not None
        try:
            async with asyncio.timeout(self._hello_s):
                wire = await self._open(end)
                hello = await _hello(wire)
            refusal = await self._refusal(hello)
            if refusal:
                _log.warning("bridge of %r at %s is refused: %s", hello.cluster, peer, refusal)
                wire.tell(Refused(reason=refusal))
                await wire.finish(FAREWELL_S)
                return
            self._waiting.pop(task, None)
            await self._serve(hello.cluster, wire, peer)
        except (OSError, ValueError) as error:
            _log.info("somebody at %s came no further: %s", peer, str(error) or type(error).__name__)
        finally:
            self._waiting.pop(task, None)
            if wire is not None:
                wire.abort()

    async def _open(self, end: socket.socket) -> Wire:
        """From here on the socket is the transport's to close."""
        reader = asyncio.StreamReader(loop=self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, end, ssl=self._tls)
        return Wire(reader, asyncio.StreamWriter(transport, protocol, reader, self._loop), limit_bytes=HELLO_BYTES)

    async def _refusal(self, hello: Hello) -> str:
        if hello.version != PROTOCOL:
            return f"this service speaks protocol {PROTOCOL}, the bridge {hello.version}: use the same release"
        if hello.epoch_seen > self._welcome.epoch:
            return f"epoch {self._welcome.epoch} of this service is over: the bridge obeyed {hello.epoch_seen}"
        with self._lock:
            if hello.cluster not in self._bridges and len(self._bridges) >= self._lines_limit:
                return f"{self._lines_limit} clusters are connected, which is the limit"
        try:
            return await self._loop.run_in_executor(self._door, self._admit, hello)
        except ShisuanError as error:
            return f"this service cannot tell now whether to admit: {error}"

    async def _serve(self, cluster: str, wire: Wire, peer: str) -> None:
        wire.limit_bytes = LINE_BYTES
        wire.tell(self._welcome)
        bridge, reason = _Bridge(cluster, wire), "the service failed"
        self._replace(bridge)
        _log.info("the bridge of %s dialled from %s", cluster, peer)
        beats = self._spawn(self._beat(bridge))
        try:
            while True:
                self._hear(bridge, heard(await wire.line(self._welcome.silent_ms / 1_000)))
        except TimeoutError:
            reason = f"nothing came from it for {self._welcome.silent_ms} ms"
        except (OSError, ValueError) as error:
            reason = bridge.ended or str(error)
        finally:
            beats.cancel()
            self._lost(bridge, reason)

    def _replace(self, bridge: _Bridge) -> None:
        with self._lock:
            earlier = self._bridges.get(bridge.cluster)
        if earlier is not None:
            self._lost(earlier, "its bridge dialled again")
            earlier.end("its bridge dialled again")
        with self._lock:
            self._bridges[bridge.cluster] = bridge

    def _hear(self, bridge: _Bridge, message: Message) -> None:
        match message:
            case Told(reports=reports) if bridge.ready:
                self._pass_on(bridge, reports)
            case LogRead(number=number):
                answer = bridge.asked.pop(number, None)
                if answer is not None:
                    answer.set_result(message)
            case Ready() if not bridge.ready:
                with self._lock:
                    bridge.ready = self._bridges.get(bridge.cluster) is bridge  # from here on orders are delivered
                self._pass_on(bridge, [_report(ReportKind.RUNTIME_UP)])
            case Beat():
                """It came: that is all it says."""
            case _:
                raise ValueError(f"a bridge does not say {type(message).__name__} here")

    def _pass_on(self, bridge: _Bridge, reports: Sequence[Report]) -> None:
        """Nothing is told of a cluster that was dropped, or after close."""
        with self._lock:
            wanted = not self._closed and self._bridges.get(bridge.cluster) is bridge
        if wanted and reports:
            self._tell(bridge.cluster, reports)

    def _lost(self, bridge: _Bridge, reason: str) -> None:
        was_ready, bridge.ready = bridge.ready, False
        with self._lock:
            wanted = not self._closed and self._bridges.get(bridge.cluster) is bridge
            if wanted:
                del self._bridges[bridge.cluster]
        for number in list(bridge.asked):
            answer = bridge.asked.pop(number, None)
            if answer is not None:
                answer.set_exception(ExecutorError(f"cluster {bridge.cluster}: {reason}"))
        if wanted and was_ready:
            _log.warning("the bridge of %s is lost: %s", bridge.cluster, reason)
            self._tell(bridge.cluster, [_report(ReportKind.RUNTIME_DOWN, f"cluster {bridge.cluster}: {reason}")])

    async def _beat(self, bridge: _Bridge) -> None:
        while not bridge.ended:
            bridge.send(pack(Beat()))
            await asyncio.sleep(self._welcome.beat_ms / 1_000)


class _Bridge:
    """A line that was admitted. Written by the loop; other threads read ``ready`` and enter what they ask."""

    def __init__(self, cluster: str, wire: Wire) -> None:
        self.cluster, self.wire = cluster, wire
        self.ready = False
        """It said that it is connected to Ray, and RUNTIME_DOWN was not told since."""
        self.ended = ""
        """Why we hung up."""
        self.numbers = itertools.count(1)
        self.asked: dict[int, Future[LogRead]] = {}

    def send(self, line: bytes) -> None:
        """Queue it; a line that is broken is noticed by the one who reads."""
        try:
            self.wire.send(line)
        except OSError as error:
            self.end(str(error))

    def end(self, reason: str) -> None:
        """Hang up."""
        self.ended = self.ended or reason
        self.wire.abort()


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """What the gateway shows to bridges that dial with ``--ca``. Raises OSError for files it cannot use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


async def _hello(wire: Wire) -> Hello:
    """Raises OSError or ValueError."""
    hello = heard(await wire.line())
    if not isinstance(hello, Hello) or not 0 < len(hello.cluster) <= NAME_CHARS:
        raise ValueError("it does not begin with a Hello that names a cluster")
    return hello


def _listen(host: str, port: int) -> socket.socket:
    """Without a host: every address of this machine, of both kinds where it has both."""
    if not host and socket.has_dualstack_ipv6():
        listening = socket.create_server(("", port), family=socket.AF_INET6, backlog=128, dualstack_ipv6=True)
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=128)
    listening.setblocking(False)
    return listening


def _complain(task: asyncio.Task[None]) -> None:
    """A line that fails over a fault of ours is closed, the others go on."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a line of the gateway failed", exc_info=error)


def _report(kind: ReportKind, message: str = "") -> Report:
    return Report(kind=kind, at_ms=time.time_ns() // 1_000_000, message=message)
