"""Prices: exact, rounded once, split where they change."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.ledger.months import month_of, month_range_ms, month_start_ms
from scheduler.ledger.tariff import Tariff, divide
from scheduler.model.money import Price, Rounding
from scheduler.model.usage import Bucket, Quantity, Sku
from tests.money import DAY_MS, H100, HOUR_MS, START_MS, YUAN, card, usage


def tariff(*cards):
    made = Tariff()
    for one in cards:
        made.add(one)
    return made


def gross(lines):
    return [line.gross_micro_yuan for line in lines]


def test_a_price_per_hour_is_never_divided_down_to_seconds():
    """14 yuan/h is 0.003888… a second: 3,600 rounded seconds are not 14 yuan, one hour is."""
    hour = list(tariff(card()).lines(usage()))
    assert gross(hour) == [14 * YUAN]
    seconds = sum(gross(tariff(card()).lines(usage(length_ms=1_000))) * 3_600)
    assert seconds == 3_889 * 3_600 == 14_000_400


@pytest.mark.parametrize(
    ("mode", "halves"),
    [(Rounding.HALF_UP, [1, 2, 3]), (Rounding.HALF_EVEN, [0, 2, 2]), (Rounding.DOWN, [0, 1, 2]),
     (Rounding.UP, [1, 2, 3])],
)  # fmt: skip
def test_each_rounding_does_what_it_says(mode, halves):
    assert [divide(n, 2, mode) for n in (1, 3, 5)] == halves
    assert [divide(n, 2, mode) for n in (0, 2, 4)] == [0, 1, 2]
    assert divide(2, 3, mode) == (0 if mode is Rounding.DOWN else 1)
    assert divide(1, 3, mode) == (1 if mode is Rounding.UP else 0)


@given(st.integers(0, 10**24), st.integers(1, 10**16), st.sampled_from(Rounding))
def test_rounding_is_off_by_less_than_one(numerator, denominator, mode):
    got = divide(numerator, denominator, mode)
    assert abs(Fraction(numerator, denominator) - got) < 1


def test_a_price_change_inside_a_render_charges_each_part_by_its_own_price():
    change = START_MS + DAY_MS + HOUR_MS // 2
    lines = list(tariff(card(1, 14), card(2, 20, change)).lines(usage()))
    assert [(line.rate, line.start_ms, line.end_ms) for line in lines] == [
        ("r1", START_MS + DAY_MS, change),
        ("r2", change, START_MS + DAY_MS + HOUR_MS),
    ]
    assert gross(lines) == [7 * YUAN, 10 * YUAN]
    assert sum(line.amount for line in lines) == usage().quantities[0].amount


def test_of_two_cards_that_begin_together_the_one_known_later_holds():
    assert gross(tariff(card(1, 14), card(2, 20)).lines(usage())) == [20 * YUAN]


def test_a_record_across_a_months_end_is_a_line_in_each_month():
    end = month_start_ms(2026, 2)
    lines = list(tariff(card()).lines(usage(start_ms=end - HOUR_MS, hours=3)))
    assert [month_of(line.start_ms) for line in lines] == [(2026, 1), (2026, 2)]
    assert gross(lines) == [14 * YUAN, 28 * YUAN]


@given(st.integers(0, 4_102_444_800_000))
def test_every_instant_lies_in_its_month(at_ms):
    start_ms, end_ms = month_range_ms(*month_of(at_ms))
    assert start_ms <= at_ms < end_ms


def test_an_unknown_model_costs_the_fallback_and_says_so():
    prices = (Price(sku=Sku.CARD, model="*", hourly_micro_yuan=5 * YUAN), *card().prices)
    [line] = tariff(card(prices=prices)).lines(usage(model="RTX-9090"))
    assert (line.gross_micro_yuan, line.is_fallback) == (5 * YUAN, True)


def test_without_a_fallback_it_is_a_line_of_zero_that_says_so():
    [line] = tariff(card()).lines(usage(model="RTX-9090"))
    assert (line.gross_micro_yuan, line.free, line.model) == (0, "no_price", "RTX-9090")


def test_before_the_first_card_nothing_has_a_price():
    [line] = tariff(card()).lines(usage(start_ms=START_MS - DAY_MS))
    assert (line.gross_micro_yuan, line.free, line.rate) == (0, "no_price", "")


@pytest.mark.parametrize(
    ("bucket", "reason", "free"),
    [(Bucket.HELD_FREE, "lost", "lost"), (Bucket.STARTING, "", "starting"), (Bucket.HELD_FREE, "", "held_free")],
)
def test_free_time_is_a_line_of_zero_with_the_reason(bucket, reason, free):
    [line] = tariff(card()).lines(replace(usage(), bucket=bucket, free_reason=reason))
    assert (line.gross_micro_yuan, line.free, line.hourly_micro_yuan) == (0, free, 14 * YUAN)


def test_a_card_may_charge_for_starting():
    record = replace(usage(), bucket=Bucket.STARTING)
    assert gross(tariff(card(charges_starting=True)).lines(record)) == [14 * YUAN]


def test_simulated_cards_are_never_billed():
    record = replace(usage(cards=0, vcpus=1), simulated=True)
    lines = list(tariff(card()).lines(record))
    assert [(line.sku, line.free, line.gross_micro_yuan) for line in lines] == [
        (Sku.VCPU, "", 120_000),
        (Sku.CARD, "simulated", 0),
    ]


def test_half_a_card_for_an_hour_costs_half():
    record = replace(usage(), quantities=(Quantity(sku=Sku.CARD, model=H100, amount=500 * HOUR_MS),))
    assert gross(tariff(card()).lines(record)) == [7 * YUAN]


@given(st.lists(st.integers(1, 40 * DAY_MS), max_size=6), st.integers(0, 60 * DAY_MS), st.integers(1, 10**15))
def test_however_it_is_split_no_amount_is_lost(changes, length_ms, amount):
    cards = [card(n, n + 1, START_MS + at) for n, at in enumerate(changes)]
    record = replace(usage(length_ms=length_ms), quantities=(Quantity(sku=Sku.CARD, model=H100, amount=amount),))
    lines = list(tariff(card(99), *cards).lines(record))
    assert sum(line.amount for line in lines) == (amount if length_ms else 0)
    edges = [record.start_ms, *(line.end_ms for line in lines)]
    assert [line.start_ms for line in lines] == edges[:-1]
