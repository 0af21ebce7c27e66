"""Fill and feed: the whole cycle, with the real engine and a real SQLite database, over a farm that is a stub.

Real time is measured; only how long tasks run may be on a faster clock. Everything a service does between a report
and the answer to it is inside: observing, planning, expanding orders, sealing usage, the transaction with
``synchronous=FULL``. Outside are agents, Ray and the ledger's keeper, which is a thread of its own.

``python -P -m benchmarks.farm [fill] [feed] [storm] [million] [restart]``; each part runs in a process of its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.farm_stub import QUEUES, Died, FastClock, Stub, drafts, farm_nodes, tenant_of
from benchmarks.results import Figure, show, write
from scheduler.control.collector import spare_collector
from scheduler.control.cycle import Cycle
from scheduler.control.dispatch import Dispatch
from scheduler.control.logs import write_to
from scheduler.control.tokens import Tokens
from scheduler.engine import Engine
from scheduler.jobfile import Draft
from scheduler.model import catalogue
from scheduler.model.event import AttemptStarted, Event, JobSubmitted, LeaseGranted, NodeSeen, QueueSet, TenantSet
from scheduler.model.lease import Allocation, Lease, attempt_id
from scheduler.model.node import Node
from scheduler.model.snapshot import Snapshot
from scheduler.store import SqlStore, open_store

FULL = 0.99
FEED_S, FEED_SCALE, SETTLE_S = 60, 3.3, 15
"""20 to 60 s tasks last 6 to 18 s of real time: the full farm then asks for 1,680 starts a second."""
STORM_RATE, STORM_S = 1_000, 20
"""20,000 ends: 12,000 frames and 8,000 card tasks fill the farm but for 2 %."""
GIVE_UP_S = 60
RESTART_NODES, RESTART_TASKS = 5_000, 140_000
MILLION_JOBS, MILLION_TASKS = 5_200, 200


class Timed(Cycle):
    """The cycle with a note of how long each round that recorded something took, and when it began."""

    rounds: list[tuple[float, float]]

    def once(self, timeout_ms: int) -> float:
        """One round."""
        busy_s = super().once(timeout_ms)
        if busy_s:
            self.rounds.append((time.monotonic() - busy_s, busy_s))
        return busy_s


class Service:
    """A cycle over the database in ``folder`` and over ``stub``."""

    def __init__(self, folder: Path, stub: Stub) -> None:
        write_to(folder / "service.log")
        spare_collector()
        self.store = open_store(f"sqlite:///{folder / 'shisuan.db'}")
        epoch = self.store.acquire_epoch("benchmark")
        self.cycle = Timed(
            engine=Engine.from_snapshot(self.store.load(), features=catalogue.FEATURES),
            epoch=epoch,
            store=self.store,
            executor=stub,
            clock=stub.clock,
            dispatch=Dispatch(Tokens(self.store.token_secret()), token_ms=86_400_000),
        )
        self.cycle.rounds = []
        gc.freeze()

    def run(self) -> None:
        """Until something stops the cycle, or its process dies."""
        with contextlib.suppress(Died):
            self.cycle.run()

    def close(self) -> None:
        """The process is gone."""
        self.store.close()


def serve(folder: Path, stub: Stub, done: Callable[[], bool]) -> list[float]:
    """A service that starts, meets the farm and works until ``done`` or its death; how long its rounds took."""
    service = Service(folder, stub)
    stub.watch = lambda: service.cycle.stop() if done() else None
    stub.connect()
    service.run()
    service.close()
    return [busy for _, busy in service.cycle.rounds]


def prepare(folder: Path, nodes: Sequence[Node], jobs: Sequence[tuple[Draft, int]]) -> SqlStore:
    """A database with these nodes and ``(draft, how many jobs of it)``, the kinds taking turns."""
    store = open_store(f"sqlite:///{folder / 'shisuan.db'}")
    epoch = store.acquire_epoch("builder")
    engine = Engine.from_snapshot(Snapshot())
    at_ms = FastClock().base_ms - 60_000
    first: list[Event] = [QueueSet(at_ms=at_ms, queue=queue) for queue in QUEUES]
    first += [TenantSet(at_ms=at_ms, tenant=tenant_of(folder)), *(NodeSeen(at_ms=at_ms, node=n) for n in nodes)]
    commit(store, epoch, engine, first)
    turns = sorted((at / count, kind, draft) for kind, (draft, count) in enumerate(jobs) for at in range(count))
    for start in range(0, len(turns), 500):
        events: list[Event] = []
        for offset, (_, _, draft) in enumerate(turns[start : start + 500]):
            job = draft.job(f"j{start + offset + 1}", "")
            events.append(JobSubmitted(at_ms=at_ms, job=job))
        commit(store, epoch, engine, events)
    return store


def commit(store: SqlStore, epoch: int, engine: Engine, events: Sequence[Event]) -> None:
    """What the cycle does with facts."""
    for event in events:
        engine.apply(event)
    store.commit(epoch, events, engine.take_changes())


# ── the parts ────────────────────────────────────────────────────────────────────────────────────────────────────


def fill(folder: Path) -> list[Figure]:
    """From idle to 99 % of cores and of cards: from the runtime's first word to the order that fills the farm."""
    nodes = farm_nodes()
    render, sweep = drafts(folder, 400)
    prepare(folder, nodes, [(render, 100), (sweep, 60)]).close()
    stub = Stub(nodes, FastClock())
    service = Service(folder, stub)
    cores, cards = sum(n.cpu_milli for n in nodes), sum(len(n.devices) for n in nodes)
    began_s, marks, best = time.monotonic(), dict[float, float](), (0.0, 0.0)

    def watch() -> None:
        nonlocal best
        best = max(best[0], stub.held_cpu_milli / cores), max(best[1], stub.held_cards / cards)
        level, now_s = min(best), time.monotonic() - began_s
        for step in (0.5, 0.9, FULL):
            if level >= step and step not in marks:
                marks[step] = now_s
        if FULL in marks or now_s > GIVE_UP_S:
            service.cycle.stop()

    stub.watch = watch
    stub.connect()
    service.run()
    seconds = marks.get(FULL, GIVE_UP_S)
    print(f"  {stub.started} starts, half full after {marks.get(0.5, 0):.1f} s, 90 % after {marks.get(0.9, 0):.1f} s")
    print(f"  at most {best[0]:.2%} of cores, {best[1]:.2%} of cards; {rounds(service.cycle)}")
    service.close()
    return [Figure(name="fill_seconds", runs=(seconds,), bound=10, anchors={"maestro_published_seconds": (40,)})]


