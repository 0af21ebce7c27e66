"""Short ways to write clusters and jobs in tests, and a Park that plays the service around a real engine."""

from __future__ import annotations

from dataclasses import replace

from scheduler.engine import Engine
from scheduler.model.event import (
    AttemptFinished,
    AttemptStarted,
    Event,
    JobSubmitted,
    LeaseGranted,
    LeaseStopping,
    NodeLost,
    NodeSeen,
    QueueSet,
)
from scheduler.model.job import Job, JobKind, JobRecord, Resources, Step, StepKind
from scheduler.model.lease import Allocation, AttemptRecord, AttemptState, LeaseRecord
from scheduler.model.node import Device, DeviceKind, Lane, Node
from scheduler.model.plan import Convert, KeepStarts, Plan, Reserve, Start, Wait
from scheduler.model.policy import Policy
from scheduler.model.queue import Queue
from scheduler.model.snapshot import Snapshot

FEATURES = {
    "H100": frozenset({"nvdec:hevc-4:2:2"}),
    "L4": frozenset({"nvenc:h264", "nvenc:av1", "rt"}),
}
"""A catalogue small enough to keep in mind."""


def a_card(node: str, index: int = 0, model: str = "H100", memory_mib: int = 81_000, **changes: object) -> Device:
    """``GPU-<node>-<index>``"""
    return replace(Device(id=f"GPU-{node}-{index}", model=model, index=index, memory_mib=memory_mib), **changes)


def a_mig(node: str, index: int, slot: int, profile: str = "1g.10gb", memory_mib: int = 9_900) -> Device:
    """Instance ``slot`` on card ``index``."""
    return Device(
        id=f"MIG-{node}-{index}-{slot}",
        model="H100",
        kind=DeviceKind.MIG,
        index=index,
        memory_mib=memory_mib,
        parent=f"GPU-{node}-{index}",
        profile=profile,
    )


def a_node(
    name: str = "n1",
    *,
    cpus: int = 8,
    memory_mib: int = 32_768,
    cards: int = 0,
    model: str = "H100",
    island: int = 0,
    **changes: object,
) -> Node:
    """A node with ``cards`` equal cards, in NVLink islands of ``island`` cards (0: no NVLink)."""
    devices = tuple(a_card(name, i, model, island=f"{name}-nv{i // island}" if island else "") for i in range(cards))
    node = Node(name=name, cpu_milli=cpus * 1_000, memory_mib=memory_mib, devices=devices, lane=Lane.ANY)
    return replace(node, **changes)


def a_step(
    name: str = "work",
    count: int = 1,
    *,
    cpus: int = 1,
    memory_mib: int = 512,
    cards: int = 0,
    resources: dict[str, object] | None = None,
    **changes: object,
) -> Step:
    """A command step; ``resources`` changes what the short arguments do not name."""
    ask = Resources(cpu_milli=cpus * 1_000, memory_mib=memory_mib, cards=cards)
    step = Step(name=name, kind=StepKind.COMMAND, count=count, resources=replace(ask, **(resources or {})))
    return replace(step, **changes)


def a_job(number: int = 1, *steps: Step, queue: str = "default", tenant: str = "studio", **changes: object) -> Job:
    """Job ``j<number>``; one step of one task when no step is given."""
    job = Job(
        id=f"j{number}",
        name=f"job {number}",
        tenant=tenant,
        queue=queue,
        kind=JobKind.COMMAND,
        steps=steps or (a_step(),),
        submitted_ms=0,
    )
    return replace(job, **changes)


