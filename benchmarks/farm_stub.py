"""A farm without machines: an Executor that answers at once, a clock that may run fast, and the jobs of a studio.

The stub keeps what agents keep: leases, and every report until it is acknowledged, so a service that dies and comes
back meets the same farm.
"""

from __future__ import annotations

import heapq
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scheduler import jobfile
from scheduler.jobfile import Draft
from scheduler.model.errors import NotFound
from scheduler.model.lease import AttemptState
from scheduler.model.node import Device, Lane, Layout, Node
from scheduler.model.order import LeaseOrder, LogChunk, Report, ReportKind
from scheduler.model.queue import Queue, Tenant

HOSTS = 1_553
CARD_HOSTS = 1_024
"""Hosts with eight cards each: 8,192."""
RUN_MS = (20_000, 60_000)
"""Tasks run this long, drawn evenly."""
MODEL = "H100-SXM-80GB"
QUEUES = (Queue(name="render"), Queue(name="ai", weight=200))
"""Both want cores. With equal weights fair share would stop at 87 % of the cards, when the last core is taken."""
FRAMES = """
apiVersion: shisuan/v1
kind: RenderJob
name: shot
queue: render
scene: shot.blend
frames: 1-{tasks}
samples: 128
resolution: [1920, 1080]
outputs: frames
resources: {{cpus: 4, memory: 8GiB}}
"""
CARDS = """
apiVersion: shisuan/v1
kind: CommandJob
name: sweep
queue: ai
array: 1-{tasks}
run: python train.py --seed $SHISUAN_TASK_INDEX
resources: {{cpus: 1, memory: 4GiB, accelerators: 1}}
"""


