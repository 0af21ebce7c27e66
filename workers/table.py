"""The agent's attempt table: what it accepted, started and finished, on disk, until the control plane has recorded it.

One file of lines ``crc32 json``. A line with a wrong checksum (the torn tail after a power cut) is passed over. Lines
reach the kernel when they are appended, so they outlive the agent's death; :meth:`Table.sync` makes them outlive the
machine's, once per batch. The file is rewritten without what was acknowledged when it is opened and when it has grown.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scheduler.model import codec
from scheduler.model.order import LeaseOrder, Report, ReportKind, TaskOrder

_log = logging.getLogger(__name__)

LeaseKey = tuple[str, int]
"""Lease id and rank: two ranks of a gang may lie on one node."""

KEPT_TOMBSTONES = 4_096
"""Acknowledged leases remembered, so that a late repeat of their order does not run them again."""
COMPACT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The process of an attempt: pid, and its start in clock ticks after boot, which tells it from a later namesake."""

    pid: int
    start_ticks: int


@dataclass(slots=True, kw_only=True)
class OpenLease:
    """A lease with at least one attempt that is unfinished or whose end is not acknowledged."""

    order: LeaseOrder
    line: bytes
    started: dict[str, Started] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)
    """Attempts whose end was acknowledged."""

    def unfinished(self) -> Iterator[TaskOrder]:
        """Attempts that have no end yet, in order."""
        return (task for task in self.order.tasks if task.attempt_id not in self.finished)