class Park:
    """An engine, a clock that tests move, and workers that do what they are told: start, end, or nothing."""

    def __init__(self, *nodes: Node, queues: tuple[Queue, ...] = (Queue(name="default"),)) -> None:
        self.engine = Engine.from_snapshot(Snapshot(), features=FEATURES)
        self.policy = Policy()
        self.now_ms = 1_000
        self.journal: list[Event] = []
        self.closed: list[LeaseRecord] = []
        self.attempts: dict[str, AttemptRecord] = {}
        for queue in queues:
            self.tell(QueueSet(at_ms=self.now_ms, queue=queue))
        for node in nodes:
            self.see(node)

    def tell(self, *events: Event) -> None:
        """Record facts, as the service does."""
        for event in events:
            self.engine.apply(event)
            self.journal.append(event)
            changes = self.engine.take_changes()
            self.closed += [lease for lease in changes.leases if lease.closed_ms]
            self.attempts |= {attempt.id: attempt for attempt in changes.attempts}

    def see(self, node: Node) -> None:
        """A node reports."""
        self.tell(NodeSeen(at_ms=self.now_ms, node=node))

    def submit(self, *jobs: Job, held: bool = False) -> None:
        """Jobs arrive now."""
        for job in jobs:
            self.tell(JobSubmitted(at_ms=self.now_ms, job=replace(job, submitted_ms=self.now_ms), held=held))

    def plan(self) -> Plan:
        """What the engine would do now."""
        return self.engine.plan(self.now_ms, self.policy)

    def cycle(self) -> Plan:
        """Plan and carry it out; granted leases do not start by themselves."""
        plan = self.plan()
        self.tell(*self.engine.events_of(plan))
        return plan

    def wait(self, ms: int) -> None:
        """Time passes."""
        self.now_ms += ms

    def start(self, attempt_id: str) -> None:
        """The runner of an attempt runs."""
        self.tell(AttemptStarted(at_ms=self.now_ms, attempt_id=attempt_id))

    def end(
        self, attempt_id: str, state: AttemptState = AttemptState.SUCCEEDED, reason: str = "", *, checkpoint_ms: int = 0
    ) -> None:
        """An attempt ends."""
        self.tell(
            AttemptFinished(
                at_ms=self.now_ms, attempt_id=attempt_id, state=state, reason=reason, checkpoint_ms=checkpoint_ms
            )
        )

    def run(self, attempt_id: str, ms: int = 10_000, state: AttemptState = AttemptState.SUCCEEDED) -> None:
        """An attempt starts, takes ``ms`` and ends."""
        self.start(attempt_id)
        self.wait(ms)
        self.end(attempt_id, state)

    def lose(self, node: str) -> None:
        """A node is gone, and what ran there."""
        self.tell(NodeLost(at_ms=self.now_ms, node=node, reason="no answer"))
        for attempt_id in self.open_attempts():
            lease = self.engine.lease(self.engine.attempt(attempt_id).lease_id).lease
            if any(allocation.node == node for allocation in lease.allocations):
                self.end(attempt_id, AttemptState.LOST, f"node {node} lost")

    def open_attempts(self) -> list[str]:
        """Attempts that can still run, in order of granting."""
        found = (a for record in self.engine.leases() for a in record.lease.attempts)
        return [a for a in found if not self.engine.attempt(a).state.is_final]

    def job(self, job_id: str = "j1") -> JobRecord:
        """A job that must exist."""
        record = self.engine.job(job_id)
        assert record is not None
        return record

    def finish_all(self, limit: int = 10_000) -> None:
        """Let everything succeed until nothing more happens."""
        for _ in range(limit):
            self.cycle()
            running = self.open_attempts()
            if not running:
                return
            for attempt_id in running:
                self.run(attempt_id, ms=10)
        raise AssertionError(f"still running after {limit} cycles")


def started(plan: Plan) -> dict[str, str]:
    """First attempt of each lease to the node (or nodes) it starts on."""
    leases = (action.lease for action in plan.actions if isinstance(action, Start))
    return {lease.attempts[0]: "+".join(a.node for a in lease.allocations) for lease in leases}


def reasons(waits: tuple[Wait, ...]) -> dict[str, list[str]]:
    """``job.step`` to ``kind:resource`` of each reason."""
    return {
        f"{wait.job_id}.{wait.step}": [f"{r.kind.value}:{r.resource}".rstrip(":") for r in wait.reasons]
        for wait in waits
    }


def granted(plan: Plan) -> list[LeaseGranted]:
    """The grants a plan leads to."""
    return [LeaseGranted(at_ms=plan.now_ms, lease=a.lease) for a in plan.actions if isinstance(a, Start)]


def stopping(lease_id: str, at_ms: int = 0) -> LeaseStopping:
    """A stop by hand."""
    return LeaseStopping(at_ms=at_ms, lease_id=lease_id, reason="test")


def lines(plan: Plan) -> list[str]:
    """A plan as a table of lines, actions first: what scenario tests compare."""
    told = []
    for action in plan.actions:
        if isinstance(action, Start):
            lease = action.lease
            tasks = lease.attempts[0] + (f"+{len(lease.attempts) - 1}" if len(lease.attempts) > 1 else "")
            told.append(f"start {tasks} on {' '.join(_place(a) for a in lease.allocations)}")
        elif isinstance(action, Reserve):
            told.append(f"reserve {action.job_id}.{action.step} on {' '.join(action.nodes)} at {action.start_ms}")
        elif isinstance(action, KeepStarts):
            continue  # what it says is said by the reserves
        elif isinstance(action, Convert):
            told.append(f"convert {action.node} to {action.lane.value}")
        else:
            told.append(f"{type(action).__name__.lower()} {action.lease_id}")
    for wait in plan.waits:
        why = " ".join(f"{r.kind.value}:{r.resource}".rstrip(":") for r in wait.reasons)
        told.append(f"wait #{wait.position} {wait.job_id}.{wait.step} x{wait.tasks} {why}")
    return told


def _place(allocation: Allocation) -> str:
    cards = ",".join(device.removeprefix(f"GPU-{allocation.node}-") for device in allocation.devices)
    share = f":{allocation.card_milli}" if allocation.card_milli else ""
    return f"{allocation.node}[{cards}{share}]" if cards else allocation.node
