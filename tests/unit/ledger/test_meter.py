"""A table: what happened to a lease granted at 0 → its records. Times in ms."""

import json
from dataclasses import replace

import pytest

from scheduler.ledger.meter import seal, segments, usage_until
from scheduler.model.lease import Allocation, AttemptRecord, AttemptState, Lease, LeaseRecord
from scheduler.model.measured import DeviceUse, Measured, MeasuredBy, RankUse
from scheduler.model.usage import Quantity, Sku
from tests.builders import a_card, a_mig

DONE, FAILED, LOST = AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.LOST
CANCELLED, PREEMPTED, TIMED_OUT = AttemptState.CANCELLED, AttemptState.PREEMPTED, AttemptState.TIMED_OUT
ONE = (Allocation(node="n1", devices=("GPU-n1-0",), cpu_milli=1_500, memory_mib=512),)
DEVICES = {device.id: device for device in (a_card("n1", 0), a_card("n1", 1), a_mig("n1", 2, 0))}


def a_lease(closed_ms, attempts=1, granted_ms=0, allocations=ONE):
    lease = Lease(
        id="l1",
        job_id="j1",
        step="work",
        tenant="studio",
        queue="film",
        allocations=allocations,
        attempts=tuple(f"j1.work.{i}.a1" for i in range(attempts)),
        granted_ms=granted_ms,
    )
    return LeaseRecord(lease=lease, closed_ms=closed_ms)


def an_attempt(index, state, started_ms, finished_ms, *later_ms):
    heartbeat_ms, checkpoint_ms = (*later_ms, 0, 0)[:2]
    return AttemptRecord(
        id=f"j1.work.{index}.a1",
        lease_id="l1",
        job_id="j1",
        step="work",
        index=index,
        number=1,
        state=state,
        started_ms=started_ms,
        finished_ms=finished_ms,
        heartbeat_ms=heartbeat_ms,
        checkpoint_ms=checkpoint_ms,
    )


#    attempts: (state, started, finished, heartbeat, checkpoint)   records: start-end bucket reason
TABLE = {
    "success is charged from its start": ([(DONE, 10, 50, 50)], "0-10 starting, 10-50 held_charged"),
    "failure is charged": ([(FAILED, 10, 50, 50)], "0-10 starting, 10-50 held_charged"),
    "a timeout is charged": ([(TIMED_OUT, 10, 50, 50)], "0-10 starting, 10-50 held_charged"),
    "cancelled is charged to its end": ([(CANCELLED, 10, 50, 50)], "0-10 starting, 10-50 held_charged"),
    "preempted is free from its start": ([(PREEMPTED, 10, 50, 50)], "0-10 starting, 10-50 held_free preempted"),
    "preempted is charged to its last checkpoint": (
        [(PREEMPTED, 10, 50, 50, 35)],
        "0-10 starting, 10-35 held_charged, 35-50 held_free preempted",
    ),
    "a checkpoint said to be later than the end charges to the end": (
        [(PREEMPTED, 10, 50, 50, 70)],
        "0-10 starting, 10-50 held_charged",
    ),
    "lost is free from the last heartbeat, whatever was saved": (
        [(LOST, 10, 50, 30, 20)],
        "0-10 starting, 10-30 held_charged, 30-50 held_free lost",
    ),
    "lost is free from the last heartbeat": (
        [(LOST, 10, 50, 30)],
        "0-10 starting, 10-30 held_charged, 30-50 held_free lost",
    ),
    "lost without a heartbeat is free from its start": ([(LOST, 10, 50, 0)], "0-10 starting, 10-50 held_free lost"),
    "lost with a heartbeat at its end is charged": ([(LOST, 10, 50, 70)], "0-10 starting, 10-50 held_charged"),
    "never started is starting": ([(LOST, 0, 50, 0)], "0-50 starting"),
    "started at its grant": ([(DONE, 1, 50, 50)], "1-50 held_charged"),
    "a chunk is one stretch where tasks follow at once": (
        [(DONE, 10, 30, 30), (DONE, 30, 50, 50)],
        "0-10 starting, 10-50 held_charged",
    ),
    "between tasks of a chunk is starting": (
        [(DONE, 10, 30, 30), (FAILED, 35, 50, 50)],
        "0-10 starting, 10-30 held_charged, 30-35 starting, 35-50 held_charged",
    ),
    "a lost chunk": (
        [(DONE, 10, 20, 20), (LOST, 20, 50, 40), (LOST, 0, 50, 0)],
        "0-10 starting, 10-40 held_charged, 40-50 held_free lost",
    ),
    "a late report does not count time twice": (
        [(DONE, 10, 30, 30), (DONE, 25, 50, 50)],
        "0-10 starting, 10-50 held_charged",
    ),
    "an end before the start counts nothing": ([(DONE, 60, 50, 50)], "0-50 starting"),
}


