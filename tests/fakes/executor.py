"""An Executor without processes: deterministic, under a clock that moves only while somebody polls.

A :class:`FakeFarm` is what stays when a service dies (nodes and what their agents keep); a :class:`FakeExecutor` is one
service's connection to it. ``tests/contract/test_executor.py`` holds it to the same suite as real Ray.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from scheduler.model.errors import NotFound
from scheduler.model.layout import after_cut, laid_out
from scheduler.model.lease import AttemptState
from scheduler.model.node import CardCut, Lane, Layout, MigPlace, Node
from scheduler.model.order import LeaseOrder, LogChunk, Report, ReportKind, TaskOrder
from workers.environment import of_attempt
from workers.gang import STOP_REASON, Gang, Outcome, split


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a task goes."""

    ms: int = 0
    state: AttemptState = AttemptState.SUCCEEDED
    exit_code: int | None = 0
    log: str = ""
    outputs: tuple[str, ...] = ()
    result: str = ""
    checkpoint_ms: int = 0


def interpret(task: TaskOrder) -> Run:
    """``true``, ``false``, ``sleep SECONDS`` and ``echo WORDS`` as one knows them; anything else succeeds at once.

    ``printenv`` knows where a gang meets: see :meth:`FakeFarm._next_task`.
    """
    name, *rest = task.argv
    match name.rpartition("/")[2]:
        case "false":
            return Run(state=AttemptState.FAILED, exit_code=1)
        case "sleep":
            return Run(ms=round(float(rest[0]) * 1_000))
        case "echo":
            return Run(log=" ".join(rest) + "\n")
    return Run()


@dataclass(slots=True)
class FakeClock:
    """Moves when told."""

    ms: int = 1_000_000

    def now_ms(self) -> int:
        return self.ms


@dataclass(slots=True)
class Held:
    """A lease an agent has; ``left`` are the tasks not ended yet."""

    order: LeaseOrder
    left: list[TaskOrder]
    untold: int
    """Ends not acknowledged yet, or not reached."""
    running: int = 0
    """Number of the scheduled end of the present task."""


@dataclass(slots=True)
class FakeAgent:
    """What one agent keeps."""

    node: str
    tenant: str
    held: dict[tuple[str, int], Held] = field(default_factory=dict)
    gone: set[tuple[str, int]] = field(default_factory=set)
    reports: dict[int, Report] = field(default_factory=dict)
    logs: dict[tuple[str, int], str] = field(default_factory=dict)
    """By attempt and rank."""
    told: int = 0
    """Last report passed to the present executor."""


