import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.ledger.conservation import Overlap, Presence, buckets, error, inventory
from scheduler.model.event import NodeLost, NodeSeen
from scheduler.model.lease import Allocation, AttemptRecord, AttemptState, Lease, LeaseRecord
from scheduler.model.node import Health, NodeState
from scheduler.model.usage import Bucket
from tests.builders import a_card, a_mig, a_node

FREE, HELD, STARTING = Bucket.FREE, Bucket.HELD_CHARGED, Bucket.STARTING
QUARANTINED, UNKNOWN, LOST = Bucket.QUARANTINED, Bucket.UNKNOWN, Bucket.HELD_FREE
EXTERNAL = Bucket.EXTERNAL


def held(granted_ms, started_ms, closed_ms, *, milli=0, device="GPU-n1-0", state=AttemptState.SUCCEEDED, number=1):
    lease = Lease(
        id=f"l{number}",
        job_id="j1",
        step="work",
        tenant="t",
        queue="q",
        allocations=(Allocation(node="n1", devices=(device,), card_milli=milli),),
        attempts=("j1.work.0.a1",),
        granted_ms=granted_ms,
    )
    attempt = AttemptRecord(
        id="j1.work.0.a1",
        lease_id=lease.id,
        job_id="j1",
        step="work",
        index=0,
        number=1,
        state=state if closed_ms else AttemptState.RUNNING,
        started_ms=started_ms,
        finished_ms=closed_ms,
    )
    return LeaseRecord(lease=lease, closed_ms=closed_ms), [attempt]


def rows(events, leases, start_ms=0, end_ms=100):
    found = buckets(inventory(events), leases, start_ms, end_ms)
    assert error(found, start_ms, end_ms) == 0
    return {device: {b: amount // 1_000 for b, amount in row.items() if amount} for device, row in found.items()}


SEEN = NodeSeen(at_ms=0, node=a_node("n1", cards=1))


def test_an_idle_card_is_free():
    assert rows([SEEN], []) == {"GPU-n1-0": {FREE: 100}}


def test_a_lease_is_starting_and_then_held():
    assert rows([SEEN], [held(10, 20, 60)]) == {"GPU-n1-0": {STARTING: 10, HELD: 40, FREE: 50}}


def test_an_open_lease_counts_until_the_end_of_the_period():
    assert rows([SEEN], [held(10, 20, 0)]) == {"GPU-n1-0": {STARTING: 10, HELD: 80, FREE: 10}}


def test_the_period_cuts_leases():
    assert rows([SEEN], [held(10, 20, 60)], 30, 50) == {"GPU-n1-0": {HELD: 20}}


def test_leases_may_touch():
    leases = [held(10, 10, 50), held(50, 60, 100, number=2)]
    assert rows([SEEN], leases) == {"GPU-n1-0": {HELD: 80, STARTING: 10, FREE: 10}}


def test_fractions_share_a_card_exactly():
    leases = [held(0, 10, 100, milli=300), held(50, 50, 100, milli=700, number=2)]
    row = buckets(inventory([SEEN]), leases, 0, 100)["GPU-n1-0"]
    assert (row[STARTING], row[HELD], row[FREE]) == (300 * 10, 300 * 90 + 700 * 50, 700 * 50)


@pytest.mark.parametrize("second", [held(50, 55, 90, number=2), held(59, 60, 61, milli=1, number=2)])
def test_a_millisecond_leased_twice_is_found(second):
    with pytest.raises(Overlap, match="GPU-n1-0"):
        rows([SEEN], [held(10, 20, 60), second])


def test_health_and_loss_of_what_is_not_leased():
    sick = NodeSeen(at_ms=40, node=a_node("n1", devices=(a_card("n1", health=Health.QUARANTINED),)))
    events = [SEEN, sick, NodeLost(at_ms=70, node="n1", reason="silent")]
    assert rows(events, []) == {"GPU-n1-0": {FREE: 40, QUARANTINED: 30, UNKNOWN: 30}}


def test_a_cordoned_node_is_out_for_maintenance_but_its_leases_count():
    cordoned = NodeSeen(at_ms=40, node=a_node("n1", cards=1, state=NodeState.CORDONED))
    leases = [held(10, 10, 60)]
    assert rows([SEEN, cordoned], leases) == {"GPU-n1-0": {FREE: 10, HELD: 50, QUARANTINED: 40}}


def test_time_a_stranger_holds_a_card_is_external_and_a_lease_goes_before():
    strange = NodeSeen(at_ms=40, node=a_node("n1", devices=(a_card("n1", health=Health.EXTERNAL),)))
    assert rows([SEEN, strange], [held(50, 50, 70)]) == {"GPU-n1-0": {FREE: 40, HELD: 20, EXTERNAL: 40}}
    unready = NodeSeen(at_ms=40, node=a_node("n1", cards=1, state=NodeState.UNREADY))
    assert rows([SEEN, unready], []) == {"GPU-n1-0": {FREE: 40, QUARANTINED: 60}}


def test_time_before_a_card_was_seen_and_after_it_left_is_unknown():
    events = [
        NodeSeen(at_ms=20, node=a_node("n1", cards=2)),
        NodeSeen(at_ms=50, node=a_node("n1", cards=1)),
    ]
    assert rows(events, []) == {"GPU-n1-0": {UNKNOWN: 20, FREE: 80}, "GPU-n1-1": {UNKNOWN: 70, FREE: 30}}


def test_a_card_that_moves_belongs_to_its_new_node():
    card = a_card("n1")
    events = [
        SEEN,
        NodeSeen(at_ms=30, node=a_node("n2", devices=(card,))),
        NodeSeen(at_ms=40, node=a_node("n1")),
        NodeLost(at_ms=50, node="n1", reason="off"),
    ]
    assert rows(events, []) == {"GPU-n1-0": {FREE: 100}}


def test_a_split_card_is_counted_as_its_instances():
    split = NodeSeen(at_ms=0, node=a_node("n1", devices=(a_card("n1"), a_mig("n1", 0, 0), a_mig("n1", 0, 1))))
    assert sorted(rows([split], [])) == ["MIG-n1-0-0", "MIG-n1-0-1"]


def test_a_backward_period_is_refused():
    with pytest.raises(ValueError, match="before it starts"):
        buckets((), (), 10, 5)


@given(
    cuts=st.lists(st.integers(1, 200), min_size=2, max_size=24, unique=True).map(sorted),
    delay=st.integers(0, 50),
    presence=st.lists(st.tuples(st.integers(0, 200), st.sampled_from((FREE, QUARANTINED, UNKNOWN))), max_size=6),
    state=st.sampled_from([state for state in AttemptState if state.is_final]),
    period=st.tuples(st.integers(0, 200), st.integers(0, 200)).map(sorted),
)
def test_rows_sum_to_the_period_whatever_was_leased(cuts, delay, presence, state, period):
    leases = [
        held(start, start + delay, end, state=state, number=at)
        for at, (start, end) in enumerate(zip(cuts[::2], cuts[1::2], strict=False))
    ]
    offered = [Presence(device="GPU-n1-0", start_ms=at, bucket=bucket) for at, bucket in [(0, FREE), *sorted(presence)]]
    found = buckets(offered, leases, *period)
    assert error(found, *period) == 0
    row = found["GPU-n1-0"]
    leased = sum(max(0, min(e, period[1]) - max(s, period[0])) for s, e in zip(cuts[::2], cuts[1::2], strict=False))
    assert row[STARTING] + row[HELD] + row[LOST] == 1_000 * leased
    assert all(amount >= 0 for amount in row.values())
