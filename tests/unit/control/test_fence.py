"""A leader that sleeps at the worst moment: its facts are recorded, its workers have not been told."""

import pytest

from scheduler.control.cycle import Cycle
from scheduler.model.errors import StaleEpoch
from scheduler.model.job import JobState
from tests.unit.control.world import Workers, World, step


class Site(Workers):
    """Workers that forget a lease whose ends were acknowledged, as real ones do, and know the highest epoch."""

    epoch = 0
    checks = True
    refused = ()

    def acknowledge(self, cursors):
        ended = {self.unacknowledged[c].attempt_id for c in cursors if c in self.unacknowledged}
        super().acknowledge(cursors)
        for key, order in tuple(self.known.items()):
            if {task.attempt_id for task in order.tasks} <= ended & self.over:
                del self.known[key]


class Line:
    """One service's way to the site: what a bridge obeys."""

    def __init__(self, site, world):
        self._site, self._world = site, world

    def __getattr__(self, name):
        return getattr(self._site, name)

    def connect(self):
        self._epoch = self._world.cycle._epoch
        self._site.connect()

    def start(self, orders):
        if self._site.checks and self._epoch < self._site.epoch:
            self._site.refused += tuple(order.lease_id for order in orders)
        else:
            self._site.epoch = self._epoch
            self._site.start(orders)


class Park(World):
    def boot(self):
        self.site = getattr(self, "site", None) or Site(self.clock)
        self.workers = Line(self.site, self)
        super().boot()

    def sleep_before_telling(self, monkeypatch):
        """The leader commits and sleeps; what it will say when it wakes, and itself."""
        asleep, kept = self.cycle, []
        with monkeypatch.context() as patch:
            patch.setattr(Cycle, "_tell", lambda self, batch: kept.append(batch))
            job = self.submit(step("many", count=3))
        (told,) = kept
        return job, asleep, lambda: asleep._tell(told), tuple(told.orders)


@pytest.fixture
def park(tmp_path):
    made = Park(tmp_path)
    yield made
    made.close()


def test_orders_of_a_leader_that_slept_are_repeats_of_what_is_recorded(park, monkeypatch):
    job, _, wake, orders = park.sleep_before_telling(monkeypatch)
    assert len(orders) == 3
    recorded = {record.lease.id: record.lease for record in park.store.leases(job_id=job)}
    for order in orders:
        assert tuple(task.attempt_id for task in order.tasks) == recorded[order.lease_id].attempts
    park.boot()  # the successor repeats them, because nobody has said that they started
    park.turn()
    assert sorted(park.site.ran) == sorted(task.attempt_id for order in orders for task in order.tasks)
    wake()
    assert len(park.site.ran) == 3
    assert park.run_to_end(job).state is JobState.SUCCEEDED


@pytest.mark.parametrize("checks", [True, False], ids=["the site knows the epoch", "nobody looks at the epoch"])
def test_a_leader_that_slept_until_its_orders_were_carried_out_and_forgotten_starts_nothing(park, monkeypatch, checks):
    job, asleep, wake, orders = park.sleep_before_telling(monkeypatch)
    park.boot()
    assert park.run_to_end(job).state is JobState.SUCCEEDED
    park.turn(2)
    assert not park.site.known
    park.site.checks = checks
    wake()
    if not checks:  # what the epoch at the site is for: the table of what was carried out is not kept for ever
        assert len(park.site.ran) == 6
        return
    assert len(park.site.ran) == 3
    assert park.site.refused == tuple(order.lease_id for order in orders)
    successor, park.cycle = park.cycle, asleep
    with pytest.raises(StaleEpoch):
        park.submit()
    assert len(park.site.ran) == 3
    park.cycle = successor