class FakeFarm:
    """Nodes, agents, and the future as a heap of ends."""

    def __init__(
        self, nodes: Sequence[Node], *, clock: FakeClock | None = None, run: Callable[[TaskOrder], Run] = interpret
    ) -> None:
        self.clock = clock or FakeClock()
        self.nodes = {node.name: node for node in nodes}
        self.agents: dict[tuple[str, str], FakeAgent] = {}
        self.gangs: dict[str, Gang] = {}
        self.run = run
        self.refused: set[str] = set()
        """Layouts of whole nodes that cannot be had."""
        self._numbers = itertools.count(1)
        self._ends: list[tuple[int, int, FakeAgent, tuple[str, int], Run]] = []

    # -- what a test does to it

    def kill_agent(self, node: str, tenant: str) -> None:
        """It is made again at once and reports what ran as lost."""
        agent = self.agents[node, tenant]
        for key in tuple(agent.held):
            self._lose(agent, key, "the agent died")

    def lose_node(self, name: str) -> None:
        """The node and its agents are gone for good."""
        del self.nodes[name]
        for node, tenant in [key for key in self.agents if key[0] == name]:
            del self.agents[node, tenant]

    # -- what an executor does with it

    def agent(self, node: str, tenant: str) -> FakeAgent:
        return self.agents.setdefault((node, tenant), FakeAgent(node, tenant))

    def accept(self, order: LeaseOrder) -> None:
        agent, key = self.agent(order.node, order.tenant), (order.lease_id, order.rank)
        if key not in agent.held and key not in agent.gone:
            agent.held[key] = Held(order=order, left=list(order.tasks), untold=len(order.tasks))
            self._next_task(agent, key)

    def stop(self, lease_id: str, reason: str) -> None:
        state = AttemptState.PREEMPTED if reason.startswith("preempt") else AttemptState.CANCELLED
        for agent in self.agents.values():
            for key in [key for key in agent.held if key[0] == lease_id]:
                while agent.held[key].left:
                    self._end(agent, key, Run(state=state, exit_code=None), reason)

    def settle(self, cursor: str) -> None:
        node, tenant, number = cursor.split("/")
        agent = self.agents.get((node, tenant))
        report = agent.reports.pop(int(number), None) if agent else None
        if agent is None or report is None or report.kind is not ReportKind.FINISHED:
            return
        key = (report.lease_id, report.rank)
        agent.held[key].untold -= 1
        if agent.held[key].untold == 0:
            del agent.held[key]
            agent.gone.add(key)

    def advance(self, limit_ms: int) -> bool:
        """Move the clock to the next end, at most to ``limit_ms``. Returns whether something ended."""
        if not self._ends or self._ends[0][0] > limit_ms:
            self.clock.ms = max(self.clock.ms, limit_ms)
            return False
        at_ms, number, agent, key, run = heapq.heappop(self._ends)
        self.clock.ms = max(self.clock.ms, at_ms)
        held = agent.held.get(key)
        if held is not None and held.running == number and held.left:
            self._end(agent, key, run, "" if run.state is AttemptState.SUCCEEDED else f"exit code {run.exit_code}")
            self._next_task(agent, key)
        return True

    def _next_task(self, agent: FakeAgent, key: tuple[str, int]) -> None:
        held = agent.held[key]
        if held.left:
            task, run = held.left[0], self.run(held.left[0])
            log = run.log
            if task.argv[0].endswith("printenv"):
                known = of_attempt(held.order, task, {}, "/work")
                log = "".join(f"{known[name]}\n" for name in task.argv[1:])
            agent.logs[task.attempt_id, held.order.rank] = log
            self._report(agent, held, ReportKind.STARTED, task)
            held.running = next(self._numbers)
            heapq.heappush(self._ends, (self.clock.ms + run.ms, held.running, agent, key, run))

    def _end(self, agent: FakeAgent, key: tuple[str, int], run: Run, message: str) -> None:
        held = agent.held[key]
        task = held.left.pop(0)
        fields = {"state": run.state, "exit_code": run.exit_code, "outputs": run.outputs, "message": message}
        fields |= {"result": run.result, "checkpoint_ms": run.checkpoint_ms}
        self._report(agent, held, ReportKind.FINISHED, task, **fields)

    def _lose(self, agent: FakeAgent, key: tuple[str, int], reason: str) -> None:
        while agent.held[key].left:
            self._end(agent, key, Run(state=AttemptState.LOST, exit_code=None), reason)

    def _report(self, agent: FakeAgent, held: Held, kind: ReportKind, task: TaskOrder, **fields) -> None:
        number = next(self._numbers)
        agent.reports[number] = Report(
            kind=kind,
            at_ms=self.clock.ms,
            cursor=f"{agent.node}/{agent.tenant}/{number}",
            node=agent.node,
            tenant=agent.tenant,
            lease_id=held.order.lease_id,
            rank=held.order.rank,
            attempt_id=task.attempt_id,
            **fields,
        )


