"""The Ledger port: one suite, on SQLite and on a real PostgreSQL."""

import inspect

import pytest
import sqlalchemy as sa

from scheduler.control import ports
from scheduler.control.audit import audit
from scheduler.control.keeper import Keeper
from scheduler.model.errors import StaleEpoch, StoreError
from scheduler.model.event import PolicySet, RateCardSet, UsageSealed, VoucherGranted
from scheduler.model.money import LedgerHead
from scheduler.model.snapshot import Changes
from scheduler.store import SqlStore, open_store
from tests.money import START_MS, card, policy, usage, voucher

TERMS = (
    RateCardSet(at_ms=START_MS, card=card()),
    PolicySet(at_ms=START_MS, policy=policy()),
    VoucherGranted(at_ms=START_MS, voucher=voucher()),
)


@pytest.fixture
def store(store_url):
    opened = open_store(store_url)
    yield opened
    opened.close()


def commit(store, epoch, *events):
    store.commit(epoch, events, Changes(at_ms=START_MS, next_job=1, next_lease=1))


def filled(store, count=3):
    """A store with a ledger of ``count`` usage records; its keeper."""
    epoch = store.acquire_epoch("me")
    commit(store, epoch, *TERMS, *(sealed(n) for n in range(1, count + 1)))
    keeper = Keeper(store, epoch)
    keeper.catch_up()
    return keeper


def sealed(number):
    return UsageSealed(at_ms=START_MS + number, record=usage(number))


def force(store, statement, **values):
    """What a person with the database's password can do: drop the triggers, then edit."""
    with store._database.write() as connection:
        if store._database.is_sqlite:
            for verb in ("update", "delete"):
                connection.execute(sa.text(f"DROP TRIGGER IF EXISTS ledger_no_{verb}"))
        else:
            connection.execute(sa.text("DROP TRIGGER IF EXISTS ledger_append_only ON ledger"))
        connection.execute(sa.text(statement), values)


def test_fits_the_port():
    for name, wanted in inspect.getmembers(ports.Ledger, inspect.isfunction):
        if not name.startswith("_"):
            ours = inspect.signature(getattr(SqlStore, name)).parameters
            assert list(ours) == list(inspect.signature(wanted).parameters), name


def test_a_new_ledger_is_empty_and_right(store):
    assert store.ledger_state() == (LedgerHead(), {}, [])
    assert audit(store).difference == ""


def test_what_was_booked_is_read_back(store):
    filled(store)
    assert [t.kind.value for t in store.txns()] == ["funding", "grant", "usage", "usage", "usage"]
    assert [t.seq for t in store.txns(tenant="studio", job_id="j1")] == [3, 4, 5]
    assert store.txns(after=4, limit=1)[0] == store.txn(f"usage:{usage(3).id}")
    assert store.txn("usage:nothing") is None
    assert (store.charged("j1"), store.charged("j2")) == ((3 * 14_000_000, 3 * 9_800_000), (0, 0))
    assert store.txns(start_ms=usage().end_ms) == store.txns(end_ms=usage().start_ms)[3:] == ()
    assert sum(store.ledger_balances().values()) == 0
    assert audit(store).difference == ""


def test_a_keeper_of_another_epoch_writes_nothing(store):
    keeper = filled(store)
    epoch = store.acquire_epoch("other")
    commit(store, epoch, sealed(4))
    before = store.ledger_head()
    with pytest.raises(StaleEpoch):
        keeper.catch_up()
    assert store.ledger_head() == before
    assert Keeper(store, epoch).catch_up().seq == 6
    assert audit(store).difference == ""


def test_a_second_keeper_of_the_same_epoch_cannot_book_twice(store):
    first = filled(store)
    second = Keeper(store, first._epoch)
    second.catch_up()
    commit(store, first._epoch, sealed(4))
    first.catch_up()
    with pytest.raises(StaleEpoch):
        second.catch_up()
    assert second.catch_up().seq == 6
    assert audit(store).difference == ""


@pytest.mark.parametrize("verb", ["UPDATE ledger SET tenant = 'x'", "DELETE FROM ledger"])
def test_the_ledger_is_append_only(store, verb):
    filled(store)
    with pytest.raises(StoreError, match="append-only"), store._database.write() as connection:
        connection.execute(sa.text(verb))


def test_a_failed_batch_leaves_nothing_and_is_booked_again(store):
    keeper = filled(store)
    commit(store, keeper._epoch, sealed(4), sealed(5))
    before = (store.ledger_head(), store.ledger_balances())

    def fail(connection):
        raise RuntimeError("the disk is on fire")

    sa.event.listen(store._database._writer, "commit", fail, once=True)
    with pytest.raises(RuntimeError):
        keeper.catch_up()
    assert (store.ledger_head(), store.ledger_balances()) == before
    assert keeper.catch_up().seq == 7
    assert audit(store).difference == ""


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE ledger SET body = replace(body, '4200000', '4200001') WHERE seq = 4", "transaction 4 was changed"),
        ("UPDATE ledger SET prev_hash = hash WHERE seq = 4", "transaction 4 was changed"),
        ("UPDATE ledger SET due_micro_yuan = 1 WHERE seq = 4", "transaction 4: its row says"),
        ("UPDATE ledger SET tenant = 'rival' WHERE seq = 4", "transaction 4: its row says"),
        ("DELETE FROM ledger WHERE seq = 4", "there is no transaction 4"),
        ("DELETE FROM ledger WHERE seq = 5", "it ends at transaction 4"),
        ("UPDATE balances SET micro_yuan = micro_yuan + 1 WHERE account = 'revenue:it-6'", "balance of revenue:it-6"),
        ("DELETE FROM balances WHERE account = 'revenue:it-6'", "balance of revenue:it-6"),
    ],
)
def test_whatever_is_edited_is_found(store, statement, words):
    filled(store)
    force(store, statement)
    assert words in audit(store).difference


def test_a_forged_ledger_with_a_right_chain_is_found_by_the_journal(store):
    """Somebody who books another ledger, chain and all, still contradicts the journal."""
    filled(store)
    with store._database.write() as connection:
        rows = connection.execute(sa.text("SELECT seq, body FROM ledger ORDER BY seq")).all()
    from scheduler.ledger import posting

    last = posting.GENESIS
    for row in rows:
        body = row.body.replace('"hourly_micro_yuan":14000000', '"hourly_micro_yuan":15000000')
        own = posting.link(last, body)
        force(
            store, "UPDATE ledger SET body = :body, prev_hash = :prev, hash = :own WHERE seq = :seq",
            body=body, prev=last, own=own, seq=row.seq,
        )  # fmt: skip
        last = own
    force(store, "UPDATE ledger_head SET hash = :own", own=last)
    assert "ledger transaction 3: the journal gives" in audit(store).difference


def test_a_ledger_that_is_behind_is_right_as_far_as_it_goes(store):
    keeper = filled(store)
    commit(store, keeper._epoch, sealed(4))
    found = audit(store)
    assert (found.difference, found.head.seq) == ("", 5)
    assert found.journal_seq > found.head.cursor
