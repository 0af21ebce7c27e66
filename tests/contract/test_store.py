"""The Store port: one suite, on SQLite and on a real PostgreSQL."""

import dataclasses
import inspect
import json
import threading
import time
import types
import typing
from contextlib import closing
from dataclasses import replace

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.control import ports
from scheduler.model import codec
from scheduler.model.errors import NotFound, StaleEpoch, StoreError, Unauthorized
from scheduler.model.event import JobCancelled, JobHeld, JobSubmitted, LeaseGranted, QueueSet, UsageSealed
from scheduler.model.job import Job, JobKind, JobRecord, JobState, Step, StepKind, StepRecord
from scheduler.model.key import Role
from scheduler.model.lease import Allocation, AttemptRecord, AttemptState, Lease, LeaseRecord
from scheduler.model.node import Device, Node
from scheduler.model.queue import Queue, Tenant
from scheduler.model.ranges import Ranges
from scheduler.model.snapshot import Changes, Snapshot
from scheduler.model.usage import Bucket, Quantity, Sku, UsageRecord
from scheduler.store import SqlStore, database, open_store

WEIRD = "报错 \x00 \ud800 'quote\" \\ \u2028"
"""Text a runner can bring: NUL, a lone surrogate from a file name, quotes."""


@pytest.fixture
def store(store_url):
    opened = open_store(store_url)
    yield opened
    opened.close()


def job(number=1, **fields):
    given_fields = {
        "id": f"j{number}", "name": "film", "tenant": "default", "queue": "default", "kind": JobKind.COMMAND,
        "steps": (Step(name="render", kind=StepKind.COMMAND, count=100_000),), "submitted_ms": 1_000 + number,
    }  # fmt: skip
    return Job(**given_fields | fields)


def job_record(number=1, *, state=JobState.WAITING, **fields):
    steps = (StepRecord(name="render", waiting=Ranges.span(0, 100_000)),)
    return JobRecord(job=job(number, **fields), state=state, steps=steps)


def lease(number=1, job_id="j1", **fields):
    given_fields = {
        "id": f"l{number}", "job_id": job_id, "step": "render", "tenant": "default", "queue": "default",
        "allocations": (Allocation(node="alpha", devices=("GPU-1",), cpu_milli=1000),),
        "attempts": (f"{job_id}.render.{number}.a1",), "granted_ms": 2_000 + number,
    }  # fmt: skip
    return Lease(**given_fields | fields)


def attempt(index=1, job_id="j1", **fields):
    given_fields = {
        "id": f"{job_id}.render.{index}.a1", "lease_id": f"l{index}", "job_id": job_id, "step": "render",
        "index": index, "number": 1,
    }  # fmt: skip
    return AttemptRecord(**given_fields | fields)


def usage(number=1, **fields):
    given_fields = {
        "id": f"l{number}:{number}:held_charged", "lease_id": f"l{number}", "job_id": "j1", "step": "render",
        "tenant": "default", "queue": "default", "start_ms": number, "end_ms": number + 10,
        "bucket": Bucket.HELD_CHARGED, "quantities": (Quantity(sku=Sku.VCPU, amount=10_000),), "evidence": "{}",
    }  # fmt: skip
    return UsageRecord(**given_fields | fields)


def changes(**fields):
    return Changes(**{"at_ms": 9_000, "next_job": 2, "next_lease": 1} | fields)


def submitted(record):
    return JobSubmitted(at_ms=record.job.submitted_ms, job=record.job)


def sealed(record):
    return UsageSealed(at_ms=record.end_ms, record=record)


def raw(store: SqlStore, statement: str) -> None:
    """What a person with the database's password can do."""
    with store._database.write() as connection:
        connection.execute(sa.text(statement))


def unprotect(store: SqlStore) -> None:
    """Drop the triggers, as somebody who wants to forge the journal would."""
    with store._database.write() as connection:
        if store._database.is_sqlite:
            for verb in ("update", "delete"):
                connection.execute(sa.text(f"DROP TRIGGER journal_no_{verb}"))
        else:
            connection.execute(sa.text("DROP TRIGGER journal_append_only ON journal"))


# ── the port ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("port", [ports.Store, ports.History, ports.KeyRing, ports.Outbox])
def test_fits_the_port(port):
    for name, wanted in inspect.getmembers(port, inspect.isfunction):
        if name.startswith("_"):
            continue
        ours = inspect.signature(getattr(SqlStore, name)).parameters
        assert list(ours) == list(inspect.signature(wanted).parameters), name


