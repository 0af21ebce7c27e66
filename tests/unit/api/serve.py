"""The service as a process of its own, with workers that finish everything at once: ``python -m tests.unit.api.serve``.

``SHISUAN_TEST_DIE=store`` makes the database refuse the first job; ``cycle`` makes the planner fail.
"""

import os
import sys

from scheduler import wiring
from scheduler.control.dispatch import Dispatch
from scheduler.model.errors import StoreError
from scheduler.model.event import JobSubmitted
from scheduler.store import SqlStore
from tests.unit.control.world import NODE, Workers


class Prompt(Workers):
    """Each order is carried out within the call."""

    def start(self, orders):
        super().start(orders)
        for attempt in [t.attempt_id for o in orders for t in o.tasks]:
            self.begin(attempt)
            self.finish(attempt)


def workers(settings, nodes):
    made = Prompt(wiring.SystemClock(), (NODE,))
    made.connect()
    return made


def refuse(self, epoch, events, changes, meanwhile=None, *, real=SqlStore.commit):
    if any(isinstance(e, JobSubmitted) for e in events):
        raise StoreError("disk full")
    return real(self, epoch, events, changes, meanwhile)


def fail(*_):
    raise RuntimeError("a bug")


if __name__ == "__main__":
    wiring._executor = workers
    match os.environ.get("SHISUAN_TEST_DIE"):
        case "store":
            SqlStore.commit = refuse
        case "cycle":
            Dispatch.orders = fail
    sys.exit(wiring.main())