class Table:
    """Thread-safe. Raises OSError when the disk refuses."""

    def __init__(self, path: Path, *, compact_bytes: int = COMPACT_BYTES, reads_only: bool = False) -> None:
        """``reads_only``: the table as it is now, beside the agent that writes it."""
        self._path = path
        self._compact_bytes = compact_bytes
        self._lock = threading.RLock()
        self._sync_lock = threading.Lock()
        self._written = self._synced = 0
        self._generation = secrets.token_hex(4)
        self._next = 1
        self._torn = False
        """The last append failed half way (disk full): the next one begins on a line of its own."""
        self._gone: dict[tuple[str, int, int], None] = {}
        """Acknowledged leases: id, rank, and when the job was submitted."""
        self.boot_id = ""
        """Boot in which the recorded pids lived; empty in a new table."""
        self.leases: dict[LeaseKey, OpenLease] = {}
        self.reports: dict[int, Report] = {}
        """Unacknowledged reports by number, oldest first."""
        if path.exists():
            self._replay(path.read_bytes())
        self._fd = -1
        if not reads_only:
            self._compact()

    # -- writing -------------------------------------------------------------------------------------------------

    def accept(self, orders: Sequence[LeaseOrder]) -> tuple[LeaseOrder, ...]:
        """Record the orders that are new; returns those. Call :meth:`sync` before telling anyone."""
        with self._lock:
            fresh: list[LeaseOrder] = []
            for order in orders:
                key = (order.lease_id, order.rank)
                if key in self.leases or (*key, order.submitted_ms) in self._gone:
                    continue
                line = _line({"k": "accept", "order": codec.encode(order)})
                self.leases[key] = OpenLease(order=order, line=line)
                self._append(line)
                fresh.append(order)
            return tuple(fresh)

    def start(self, key: LeaseKey, started: Started, report: Report) -> Report:
        """Record a running process; returns the report with its cursor."""
        with self._lock:
            report = self._number(report)
            self._append(_line(self._started_value(key, report, started)))
            self.leases[key].started[report.attempt_id] = started
            return report

    def finish(self, key: LeaseKey, report: Report) -> Report:
        """Record an attempt's end; returns the report with its cursor."""
        with self._lock:
            report = self._number(report)
            self._append(_line({"k": "finish", "report": codec.encode(report)}))
            self.leases[key].finished.add(report.attempt_id)
            return report

    def acknowledge(self, cursors: Iterable[str]) -> None:
        """Forget these reports. Losing this line only means that they are offered again."""
        with self._lock:
            numbers = [n for n in dict.fromkeys(map(self.number_of, cursors)) if n in self.reports]
            if not numbers:
                return
            self._append(_line({"k": "ack", "n": numbers}))
            for number in numbers:
                self._settle(number)
            if self._written > self._compact_bytes:
                self._compact()

    def sync(self) -> None:
        """Everything appended so far survives a power cut. Callers that wait together share one fdatasync."""
        target = self._written
        with self._sync_lock:
            if self._synced >= target:
                return
            reached = self._written
            os.fdatasync(self._fd)
            self._synced = reached

    def close(self) -> None:
        """Make all durable and let go of the file."""
        self.sync()
        with self._lock, self._sync_lock:
            os.close(self._fd)
            self._fd = -1

    # -- reading -------------------------------------------------------------------------------------------------

    def number_of(self, cursor: str) -> int:
        """The report's number, or 0 when the cursor is empty or of another table."""
        generation, _, number = cursor.partition("-")
        return int(number) if generation == self._generation and number.isdigit() else 0

    def after(self, cursor: str, limit: int) -> tuple[Report, ...]:
        """Unacknowledged reports later than ``cursor``, oldest first."""
        with self._lock:
            last = self.number_of(cursor)
            found: list[Report] = []
            for number, report in self.reports.items():
                if number > last:
                    found.append(report)
                    if len(found) == limit:
                        break
            return tuple(found)

    def lease_ids(self) -> tuple[str, ...]:
        """Leases that run or whose end is not acknowledged, sorted."""
        with self._lock:
            return tuple(sorted({lease_id for lease_id, _ in self.leases}))

    def ranks_of(self, attempt_id: str) -> dict[int, bool]:
        """Ranks of this attempt that are here, and whether each is still open."""
        with self._lock:
            return {
                rank: attempt_id not in lease.finished
                for (_, rank), lease in self.leases.items()
                if any(task.attempt_id == attempt_id for task in lease.order.tasks)
            }

    # -- inside --------------------------------------------------------------------------------------------------

    def _number(self, report: Report) -> Report:
        numbered = replace(report, cursor=f"{self._generation}-{self._next}")
        self.reports[self._next] = numbered
        self._next += 1
        return numbered

    def _settle(self, number: int) -> None:
        report = self.reports.pop(number)
        key = (report.lease_id, report.rank)
        lease = self.leases.get(key)
        if lease is None or report.kind is not ReportKind.FINISHED:
            return
        lease.settled.add(report.attempt_id)
        if len(lease.settled) == len(lease.order.tasks):
            del self.leases[key]
            self._gone[(*key, lease.order.submitted_ms)] = None
            while len(self._gone) > KEPT_TOMBSTONES:
                del self._gone[next(iter(self._gone))]

    @staticmethod
    def _started_value(key: LeaseKey, report: Report, started: Started) -> dict[str, Any]:
        return {"k": "start", "pid": started.pid, "ticks": started.start_ticks, "report": codec.encode(report)}

    def _append(self, line: bytes) -> None:
        if self._torn:
            line = b"\n" + line
        self._torn = True
        _write_all(self._fd, line)
        self._torn = False
        self._written += len(line)

    def _replay(self, data: bytes) -> None:
        for raw in data.split(b"\n"):
            if not raw:
                continue
            value = _value(raw)
            if value is None:
                _log.warning("attempt table %s: passed over a damaged line of %d bytes", self._path, len(raw))
                continue
            self._replay_one(value, raw + b"\n")

    def _replay_one(self, value: dict[str, Any], line: bytes) -> None:
        match value["k"]:
            case "head":
                self._generation, self._next, self.boot_id = value["generation"], value["next"], value["boot"]
                self._gone = dict.fromkeys(map(tuple, value["gone"]))
            case "accept":
                order = codec.decode(LeaseOrder, value["order"])
                self.leases[(order.lease_id, order.rank)] = OpenLease(order=order, line=line)
            case "start" | "finish":
                self._replay_report(value)
            case "settled":
                self.leases[(value["lease"], value["rank"])].settled.update(value["attempts"])
                self.leases[(value["lease"], value["rank"])].finished.update(value["attempts"])
            case "ack":
                for number in value["n"]:
                    if number in self.reports:
                        self._settle(number)

    def _replay_report(self, value: dict[str, Any]) -> None:
        report = codec.decode(Report, value["report"])
        number = self.number_of(report.cursor)
        lease = self.leases.get((report.lease_id, report.rank))
        if lease is None or number == 0:
            return
        self._next = max(self._next, number + 1)
        if not value.get("acked"):
            self.reports[number] = report
        if value["k"] == "start":
            lease.started[report.attempt_id] = Started(pid=value["pid"], start_ticks=value["ticks"])
        else:
            lease.finished.add(report.attempt_id)

    def _compact(self) -> None:
        """Write what is still open into a new file and put it in place of the old one."""
        with self._sync_lock:
            fresh = self._path.with_suffix(".new")
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            data = b"".join(self._lines())
            _write_all(fd, data)
            os.fsync(fd)
            os.replace(fresh, self._path)
            _sync_folder(self._path.parent)
            if self._fd >= 0:
                os.close(self._fd)
            self._fd, self._written, self._synced = fd, len(data), len(data)

    def _lines(self) -> Iterator[bytes]:
        gone = [list(key) for key in self._gone]
        head = {"k": "head", "generation": self._generation, "next": self._next, "boot": boot_id(), "gone": gone}
        yield _line(head)
        for (lease_id, rank), lease in self.leases.items():
            yield lease.line
            if lease.settled:
                yield _line({"k": "settled", "lease": lease_id, "rank": rank, "attempts": sorted(lease.settled)})
            for attempt_id, started in lease.started.items():
                if attempt_id not in lease.finished:
                    yield self._bare_start(lease_id, rank, attempt_id, started)
        for report in self.reports.values():
            key = (report.lease_id, report.rank)
            if report.kind is ReportKind.FINISHED:
                yield _line({"k": "finish", "report": codec.encode(report)})
            elif key in self.leases:
                started = self.leases[key].started[report.attempt_id]
                yield _line(self._started_value(key, report, started))

    def _bare_start(self, lease_id: str, rank: int, attempt_id: str, started: Started) -> bytes:
        """A start whose report was acknowledged already: only the pid still matters."""
        report = Report(
            kind=ReportKind.STARTED,
            lease_id=lease_id,
            rank=rank,
            attempt_id=attempt_id,
            cursor=f"{self._generation}-{self._next - 1}",
        )
        return _line({**self._started_value((lease_id, rank), report, started), "acked": True})


def boot_id() -> str:
    """The kernel's id of this boot: recorded pids mean nothing after a reboot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _line(value: dict[str, Any]) -> bytes:
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _value(raw: bytes) -> dict[str, Any] | None:
    checksum, _, body = raw.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    value: dict[str, Any] = json.loads(body)
    return value


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
