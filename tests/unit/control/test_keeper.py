"""The keeper over a real control plane: what is sealed is booked, once, whatever happens."""

import threading
import time
from contextlib import suppress

import pytest

from scheduler.control.audit import audit
from scheduler.control.keeper import Keeper
from scheduler.control.replay import first_difference
from scheduler.ledger.book import Book
from scheduler.model.errors import StoreError
from scheduler.model.event import PolicySet, RateCardSet, VoucherGranted
from scheduler.model.money import PolicyStatus, PolicyVersion, Pool, Price, RateCard, Voucher
from scheduler.model.usage import Sku
from scheduler.store import SqlStore
from tests.unit.control.world import World, step

YEAR_1970 = (0, 31_000_000_000)
CARD = RateCard(
    id="r1",
    valid_from_ms=0,
    prices=(
        Price(sku=Sku.VCPU, hourly_micro_yuan=120_000, voucher=True, tax="it"),
        Price(sku=Sku.MEMORY, hourly_micro_yuan=15_000, tax="it"),
    ),
)
POLICY = PolicyVersion(
    id="p1",
    status=PolicyStatus.IN_FORCE,
    owner="数据局",
    pool=Pool(amount_micro_yuan=1_000_000, fiscal_year=1970),
    valid_from_ms=0,
    valid_to_ms=YEAR_1970[1],
    ratio_bp=3_000,
    skus=(Sku.VCPU,),
)
VOUCHER = Voucher(
    id="v1", tenant="studio", policy="p1", amount_micro_yuan=40, valid_from_ms=0, valid_to_ms=YEAR_1970[1]
)


def terms(world):
    world.record(
        RateCardSet(at_ms=world.clock.now, card=CARD),
        PolicySet(at_ms=world.clock.now, policy=POLICY),
        VoucherGranted(at_ms=world.clock.now, voucher=VOUCHER),
    )


def keeper(world, **more):
    return Keeper(world.store, world.cycle._epoch, **more)


def test_what_is_sealed_is_booked(tmp_path):
    world = World(tmp_path)
    terms(world)
    job = world.submit(step(count=3))
    world.run_to_end(job)
    keeper(world).catch_up()
    txns = world.store.txns(job_id=job)
    assert {t.idem for t in txns} == {f"usage:{r.id}" for r in world.store.usage()}
    gross = sum(line.gross_micro_yuan for t in txns for line in t.lines)
    assert gross > 0
    balances = world.store.ledger_balances()
    assert balances["revenue:it"] == -gross
    assert balances["receivable.government:p1"] == balances["voucher.burnt:v1"] > 0
    assert sum(balances.values()) == 0
    assert audit(world.store).difference == ""
    assert first_difference(world.store) == ""
    world.close()


@pytest.mark.parametrize("batch", [1, 2, 7, 500])
def test_batches_of_any_size_give_the_same_ledger(tmp_path, batch):
    world = World(tmp_path)
    terms(world)
    world.run_to_end(world.submit(step(count=5)))
    for _ in range(3):
        keeper(world, batch=batch).catch_up()
    assert audit(world.store).difference == ""
    world.close()


class Died(BaseException):
    """Stands for kill -9."""


PLACES = (
    (Keeper, "_load"), (Keeper, "_round"), (Keeper, "_project"), (Book, "apply"), (Book, "_post"), (Book, "_burn"),
    (SqlStore, "ledger_state"), (SqlStore, "money_events"), (SqlStore, "booked"), (SqlStore, "post"),
)  # fmt: skip


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("cls", "name"), PLACES, ids=[name for _, name in PLACES])
def test_killed_between_any_two_steps_nothing_is_lost_or_doubled(  # noqa: PLR0917 (fixtures and parameters)
    tmp_path, monkeypatch, cls, name, after, times
):
    world = World(tmp_path)
    terms(world)
    world.run_to_end(world.submit(step(count=6)))
    real, left = getattr(cls, name), [times]

    def dying(self, *args, **more):
        left[0] -= 1
        if left[0] == 0 and not after:
            raise Died
        found = real(self, *args, **more)
        if left[0] == 0:
            raise Died
        return found

    with monkeypatch.context() as patch:
        patch.setattr(cls, name, dying)
        for _ in range(4):
            with suppress(Died):
                keeper(world, batch=2).catch_up()
    whole = keeper(world)
    whole.catch_up()
    assert {t.idem for t in world.store.txns(tenant="studio") if t.kind == "usage"} == {
        f"usage:{r.id}" for r in world.store.usage()
    }
    assert audit(world.store).difference == ""
    world.close()


def test_a_keeper_that_failed_starts_again_from_what_is_stored(tmp_path, monkeypatch):
    world = World(tmp_path)
    terms(world)
    world.run_to_end(world.submit())
    mine = keeper(world)
    with monkeypatch.context() as patch:
        patch.setattr(SqlStore, "post", lambda *_, **__: (_ for _ in ()).throw(StoreError("disk full")))
        with pytest.raises(StoreError):
            mine.catch_up()
    assert world.store.ledger_head().seq == 0
    mine.catch_up()
    assert audit(world.store).difference == ""
    world.close()


def test_the_thread_books_when_it_is_woken_and_survives_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("scheduler.control.keeper.GATHER_S", 0.0)
    monkeypatch.setattr("scheduler.control.keeper.TROUBLE_S", 0.0)
    world = World(tmp_path)
    mine, failed = keeper(world), threading.Event()
    real = Keeper.catch_up

    def once(self):
        if not failed.is_set():
            failed.set()
            raise StoreError("disk full")
        return real(self)

    monkeypatch.setattr(Keeper, "catch_up", once)
    thread = threading.Thread(target=mine.run, daemon=True)
    thread.start()
    assert failed.wait(30)
    terms(world)
    deadline = time.monotonic() + 30
    while world.store.ledger_head().seq < 2 and time.monotonic() < deadline:
        mine.wake()
        time.sleep(0.01)
    mine.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert world.store.ledger_head().seq == 2
    world.close()


def test_reading_on_without_news_writes_nothing(tmp_path):
    world = World(tmp_path)
    terms(world)
    mine = keeper(world)
    head = mine.catch_up()
    world.submit()
    assert mine.catch_up() == head
    world.close()


def test_the_step_s_kind_is_the_purpose_of_its_usage(tmp_path):
    world = World(tmp_path)
    world.run_to_end(world.submit())
    assert {r.purpose for r in world.store.usage()} == {"command"}
    world.close()