def farm_nodes() -> tuple[Node, ...]:
    """1,553 hosts with 56,964 cores, 1,024 of them with eight cards."""
    cores = [36] * CARD_HOSTS + [36, 40] * ((HOSTS - CARD_HOSTS) // 2) + [36]
    return tuple(
        Node(
            name=f"n{at:04}",
            cpu_milli=count * 1_000,
            memory_mib=count * 4_096,
            devices=tuple(
                Device(id=f"GPU-{at:04}-{slot}", model=MODEL, index=slot, memory_mib=81_000, island=f"n{at:04}")
                for slot in range(8 if at < CARD_HOSTS else 0)
            ),
        )
        for at, count in enumerate(cores)
    )


def drafts(folder: Path, tasks: int) -> tuple[Draft, Draft]:
    """A render job of 4-core frames and a sweep of 1-card tasks, as their job files are read."""
    (folder / "shot.blend").touch()
    tenant = tenant_of(folder)
    now_ms = 1
    render, sweep = (
        jobfile.read(
            text.format(tasks=tasks), tenant=tenant, queues=QUEUES, base_dir=str(folder), now_ms=now_ms, has_cards=True
        )
        for text in (FRAMES, CARDS)
    )
    return render, sweep


def tenant_of(folder: Path) -> Tenant:
    """The one tenant, with its storage in ``folder``."""
    return Tenant(name="studio", queues=("render", "ai"), storage_roots=(str(folder),))


class Died(Exception):
    """The service's process is no more."""


@dataclass(slots=True)
class FastClock:
    """Runs ``scale`` times as fast as real time."""

    scale: float = 1.0
    base_ms: int = 1_800_000_000_000
    began_s: float = field(default_factory=time.monotonic)

    def now_ms(self) -> int:
        """The farm's wall clock."""
        return self.base_ms + int((time.monotonic() - self.began_s) * 1_000 * self.scale)


class Stub:
    """An Executor. ``poll`` also tells ``watch``, which may end the measurement."""

    def __init__(self, nodes: Sequence[Node], clock: FastClock) -> None:
        self.nodes = nodes
        self.clock = clock
        self.running: dict[str, LeaseOrder] = {}
        self.untold: dict[str, Report] = {}
        """Reports not acknowledged yet, by cursor."""
        self.started = 0
        self.orders_ms = 0
        """When the last order came."""
        self.ended = 0
        self.held_cpu_milli = self.held_cards = 0
        self.run_ms = drawn_ms
        self.repeats = 1
        """How often each end is told."""
        self.dies_after = 0
        """So many ends later the service dies: after its transaction, before it acknowledges. 0: never."""
        self.there: dict[str, list[str]] = {}
        """Leases by node that the agents know from before; what this stub was told is added."""
        self.watch: Callable[[], None] = lambda: None
        self._ends: list[tuple[int, str]] = []
        self._mail: list[Report] = []
        self._woken = threading.Event()

    def connect(self) -> None:
        """As after a bridge came up: nodes, what was not acknowledged, and what runs on each."""
        at_ms = self.clock.now_ms()
        self._mail = [Report(kind=ReportKind.RUNTIME_UP, at_ms=at_ms)]
        self._mail += [Report(kind=ReportKind.NODE, at_ms=at_ms, node=n.name, facts=n) for n in self.nodes]
        self._mail += self.untold.values()
        there = {node.name: list(self.there.get(node.name, ())) for node in self.nodes}
        for lease_id, order in self.running.items():
            there[order.node].append(lease_id)
        for cursor in self.untold:
            order_id, node = cursor.split("/")[1:]
            if order_id not in self.running:
                there[node].append(order_id)
        self._mail += [
            Report(kind=ReportKind.INVENTORY, at_ms=at_ms, node=node, tenant="studio", leases=tuple(sorted(ids)))
            for node, ids in there.items()
        ]

    def start(self, orders: Sequence[LeaseOrder]) -> None:
        """Every order starts at once; the end of its first task is planned."""
        now_ms = self.orders_ms = self.clock.now_ms()
        for order in orders:
            if order.lease_id in self.running:
                continue
            self.running[order.lease_id] = order
            self.started += 1
            self.held_cpu_milli += order.cpu_milli
            self.held_cards += len(order.devices)
            attempt_id = order.tasks[0].attempt_id
            self._say(
                Report(
                    kind=ReportKind.STARTED,
                    at_ms=now_ms,
                    cursor=f"s/{order.lease_id}/{order.node}",
                    node=order.node,
                    lease_id=order.lease_id,
                    attempt_id=attempt_id,
                )
            )
            heapq.heappush(self._ends, (now_ms + self.run_ms(attempt_id), order.lease_id))

    def stop(self, lease_ids: Sequence[str], reason: str) -> None:
        """Only what is over may be stopped: ends that were recorded but not acknowledged."""
        wrong = [lease_id for lease_id in lease_ids if lease_id in self.running]
        assert not wrong, f"asked to stop {len(wrong)} running leases, {wrong[:3]}: {reason}"

    def poll(self, timeout_ms: int) -> tuple[Report, ...]:
        """What happened since the last call."""
        limit_s = time.monotonic() + timeout_ms / 1_000
        while True:
            self.watch()
            self._end_due()
            left_s = limit_s - time.monotonic()
            if self._mail or left_s <= 0 or self._woken.is_set():
                break
            due_s = (self._ends[0][0] - self.clock.now_ms()) / 1_000 / self.clock.scale if self._ends else left_s
            self._woken.wait(max(min(due_s, left_s), 0.001))
        self._woken.clear()
        told, self._mail = tuple(self._mail), []
        return told

    def move(self, lanes: Mapping[str, Lane]) -> None:
        """Every host serves both lanes."""
        assert not lanes, f"asked to move {sorted(lanes)}"

    def recut(self, layouts: Mapping[str, Mapping[str, Layout]]) -> None:
        """No card has MIG on."""
        assert not layouts, f"asked to cut cards of {sorted(layouts)}"

    def acknowledge(self, cursors: Sequence[str]) -> None:
        """These need not be kept. Raises Died."""
        if self.dies_after and self.ended >= self.dies_after:
            self.dies_after = 0
            raise Died
        for cursor in cursors:
            self.untold.pop(cursor, None)

    def wake(self) -> None:
        """End a waiting poll."""
        self._woken.set()

    def close(self) -> None:
        """Nothing is open."""

    def read_log(self, node: str, attempt_id: str, offset: int, limit: int, rank: int = 0) -> LogChunk:
        """There are no logs. Raises NotFound."""
        raise NotFound(f"no log of {attempt_id} on {node} ({offset}, {limit}, {rank})")

    def _end_due(self) -> None:
        now_ms = self.clock.now_ms()
        while self._ends and self._ends[0][0] <= now_ms:
            at_ms, lease_id = heapq.heappop(self._ends)
            order = self.running.pop(lease_id)
            self.ended += 1
            self.held_cpu_milli -= order.cpu_milli
            self.held_cards -= len(order.devices)
            report = Report(
                kind=ReportKind.FINISHED,
                at_ms=at_ms,
                cursor=f"f/{lease_id}/{order.node}",
                node=order.node,
                lease_id=lease_id,
                attempt_id=order.tasks[0].attempt_id,
                state=AttemptState.SUCCEEDED,
                exit_code=0,
                result='{"render_s":31.25}',
            )
            for _ in range(self.repeats):
                self._say(report)

    def _say(self, report: Report) -> None:
        self.untold[report.cursor] = report
        self._mail.append(report)


def drawn_ms(attempt_id: str) -> int:
    """A run time drawn from the attempt's id, the same in every run."""
    low, high = RUN_MS
    return low + zlib.crc32(attempt_id.encode()) % (high - low)
