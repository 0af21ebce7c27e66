"""What tests of the Executor port share: orders, and a reader of reports with a deadline."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from scheduler.model.node import Node
from scheduler.model.order import LeaseOrder, Report, ReportKind, TaskOrder

DEADLINE_S = 60.0
NODES = (Node(name="alpha", cpu_milli=2_000, memory_mib=2_048), Node(name="beta", cpu_milli=2_000, memory_mib=2_048))


def task(attempt_id: str, *argv: str, **fields) -> TaskOrder:
    number = int(attempt_id.rpartition("a")[2])
    return TaskOrder(attempt_id=attempt_id, number=number, argv=argv, grace_ms=2_000, **fields)


def lease(number: int, *argv: str, node: str = "alpha", tenant: str = "t1", **fields) -> LeaseOrder:
    """A lease of one task of the same number."""
    return LeaseOrder(
        lease_id=f"l{number}", tenant=tenant, node=node, tasks=(task(f"j{number}.run.0.a1", *argv),), **fields
    )


def gang(number: int, *argvs: Sequence[str], nodes: Iterable[str] = ("alpha", "beta")) -> list[LeaseOrder]:
    """A rank per node, each with its own command."""
    places = list(nodes)
    commands = list(argvs) * (len(places) // len(argvs))
    return [
        lease(number, *command, node=node, rank=rank, ranks=len(places))
        for rank, (node, command) in enumerate(zip(places, commands, strict=True))
    ]


class Reader:
    """Collects what an executor reports. ``executor`` may be replaced."""

    def __init__(self, executor) -> None:
        self.executor = executor
        self.heard: list[Report] = []
        """In order, up to the last one that was waited for."""
        self._unread: deque[Report] = deque()

    def until(self, done: Callable[[Report], bool], *, deadline_s: float = DEADLINE_S) -> Report:
        """The first report from now on that fits. Raises AssertionError at the deadline."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            self._unread += self.executor.poll(0 if self._unread else 1_000)
            while self._unread:
                report = self._unread.popleft()
                self.heard.append(report)
                if done(report):
                    return report
        raise AssertionError(f"not reported within {deadline_s:.0f} s; heard {[short(r) for r in self.heard[-30:]]}")

    def end_of(self, lease_id: str, *, deadline_s: float = DEADLINE_S) -> Report:
        return self.until(lambda r: r.kind is ReportKind.FINISHED and r.lease_id == lease_id, deadline_s=deadline_s)

    def start_of(self, lease_id: str) -> Report:
        return self.until(lambda r: r.kind is ReportKind.STARTED and r.lease_id == lease_id)

    def kind(self, kind: ReportKind, node: str = "") -> Report:
        return self.until(lambda r: r.kind is kind and node in ("", r.node))

    def inventories(self, nodes: set[str]) -> list[Report]:
        """One of each node; they come in any order."""
        found: dict[str, Report] = {}
        while found.keys() != nodes:
            report = self.until(lambda r: r.kind is ReportKind.INVENTORY and r.node in nodes - found.keys())
            found[report.node] = report
        return list(found.values())

    def of(self, lease_id: str, kind: ReportKind) -> list[Report]:
        """All that was heard of a lease, without repetitions."""
        return list(dict.fromkeys(r for r in self.heard if r.lease_id == lease_id and r.kind is kind))

    def acknowledge_all(self) -> None:
        self.executor.acknowledge([r.cursor for r in self.heard if r.cursor])


def short(report: Report) -> str:
    return f"{report.kind.value} {report.node} {report.lease_id} {report.state or ''} {report.message}".strip()
