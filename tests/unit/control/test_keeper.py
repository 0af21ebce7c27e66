"""The keeper over a real control plane: what is sealed is booked, once, whatever happens."""

import pytest

from scheduler.control.audit import audit
from scheduler.control.keeper import Keeper
from scheduler.control.replay import first_difference
from scheduler.model.event import PolicySet, RateCardSet, VoucherGranted
from scheduler.model.money import PolicyStatus, PolicyVersion, Pool, Price, RateCard, Voucher
from scheduler.model.usage import Sku
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
