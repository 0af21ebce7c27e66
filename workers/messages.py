"""What the service and the bridge say to each other: one JSON value a line, by the model's codec.

On one machine the line is a socket pair, made by the service and inherited by the bridge: there is no path to go stale
and nobody else can join, and when either process dies the other reads an end of file. From a cluster of its own a
bridge dials the service (``gateway.py``, ``dial.py``): such a line begins with :class:`Hello` and :class:`Welcome`,
and both sides send a :class:`Beat` every few seconds, because a network may swallow an end of file.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from scheduler.model import codec
from scheduler.model.node import CardCut, Node
from scheduler.model.order import LeaseOrder, LogChunk, Report

PROTOCOL = 1
"""Changes when an older peer would misunderstand; both sides refuse another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """First line of a bridge that dials."""

    cluster: str
    """Which cluster object it stands for."""
    token: str = field(repr=False)
    """Shows that it does; never logged."""
    epoch_seen: int = 0
    """The highest epoch it ever obeyed."""
    version: int = PROTOCOL


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """Answer to a :class:`Hello` that was admitted."""

    epoch: int
    """Of the service. A bridge that obeyed a higher one hangs up."""
    beat_ms: int
    """How often both sides send a :class:`Beat`."""
    silent_ms: int
    """A line on which nothing came for so long is dead."""
    nodes: tuple[Node, ...] = ()
    """Declared facts, as in :class:`Connect`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Answer to a :class:`Hello` that was not admitted."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """I am here. A bridge sends one for each that it gets, so that it shows that it is not stuck itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """First line to the bridge: where Ray is."""

    address: str
    cluster: str = ""
    """Not empty: each Ray node labelled so is a pod with a home folder of its own, and the service is elsewhere."""
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
class Recut:
    """``Executor.recut``, of one node."""

    node: str
    cuts: tuple[CardCut, ...]


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


Message = (
    Hello
    | Welcome
    | Refused
    | Beat
    | Connect
    | NodeIds
    | Begin
    | End
    | Recut
    | Recorded
    | ReadLog
    | Ready
    | Told
    | LogRead
)


def pack(message: Message) -> bytes:
    """The line, with its end."""
    text = json.dumps(codec.encode(message, tagged=True), separators=(",", ":"), ensure_ascii=False)
    return text.encode() + b"\n"


def unpack(line: bytes) -> Message:
    """Raises ValueError or TypeError for a line that is no message."""
    message: Message = codec.decode(Message, json.loads(line))
    return message


def is_a(kind: type, line: bytes) -> bool:
    """Whether :func:`pack` made this line of a message of this class; for those who only pass lines on."""
    return line.startswith(b'{"is":"%b"' % kind.__name__.encode())


class Line:
    """One end of the pair. Any thread may send; one thread receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Raises OSError when the other side is gone."""
        data = pack(message)
        with self._lock:
            self._socket.sendall(data)

    def receive(self) -> Iterator[Message]:
        """Messages until the other side closes or dies. Raises ValueError for a line that is none."""
        rest = b""
        while data := self._read():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield unpack(line)

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
