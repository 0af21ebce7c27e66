"""A control plane on SQLite, with workers that remember what they did and a clock that the test moves."""

import functools
import tempfile
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path

from scheduler.control.access import Caller
from scheduler.control.attempt_logs import AttemptLogs
from scheduler.control.cycle import Cycle
from scheduler.control.dispatch import Dispatch
from scheduler.control.log_rule import LogRule
from scheduler.control.operations import Operations
from scheduler.control.service import Service
from scheduler.control.settings import Home, Limits
from scheduler.control.tokens import Tokens
from scheduler.engine import Engine
from scheduler.model.errors import NotFound
from scheduler.model.event import JobSubmitted, QueueSet, TenantSet
from scheduler.model.job import Job, JobKind, Resources, Step, StepKind
from scheduler.model.key import Role
from scheduler.model.lease import AttemptState
from scheduler.model.node import Device, Node
from scheduler.model.order import LogChunk, Report, ReportKind
from scheduler.model.queue import Queue, Tenant
from scheduler.store import open_store

STUDIO = Caller(tenant="studio", role=Role.TENANT)
RIVAL = Caller(tenant="rival", role=Role.TENANT)
OPERATOR = Caller(tenant="default", role=Role.OPERATOR)
NODE = Node(name="n1", cpu_milli=4_000, memory_mib=8_192)
CARDS = tuple(Device(id=f"GPU-{i}", model="H100-SXM-80GB", memory_mib=81_559) for i in range(2))
SPEC = '{"argv":["/bin/true"]}'