def test_a_new_database_is_an_empty_snapshot(store):
    assert store.load() == Snapshot()


def test_what_was_committed_is_loaded_by_the_next_process(store, store_url):
    record = job_record(source="name: film\n" * 10, request_id="r1")
    open_lease, held = LeaseRecord(lease=lease(), stopping=True), attempt(state=AttemptState.RUNNING, started_ms=5)
    node = Node(name="alpha", cpu_milli=8000, memory_mib=1, devices=(Device(id="GPU-1", model="L4"),))
    epoch = store.acquire_epoch("me")
    store.commit(epoch, [submitted(record)], changes(
        next_lease=2, queues=(Queue(name="default"),), tenants=(Tenant(name="default", display_name="视算"),),
        nodes=(node,), jobs=(record,), leases=(open_lease,), attempts=(held,),
    ))  # fmt: skip
    later = open_store(store_url)
    assert later.load() == Snapshot(
        at_ms=9_000, next_job=2, next_lease=2, queues=(Queue(name="default"),),
        tenants=(Tenant(name="default", display_name="视算"),), nodes=(node,), jobs=(record,), leases=(open_lease,),
        attempts=(held,),
    )  # fmt: skip
    later.close()


def test_collections_are_in_the_engines_order(store):
    numbers = (10, 9, 2, 1)
    store.commit(store.acquire_epoch("me"), [], changes(
        queues=(Queue(name="b"), Queue(name="B"), Queue(name="a")),
        jobs=tuple(job_record(n) for n in numbers), leases=tuple(LeaseRecord(lease=lease(n)) for n in numbers),
        attempts=tuple(attempt(n) for n in numbers),
    ))  # fmt: skip
    snapshot = store.load()
    assert [q.name for q in snapshot.queues] == ["B", "a", "b"]
    assert [r.job.id for r in snapshot.jobs] == ["j1", "j2", "j9", "j10"]
    assert [r.lease.id for r in snapshot.leases] == ["l1", "l2", "l9", "l10"]
    assert [a.lease_id for a in snapshot.attempts] == ["l1", "l2", "l9", "l10"]


def test_a_closed_lease_leaves_the_snapshot_but_not_the_history(store):
    epoch = store.acquire_epoch("me")
    store.commit(epoch, [], changes(leases=(LeaseRecord(lease=lease()),), attempts=(attempt(),)))
    done, ended = LeaseRecord(lease=lease(), closed_ms=5_000), attempt(state=AttemptState.SUCCEEDED, finished_ms=5_000)
    store.commit(epoch, [], changes(leases=(done,), attempts=(ended,)))
    assert (store.load().leases, store.load().attempts) == ((), ())
    assert (store.leases(job_id="j1"), store.attempts("j1")) == ((done,), (ended,))


@pytest.mark.parametrize("by_event", [True, False])
def test_a_jobs_progress_replaces_the_one_before(store, by_event):
    epoch, record = store.acquire_epoch("me"), job_record(request_id="r")
    store.commit(epoch, [submitted(record)] if by_event else [], changes(jobs=(record,)))
    half = replace(record, state=JobState.RUNNING, started_ms=7, held=True, reason="why", steps=(
        StepRecord(name="render", waiting=Ranges.span(50, 100_000), succeeded=Ranges.of([0, 1, 5]), run_count=3),
    ))  # fmt: skip
    store.commit(epoch, [], changes(jobs=(half,)))
    assert store.load().jobs == (half,)
    back = replace(half, state=JobState.SUCCEEDED, held=False, reason="")
    store.commit(epoch, [], changes(jobs=(back,)))
    assert store.job("j1") == back


def test_a_large_job_file_is_stored_once(store):
    source = "#" * 300_000
    record = job_record(source=source)
    store.commit(store.acquire_epoch("me"), [submitted(record)], changes(jobs=(record,)))
    with store._database.read() as connection:
        held = sum(
            len(str(value))
            for table in ("journal", "jobs", "steps")
            for row in connection.execute(sa.text(f"SELECT * FROM {table}"))
            for value in row
        )
    assert store.job("j1").job.source == source
    assert held < 2 * len(source)


