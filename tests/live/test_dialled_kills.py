"""Services, drivers and diallers of a cluster elsewhere end at seeded moments: nothing is lost or run twice."""

import itertools
import os
import random
import signal
import time

import psutil
import pytest

from scheduler.model.lease import AttemptState
from scheduler.model.order import ReportKind
from tests.farm import NODES, gang, lease
from tests.pods import Bridge, OneCluster, Pods

pytestmark = [pytest.mark.ray, pytest.mark.soak, pytest.mark.timeout(600)]

MOMENTS = 30
PATIENCE_S = 60


class Park:
    """A control plane in small: it obeys the rules of ``workers/runtime.py`` and remembers what it heard."""

    def __init__(self, pods) -> None:
        self.pods = pods
        self.epochs = itertools.count(1)
        self.service = OneCluster(epoch=next(self.epochs))
        self.bridge = Bridge(pods, self.service.port)
        self.orders, self.started, self.ended = {}, {}, {}
        self.missing = []
        """Leases that had started and that an inventory lacked."""

    def submit(self, orders):
        self.orders[orders[0].lease_id] = orders
        self.service.start(orders)

    def listen(self, for_s):
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            for report in self.service.poll(50):
                self.take(report)

    def take(self, report):
        match report.kind:
            case ReportKind.RUNTIME_UP:
                for lease_id, orders in self.orders.items():
                    if lease_id not in self.started and lease_id not in self.ended:
                        self.service.start(orders)
            case ReportKind.STARTED:
                self.started.setdefault(report.lease_id, set()).add((report.at_ms, report.cursor))
            case ReportKind.FINISHED:
                self.ended.setdefault(report.lease_id, set()).add((report.state, report.cursor, report.message))
            case ReportKind.INVENTORY:
                known = set(report.leases)
                for lease_id in self.started.keys() - self.ended.keys() - known:
                    if report.node in {order.node for order in self.orders[lease_id]}:
                        self.missing.append(lease_id)
        if report.cursor:
            self.service.acknowledge([report.cursor])

    def replace_service(self):
        self.service.close()
        self.service = OneCluster(epoch=next(self.epochs), port=self.service.port)

    def kill_driver(self):
        for child in psutil.Process(self.bridge.process.pid).children():
            os.kill(child.pid, signal.SIGKILL)

    def kill_dialler(self):
        self.bridge.close()
        self.bridge = Bridge(self.pods, self.service.port)

    def close(self):
        self.bridge.close()
        self.service.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_or_run_twice(tmp_path, seed):
    rng, numbers = random.Random(seed), itertools.count(1)
    pods = Pods(tmp_path, NODES)
    try:
        pods.start()
        park = Park(pods)
        for _ in range(MOMENTS):
            number = next(numbers)
            length = f"{rng.uniform(0, 2):.2f}"
            if rng.random() < 0.3:
                park.submit(gang(number, ("sh", "-c", f"echo ran; sleep {length}")))
            else:
                node = rng.choice(NODES).name
                park.submit([lease(number, "sh", "-c", f"echo ran; sleep {length}", node=node)])
            park.listen(rng.uniform(0, 2))
            rng.choice([park.replace_service, park.kill_driver, park.kill_dialler, lambda: None])()
        until = time.monotonic() + PATIENCE_S
        while park.ended.keys() != park.orders.keys() and time.monotonic() < until:
            park.listen(0.2)
        assert park.ended.keys() == park.orders.keys()
        assert park.missing == []
        assert {state for ends in park.ended.values() for state, _, _ in ends} == {AttemptState.SUCCEEDED}, park.ended
        assert {len(heard) for heard in (*park.started.values(), *park.ended.values())} == {1}
        for orders in park.orders.values():
            for order in orders:
                chunk = park.service.read_log(order.node, order.tasks[0].attempt_id, 0, 100, order.rank)
                assert chunk.text == "ran\n"
    finally:
        park.close()
        pods.remove()
