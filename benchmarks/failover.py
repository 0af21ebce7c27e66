"""How long the control plane decides nothing when its leader fails, with lease times as the chart has them.

Part of ``make bench-kubernetes``. Two services on a PostgreSQL of their own and the API server double, under load; the
leader is killed, paused or cut off, and the time runs until its successor has recorded its first grant.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.results import Figure

ROOT = Path(__file__).parents[1]
RUNS = 1
"""Of each kind of fault."""
LEASE_S = 8
"""The default of ``--lease-seconds``."""


def failovers() -> list[Figure]:
    """The figures. Raises CalledProcessError, and AssertionError for a start that must not have been."""
    # Without -P: it is imported from the checkout, which the tests are not installed from.
    command = [sys.executable, "-m", "tests.kills.measure", str(RUNS), str(LEASE_S)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["double_starts"] == 0, found
    seconds: dict[str, list[float]] = found["seconds"]
    every = sorted(value for runs in seconds.values() for value in runs)
    figures = [Figure(name=f"failover_{kind.replace(' ', '_')}_seconds", runs=tuple(r)) for kind, r in seconds.items()]
    # Of so few runs the 99th percentile is the longest.
    return [Figure(name="failover_p99_seconds", runs=(every[-1],), bound=15.0), *figures]