def test_text_no_database_can_hold_survives(store):
    record = replace(job_record(name=WEIRD, request_id=WEIRD, source=WEIRD), reason=WEIRD)
    ended = attempt(state=AttemptState.FAILED, reason=WEIRD, outputs=(WEIRD,), facts=WEIRD, checkpoint_ms=7)
    used = usage(free_reason=WEIRD, evidence=WEIRD)
    store.commit(
        store.acquire_epoch(WEIRD), [submitted(record), sealed(used)], changes(jobs=(record,), attempts=(ended,))
    )
    assert store.load().jobs == (record,)
    assert store.attempts("j1") == (ended,)
    assert store.usage() == (used,)
    assert [event for _, event in store.journal()] == [submitted(record), sealed(used)]
    assert store.job_of_request("default", WEIRD) == "j1"
    assert store.verify() == 2


def test_an_attempts_columns_and_body_hold_all_of_it(store):
    epoch, leased = store.acquire_epoch("me"), attempt()
    store.commit(epoch, [], changes(leases=(LeaseRecord(lease=lease()),), attempts=(leased,)))
    ended = replace(leased, state=AttemptState.FAILED, started_ms=5, finished_ms=9, exit_code=0, reason=WEIRD)
    for record in (leased, ended):
        store.commit(epoch, [], changes(attempts=(record,)))
        assert store.load().attempts == store.attempts("j1") == store.latest_attempts("j1") == (record,)
        assert store.attempt(record.id) == record


def test_an_attempt_written_before_its_columns_held_it_alone_is_read(store):
    store.commit(store.acquire_epoch("me"), [], changes(attempts=(attempt(started_ms=5),)))
    whole = codec.dumps(attempt(started_ms=5))
    raw(store, f"UPDATE attempts SET body = '{whole}'".replace(":", "\\:"))
    assert store.attempts("j1") == (attempt(started_ms=5),)


@pytest.mark.parametrize("name", ["j1\x00", "j\ud800", "", "'; DROP TABLE jobs"])
def test_ids_that_cannot_exist_are_not_found(store, name):
    with pytest.raises(NotFound):
        store.job(name)
    with pytest.raises(NotFound):
        store.attempt(name)
    assert store.attempts(name) == ()


# ── the epoch ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_older_epoch_writes_nothing(store, store_url):
    old, other = store.acquire_epoch("old"), open_store(store_url)
    new = other.acquire_epoch("new")
    assert new > old
    record = job_record()
    with pytest.raises(StaleEpoch):
        store.commit(old, [submitted(record), sealed(usage())], changes(jobs=(record,), queues=(Queue(name="q"),)))
    assert store.load() == Snapshot()
    assert (list(store.journal()), store.usage(), store.outbox()) == ([], (), ())
    assert other.commit(new, [submitted(record)], changes(jobs=(record,))) == 1
    other.close()