@functools.cache
def migrated():
    """An empty SQLite database of today's schema, as bytes: migrating each test's own takes longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "empty.db"
        open_store(f"sqlite:///{file}").close()
        return file.read_bytes()


def new_database(folder):
    """URL of a fresh SQLite database; its token secret is the same in all tests."""
    file = Path(folder) / "shisuan.db"
    if not file.exists():
        file.write_bytes(migrated())
    return f"sqlite:///{file}"


class FakeClock:
    """Milliseconds, moved by the test."""

    def __init__(self, now_ms=1_000_000):
        self.now = now_ms

    def now_ms(self):
        return self.now


class Workers:
    """Agents of all nodes in one object. They outlive control planes: reports stay until acknowledged."""

    def __init__(self, clock, nodes=(NODE,)):
        self.clock = clock
        self.nodes = {n.name: n for n in nodes}
        self.there = None
        """Names of all nodes there are, where the runtime says so when it comes up."""
        self.known = {}
        self.ran = []
        self.stopped = []
        self.moves = []
        self.recuts = []
        self.deaf = False
        self.mail = deque()
        self.woken = threading.Event()
        self.unacknowledged = {}
        self._next = 0

    # the executor port

    def start(self, orders):
        if self.deaf:
            return
        for order in orders:
            if (order.lease_id, order.rank) not in self.known:
                self.known[order.lease_id, order.rank] = order
                self.ran += [t.attempt_id for t in order.tasks if order.rank == 0]

    def stop(self, lease_ids, reason):
        self.stopped += lease_ids
        for lease_id in lease_ids:
            order = self.known.get((lease_id, 0))
            for task in order.tasks if order else ():
                self.finish(task.attempt_id, AttemptState.CANCELLED)

    def poll(self, timeout_ms):
        if not self.mail and timeout_ms:
            self.woken.wait(timeout_ms / 1000)
        self.woken.clear()
        return tuple(self.mail.popleft() for _ in range(len(self.mail)))

    def move(self, lanes):
        self.moves.append(dict(lanes))

    def recut(self, cuts):
        asked = {node: {cut.card or cut.name: cut.layout for cut in each} for node, each in cuts.items() if each}
        self.recuts += [asked] if asked else []

    def acknowledge(self, cursors):
        for cursor in cursors:
            self.unacknowledged.pop(cursor, None)

    def read_log(self, node, attempt_id, offset, limit, rank=0):
        if attempt_id not in self.ran:
            raise NotFound(f"no log of {attempt_id}")
        text = f"hello from {attempt_id}\n"
        return LogChunk(text=text[offset : offset + limit], next_offset=max(offset, len(text)), end=True)

    def close(self):
        pass

    def wake(self):
        self.woken.set()

    # what the test makes them do

    def say(self, report):
        self._next += 1
        numbered = replace(report, cursor=f"c{self._next}", at_ms=report.at_ms or self.clock.now_ms())
        self.unacknowledged[numbered.cursor] = numbered
        self.mail.append(numbered)
        self.wake()

    def connect(self):
        """The runtime is (again) reachable: everything unacknowledged is told again, then the inventories."""
        self.mail.clear()
        self.wake()
        self.mail.append(Report(kind=ReportKind.RUNTIME_UP, at_ms=self.clock.now_ms(), nodes=self.there))
        for node in self.nodes.values():
            self.mail.append(Report(kind=ReportKind.NODE, node=node.name, facts=node))
        self.mail += self.unacknowledged.values()
        for node, tenant in sorted({(o.node, o.tenant) for o in self.known.values()}):
            self.inventory(node, tenant)

    def inventory(self, node, tenant):
        mine = sorted({o.lease_id for o in self.known.values() if (o.node, o.tenant) == (node, tenant)})
        self.mail.append(
            Report(kind=ReportKind.INVENTORY, at_ms=self.clock.now_ms(), node=node, tenant=tenant, leases=tuple(mine))
        )

    def begin(self, attempt_id):
        self.say(Report(kind=ReportKind.STARTED, attempt_id=attempt_id))

    def finish(self, attempt_id, state=AttemptState.SUCCEEDED, **more):
        self.say(Report(kind=ReportKind.FINISHED, attempt_id=attempt_id, state=state, **more))

    def do_everything(self, runtime_ms=1_000):
        """Start and finish every attempt that was ordered and not yet done."""
        done = {r.attempt_id for r in self.mail}
        for attempt in [a for a in self.ran if a not in done and a not in self.over]:
            self.over.add(attempt)
            self.begin(attempt)
            self.clock.now += runtime_ms
            self.finish(attempt, outputs=(f"file:///out/{attempt}",))

    @property
    def over(self):
        if not hasattr(self, "_over"):
            self._over = set()
        return self._over


class World:
    """Store, workers and clock; the control plane over them can be thrown away and built again."""

    def __init__(self, tmp_path, url="", nodes=(NODE,), limits=None):
        self.clock = FakeClock()
        self.workers = Workers(self.clock, nodes)
        self.url = url or new_database(tmp_path)
        self.home = Home.of(str(tmp_path))
        self.root = Path(tmp_path) / "studio"
        self.root.mkdir(exist_ok=True)
        self.limits = limits or Limits(call_timeout_ms=5_000)
        self.declared = None
        self.store = open_store(self.url)
        self.boot()
        self.record(QueueSet(at_ms=self.clock.now, queue=Queue(name="default")))
        for name in ("default", "rival", "studio"):
            tenant = Tenant(name=name, storage_roots=(str(self.root),))
            self.record(TenantSet(at_ms=self.clock.now, tenant=tenant))

    def boot(self):
        """A fresh control plane, as after a crash; the runtime reports in."""
        self.tokens = Tokens(self.store.token_secret())
        self.cycle = Cycle(
            engine=Engine.from_snapshot(self.store.load()),
            epoch=self.store.acquire_epoch("test"),
            store=self.store,
            executor=self.workers,
            clock=self.clock,
            dispatch=Dispatch(self.tokens, token_ms=60_000),
            limits=self.limits,
            declared=self.declared,
        )
        self.logs = AttemptLogs(self.cycle, self.store, self.workers, LogRule())
        self.service = Service(self.cycle, self.store, self.logs)
        self.operations = Operations(self.cycle, self.store, self.home, version="test")
        self.workers.connect()
        self.cycle.once(0)

    def close(self):
        self.store.close()

    def record(self, *events):
        """Put events in through the cycle, as a verb would."""
        return self.ask(lambda engine, now_ms: (events, None))

    def ask(self, decide):
        """A verb and the cycle that carries it out, in one thread."""
        from concurrent.futures import Future

        from scheduler.control.cycle import Command

        done = Future()
        self.cycle._commands.put(Command(decide, done))
        self.cycle.once(0)
        return done.result(timeout=0)

    def in_thread(self, verb):
        """A service's verb, with the cycle turning until it is answered; its answer."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(verb)
            while not answer.done():
                self.cycle.once(1)
        return answer.result()

    def submit(self, *steps, tenant="studio", held=False, **more):
        """Record a job of these steps; its id."""

        def decide(engine, now_ms):
            job = Job(
                id=engine.next_job_id(),
                name="test",
                tenant=tenant,
                queue="default",
                kind=JobKind.COMMAND,
                steps=steps or (step(),),
                submitted_ms=now_ms,
                **more,
            )
            return (JobSubmitted(at_ms=now_ms, job=job, held=held),), job.id

        return self.ask(decide)

    def turn(self, times=1):
        for _ in range(times):
            self.cycle.once(0)

    def run_to_end(self, job_id, turns=200):
        """Let the workers do all that is asked until the job is final."""
        for _ in range(turns):
            self.workers.do_everything()
            self.turn()
            if self.job(job_id).state.is_final:
                return self.job(job_id)
        raise AssertionError(f"{job_id} did not end: {self.job(job_id)}")

    def job(self, job_id):
        with self.cycle.state() as engine:
            return engine.job(job_id)

    def open_leases(self):
        with self.cycle.state() as engine:
            return tuple(engine.leases())


def step(name="run", count=1, **more):
    more.setdefault("resources", Resources(cpu_milli=1_000, memory_mib=64))
    return Step(name=name, kind=StepKind.COMMAND, count=count, spec=SPEC, **more)
