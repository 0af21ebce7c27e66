"""When and where a stretch of time is free, between what is held and what was promised."""

from __future__ import annotations

from scheduler.engine.gaps import Gaps, Stretch
from scheduler.engine.guard import Guard, Promise
from scheduler.model.job import Together
from scheduler.model.lease import Allocation
from scheduler.placement.fit import demand_of
from scheduler.placement.view import NodeView
from scheduler.queueing.calendar import Calendar
from tests.builders import FEATURES, a_node, a_step

NODE = a_node("n1", cards=4, cpus=32)


def card(number: int) -> Allocation:
    return Allocation(node="n1", devices=(f"GPU-n1-{number}",), cpu_milli=1_000, memory_mib=512)


def slot(job_id: str, cards: int, start_ms: int) -> Promise:
    """Kept for it on any cards of the node."""
    return Promise(
        job_id=job_id, step="work", tenant="studio", demand=demand_of(a_step(cards=cards), "studio"),
        allocations=(Allocation(node="n1"),), start_ms=start_ms, end_ms=5_000, is_slot=True,
    )  # fmt: skip


def test_a_slot_that_has_begun_took_other_cards_than_were_free_later():
    """Card 0 is held until 150 and card 3 until 300. A slot for two begins at 100: on cards 1 and 2. One for one card
    begins at 300. From 150 on one card is free, whichever the slot is counted on.
    """
    held = [(150, card(0), "l1"), (300, card(3), "l2")]
    view = NodeView.empty(NODE)
    for _, allocation, _ in held:
        view = view.take(allocation, "studio")
    guard = Guard({"n1": view}, lambda name, leave: held, FEATURES)
    guard.add(slot("j1", 2, 100))
    guard.add(slot("j2", 1, 300))
    asked = Stretch(
        demand=demand_of(a_step(cards=1), "studio"), ranks=1, together=Together.ANYWHERE, tenant="studio",
        queues=("default",), length_ms=1_000, from_ms=0,
    )  # fmt: skip
    gaps = Gaps(guard, lambda name: held, Calendar(()), FEATURES, exact=True)
    found = gaps.earliest(asked, ["n1"])
    assert found is not None
    assert found[0] == 150
    guard.add(slot("j3", 1, 400))
    assert gaps.earliest(asked, ["n1"])[0] == 5_000, "now every card is kept"
