"""What must hold of every ledger, over generated histories."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.ledger import posting, statement
from scheduler.ledger.book import Book
from scheduler.ledger.months import month_range_ms
from scheduler.model.codec import decode, encode, loads
from scheduler.model.event import (
    ChargeReversed,
    RateCardSet,
    TenantSet,
    UsageSealed,
    VoucherGranted,
    VoucherRevoked,
)
from scheduler.model.money import Payout, PolicyStatus, PoolRule, Txn
from scheduler.model.queue import Tenant
from scheduler.model.usage import Bucket, Sku
from tests.money import DAY_MS, HOUR_MS, START_MS, YUAN, Ledger, card, policy, usage, voucher

AT = st.one_of(st.integers(0, 90 * DAY_MS), st.sampled_from((0, DAY_MS, 29 * DAY_MS + 23 * HOUR_MS)))
SMALL = st.integers(1, 4)
TENANTS = st.sampled_from(("studio", "rival"))


@st.composite
def cards(draw):
    price = draw(st.sampled_from((0.000007, 1, 14, 33.25)))
    return card(draw(SMALL), price, START_MS + draw(AT), charges_starting=draw(st.booleans()))


@st.composite
def policies(draw, number=SMALL):
    start_ms = START_MS + draw(st.sampled_from((-DAY_MS, 0, 20 * DAY_MS)))
    return policy(
        draw(number),
        yuan=draw(st.sampled_from((3, 40, 1_000_000))),
        rule=draw(st.sampled_from(PoolRule)),
        status=draw(st.sampled_from((*[PolicyStatus.IN_FORCE] * 4, PolicyStatus.DRAFT))),
        valid_from_ms=start_ms,
        valid_to_ms=start_ms + draw(st.sampled_from((30 * DAY_MS, 90 * DAY_MS, 80 * DAY_MS + 977))),
        ratio_bp=draw(st.sampled_from((1, 3_000, 3_333, 10_000))),
        skus=draw(st.sampled_from(((Sku.CARD,), (Sku.CARD, Sku.VCPU)))),
        purposes=draw(st.sampled_from(((), (), (), ("train",)))),
        tenant_cap_micro_yuan=draw(st.sampled_from((0, 0, 7 * YUAN))),
        truncation_micro_yuan=draw(st.sampled_from((1, 1, 10_000, YUAN))),
        payout=draw(st.sampled_from(Payout)),
    )


@st.composite
def vouchers(draw, number=SMALL):
    start_ms = START_MS + draw(st.sampled_from((-DAY_MS, 0, 10 * DAY_MS + 977)))
    return voucher(
        draw(number),
        yuan=draw(st.sampled_from((0.000001, 2, 30, 30))),
        tenant=draw(st.sampled_from(("studio", "studio", "rival"))),
        under=f"p{draw(st.integers(1, 2))}",
        valid_from_ms=start_ms,
        valid_to_ms=start_ms + draw(st.sampled_from((5 * DAY_MS, 30 * DAY_MS, 90 * DAY_MS))),
        priority=draw(SMALL),
    )


@st.composite
def records(draw):
    bucket, reason = draw(
        st.sampled_from([(Bucket.HELD_CHARGED, "")] * 4 + [(Bucket.HELD_FREE, "lost"), (Bucket.STARTING, "")])
    )
    return replace(
        usage(
            draw(st.integers(1, 30)),
            start_ms=START_MS + draw(AT),
            length_ms=draw(st.sampled_from((0, 1, 977, HOUR_MS, 50 * HOUR_MS))),
            cards=draw(st.integers(0, 3)),
            vcpus=draw(st.integers(0, 2)),
            model=draw(st.sampled_from((*["H100-SXM-80GB"] * 4, "mystery"))),
            tenant=draw(st.sampled_from(("studio", "studio", "studio", "rival"))),
            job_id=f"j{draw(SMALL)}",
            purpose=draw(st.sampled_from(("render", "train"))),
        ),
        bucket=bucket,
        free_reason=reason,
    )


THINGS = st.one_of(*[records()] * 8, vouchers(st.integers(4, 6)), policies(st.integers(3, 4)), cards())


@st.composite
def histories(draw):
    """Events in the journal's order: their instants never go back."""
    at_ms, sealed = START_MS, []
    first = [card(), *(draw(policies(st.just(n))) for n in (1, 2)), *(draw(vouchers(st.just(n))) for n in (1, 2, 3))]
    told = [event(thing, at_ms) for thing in first]
    for _ in range(draw(st.integers(4, 20))):
        at_ms += draw(st.sampled_from((0, 0, HOUR_MS, 12 * DAY_MS)))
        kind = draw(st.integers(0, 20))
        if kind == 0:
            why = draw(st.sampled_from(("", "related party")))
            told.append(TenantSet(at_ms=at_ms, tenant=Tenant(name=draw(TENANTS), subsidy_excluded=why)))
        elif kind == 1:
            told.append(VoucherRevoked(at_ms=at_ms, voucher_id=f"v{draw(SMALL)}", reason="x"))
        elif kind <= 4 and sealed:
            told.append(ChargeReversed(at_ms=at_ms, usage_id=draw(st.sampled_from(sealed)), reason="y"))
        else:
            told.append(event(draw(THINGS), at_ms))
            sealed += [told[-1].record.id] if isinstance(told[-1], UsageSealed) else []
    return told


