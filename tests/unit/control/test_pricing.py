"""What an hour of a task costs, before anybody knows which card it gets."""

import pytest

from scheduler.control.pricing import _hourly
from scheduler.ledger.tariff import Tariff
from scheduler.model.job import Resources
from scheduler.model.money import Price, RateCard
from scheduler.model.usage import Sku

PRICES = (
    Price(sku=Sku.CARD, model="H100", hourly_micro_yuan=14_000_000),
    Price(sku=Sku.CARD, model="L4", hourly_micro_yuan=2_000_000),
    Price(sku=Sku.CARD, model="*", hourly_micro_yuan=5_000_000),
    Price(sku=Sku.MIG, model="H100/1g", hourly_micro_yuan=1_500_000),
    Price(sku=Sku.VCPU, hourly_micro_yuan=100_000),
    Price(sku=Sku.MEMORY, hourly_micro_yuan=10_000),
)
CARD = RateCard(id="r1", valid_from_ms=0, prices=PRICES)
THERE = [(Sku.CARD, "H100"), (Sku.CARD, "L4"), (Sku.MIG, "H100/1g")]
BASE = 100_000 + 10_000


@pytest.mark.parametrize(
    ("asked", "there", "hourly"),
    [
        ({}, THERE, [BASE]),
        ({"cards": 1}, THERE, [BASE + 14_000_000, BASE + 2_000_000]),
        ({"cards": 2, "card_models": ("L4",)}, THERE, [BASE + 4_000_000]),
        ({"cards": 1, "card_models": ("L4", "H200")}, [], [BASE + 2_000_000, BASE + 5_000_000]),
        ({"cards": 1}, [], [BASE + 5_000_000]),
        ({"card_milli": 500, "card_models": ("H100",)}, THERE, [BASE + 7_000_000]),
        ({"cards": 1, "mig_profile": "1g"}, THERE, [BASE + 1_500_000]),
        ({"cards": 1, "mig_profile": "2g", "card_models": ("H100",)}, THERE, [BASE]),
    ],
)
def test_an_hour_costs_what_it_may_hold(asked, there, hourly):
    tariff = Tariff()
    tariff.add(CARD)
    assert _hourly(Resources(cpu_milli=1_000, memory_mib=1_024, **asked), tariff, CARD, there) == hourly


def test_without_prices_it_costs_nothing_known():
    assert _hourly(Resources(cards=1), Tariff(), None, THERE) == [0, 0]
