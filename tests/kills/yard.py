"""The workers of the failover tests, as a process that outlives every service: ``python -m tests.kills.yard SOCKET``.

Agents are the executor double's. They forget a lease whose end was acknowledged, as real ones do, so an order that
comes too late would start it again. Between them and the services stands what a bridge does: whoever says hello with
the highest epoch is obeyed, and everybody else is not. Every start is counted, whoever ordered it.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

from scheduler.model import codec
from scheduler.model.lease import parse_attempt_id
from scheduler.model.node import Device, Node
from scheduler.model.order import LeaseOrder, Report
from tests.fakes.executor import FakeClock, FakeExecutor, FakeFarm, Run

TICK_S = 0.005
LINE_BYTES = 2**26
NODES = tuple(
    Node(
        name=name,
        cpu_milli=8_000,
        memory_mib=16_384,
        devices=tuple(Device(id=f"GPU-{name}{at}", model="H100-SXM-80GB", memory_mib=81_559) for at in range(2)),
    )
    for name in ("alpha", "beta")
)


def length_of(task):
    """5 to 80 ms, the same for every attempt of a task."""
    return Run(ms=5 + sum(task.attempt_id.rpartition(".")[0].encode()) * 7 % 75)


class Yard(FakeFarm):
    """A farm that writes down what really starts, and what must not."""

    def __init__(self, clock, *, epoch=lambda: 0, run=length_of, nodes=NODES):
        super().__init__(nodes, clock=clock, run=run)
        self.epoch = epoch
        self.starts = Counter()
        self.by_epoch = Counter()
        self.first_ms = {}
        """When the first attempt of an epoch started."""
        self.wrong = []
        self._tasks = {}

    def accept(self, order):
        agent, key = self.agent(order.node, order.tenant), (order.lease_id, order.rank)
        known = agent.held.get(key)
        if known is not None and [t.attempt_id for t in known.order.tasks] != [t.attempt_id for t in order.tasks]:
            self.wrong.append(f"lease {order.lease_id} was granted twice: {known.order.tasks} and {order.tasks}")
        if known is None:
            busy = [
                h.order for a in self.agents.values() for h in a.held.values() if h.left and h.order.node == order.node
            ]
            for other in busy:
                shared = set(other.devices) & set(order.devices)
                if shared and other.lease_id != order.lease_id:
                    self.wrong.append(f"{sorted(shared)} belong to {other.lease_id} and to {order.lease_id} at once")
        super().accept(order)

    def settle(self, cursor):
        super().settle(cursor)
        for agent in self.agents.values():
            agent.gone.clear()

    def _next_task(self, agent, key):
        held = agent.held[key]
        if held.left:
            self._count(held.left[0].attempt_id, held.order.rank)
        super()._next_task(agent, key)

    def _end(self, agent, key, run, message):
        attempt_id, rank = agent.held[key].left[0].attempt_id, key[1]
        self._tasks.pop((parse_attempt_id(attempt_id)[:3], rank), None)
        super()._end(agent, key, run, message)

    def _count(self, attempt_id, rank):
        epoch = self.epoch()
        self.starts[attempt_id, rank] += 1
        self.by_epoch[epoch] += 1
        self.first_ms.setdefault(epoch, self.clock.ms)
        if self.starts[attempt_id, rank] > 1:
            self.wrong.append(f"{attempt_id} rank {rank} started again, under epoch {epoch}")
        task = (parse_attempt_id(attempt_id)[:3], rank)
        other = self._tasks.setdefault(task, attempt_id)
        if other != attempt_id:
            self.wrong.append(f"{attempt_id} started while {other} still runs, under epoch {epoch}")


class Server:
    """One farm, one line that is obeyed."""

    def __init__(self):
        self.epoch = 0
        self.clock = FakeClock(now_ms())
        self.yard = Yard(self.clock, epoch=lambda: self.epoch)
        self.executor = None
        self.line = None
        self.refused = 0

    async def serve(self, path):
        server = await asyncio.start_unix_server(self.talk, path, limit=LINE_BYTES)
        async with server:
            while True:
                self.turn()
                await asyncio.sleep(TICK_S)

    def turn(self):
        """What happened since the last turn is told to whoever is obeyed."""
        until_ms = now_ms()
        if self.executor is None:
            while self.yard.advance(until_ms):
                pass
            return
        reports = list(self.executor.poll(0))
        while self.clock.ms < until_ms:
            reports += self.executor.poll(until_ms - self.clock.ms)
        if reports and self.line is not None:
            self.say(self.line, {"reports": [codec.encode(report) for report in reports]})

    async def talk(self, reader, writer):
        try:
            await self.listen(reader, writer)
        except ConnectionError:
            pass  # a service that was killed says no farewell
        finally:
            writer.close()

    async def listen(self, reader, writer):
        epoch = -1
        while line := await reader.readline():
            told = json.loads(line)
            if "hello" in told:
                epoch = told["hello"]
                if not self.greet(epoch, writer):
                    break
            elif "report" in told:
                self.say(writer, self.report())
            elif epoch < self.epoch or writer is not self.line:
                self.refused += 1
                break
            else:
                self.obey(told)

    def greet(self, epoch, writer):
        if epoch < self.epoch:
            self.refused += 1
            return False
        self.epoch, self.line = epoch, writer
        self.executor = FakeExecutor(self.yard)
        return True

    def obey(self, told):
        if "start" in told:
            self.executor.start([codec.decode(LeaseOrder, order) for order in told["start"]])
        elif "stop" in told:
            self.executor.stop(told["stop"], told["reason"])
        else:
            self.executor.acknowledge(told["acknowledge"])

    def report(self):
        yard = self.yard
        return {
            "epoch": self.epoch,
            "starts": sum(yard.starts.values()),
            "by_epoch": {str(epoch): count for epoch, count in yard.by_epoch.items()},
            "first_ms": {str(epoch): at_ms for epoch, at_ms in yard.first_ms.items()},
            "double_starts": len(yard.wrong),
            "wrong": yard.wrong[:5],
            "refused": self.refused,
        }

    @staticmethod
    def say(writer, value):
        writer.write(json.dumps(value).encode() + b"\n")


def now_ms():
    return time.time_ns() // 1_000_000


def reports_of(told):
    """The reports of a line."""
    return tuple(codec.decode(Report, report) for report in told["reports"])


if __name__ == "__main__":
    Path(sys.argv[1]).unlink(missing_ok=True)
    asyncio.run(Server().serve(sys.argv[1]))