def feed(folder: Path) -> list[Figure]:
    """A full farm whose tasks end and are replaced, for a minute."""
    nodes = farm_nodes()
    render, sweep = drafts(folder, 200)
    prepare(folder, nodes, [(render, 700), (sweep, 500)]).close()
    stub = Stub(nodes, FastClock(FEED_SCALE))
    service = Service(folder, stub)
    cores = sum(n.cpu_milli for n in nodes)
    marks: list[tuple[float, int, float]] = []
    full_s = 0.0

    def watch() -> None:
        nonlocal full_s
        now_s = time.monotonic()
        # Ends begin after five seconds, so a slow engine never fills the farm: then it is fed from its best level on.
        if not full_s and (stub.held_cpu_milli >= FULL * cores or stub.ended > stub.started // 2):
            full_s = now_s
        if full_s and now_s >= full_s + SETTLE_S:
            marks.append((now_s - full_s, stub.started, stub.held_cpu_milli / cores))
            if now_s - full_s >= SETTLE_S + FEED_S:
                service.cycle.stop()

    stub.watch = watch
    stub.connect()
    service.run()
    rate = (marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0])
    taken = [busy for began, busy in service.cycle.rounds if began >= full_s + SETTLE_S]
    level = statistics.mean(level for _, _, level in marks)
    print(f"  {rounds(service.cycle)}")
    print(f"  cores in use {level:.1%} on average, {len(taken)} rounds; database {size_mib(folder)} MiB")
    service.close()
    return [
        Figure(name="starts_per_second", runs=(rate,), least=1_500),
        Figure(name="cycle_p99_ms", runs=(1_000 * quantile(taken, 0.99),), bound=200),
    ]


