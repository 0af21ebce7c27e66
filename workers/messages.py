"""What the service and the bridge say to each other: one JSON value a line over a socket pair, by the model's codec.

The pair is made by the service and inherited by the bridge: there is no path to go stale and nobody else can join, and
when either process dies the other reads an end of file.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from scheduler.model import codec
from scheduler.model.node import Node
from scheduler.model.order import LeaseOrder, LogChunk, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """First line to the bridge: where Ray is."""

    address: str
    embedded: bool = True
    """All nodes are on this machine and are the ones named in ``nodes``."""
    ip: str = ""
    nodes: tuple[Node, ...] = ()
    """Declared facts; a node without gets them from its own machine."""
    node_ids: tuple[tuple[str, str], ...] = ()
    """Node name and Ray's id of it, for embedded nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIds:
    """Embedded nodes were started again."""

    node_ids: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """``Executor.start``."""

    orders: tuple[LeaseOrder, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """``Executor.stop``."""

    lease_ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """``Executor.acknowledge``."""

    cursors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLog:
    """``Executor.read_log``; answered by a :class:`LogRead` of the same number."""

    number: int
    node: str
    attempt_id: str
    offset: int
    limit: int
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The bridge is connected to Ray; what it says from now on is new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Reports, in order."""

    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRead:
    """Answer to :class:`ReadLog`: a part, or why there is none."""

    number: int
    chunk: LogChunk | None = None
    error: str = ""


Message = Connect | NodeIds | Begin | End | Recorded | ReadLog | Ready | Told | LogRead


class Line:
    """One end of the pair. Any thread may send; one thread receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Raises OSError when the other side is gone."""
        data = json.dumps(codec.encode(message, tagged=True), separators=(",", ":"), ensure_ascii=False)
        with self._lock:
            self._socket.sendall(data.encode() + b"\n")

    def receive(self) -> Iterator[Message]:
        """Messages until the other side closes or dies. Raises ValueError for a line that is none."""
        rest = b""
        while data := self._read():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield codec.decode(Message, json.loads(line))

    def close(self) -> None:
        """Both directions; a blocked :meth:`receive` ends."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the other side was quicker
        finally:
            self._socket.close()

    def _read(self) -> bytes:
        try:
            return self._socket.recv(1 << 18)
        except OSError:
            return b""
