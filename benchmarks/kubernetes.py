"""What following a large park costs: time to know it, time to read it again, memory, requests.

Run by ``make bench-kubernetes``. The API server is the tests' double, a process of its own, with 5,000 nodes of eight
cards and four pods each; the inventory is another. Wall times hold the server's work; CPU times do not. Failovers of
the control plane are measured by :mod:`benchmarks.failover`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.failover import LEASE_S, failovers
from benchmarks.results import Figure, show, write
from k8s.api import Api
from k8s.door import from_kubeconfig
from k8s.inventory import Inventory
from scheduler.model.order import Report

ROOT = Path(__file__).parents[1]
NODES = 5_000
CARDS = 8 * NODES
RUNS = 3
STEADY_S = 30
HEARTBEATS_PER_S = 17
"""A kubelet with nothing new reports every five minutes: 5,000 of them so often."""
LIMIT_S = 300.0


class Double:
    """The API server, in a process of its own."""

    def __init__(self, nodes: int) -> None:
        # Without -P: it is imported from the checkout, which the tests are not installed from.
        command = [sys.executable, "-m", "tests.fakes.kube", str(nodes)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url: str = self._answer()

    def ask(self, command: str) -> Any:
        """Its answer to a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def kubeconfig(url: str, folder: Path) -> Path:
    """A kubeconfig for the double."""
    named = {"name": "park"}
    path = folder / "kubeconfig"
    content = {
        "clusters": [{**named, "cluster": {"server": url}}],
        "users": [{**named, "user": {}}],
        "contexts": [{**named, "context": {"cluster": "park", "user": "park"}}],
        "current-context": "park",
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def wait(holds: Callable[[], bool], what: str) -> None:
    """Until it holds. Raises TimeoutError."""
    until = time.monotonic() + LIMIT_S
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(0.1)


def follow(config: str) -> None:
    """In a process of its own: know the park, then on each line of stdin say what it has cost by now."""
    told: list[int] = []
    known = threading.Event()

    def tell(reports: Sequence[Report]) -> None:
        told.append(len(reports))
        known.set()

    process = psutil.Process()
    began, cpu = time.monotonic(), time.process_time()
    inventory = Inventory(Api(from_kubeconfig(config)), tell, now_ms=lambda: 0)
    inventory.start()
    if not known.wait(LIMIT_S):
        raise TimeoutError(inventory.problem)
    first_s, first_cpu_s = time.monotonic() - began, time.process_time() - cpu
    nodes = inventory.nodes()
    known_cards = sum(len(node.devices) for node in nodes)
    del nodes
    for _ in sys.stdin:
        answer = {
            "first_s": first_s,
            "first_cpu_s": first_cpu_s,
            "reports": sum(told),
            "cards": known_cards,
            "cpu_s": time.process_time(),
            "rss_mib": process.memory_info().rss / 2**20,
            "peak_mib": peak_mib(),
            "lists": {name: one.lists for name, one in inventory.informers.items()},
            "list_s": {name: one.list_s for name, one in inventory.informers.items()},
        }
        print(json.dumps(answer), flush=True)
    inventory.close()


def peak_mib() -> float:
    """The most memory this process has had, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 1024


class Follower:
    """An inventory, in a process of its own."""

    def __init__(self, config: Path) -> None:
        command = [sys.executable, "-P", "-m", "benchmarks.kubernetes", str(config)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def now(self) -> dict[str, Any]:
        """What it costs by now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def measure(double: Double, config: Path) -> dict[str, float]:
    """One run: first reading, nodes and then everything read again after 410, half a minute of heartbeats."""
    follower = Follower(config)
    first = follower.now()
    assert (first["cards"], first["reports"]) == (CARDS, NODES), first
    double.ask("compact nodes")
    wait(lambda: follower.now()["lists"]["nodes"] > 1, "the inventory to read the nodes again")
    nodes = follower.now()
    double.ask("compact")
    wait(lambda: follower.now()["lists"]["nodes"] > 2, "the inventory to read the nodes a third time")
    wait(lambda: min(follower.now()["lists"].values()) > 1, "the inventory to read everything again")
    again = follower.now()
    double.ask("calls")
    for _ in range(STEADY_S):
        double.ask(f"heartbeats {HEARTBEATS_PER_S}")
        time.sleep(1)
    calls = double.ask("calls")
    last = follower.now()
    assert last["reports"] == NODES, "a heartbeat was taken for news"
    follower.close()
    return {
        "known_seconds": first["first_s"],
        "known_cpu_seconds": first["first_cpu_s"],
        "relist_seconds": nodes["list_s"]["nodes"],
        "relist_cpu_seconds": nodes["cpu_s"] - first["cpu_s"],
        "relist_all_seconds": max(again["list_s"].values()),
        "relist_all_cpu_seconds": again["cpu_s"] - nodes["cpu_s"],
        "inventory_rss_mib": last["rss_mib"],
        "inventory_peak_rss_mib": last["peak_mib"],
        "steady_api_calls": sum(calls.values()),
        "steady_cpu_percent": 100 * (last["cpu_s"] - again["cpu_s"]) / STEADY_S,
    }


BOUNDS = {"relist_seconds": 2.0, "inventory_rss_mib": 600.0, "steady_api_calls": 8.0}


def main() -> None:
    """Measure, print, keep."""
    with tempfile.TemporaryDirectory(prefix="shisuan-bench-") as folder:
        double = Double(NODES)
        try:
            config = kubeconfig(double.url, Path(folder))
            runs = [measure(double, config) for _ in range(RUNS)]
        finally:
            double.close()
    figures = [Figure(name=name, runs=tuple(run[name] for run in runs), bound=BOUNDS.get(name)) for name in runs[0]]
    figures += failovers()
    show(figures)
    notes = {
        "nodes": NODES,
        "cards": CARDS,
        "pods": 4 * NODES,
        "steady_s": STEADY_S,
        "heartbeats_per_s": HEARTBEATS_PER_S,
        "failover_lease_s": LEASE_S,
    }
    write("kubernetes", figures, notes=notes)
    missed = [figure.name for figure in figures if figure.is_missed]
    if missed:
        sys.exit(f"over the bound: {', '.join(missed)}")


if __name__ == "__main__":
    follow(sys.argv[1]) if len(sys.argv) > 1 else main()