def storm(folder: Path) -> list[Figure]:
    """1,000 ends a second, each told twice, and a service that dies half-way: every task ends once in the database."""
    nodes = farm_nodes()
    count = STORM_RATE * STORM_S
    render, sweep = drafts(folder, 200)
    prepare(folder, nodes, [(render, 60), (sweep, 40)]).close()
    stub, order = Stub(nodes, FastClock()), iter(range(count))
    first_ms = stub.clock.now_ms() + 3_600_000
    stub.run_ms = lambda _: first_ms + next(order) * 1_000 // STORM_RATE - stub.clock.now_ms()
    stub.repeats = 2
    serve(folder, stub, lambda: stub.started >= count and not stub.untold)
    stub.clock.began_s -= (first_ms - stub.clock.now_ms()) / 1_000  # the hour passes
    began_s, stub.dies_after = time.monotonic(), count // 2
    taken = serve(folder, stub, lambda: False)
    taken += serve(folder, stub, lambda: stub.ended >= count and not stub.untold)
    lag_s = time.monotonic() - began_s - STORM_S
    service = Service(folder, stub)
    lost = count - sum(len(job.steps[0].succeeded) for job in service.store.load().jobs)
    service.store.verify()
    print(f"  all recorded {lag_s:.1f} s after the last end; rounds p99 {1_000 * quantile(taken, 0.99):.0f} ms")
    service.close()
    return [
        Figure(name="storm_ends_lost", runs=(lost,), bound=0),
        Figure(name="storm_ends_per_second", runs=(count / (STORM_S + max(lag_s, 0)),), least=0.9 * STORM_RATE),
    ]