def test_two_writers_racing_leave_one_unbroken_journal(store, store_url):
    """Both take the epoch again and again; whoever holds it commits. No row is lost, none appears twice."""
    mine: list[list[int]] = [[], []]

    def write(side: int) -> None:
        own = open_store(store_url)
        epoch = own.acquire_epoch(f"writer {side}")
        for turn in range(20):
            try:
                mine[side].append(own.commit(epoch, [JobHeld(at_ms=turn, job_id=f"j{side}")], changes()))
            except StaleEpoch:
                epoch = own.acquire_epoch(f"writer {side}")
        own.close()

    threads = [threading.Thread(target=write, args=(side,)) for side in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = sorted(mine[0] + mine[1])
    assert written == [seq for seq, _ in store.journal()] == list(range(1, len(written) + 1))
    assert all(event.job_id == f"j{int(seq in mine[1])}" for seq, event in store.journal())
    assert store.verify() == len(written)


# ── journal, usage, outbox ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_journal_gives_events_back_in_order(store):
    epoch = store.acquire_epoch("me")
    record = job_record()
    events = [
        QueueSet(at_ms=1, queue=Queue(name="q")), submitted(record), LeaseGranted(at_ms=3, lease=lease()),
        JobCancelled(at_ms=4, job_id="j1", by="me"),
    ]  # fmt: skip
    assert store.commit(epoch, events[:3], changes()) == 3
    assert store.commit(epoch, events[3:], changes()) == 4
    assert store.commit(epoch, [], changes()) == 4
    assert list(store.journal()) == list(enumerate(events, 1))
    assert list(store.journal(after=2)) == [(3, events[2]), (4, events[3])]
    assert store.journal_tail(2) == ((3, events[2]), (4, events[3]))


@pytest.mark.parametrize("table", ["journal", "usage"])
@pytest.mark.parametrize(
    "statement",
    ["UPDATE {} SET body = '{{}}'", "DELETE FROM {}", "DELETE FROM {} WHERE seq = 1"],
)
def test_append_only_tables_refuse_change(store, table, statement):
    store.commit(store.acquire_epoch("me"), [sealed(usage())], changes())
    with pytest.raises(StoreError, match=f"{table} is append-only"):
        raw(store, statement.format(table))
    assert store.verify() == 1


def test_the_outbox_is_only_looked_at(store):
    store.commit(store.acquire_epoch("me"), [sealed(usage())], changes())
    with pytest.raises(StoreError, match="view"):
        raw(store, "DELETE FROM outbox")
    assert store.outbox_backlog(0) == 1


def test_append_only_tables_refuse_being_replaced_or_emptied(store):
    store.commit(store.acquire_epoch("me"), [sealed(usage())], changes())
    sqlite = store._database.is_sqlite
    with pytest.raises(StoreError, match="journal is append-only"):
        raw(store, "INSERT OR REPLACE INTO journal SELECT * FROM journal" if sqlite else "TRUNCATE journal")


@pytest.mark.parametrize(
    "forgery",
    [
        "UPDATE journal SET body = replace(body, 'j2', 'j9') WHERE seq = 2",
        "UPDATE journal SET at_ms = at_ms + 1 WHERE seq = 2",
        "UPDATE journal SET kind = 'JobReleased' WHERE seq = 2",
        "UPDATE journal SET version = 0 WHERE seq = 2",
        "UPDATE journal SET hash = prev_hash WHERE seq = 3",
        "DELETE FROM journal WHERE seq = 1",
        "DELETE FROM journal WHERE seq = 2",
        "DELETE FROM journal WHERE seq = 3",
        "DELETE FROM journal",
    ],
)
def test_any_change_of_the_journal_shows(store, forgery):
    store.commit(store.acquire_epoch("me"), [JobHeld(at_ms=n, job_id=f"j{n}") for n in (1, 2, 3)], changes())
    assert store.verify() == 3
    unprotect(store)
    raw(store, forgery)
    with pytest.raises(StoreError, match="journal"):
        store.verify()


def test_a_usage_record_sealed_twice_is_there_once(store):
    epoch = store.acquire_epoch("me")
    store.commit(epoch, [sealed(usage())], changes())
    store.commit(epoch, [sealed(usage()), sealed(usage(2)), sealed(usage(2))], changes())
    assert store.usage() == (usage(), usage(2))
    assert [event.record.id for _, event in store.outbox()] == [usage().id, usage(2).id]


@pytest.mark.parametrize("together", [True, False])
def test_a_usage_record_is_never_sealed_with_other_content(store, together):
    epoch, other = store.acquire_epoch("me"), usage(end_ms=99)
    if not together:
        store.commit(epoch, [sealed(usage())], changes())
    before = store.usage()
    with pytest.raises(StoreError, match="already sealed with other content"):
        store.commit(epoch, ([sealed(usage())] if together else []) + [sealed(other)], changes(next_job=77))
    assert store.usage() == before
    assert store.load().next_job != 77


@pytest.mark.parametrize("count", [1, 31, 32, 33, 300, 1_000])
def test_any_number_of_rows_is_written_in_order(store, count):
    records = [usage(n) for n in range(1, count + 1)]
    store.commit(store.acquire_epoch("me"), [*map(sealed, records)], changes())
    assert (store.verify(), list(store.usage())) == (count, records)


def test_outbox_rows_name_the_row_before_them(store):
    hold, odd = JobHeld(at_ms=1, job_id="j1"), sealed(usage(1, evidence=json.dumps({"note": WEIRD})))
    events = [hold, odd, hold, sealed(usage(2)), sealed(usage(3))]
    store.commit(store.acquire_epoch("me"), events, changes())
    rows = store.outbox_rows(0, 10)
    assert [(row.seq, row.prev) for row in rows] == [(2, 0), (4, 2), (5, 4)]
    assert {row.kind for row in rows} == {"UsageSealed"}
    assert codec.loads(UsageSealed, rows[0].body) == odd
    assert store.outbox_rows(2, 1) == rows[1:2]
    assert store.outbox_rows(5, 10) == ()
    assert [store.outbox_holds(seq) for seq in (0, 1, 2, 5, 6)] == [False, False, True, True, False]
    assert [store.outbox_backlog(after) for after in (0, 2, 5, 99)] == [3, 2, 0, 0]


def test_the_outbox_is_read_in_pages(store):
    records = [usage(n) for n in range(1, 6)]
    hold = JobHeld(at_ms=1, job_id="j1")
    store.commit(store.acquire_epoch("me"), [hold, *map(sealed, records)], changes())
    first = store.outbox(limit=2)
    rest = store.outbox(after=first[-1][0])
    assert [event.record for _, event in first + rest] == records


# ── reads ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_jobs_are_listed_newest_first_by_tenant_and_state(store):
    def record(n):
        state = JobState.RUNNING if n % 2 else JobState.SUCCEEDED
        return job_record(n, tenant="a" if n <= 4 else "b", state=state)

    store.commit(store.acquire_epoch("me"), [], changes(jobs=tuple(record(n) for n in range(1, 8))))
    ids = [r.job.id for r in store.jobs()]
    assert ids == ["j7", "j6", "j5", "j4", "j3", "j2", "j1"]
    assert [r.job.id for r in store.jobs(tenant="a", states=[JobState.RUNNING])] == ["j3", "j1"]
    page = store.jobs(limit=3)
    assert [r.job.id for r in page + store.jobs(before=page[-1].job.id)] == ids
    assert all(len(r.steps) == 1 for r in page)


def test_leases_are_found_by_the_time_they_overlap(store):
    early, late = lease(1, granted_ms=100), lease(2, granted_ms=300)
    records = (LeaseRecord(lease=early, closed_ms=200), LeaseRecord(lease=late))
    store.commit(store.acquire_epoch("me"), [], changes(leases=records))
    found = {
        window: [r.lease.id for r in store.leases(start_ms=window[0], end_ms=window[1])]
        for window in [(0, 0), (0, 100), (0, 101), (199, 300), (200, 300), (200, 0)]
    }
    assert found == {
        (0, 0): ["l1", "l2"], (0, 100): [], (0, 101): ["l1"], (199, 300): ["l1"], (200, 300): [], (200, 0): ["l2"],
    }  # fmt: skip
    assert store.leases(after="l1") == records[1:]


def test_attempts_are_read_in_pages(store):
    records = tuple(
        attempt(i, id=f"j1.{step}.{i}.a{n}", step=step, number=n)
        for step in ("B", "a")
        for i in (2, 10)
        for n in (1, 2)
    )
    store.commit(store.acquire_epoch("me"), [], changes(attempts=records))
    assert store.attempts("j1") == records
    assert store.attempts("j1", step="a") == records[4:]
    page = store.attempts("j1", limit=3)
    last = page[-1]
    assert page + store.attempts("j1", after=(last.step, last.index, last.number)) == records
    assert store.attempt("j1.a.10.a2") == records[-1]


def test_usage_is_found_by_job_tenant_and_time(store):
    records = [usage(1), usage(100, tenant="b"), usage(200, job_id="j2")]
    store.commit(store.acquire_epoch("me"), list(map(sealed, records)), changes())
    assert store.usage(job_id="j1") == tuple(records[:2])
    assert store.usage(tenant="b") == (records[1],)
    assert store.usage(start_ms=11, end_ms=200) == (records[1],)
    assert store.usage(after=records[1].id) == (records[2],)


def test_a_request_id_belongs_to_one_tenant(store):
    epoch = store.acquire_epoch("me")
    mine, theirs, none = job_record(1, request_id="r"), job_record(2, request_id="r", tenant="b"), job_record(3)
    store.commit(epoch, [], changes(jobs=(mine, theirs, none, job_record(4))))
    assert store.job_of_request("default", "r") == "j1"
    assert store.job_of_request("b", "r") == "j2"
    assert store.job_of_request("default", "other") == ""
    assert store.job_of_request("default", "") == ""
    with pytest.raises(StoreError):
        store.commit(epoch, [], changes(jobs=(job_record(5, request_id="r"),)))


def test_what_is_done_meanwhile_is_done_once_and_the_facts_are_there_whatever_comes_of_it(store, store_url):
    epoch, reader, seen = store.acquire_epoch("me"), open_store(store_url), list[str]()
    fact = [JobHeld(at_ms=1, job_id="j1")]
    assert store.commit(epoch, fact, changes(), lambda: seen.append("once")) == 1
    assert seen == ["once"]
    with pytest.raises(ZeroDivisionError):
        store.commit(epoch, fact, changes(), lambda: 1 // 0)
    assert len(list(reader.journal())) == 2
    store.acquire_epoch("another")
    with pytest.raises(StaleEpoch):
        store.commit(epoch, fact, changes(), lambda: seen.append("a stale writer's"))
    assert (len(seen), store.commit(epoch + 1, fact, changes())) == (1, 3)
    reader.close()


def test_a_reader_in_the_middle_neither_waits_nor_sees_half(store, store_url):
    """A commit begun but not finished is invisible, and an open reader does not hold it up."""
    epoch = store.acquire_epoch("me")
    store.commit(epoch, [JobHeld(at_ms=1, job_id="j1")], changes())
    reader = open_store(store_url)
    with store._database.write() as connection:
        connection.execute(sa.text("UPDATE meta SET next_job = 55"))
        assert reader.load().next_job == 2
    with reader._database.read() as view:
        before = view.execute(sa.text("SELECT next_job FROM meta")).scalar_one()
        store.commit(epoch, [JobHeld(at_ms=1, job_id="j2")], changes(next_job=66))
        assert view.execute(sa.text("SELECT next_job FROM meta")).scalar_one() == before == 55
    assert reader.load().next_job == 66
    reader.close()


def test_readers_cannot_write(store):
    with pytest.raises(StoreError), store._database.read() as view:
        view.execute(sa.text("UPDATE meta SET next_job = 55"))


def test_a_float_is_refused(store):
    if not store._database.is_sqlite:
        pytest.skip("PostgreSQL rounds it into the column: amounts are typed int in the model")
    with pytest.raises(StoreError, match="cannot store REAL"):
        raw(store, "UPDATE meta SET next_job = 1.5")


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_opens_by_its_secret_only(store):
    key_id, secret = store.add_key("default", "operator", 0, "laptop 视算", now_ms=5)
    assert secret.startswith("sk-")
    assert len(secret) >= 3 + 43
    found = store.find_key(secret, now_ms=10)
    assert (found.id, found.tenant, found.role, found.label) == (key_id, "default", Role.OPERATOR, "laptop 视算")
    assert store.list_keys() == (found,)
    with store._database.read() as connection:
        kept = " ".join(str(v) for row in connection.execute(sa.text("SELECT * FROM api_keys")) for v in row)
    assert secret not in kept
    assert secret[3:] not in kept


@pytest.mark.parametrize("secret", ["", "sk-", "sk-wrong", "sk-\x00", "sk-\ud800", "k'; --"])
def test_an_unknown_key_opens_nothing(store, secret):
    store.add_key("default")
    with pytest.raises(Unauthorized, match="unknown API key"):
        store.find_key(secret, now_ms=1)


def test_an_expired_key_says_when(store):
    _, secret = store.add_key("default", expires_ms=1_700_000_000_000)
    assert store.find_key(secret, now_ms=1_699_999_999_999).tenant == "default"
    with pytest.raises(Unauthorized, match="expired on 2023-11-14"):
        store.find_key(secret, now_ms=1_700_000_000_000)


def test_a_revoked_key_says_when_and_stays_revoked(store):
    key_id, secret = store.add_key("default")
    store.revoke_key(key_id, now_ms=1_700_000_000_000)
    store.revoke_key(key_id, now_ms=1_800_000_000_000)
    with pytest.raises(Unauthorized, match="revoked on 2023-11-14"):
        store.find_key(secret, now_ms=1)
    with pytest.raises(NotFound):
        store.revoke_key("k0")


def test_a_role_that_does_not_exist_is_refused(store):
    with pytest.raises(ValueError, match="root"):
        store.add_key("default", "root")


def test_keys_are_no_facts_of_the_park(store):
    store.add_key("default")
    assert list(store.journal()) == []


def test_the_token_secret_is_made_once_per_database(store, store_url):
    again = open_store(store_url)
    assert len(store.token_secret()) == 32
    assert again.token_secret() == store.token_secret()
    again.close()


# ── every field of every record ──────────────────────────────────────────────────────────────────────────────────────

WHOLE = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=()), max_size=6)


