from __future__ import annotations

import pytest

from scheduler.model.order import Report, ReportKind
from tests.unit.workers.helpers import lease, task
from workers.outbox import Outbox
from workers.table import Table


class CountingTable(Table):
    """Counts how often a reader looks; ``meanwhile`` runs once, right after a look."""

    looks = 0
    meanwhile = None

    def after(self, cursor, limit):
        self.looks += 1
        found = super().after(cursor, limit)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return found


@pytest.fixture
def table(tmp_path):
    table = CountingTable(tmp_path / "table.log")
    yield table
    table.close()


def finish(table, index):
    order = lease(task("/bin/true", index=index), lease_id=f"l{index}")
    table.accept([order])
    done = Report(kind=ReportKind.FINISHED, lease_id=order.lease_id, attempt_id=order.tasks[0].attempt_id)
    return table.finish((order.lease_id, 0), done)


def test_a_reader_that_has_everything_sleeps(table):
    """A put whose report went out with an earlier one must not keep the next wait awake."""
    outbox = Outbox(table)
    finish(table, 0)
    last = finish(table, 1)
    outbox.put(urgent=True)
    table.meanwhile = lambda: outbox.put(urgent=True)
    assert outbox.take("", 0, 10)[-1].cursor == last.cursor
    table.looks = 0
    assert outbox.take(last.cursor, 200, 10) == ()
    assert table.looks < 5


def test_a_report_put_while_a_reader_looks_is_not_forgotten(table):
    outbox = Outbox(table)
    first = finish(table, 0)
    outbox.put(urgent=True)

    def late():
        finish(table, 1)
        outbox.put(urgent=True)

    table.meanwhile = late
    assert [r.attempt_id for r in outbox.take("", 0, 10)] == [first.attempt_id]
    assert [r.lease_id for r in outbox.take(first.cursor, 30_000, 10)] == ["l1"]
