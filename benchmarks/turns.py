"""What one start costs: the feed of ``farm.py`` on a clock that moves by rounds, so that decisions are always the same.

Real time and the load of the machine change nothing of what is played, only how long it takes. Two versions play it in
processes of their own and by turns, one cycle each, so that both meet the same neighbours: their journals and tables
must be equal to the last byte, and the processor time of their cycles is compared.
``python -P -m benchmarks.turns OTHER_CHECKOUT``.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.farm import Service, prepare, quantile
from benchmarks.farm_stub import FastClock, Stub, drafts, farm_nodes
from scheduler.model.order import LeaseOrder, Report

STARTS = 20_000
"""Played after the farm is full."""
ROUND_MS, START_MS = 380, 60
"""The farm's time from one cycle to the next, and from a cycle's instant to the arrival of its orders: some 200 tasks
end per round, as in the feed."""
SETTLED = 2_000
"""Ends before anything is measured."""
TABLES = ("journal", "jobs", "steps", "leases", "attempts", "usage", "queue_uses", "meta")
SECRET = {"token_secret", "owner"}
"""Columns that are drawn anew for each database."""


class RoundClock(FastClock):
    """Stands still until it is moved."""

    moved_ms = 0

    def now_ms(self) -> int:
        """The farm's wall clock."""
        return self.base_ms + self.moved_ms


class RoundStub(Stub):
    """A farm whose time passes when it is asked for reports or given orders. It notes the processor time it takes."""

    clock: RoundClock
    own_s = 0.0

    def poll(self, timeout_ms: int) -> tuple[Report, ...]:
        """What has happened by the next round."""
        began = time.thread_time()
        self.clock.moved_ms += ROUND_MS - START_MS
        told = super().poll(0)
        self.own_s += time.thread_time() - began
        return told

    def start(self, orders: Sequence[LeaseOrder]) -> None:
        """Orders arrive a little later than they were decided."""
        began = time.thread_time()
        self.clock.moved_ms += START_MS
        super().start(orders)
        self.own_s += time.thread_time() - began


def play(scenes: Path, folder: Path) -> None:
    """A cycle per line of the standard input, each answered with its processor time in seconds and the starts so far.

    At the end a hash of what was recorded. ``scenes`` is named in the jobs: the same for all versions.
    """
    nodes = farm_nodes()
    render, sweep = drafts(scenes, 200)
    prepare(scenes, nodes, [(render, 700), (sweep, 500)]).close()
    (scenes / "shisuan.db").rename(folder / "shisuan.db")
    stub = RoundStub(nodes, RoundClock())
    service = Service(folder, stub)
    stub.connect()
    while stub.ended < SETTLED:
        service.cycle.once(0)
    first = stub.started
    print("ready", flush=True)
    for _ in sys.stdin:
        began_s, own_s = time.process_time(), stub.own_s
        service.cycle.once(0)
        print(time.process_time() - began_s - (stub.own_s - own_s), stub.started - first, flush=True)
    service.close()
    print(recorded(folder / "shisuan.db"), flush=True)


def recorded(path: Path) -> str:
    """A hash over every row of what a service goes on from and is paid by."""
    found = hashlib.sha256()
    with closing(sqlite3.connect(path)) as connection:
        for table in TABLES:
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] not in SECRET]
            for row in connection.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY 1, 2"):  # noqa: S608 (ours)
                found.update(repr(row).encode())
    return found.hexdigest()


class Player:
    """One version, in a process of its own."""

    def __init__(self, checkout: Path, scenes: Path, folder: Path) -> None:
        folder.mkdir()
        self.checkout = checkout
        self.rounds_s: list[float] = []
        self.starts = 0
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, "play", str(scenes), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert self._heard() == "ready", "it ended before it had begun"

    def round(self) -> None:
        """One cycle."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        spent, starts = self._heard().split()
        self.rounds_s.append(float(spent))
        self.starts = int(starts)

    def end(self) -> str:
        """The hash of what it recorded."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        head = self._heard()
        self._process.wait()
        return head

    def __str__(self) -> str:
        """How it did."""
        each_us = 1e6 * sum(self.rounds_s) / self.starts
        tail = f"p50 {1_000 * quantile(self.rounds_s, 0.5):.0f} ms, p99 {1_000 * quantile(self.rounds_s, 0.99):.0f} ms"
        return f"{self.checkout}: {each_us:.0f} us of processor time per start, {tail} a cycle"

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def compare(ours: Path, other: Path, starts: int = STARTS) -> None:
    """Play both and print what each took. Exits with 1 when what they recorded differs."""
    with tempfile.TemporaryDirectory(prefix="shisuan-turns-") as made:
        scenes = Path(made) / "scenes"
        scenes.mkdir()
        players = [Player(checkout, scenes, Path(made) / str(at)) for at, checkout in enumerate((ours, other))]
        while players[0].starts < starts:
            for player in players:
                player.round()
        print(*players, sep="\n")
        pairs = zip(players[0].rounds_s, players[1].rounds_s, strict=True)
        ratio = sum(players[0].rounds_s) / sum(players[1].rounds_s)
        print(f"ratio {ratio:.3f}, of single cycles {statistics.median(a / b for a, b in pairs):.3f} (median)")
        heads = [player.end() for player in players]
    if heads[0] != heads[1]:
        sys.exit("what they recorded differs")
    print("what they recorded is equal")


if __name__ == "__main__":
    if sys.argv[1:2] == ["play"]:
        play(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        compare(Path(__file__).parents[1], Path(sys.argv[1]).absolute())