def any_of(hint):
    """Any value of an annotation of the model: all of a dataclass's fields, far from their defaults."""
    if hint in (int, str):
        return WHOLE if hint is int else TEXT
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        if parts[-1] is Ellipsis:
            return st.lists(any_of(parts[0]), max_size=3).map(tuple)
        return st.tuples(*map(any_of, parts))
    if typing.get_origin(hint) is types.UnionType:
        return st.one_of(*map(any_of, typing.get_args(hint)))
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{field.name: any_of(hints[field.name]) for field in dataclasses.fields(hint)})
    return st.from_type(hint)  # enums, bool, None


RECORDS = st.tuples(*map(any_of, (JobRecord, LeaseRecord, AttemptRecord, UsageRecord, Node, Tenant)))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(records=RECORDS, by_event=st.booleans())
def test_no_field_of_any_record_is_lost(tmp_path_factory, request, records, by_event, store_url):
    if "postgresql" in store_url:
        url = request.getfixturevalue("postgres_server").new_database()
    else:
        url = f"sqlite:///{tmp_path_factory.mktemp('db') / 'x.db'}"
    held, granted, tried, used, node, tenant = records
    held = replace(held, job=replace(held.job, id="j7"))
    granted = replace(granted, lease=replace(granted.lease, id="l7"), closed_ms=0)
    tried = replace(tried, lease_id="l7")
    used = replace(used, start_ms=min(used.start_ms, used.end_ms), end_ms=max(used.start_ms, used.end_ms))
    with closing(open_store(url)) as store:
        store.commit(
            store.acquire_epoch("me"),
            [sealed(used)] + ([submitted(held)] if by_event else []),
            changes(jobs=(held,), leases=(granted,), attempts=(tried,), nodes=(node,), tenants=(tenant,)),
        )
        found = store.load()
        assert (found.jobs, found.leases, found.attempts) == ((held,), (granted,), (tried,))
        assert (found.nodes, found.tenants, store.usage()) == ((node,), (tenant,), (used,))