def million(folder: Path) -> list[Figure]:
    """A service that comes back to 1.04 M waiting tasks in 5,200 jobs, fills its farm and runs on: its largest size."""
    nodes = farm_nodes()
    render, sweep = drafts(folder, MILLION_TASKS)
    prepare(folder, nodes, [(render, MILLION_JOBS // 2), (sweep, MILLION_JOBS // 2)]).close()
    found = child("million-service", folder)
    assert found["waiting"] >= 1_000_000, found
    print(f"  {found['waiting']} wait in {found['jobs']} jobs, {found['running']} run; rounds p99 {found['p99_ms']} ms")
    return [Figure(name="million_tasks_mib", runs=(found["mib"],), bound=1_024)]


def million_service(folder: Path) -> dict[str, float]:
    """The process that is measured; the faces' libraries are loaded as in a service."""
    importlib.import_module("scheduler.api.app")
    stub = Stub(farm_nodes(), FastClock())
    service = Service(folder, stub)
    end_s = time.monotonic() + 60
    stub.watch = lambda: service.cycle.stop() if time.monotonic() > end_s or stub.started > 21_000 else None
    stub.connect()
    service.run()
    with service.cycle.state() as engine:
        waiting = [sum(len(step.waiting) for step in job.steps) for job in engine.jobs()]
    return {
        "mib": psutil.Process().memory_info().rss / 2**20,
        "waiting": sum(waiting),
        "jobs": sum(1 for count in waiting if count),
        "running": len(stub.running),
        "p99_ms": round(1_000 * quantile([busy for _, busy in service.cycle.rounds], 0.99)),
    }


def restart(folder: Path) -> list[Figure]:
    """140,000 tasks run on 5,000 nodes when the service starts: until the one free slot is given to who is next."""
    nodes = restart_nodes()
    render, _ = drafts(folder, 200)
    store = prepare(folder, nodes, [(render, RESTART_TASKS // 200 + 1)])
    grow(store, nodes)
    store.close()
    began_s = time.monotonic()
    found = child("restart-service", folder)
    print("  " + ", ".join(f"{name} after {found[name] - began_s:.1f} s" for name in ("imported", "loaded", "decided")))
    return [Figure(name="restart_seconds", runs=(found["decided"] - began_s,), bound=10)]


def restart_nodes() -> tuple[Node, ...]:
    """Room for 28 frames each, and for one more on the last."""
    return tuple(
        Node(name=f"n{at:04}", cpu_milli=112_000 + 4_000 * (at == RESTART_NODES - 1), memory_mib=300_000)
        for at in range(RESTART_NODES)
    )


def grow(store: SqlStore, nodes: Sequence[Node]) -> None:
    """The first 140,000 tasks run, 28 on each node."""
    epoch = store.acquire_epoch("builder")
    engine = Engine.from_snapshot(store.load())
    at_ms = engine.now_ms
    for start in range(0, RESTART_TASKS, 5_000):
        events: list[Event] = []
        for at in range(start, start + 5_000):
            job, index = f"j{at // 200 + 1}", at % 200
            held = Allocation(node=nodes[at // 28].name, cpu_milli=4_000, memory_mib=8_192)
            lease = Lease(
                id=f"l{at + 1}", job_id=job, step="render", tenant="studio", queue="render", allocations=(held,),
                attempts=(attempt_id(job, "render", index, 1),), granted_ms=at_ms,
            )  # fmt: skip
            events += [
                LeaseGranted(at_ms=at_ms, lease=lease),
                AttemptStarted(at_ms=at_ms, attempt_id=lease.attempts[0]),
            ]
        commit(store, epoch, engine, events)


def restart_service(folder: Path) -> dict[str, float]:
    """The process that comes back: every agent reports its node and what runs there."""
    imported_s = time.monotonic()
    stub = Stub(restart_nodes(), FastClock())
    service = Service(folder, stub)
    loaded_s, decided_s = time.monotonic(), 0.0
    with service.cycle.state() as engine:
        there = {node.name: list[str]() for node in stub.nodes}
        for record in engine.leases():
            there[record.lease.allocations[0].node].append(record.lease.id)
    stub.there = there
    told: list[str] = []

    def start(orders: Sequence[object]) -> None:
        nonlocal decided_s
        decided_s = time.monotonic()
        told.extend(f"{order.tasks[0].attempt_id} on {order.node}" for order in orders)  # type: ignore[attr-defined]
        service.cycle.stop()

    stub.start = start  # type: ignore[method-assign]
    stub.connect()
    service.run()
    expected = [f"j{RESTART_TASKS // 200 + 1}.render.0.a1 on n{RESTART_NODES - 1:04}"]
    assert told == expected, told[:3]
    return {"imported": imported_s, "loaded": loaded_s, "decided": decided_s}


# ── small things ─────────────────────────────────────────────────────────────────────────────────────────────────


def child(verb: str, folder: Path) -> dict[str, float]:
    """What a process of its own found."""
    command = [sys.executable, "-P", "-m", "benchmarks.farm", verb, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def quantile(values: Sequence[float], part: float) -> float:
    """The value that ``part`` of the values do not exceed."""
    return sorted(values)[min(int(part * len(values)), len(values) - 1)] if values else 0.0


def rounds(cycle: Timed) -> str:
    """How long its rounds took."""
    taken = [busy for _, busy in cycle.rounds]
    spent = psutil.Process().cpu_times()
    print(f"  processor {spent.user:.1f} s user, {spent.system:.1f} s system in this process")
    return f"{len(taken)} rounds, p50 {1_000 * quantile(taken, 0.5):.0f} ms, p99 {1_000 * quantile(taken, 0.99):.0f} ms"


def size_mib(folder: Path) -> int:
    """Of the database and its log."""
    return sum(path.stat().st_size for path in folder.glob("shisuan.db*")) >> 20


PARTS: Mapping[str, Callable[[Path], list[Figure]]] = {
    "fill": fill,
    "feed": feed,
    "storm": storm,
    "million": million,
    "restart": restart,
}
SERVICES: Mapping[str, Callable[[Path], dict[str, float]]] = {
    "million-service": million_service,
    "restart-service": restart_service,
}


def figures(parts: Sequence[str] = ()) -> list[Figure]:
    """Measure the parts named, or all, one after the other."""
    found: list[Figure] = []
    for name in parts or PARTS:
        print(f"{name} …", flush=True)
        with tempfile.TemporaryDirectory(prefix="shisuan-farm-") as folder:
            found += PARTS[name](Path(folder))
    return found


def main(argv: Sequence[str]) -> None:
    """Measure, print, keep."""
    if argv and argv[0] in SERVICES:
        print(json.dumps(SERVICES[argv[0]](Path(argv[1]))))
        return
    unknown = sorted(set(argv) - PARTS.keys())
    if unknown:
        sys.exit(f"no part {', '.join(unknown)} (valid: {', '.join(PARTS)})")
    found = figures(argv)
    show(found)
    write("farm", found, notes={"parts": list(argv or PARTS)})
    missed = [figure.name for figure in found if figure.is_missed]
    if missed:
        sys.exit(f"outside the bound: {', '.join(missed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
