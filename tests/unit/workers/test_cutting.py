"""A node cuts its cards, but never what a lease on it holds."""

from dataclasses import replace

import pytest

from scheduler.model.layout import after_cut, layout_of
from scheduler.model.lease import AttemptState
from scheduler.model.node import CardCut, Device, MigPlace
from scheduler.model.order import Report, ReportKind
from tests.farm import lease
from workers.cutting import cut_cards
from workers.table import Table

CARD = "SIM-1"
HALVES = (MigPlace(start=0, profile="3g.40gb"), MigPlace(start=4, profile="3g.40gb"))
DEVICES = after_cut((Device(id=CARD, model="H100-SXM-80GB", simulated=True, mig_on=True),), CARD, HALVES)
WHOLE = CardCut(card=CARD, layout=(MigPlace(start=0, profile="7g.80gb"),))


@pytest.fixture
def table(tmp_path):
    """Of an agent that runs a lease on the second half."""
    folder = tmp_path / "nodes" / "alpha" / "t1"
    folder.mkdir(parents=True)
    made = Table(folder / "table.log")
    made.accept([lease(1, "sleep", "9", devices=(DEVICES[1].id,), simulated=True)])
    yield made
    made.close()


def test_what_a_lease_holds_stays_until_it_has_ended(table, tmp_path):
    devices, refused = cut_cards(tmp_path, "alpha", DEVICES, [WHOLE])
    assert devices == DEVICES
    assert refused == (replace(WHOLE, problem=f"instance {DEVICES[1].id} is in use: a lease holds it"),)
    beside = CardCut(card=CARD, layout=(MigPlace(start=0, profile="4g.40gb"), HALVES[1]))
    devices, refused = cut_cards(tmp_path, "alpha", DEVICES, [beside])
    assert (layout_of(devices, CARD), refused) == (beside.layout, ())
    end = Report(kind=ReportKind.FINISHED, lease_id="l1", attempt_id="j1.run.0.a1", state=AttemptState.SUCCEEDED)
    table.finish(("l1", 0), end)
    devices, refused = cut_cards(tmp_path, "alpha", DEVICES, [WHOLE])
    assert (layout_of(devices, CARD), refused) == (WHOLE.layout, ())
    assert table.lease_ids() == ("l1",), "the agent's table was only read"


def test_a_driver_that_does_not_answer_takes_no_card_away(tmp_path, monkeypatch):
    monkeypatch.setattr("workers.cutting.cut_here", lambda layouts: ((), dict.fromkeys(layouts, "no NVIDIA driver")))
    real = tuple(replace(device, simulated=False) for device in DEVICES)
    assert cut_cards(tmp_path, "alpha", real, [WHOLE]) == (real, (replace(WHOLE, problem="no NVIDIA driver"),))