def event(thing, at_ms):
    ledger = Ledger()
    ledger.tell(thing, at_ms)
    return ledger.journal[0]


def told(history):
    ledger = Ledger()
    for one in history:
        ledger.tell(one)
        assert not list(posting.negatives(ledger.book.balances))
    return ledger


@settings(max_examples=80, deadline=None)
@given(histories())
def test_every_transaction_sums_to_zero_and_nothing_goes_below_it(history):
    ledger = told(history)
    sums = {}
    for number, one in enumerate(ledger.posted, 1):
        assert one.txn.seq == number
        assert sum(amount for _, amount in one.txn.entries) == 0
        assert all(amount for _, amount in one.txn.entries)
        for name, amount in one.txn.entries:
            sums[name] = sums.get(name, 0) + amount
        assert loads(Txn, one.body) == one.txn == decode(Txn, encode(one.txn))
    assert sums == ledger.book.balances
    assert len({one.txn.idem for one in ledger.posted}) == len(ledger.posted)


@settings(max_examples=80, deadline=None)
@given(histories())
def test_a_book_taken_up_again_anywhere_goes_on_byte_for_byte(history):
    whole = told(history)
    hashes = [one.hash for one in whole.posted]
    for cut in range(1, len(history)):
        first = told(history[:cut])
        again = Book(first.book.head, first.book.balances, recall=whole.recall)
        for one in history[:cut]:
            again.learn(one)
        again.seen = {one.txn.idem for one in first.posted if one.txn.idem.startswith(("usage:", "reversal:"))}
        rest = [one.hash for at, one in enumerate(history[cut:], cut + 1) for one in again.apply(at, one)]
        assert [one.hash for one in first.posted] + rest == hashes
        assert again.balances == whole.book.balances


@settings(max_examples=60, deadline=None)
@given(histories())
def test_a_statement_is_the_exact_sum_of_its_lines(history):
    ledger = told(history)
    txns = [one.txn for one in ledger.posted]
    lines = [(txn, line) for txn in txns for line in txn.lines]
    months = [month_range_ms(2026, month) for month in range(1, 8)]
    monthly = [statement.build(txns, *period) for period in months]
    for tenant, found in statement.build(txns).items():
        mine = [line for txn, line in lines if txn.tenant == tenant]
        assert found.gross_micro_yuan == sum(line.gross_micro_yuan for line in mine)
        assert found.due_micro_yuan == sum(line.due_micro_yuan for line in mine)
        assert sum(row.lines for row in found.rows.values()) == len(mine)
        assert found.due_micro_yuan == found.gross_micro_yuan - found.subsidy_micro_yuan(Payout.DEDUCT)
        assert abs(found.rounding_micro_yuan) <= 5_000
        assert found.due_micro_yuan == ledger.balance(f"receivable.customer:{tenant}")
        assert found.due_micro_yuan == sum(m[tenant].due_micro_yuan for m in monthly if tenant in m)


@settings(max_examples=60, deadline=None)
@given(histories())
def test_free_time_costs_nothing_and_no_subsidy_exceeds_its_share(history):
    ledger = told(history)
    ratios = {version.id: version.ratio_bp for version in ledger.book.policies.values()}
    for version in ledger.book.policies.values():
        for tenant in ("studio", "rival") if version.tenant_cap_micro_yuan else ():
            mine = [v.id for v in ledger.book.vouchers.values() if (v.policy, v.tenant) == (version.id, tenant)]
            assert sum(ledger.balance(f"voucher.burnt:{v}") for v in mine) <= version.tenant_cap_micro_yuan
    for line in (line for one in ledger.posted for line in one.txn.lines):
        assert not line.free or (line.gross_micro_yuan, line.subsidies) == (0, ())
        assert len({part.policy for part in line.subsidies}) <= 1  # never two policies
        for part in line.subsidies[:1]:
            assert abs(line.subsidy_micro_yuan) * 10_000 <= abs(line.gross_micro_yuan) * ratios[part.policy]


@settings(max_examples=60, deadline=None)
@given(st.lists(records(), max_size=8, unique_by=lambda r: r.id), st.randoms(use_true_random=False))
def test_what_is_used_costs_the_same_in_any_order(used, dice):
    def totals(order):
        ledger = Ledger(card(1), card(2, 20, START_MS + 30 * DAY_MS), policy(), voucher(yuan=1_000_000))
        for record in order:
            ledger.tell(record, START_MS)
        return ledger.book.balances

    shuffled = list(used)
    dice.shuffle(shuffled)
    assert totals(used) == totals(shuffled)  # no bound was reached: subsidies too


def test_the_chain_shows_any_change():
    ledger = Ledger(card(), policy(), voucher(), usage())
    last = posting.GENESIS
    for one in ledger.posted:
        assert posting.link(last, one.body) == one.hash
        assert posting.link(last, one.body.replace("1", "2", 1)) != one.hash
        last = one.hash


@pytest.mark.parametrize("kind", [RateCardSet, VoucherGranted])
def test_terms_that_come_twice_count_once(kind):
    ledger = Ledger(card(), policy(), voucher(), usage())
    again = next(one for one in ledger.journal if isinstance(one, kind))
    assert ledger.tell(again) == []
    assert len(ledger.book.tariff.cards) == len(ledger.book.vouchers) == 1
