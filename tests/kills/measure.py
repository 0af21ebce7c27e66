"""How long a failover takes: ``python -m tests.kills.measure RUNS LEASE_S``; prints one line of JSON.

From the harm that is done to the leader under load to the first grant that its successor recorded.
"""

import json
import signal
import sys
import tempfile
import time
from pathlib import Path

from scheduler.model.event import EngineStarted, LeaseGranted
from scheduler.store import open_store
from tests.fakes.kube.server import FakeKubernetes
from tests.kills.pair import FAULTS, Pair
from tests.postgres import Postgres


def first_decision_ms(store, after):
    """When the service that started after this row of the journal granted its first lease; 0: not yet."""
    started = False
    for _, event in store.journal(after):
        started = started or isinstance(event, EngineStarted)
        if started and isinstance(event, LeaseGranted):
            return event.at_ms
    return 0


def measure(pair, store, fault):
    """Seconds of one failover."""
    pair.pour()
    victim = pair.wait_leader()
    pair.wait("the other one to be a standby", lambda: all(r.ask("/warmz") == 200 for r in pair.replicas))
    ((last, _),) = store.journal_tail(1)
    pair.held_back = (victim,)
    harmed_ms = time.time_ns() // 1_000_000
    pair.harm(fault, victim)
    decided_ms = pair.wait("a decision of the successor", lambda: first_decision_ms(store, last), every_s=0.1)
    victim.heal()
    victim.send(signal.SIGCONT)
    pair.wait("the end of the old leader", lambda: not victim.lives)
    pair.held_back = ()
    pair.stop_pouring()
    pair.wait("the end of every job", pair.all_ended)
    return (decided_ms - harmed_ms) / 1_000


def main():
    runs, lease_s = (int(word) for word in sys.argv[1:])
    server = Postgres(durable=True)
    try:
        with FakeKubernetes() as double, tempfile.TemporaryDirectory(prefix="shisuan-failover-") as folder:
            double.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "park"}})
            url = server.new_database()
            pair = Pair(Path(folder), url, double.url, lease_s=lease_s)
            try:
                pair.wait_leader()
                store = open_store(url)
                found = {fault: [measure(pair, store, fault) for _ in range(runs)] for fault in FAULTS}
                store.close()
                doubles, jobs = pair.yard()["double_starts"], len(pair.accepted)
            finally:
                pair.close()
    finally:
        server.close()
    print(json.dumps({"seconds": found, "double_starts": doubles, "jobs": jobs}))


if __name__ == "__main__":
    main()