def told(records):
    return ", ".join(f"{r.start_ms}-{r.end_ms} {r.bucket.value} {r.free_reason}".strip() for r in records)


@pytest.mark.parametrize("name", TABLE)
def test_segments(name):
    happened, expected = TABLE[name]
    attempts = [an_attempt(i, *one) for i, one in enumerate(happened)]
    granted_ms = 1 if "at its grant" in name else 0
    lease = a_lease(50, len(attempts), granted_ms)
    assert told(seal(lease, attempts, DEVICES)) == expected
    assert told(seal(lease, attempts[::-1], DEVICES)) == expected


def test_records_carry_who_and_what_as_integers():
    (starting, held) = seal(a_lease(50), [an_attempt(0, DONE, 10, 50, 50)], DEVICES)
    assert (held.id, held.tenant, held.queue, held.devices) == ("l1:10:held_charged", "studio", "film", ("GPU-n1-0",))
    assert held.quantities == (
        Quantity(sku=Sku.CARD, model="H100", amount=1_000 * 40),
        Quantity(sku=Sku.MEMORY, amount=512 * 40),
        Quantity(sku=Sku.VCPU, amount=1_500 * 40),
    )
    assert starting.quantities[0].amount == 1_000 * 10


def quantities(allocations, devices=DEVICES):
    (record,) = seal(a_lease(10, allocations=allocations), [an_attempt(0, LOST, 0, 10)], devices)
    return record


def test_a_gang_counts_all_its_ranks():
    ranks = tuple(Allocation(node="n1", devices=(f"GPU-n1-{i}",), cpu_milli=1_000) for i in range(2))
    record = quantities(ranks)
    assert record.devices == ("GPU-n1-0", "GPU-n1-1")
    assert record.quantities[0] == Quantity(sku=Sku.CARD, model="H100", amount=20_000)


def test_a_fraction_counts_its_thousandths_and_an_instance_has_its_own_sku():
    allocations = (
        Allocation(node="n1", devices=("GPU-n1-0",), card_milli=250),
        Allocation(node="n1", devices=("MIG-n1-2-0",)),
    )
    assert quantities(allocations).quantities == (
        Quantity(sku=Sku.CARD, model="H100", amount=2_500),
        Quantity(sku=Sku.MIG, model="H100/1g.10gb", amount=10_000),
    )


def test_simulated_cards_are_marked_and_never_counted():
    record = quantities(ONE, {"GPU-n1-0": replace(DEVICES["GPU-n1-0"], simulated=True)})
    assert record.simulated
    assert [q.sku for q in record.quantities] == [Sku.MEMORY, Sku.VCPU]


def test_a_card_nobody_can_describe_any_more_still_counts():
    assert quantities(ONE, {}).quantities[0] == Quantity(sku=Sku.CARD, model="unknown", amount=10_000)