def test_a_key_that_was_made_elsewhere_is_kept_once_and_a_revoked_one_stays_so(store):
    secret = "made by somebody else, of thirty-two characters"
    for _ in range(2):
        store.keep_key(secret, "default", Role.OPERATOR, label="given")
    (key,) = store.list_keys()
    assert (key.tenant, key.role, key.label) == ("default", Role.OPERATOR, "given")
    assert store.find_key(secret, now_ms=1) == key
    store.revoke_key(key.id)
    store.keep_key(secret, "default", Role.OPERATOR)
    with pytest.raises(Unauthorized, match="was revoked"):
        store.find_key(secret, now_ms=1)


# ── a writer that sleeps ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("rows", [1, 2], ids=["a row", "several rows"])
def test_a_writer_that_sleeps_in_a_transaction_keeps_no_successor_waiting(postgres_url, monkeypatch, rows):
    """After a statement of several rows PostgreSQL's own bound on idle transactions does not hold."""
    monkeypatch.setattr(database, "PATIENCE_S", 0.05)
    sleeper, successor = open_store(postgres_url), open_store(postgres_url)
    epoch = sleeper.acquire_epoch("sleeper")
    statement = sa.text("UPDATE meta SET at_ms = at_ms + :more")
    with pytest.raises(StoreError), sleeper._database.write() as connection:  # noqa: PT012 (it sleeps in the middle)
        connection.execute(statement, [{"more": 1}] * rows if rows > 1 else {"more": 1})
        assert successor.acquire_epoch("successor") == epoch + 1 == successor.epoch()
    with pytest.raises(StaleEpoch):
        sleeper.commit(epoch, [JobHeld(at_ms=1, job_id="j1")], changes())
    assert successor.load().at_ms == 0
    for store in (sleeper, successor):
        store.close()


def test_an_idle_transaction_ends_on_postgresql(postgres_url, monkeypatch):
    monkeypatch.setattr(database, "IDLE_MS", 10)
    opened = database.Database(postgres_url)
    with pytest.raises(StoreError, match="idle-in-transaction"), opened.write() as connection:  # noqa: PT012
        connection.execute(sa.text("SELECT 1"))
        while True:
            time.sleep(0.05)
            connection.execute(sa.text("SELECT 1"))