class FakeExecutor:
    """One connection. Fits :class:`scheduler.control.ports.Executor`; ``poll`` moves the farm's clock."""

    def __init__(self, farm: FakeFarm) -> None:
        self.farm = farm
        self._mail: deque[Report] = deque()
        self._woken = self._closed = False
        self._nodes: set[str] = set()
        self.connect()

    def connect(self) -> None:
        """As after a bridge came up: RUNTIME_UP, nodes, what is unacknowledged, inventories."""
        self._say(ReportKind.RUNTIME_UP)
        self._nodes.clear()
        # Combined reports are made again from what the ranks keep, as a new bridge would.
        self.farm.gangs = {lease_id: Gang(gang.orders) for lease_id, gang in self.farm.gangs.items()}
        for agent in self.farm.agents.values():
            agent.told = 0
        self._look_at_nodes()
        self._collect()
        for (node, tenant), agent in sorted(self.farm.agents.items()):
            leases = tuple(sorted({lease_id for lease_id, _ in agent.held}))
            self._say(ReportKind.INVENTORY, node=node, tenant=tenant, leases=leases)

    def disconnect(self, reason: str = "the bridge died") -> None:
        """As when the bridge dies."""
        self._say(ReportKind.RUNTIME_DOWN, message=reason)

    def start(self, orders: Sequence[LeaseOrder]) -> None:
        gangs: dict[str, list[LeaseOrder]] = {}
        for order in orders:
            if order.ranks > 1:
                gangs.setdefault(order.lease_id, []).append(order)
            elif order.node in self.farm.nodes:
                self.farm.accept(order)
        for lease_id, ranks in gangs.items():
            gang = self.farm.gangs.setdefault(lease_id, Gang(ranks))
            if not gang.rendezvous:
                gang.meet(f"127.0.0.1:{20_000 + int(lease_id[1:]) % 10_000}")
            if all(node in self.farm.nodes for node in gang.nodes):
                for order in gang.orders:
                    self.farm.accept(order)
            else:
                reason = "the gang could not start on all its nodes"
                self._follow(gang, gang.refuse(AttemptState.LOST, reason, self.farm.clock.ms))
        self._collect()

    def stop(self, lease_ids: Sequence[str], reason: str) -> None:
        for lease_id in lease_ids:
            self.farm.stop(lease_id, reason)
        self._collect()

    def poll(self, timeout_ms: int) -> tuple[Report, ...]:
        until_ms = self.farm.clock.ms + timeout_ms
        self._look_at_nodes()
        self._collect()
        while not self._mail and not self._woken and self.farm.advance(until_ms):
            self._collect()
        reports = tuple(self._mail)
        self._mail.clear()
        self._woken = False
        return reports

    def move(self, lanes: Mapping[str, Lane]) -> None:
        for name in sorted(lanes.keys() & self.farm.nodes.keys()):
            self.farm.nodes[name] = replace(self.farm.nodes[name], lane=lanes[name])
            self._nodes.discard(name)  # it is told again
        self._look_at_nodes()

    def recut(self, cuts: Mapping[str, Sequence[CardCut]]) -> None:
        for name in sorted(name for name in cuts.keys() & self.farm.nodes.keys() if cuts[name]):
            said = [replace(cut, problem=why) for cut in cuts[name] if (why := self._lay_out(name, cut))]
            self._say(ReportKind.NODE, node=name, facts=replace(self.farm.nodes[name], cuts=tuple(said)))

    def _lay_out(self, name: str, cut: CardCut) -> str:
        """Why not; empty: it is so."""
        if not cut.name:
            return self._cut(name, cut.card, cut.layout)
        if cut.name in self.farm.refused:
            return f"{cut.name} cannot be had"
        self.farm.nodes[name] = laid_out(self.farm.nodes[name], cut.name)
        return ""

    def _cut(self, name: str, card: str, layout: Layout) -> str:
        """Why not; empty: it is so."""
        node = self.farm.nodes[name]
        mine = [device for device in node.devices if device.parent == card]
        going = {d.id for d in mine if MigPlace(start=d.slice_start, profile=d.profile) not in layout}
        held = (h for a in self.farm.agents.values() if a.node == name for h in a.held.values() if h.left)
        if any(going.intersection(h.order.devices) for h in held):
            return "it is in use: a lease holds an instance"
        try:
            self.farm.nodes[name] = replace(node, devices=after_cut(node.devices, card, layout))
        except KeyError as unknown:
            return f"a card of this model is not cut so: {unknown}"
        return ""

    def acknowledge(self, cursors: Sequence[str]) -> None:
        for cursor in cursors:
            ended, parts = split(cursor)
            if ended:
                self.farm.gangs.pop(ended, None)
            for part in parts:
                self.farm.settle(part)

    def read_log(self, node: str, attempt_id: str, offset: int, limit: int, rank: int = 0) -> LogChunk:
        for (name, _), agent in self.farm.agents.items():
            if name == node and (attempt_id, rank) in agent.logs:
                data = agent.logs[attempt_id, rank].encode()[offset : offset + limit]
                runs = any(t.attempt_id == attempt_id for held in agent.held.values() for t in held.left)
                return LogChunk(text=data.decode(), next_offset=offset + len(data), end=not runs and len(data) < limit)
        raise NotFound(f"no log of attempt {attempt_id!r} on node {node!r}")

    def wake(self) -> None:
        self._woken = True

    def close(self) -> None:
        self._closed = True

    # -- inside

    def _look_at_nodes(self) -> None:
        for name in sorted(self._nodes - self.farm.nodes.keys()):
            self._nodes.discard(name)
            for gang in tuple(self.farm.gangs.values()):
                if name in gang.nodes:
                    self._follow(gang, gang.lose(name, f"node {name} is gone", self.farm.clock.ms))
            self._say(ReportKind.NODE_GONE, node=name, message="lost")
        for name in sorted(self.farm.nodes.keys() - self._nodes):
            self._nodes.add(name)
            self._say(ReportKind.NODE, node=name, facts=self.farm.nodes[name])

    def _collect(self) -> None:
        """Pass on what agents have not told this executor yet, oldest first."""
        while True:
            agents = self.farm.agents.values()
            fresh = [(number, agent) for agent in agents for number in agent.reports if number > agent.told]
            if not fresh:
                return
            number, agent = min(fresh, key=lambda found: found[0])
            agent.told = number
            report = agent.reports[number]
            gang = self.farm.gangs.get(report.lease_id)
            if gang is None:
                self._mail.append(report)
            else:
                self._follow(gang, gang.take(report))

    def _follow(self, gang: Gang, outcome: Outcome) -> None:
        self._mail += outcome.reports
        if outcome.stop_rest:
            self.farm.stop(gang.lease_id, STOP_REASON)
        if any(report.kind is ReportKind.FINISHED and not report.cursor for report in outcome.reports):
            self.farm.gangs.pop(gang.lease_id, None)

    def _say(self, kind: ReportKind, **fields) -> None:
        self._mail.append(replace(Report(kind=kind, at_ms=self.farm.clock.ms), **fields))