def test_an_open_lease_is_not_sealed_but_can_be_shown():
    running = an_attempt(0, AttemptState.RUNNING, 10, 0, 10)
    with pytest.raises(ValueError, match="still open"):
        seal(a_lease(0), [running], DEVICES)
    assert told(usage_until(a_lease(0), [running], DEVICES, 40)) == "0-10 starting, 10-40 held_charged"
    assert told(segments(a_lease(0), [running], 5)) == "0-5 starting"


def test_sealing_twice_gives_the_same_records():
    arguments = (a_lease(50), [an_attempt(0, DONE, 10, 50, 50)], DEVICES)
    assert seal(*arguments) == seal(*arguments)


def test_evidence_names_the_attempts_whose_time_it_is():
    attempts = [an_attempt(0, DONE, 10, 30, 30), an_attempt(1, LOST, 30, 60, 40)]
    records = seal(a_lease(60, 2), attempts, DEVICES)
    assert [[a["id"] for a in json.loads(r.evidence)["attempts"]] for r in records] == [
        ["j1.work.0.a1"],
        ["j1.work.0.a1", "j1.work.1.a1"],
        ["j1.work.1.a1"],
    ]


def test_who_preempts_his_own_job_is_charged_to_its_end():
    lease = replace(a_lease(50), stopping=True, stop_charged=True)
    assert told(seal(lease, [an_attempt(0, PREEMPTED, 10, 50, 50, 35)], DEVICES)) == "0-10 starting, 10-50 held_charged"


def test_the_checkpoint_is_in_the_evidence():
    (_, charged, free) = seal(a_lease(50), [an_attempt(0, PREEMPTED, 10, 50, 50, 35)], DEVICES)
    assert {json.loads(r.evidence)["attempts"][0]["checkpoint_ms"] for r in (charged, free)} == {35}


def seen(cpu_ms, source=MeasuredBy.PROCESS, devices=(), rank=0):
    use = RankUse(node="n1", rank=rank, source=source, cpu_ms=cpu_ms, rss_peak_mib=7, read_bytes=1,
                  written_bytes=2, samples=3, until_ms=(1, 2), cpu_series_milli=(1, 2), rss_series_mib=(7, 7),
                  devices=devices)  # fmt: skip
    return Measured(ranks=(use,))


def test_evidence_carries_what_was_measured_once_and_names_its_source():
    """An attempt that touches three records is told in each, and its measurement in the one in which it ended."""
    card = DeviceUse(device="GPU-n1-0", samples=4, gpu_milli=870, energy_mj=12, series_milli=(1, None))
    attempts = [
        replace(an_attempt(0, DONE, 10, 30, 30), measured=seen(500)),
        replace(an_attempt(1, DONE, 40, 60, 60), measured=seen(300, MeasuredBy.NVML, (card,))),
        an_attempt(2, LOST, 60, 90, 70),
    ]
    records = [json.loads(r.evidence) for r in seal(a_lease(90, 3), attempts, DEVICES)]
    told = [(a["id"], a["measured"]["cpu_ms"]) for r in records for a in r["attempts"] if "measured" in a]
    assert told == [("j1.work.0.a1", 500), ("j1.work.1.a1", 300)]
    assert [r["source"] for r in records] == ["lease", "process", "lease", "nvml", "lease"]
    (device,) = records[3]["attempts"][0]["measured"]["devices"]
    assert (device["gpu_milli"], device["energy_mj"], device["gaps"]) == (870, 12, 0)
    assert "series" not in json.dumps(records)


def test_what_was_measured_changes_no_amount():
    plain = [an_attempt(0, DONE, 10, 30, 30), an_attempt(1, PREEMPTED, 40, 60, 60)]
    measured = [replace(attempt, measured=seen(99_999, MeasuredBy.NVML)) for attempt in plain]
    pairs = zip(seal(a_lease(60, 2), plain, DEVICES), seal(a_lease(60, 2), measured, DEVICES), strict=True)
    assert all(replace(a, evidence="") == replace(b, evidence="") for a, b in pairs)
