"""What one start costs: the feed of ``farm.py`` on a clock that moves by rounds, so that its decisions are always the same.

Real time and the load of the machine change nothing of what is played, only how long it takes. So two versions can be
played by turns, in processes of their own: their journals must be equal to the last hash, and the processor time that
the cycle took is compared. ``python -P -m benchmarks.turns [OTHER_CHECKOUT]``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.farm import Service, prepare
from benchmarks.farm_stub import FastClock, Stub, drafts, farm_nodes

STARTS = 20_000
"""Played after the farm is full."""
ROUND_MS, START_MS = 380, 60
"""The farm's time from one cycle to the next, and from a cycle's instant to the first order that arrives: some 200
tasks end per round, as in the feed."""
TURNS = 3


class RoundClock(FastClock):
    """Stands still until it is moved."""

    moved_ms: int = 0

    def now_ms(self) -> int:
        """The farm's wall clock."""
        return self.base_ms + self.moved_ms


class RoundStub(Stub):
    """A farm whose time passes when it is asked for reports or given orders; notes the processor time it takes itself."""

    own_s = 0.0

    def poll(self, timeout_ms: int) -> tuple[object, ...]:  # type: ignore[override]
        """What has happened by the next round."""
        began = time.thread_time()
        self.clock.moved_ms += ROUND_MS - START_MS  # type: ignore[attr-defined]
        told = super().poll(0)
        self.own_s += time.thread_time() - began
        return told

    def start(self, orders: Sequence[object]) -> None:  # type: ignore[override]
        """Orders arrive a little later than they were decided."""
        began = time.thread_time()
        self.clock.moved_ms += START_MS  # type: ignore[attr-defined]
        super().start(orders)  # type: ignore[arg-type]
        self.own_s += time.thread_time() - began


def play(folder: Path, starts: int = STARTS) -> dict[str, object]:
    """Fill the farm, then go on until so many more tasks have started; what that took, and where the journal ends."""
    nodes = farm_nodes()
    render, sweep = drafts(folder, 200)
    prepare(folder, nodes, [(render, 700), (sweep, 500)]).close()
    stub = RoundStub(nodes, RoundClock())
    service = Service(folder, stub)
    stub.connect()
    while stub.ended < 2_000:
        service.cycle.once(0)
    first, began_s, own_s, rounds = stub.started, time.process_time(), stub.own_s, list[float]()
    while stub.started < first + starts:
        round_s = time.process_time()
        service.cycle.once(0)
        rounds.append(time.process_time() - round_s)
    spent_s = time.process_time() - began_s - (stub.own_s - own_s)
    count = stub.started - first
    service.close()
    head = digest(folder / "shisuan.db")
    rounds.sort()
    return {
        "us_per_start": 1e6 * spent_s / count,
        "starts": count,
        "rounds": len(rounds),
        "p50_ms": 1_000 * rounds[len(rounds) // 2],
        "p99_ms": 1_000 * rounds[int(len(rounds) * 0.99)],
        "head": str(head),
    }


def digest(path: Path) -> str:
    """A hash over every row of what a service goes on from and is paid by."""
    found = hashlib.sha256()
    with closing(sqlite3.connect(path)) as connection:
        for table in ("journal", "jobs", "steps", "leases", "attempts", "usage", "outbox", "queue_uses"):
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2"):  # noqa: S608 (names of our own)
                found.update(repr(row).encode())
    return found.hexdigest()[:16]


def turn(checkout: Path) -> dict[str, object]:
    """One version plays, in a process and a folder of its own. The folder's name is in the journal: it is the same."""
    folder = Path(tempfile.gettempdir()) / "shisuan-turns"
    folder.mkdir()
    try:
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        command = [sys.executable, "-P", __file__, "play", str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    finally:
        shutil.rmtree(folder)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(argv: Sequence[str]) -> None:
    if argv[:1] == ["play"]:
        print(json.dumps(play(Path(argv[1]))))
        return
    ours = Path(__file__).parents[1]
    checkouts = [ours, *map(Path, argv)]
    found: dict[Path, list[dict[str, object]]] = {checkout: [] for checkout in checkouts}
    for _ in range(TURNS):
        for checkout in checkouts:
            found[checkout].append(turn(checkout))
            print(checkout, found[checkout][-1], flush=True)
    heads = {each["head"] for turns in found.values() for each in turns}
    print("journals equal" if len(heads) == 1 else f"JOURNALS DIFFER: {heads}")
    spent = [statistics.median(float(str(each["us_per_start"])) for each in turns) for turns in found.values()]
    print([round(each) for each in spent], round(spent[0] / spent[-1], 3))


if __name__ == "__main__":
    main(sys.argv[1:])
