"""The service whose start ``benchmarks.kubernetes`` measures: the whole cycle over a database and a park's inventory.

``python -P -m benchmarks.decision prepare FOLDER``, then ``… decide FOLDER KUBECONFIG`` in a process of its own.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.farm import Service, prepare
from benchmarks.farm_stub import FastClock, Stub, drafts
from k8s.api import Api
from k8s.door import from_kubeconfig
from k8s.inventory import Inventory
from scheduler.model.order import LeaseOrder, Report


class Fleet(Stub):
    """The nodes are those the inventory tells of; whatever is ordered, the time is noted and the service ends."""

    def __init__(self) -> None:
        super().__init__((), FastClock())
        self.decided_s = 0.0
        self.ended = threading.Event()
        self._told: queue.SimpleQueue[Sequence[Report]] = queue.SimpleQueue()

    def tell(self, reports: Sequence[Report]) -> None:
        """The inventory's reports; any thread."""
        self._told.put(reports)
        self.wake()

    def poll(self, timeout_ms: int) -> tuple[Report, ...]:
        """What the runtime and the inventory say."""
        said = super().poll(timeout_ms)
        while not self._told.empty():
            said += tuple(self._told.get())
        return said

    def start(self, orders: Sequence[LeaseOrder]) -> None:
        """The first decision."""
        self.decided_s = self.decided_s or time.monotonic()
        super().start(orders)
        self.ended.set()


def decide(folder: Path, config: str) -> None:
    """It knows no node when it starts, and 200 tasks of a card each wait."""
    fleet = Fleet()
    service = Service(folder, fleet)
    inventory = Inventory(Api(from_kubeconfig(config)), fleet.tell, now_ms=fleet.clock.now_ms)
    inventory.start()
    fleet.watch = lambda: service.cycle.stop() if fleet.ended.is_set() else None
    fleet.connect()
    service.run()
    inventory.close()
    with service.cycle.state() as engine:
        answer = {"decided_s": fleet.decided_s, "nodes": sum(1 for _ in engine.nodes()), "cpu_s": time.process_time()}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare", folder]:
            prepare(Path(folder), (), [(drafts(Path(folder), 200)[1], 1)]).close()
        case ["decide", folder, config]:
            decide(Path(folder), config)
        case _:
            sys.exit(__doc__)
