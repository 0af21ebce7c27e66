"""Subsidies: published examples, each bound, the order of burning, never two policies for one line."""

from dataclasses import replace

import pytest

from scheduler.ledger.months import CHINA
from scheduler.ledger.policy import Room, offer
from scheduler.model.event import ChargeReversed, TenantSet, VoucherRevoked
from scheduler.model.money import Limit, Payout, PolicyStatus, PoolRule, Price, RatedLine
from scheduler.model.queue import Tenant
from scheduler.model.usage import Sku
from tests.money import DAY_MS, END_MS, H100, HOUR_MS, START_MS, YUAN, Ledger, card, later, policy, usage, voucher

WAN = 10_000 * YUAN


def day(text):
    from datetime import datetime

    return int(datetime.fromisoformat(text).replace(tzinfo=CHINA).timestamp()) * 1_000


def line(yuan, start, end):
    return RatedLine(
        start_ms=day(start), end_ms=day(end), sku=Sku.CARD, amount=1, gross_micro_yuan=yuan * YUAN, rate="r1"
    )


def test_nanning_s_published_example():
    """20万 over 2025-01-01…2026-12-31, window 2025-03-01…2025-12-31, 30 %, cut to whole yuan: 2.5102万. Half-up would
    give 2.5103, inclusive days 2.5150.
    """
    version = policy(
        year=2025, valid_from_ms=day("2025-03-01"), valid_to_ms=day("2025-12-31"), truncation_micro_yuan=YUAN
    )
    able = voucher(yuan=2_000_000, valid_from_ms=0)
    got = offer(version, [able], line(200_000, "2025-01-01", "2026-12-31"), Room(vouchers={"v1": 200 * WAN}), "render")
    assert got.micro_yuan == 25_102 * YUAN
    assert got.parts[0].limit is Limit.PARTLY_VALID


def test_beijing_s_cap():
    """1100万 at 20 % is 220万: capped at 200万."""
    version = policy(ratio_bp=2_000, tenant_cap_micro_yuan=200 * WAN)
    room = Room(vouchers={"v1": 1_000 * WAN}, cap=200 * WAN)
    got = offer(version, [voucher()], line(11_000_000, "2026-02-01", "2026-03-01"), room, "render")
    assert (got.micro_yuan, got.parts[0].limit) == (200 * WAN, Limit.TENANT_CAP)


def test_a_new_version_brings_its_own_pool_and_the_old_one_keeps_its_own():
    """Guizhou, 8000万 then 1.4亿: what was used before the change stays with the version before."""
    change = START_MS + 60 * DAY_MS
    old = policy(1, yuan=80_000_000, valid_to_ms=change)
    new = policy(2, yuan=140_000_000, valid_from_ms=change, ratio_bp=2_000)
    ledger = Ledger(card(), old, new, voucher(1), voucher(2, under="p2"))
    [before] = ledger.rate(usage())
    [after] = ledger.rate(usage(2, start_ms=change))
    assert [(s.policy, s.micro_yuan) for s in (*before.subsidies, *after.subsidies)] == [
        ("p1", 4_200_000), ("p2", 2_800_000),
    ]  # fmt: skip
    assert ledger.balance("pool.committed:p1") == 4_200_000
    assert ledger.balance("pool.committed:p2") == 2_800_000


def test_thirty_per_cent_of_an_hour():
    ledger = Ledger(card(), policy(), voucher())
    [got] = ledger.rate(usage())
    assert (got.gross_micro_yuan, got.subsidy_micro_yuan, got.due_micro_yuan) == (14 * YUAN, 4_200_000, 9_800_000)
    assert ledger.balance("receivable.customer:studio") == 9_800_000
    assert ledger.balance("receivable.government:p1") == 4_200_000
    assert ledger.balance("revenue:it-6") == -14 * YUAN
    assert ledger.balance("voucher.active:v1") == 1_000 * YUAN - 4_200_000


def test_a_grant_afterwards_changes_nothing_of_what_is_due():
    ledger = Ledger(card(), policy(payout=Payout.GRANT), voucher())
    [got] = ledger.rate(usage())
    assert (got.due_micro_yuan, got.subsidy_micro_yuan) == (14 * YUAN, 4_200_000)
    assert ledger.balance("receivable.government:p1") == 0
    assert ledger.balance("pool.committed:p1") == 4_200_000


def test_a_voucher_that_runs_dry_hands_over_to_the_next():
    ledger = Ledger(card(), policy(), voucher(1, yuan=1), voucher(2))
    [got] = ledger.rate(usage())
    assert [(s.voucher, s.micro_yuan) for s in got.subsidies] == [("v1", YUAN), ("v2", 3_200_000)]
    assert ledger.balance("voucher.active:v1") == 0


def test_the_order_is_priority_then_end_then_grant():
    vouchers = (
        voucher(1, yuan=1), voucher(2, yuan=1, valid_to_ms=END_MS - DAY_MS), voucher(3, yuan=1),
        voucher(4, yuan=1, priority=1),
    )  # fmt: skip
    ledger = Ledger(card(), policy(), *vouchers)
    [got] = ledger.rate(usage())
    assert [s.voucher for s in got.subsidies] == ["v4", "v2", "v1", "v3"]


def test_a_voucher_burns_only_for_time_inside_its_validity():
    half = START_MS + DAY_MS + HOUR_MS // 2
    ledger = Ledger(card(), policy(), voucher(valid_from_ms=half))
    [got] = ledger.rate(usage())
    assert (got.subsidy_micro_yuan, got.subsidies[0].limit) == (2_100_000, Limit.PARTLY_VALID)


def test_two_vouchers_never_pay_for_the_same_time():
    half = START_MS + DAY_MS + HOUR_MS // 2
    ledger = Ledger(card(), policy(), voucher(1, valid_to_ms=half), voucher(2))
    [got] = ledger.rate(usage())
    assert [(s.voucher, s.micro_yuan) for s in got.subsidies] == [("v1", 2_100_000), ("v2", 2_100_000)]


def test_the_better_of_two_policies_pays_never_both():
    ledger = Ledger(card(), policy(1), policy(2, ratio_bp=5_000), voucher(1), voucher(2, under="p2"))
    [got] = ledger.rate(usage())
    assert [(s.policy, s.micro_yuan) for s in got.subsidies] == [("p2", 7 * YUAN)]
    assert got.passed_over == (("p1", 4_200_000),)
    assert ledger.balance("voucher.burnt:v1") == 0


def test_the_caps_and_pools_bind_across_lines_of_one_record():
    prices = tuple(
        Price(sku=Sku.CARD, model=model, hourly_micro_yuan=10 * YUAN, voucher=True) for model in (H100, "L4")
    )
    two = replace(usage(), quantities=tuple(replace(usage().quantities[0], model=model) for model in (H100, "L4")))
    ledger = Ledger(card(prices=prices), policy(tenant_cap_micro_yuan=4 * YUAN), voucher())
    first, second = ledger.rate(two)
    assert (first.subsidy_micro_yuan, second.subsidy_micro_yuan) == (3 * YUAN, YUAN)
    assert second.subsidies[0].limit is Limit.TENANT_CAP
    assert ledger.rate(later(two, DAY_MS))[0].limit is Limit.TENANT_CAP


def test_first_come_is_served_until_the_pool_is_dry():
    ledger = Ledger(card(), policy(yuan=5, rule=PoolRule.FIRST_COME), voucher(1), voucher(2, tenant="rival"))
    [first] = ledger.rate(usage())
    [second] = ledger.rate(usage(2, tenant="rival"))
    [third] = ledger.rate(usage(3))
    assert [x.subsidy_micro_yuan for x in (first, second, third)] == [4_200_000, 800_000, 0]
    assert (second.subsidies[0].limit, third.limit) == (Limit.POOL_LEFT, Limit.POOL_LEFT)
    assert ledger.balance("pool.available:p1") == 0


def test_a_reserving_pool_gives_no_voucher_it_cannot_cover():
    ledger = Ledger(card(), policy(yuan=1_500), voucher(1), voucher(2))
    assert [one.txn.kind.value for one in ledger.posted] == ["funding", "grant"]
    assert ledger.balance("voucher.active:v2") == 0
    assert ledger.balance("pool.available:p1") == 500 * YUAN


@pytest.mark.parametrize(
    ("terms", "record", "limit", "note"),
    [
        ((policy(status=PolicyStatus.DRAFT), voucher()), usage(), Limit.DRAFT, "p1"),
        ((policy(skus=(Sku.MIG,)), voucher()), usage(), Limit.NOT_IN_POLICY, "p1"),
        ((policy(purposes=("train",)), voucher()), usage(), Limit.PURPOSE, "p1"),
        ((policy(), voucher()), usage(cards=0, vcpus=1), Limit.NOT_ELIGIBLE, ""),
        ((policy(), voucher()), usage(start_ms=END_MS), Limit.OUTSIDE_VALIDITY, "p1"),
        ((policy(year=2025), voucher()), usage(), Limit.OUTSIDE_VALIDITY, "p1"),
        ((policy(), voucher(tenant="rival")), usage(), Limit.NO_VOUCHER, ""),
        ((policy(), voucher(excluded="own use")), usage(), Limit.EXCLUDED, "own use"),
        ((policy(truncation_micro_yuan=5 * YUAN), voucher()), usage(), Limit.TRUNCATED, "p1"),
        ((voucher(),), usage(), Limit.DRAFT, "p1"),
    ],
)
def test_no_subsidy_comes_with_its_reason(terms, record, limit, note):
    [got] = Ledger(card(), *terms).rate(record)
    assert (got.subsidies, got.limit, got.limit_note) == ((), limit, note)


def test_a_related_party_gets_none():
    related = TenantSet(at_ms=START_MS, tenant=Tenant(name="studio", subsidy_excluded="related party"))
    [got] = Ledger(card(), policy(), voucher(), related).rate(usage())
    assert (got.subsidies, got.limit, got.limit_note) == ((), Limit.EXCLUDED, "related party")


# ── expiry, revocation, reversal ─────────────────────────────────────────────────────────────────────────────────────


def test_what_expires_lapses_and_still_pays_for_its_own_time():
    end = START_MS + 10 * DAY_MS
    ledger = Ledger(card(), policy(), voucher(valid_to_ms=end))
    ledger.tell(card(2), at_ms=end + 1)  # any money fact afterwards
    assert ledger.balance("voucher.active:v1") == 0
    assert ledger.balance("pool.lapsed:p1") == 1_000 * YUAN
    txns = ledger.tell(usage(), at_ms=end + 2)  # sealed late
    assert [t.kind.value for t in txns] == ["reinstatement", "usage"]
    assert txns[0].corrects == "expiry:v1"
    assert txns[1].lines[0].subsidy_micro_yuan == 4_200_000
    assert ledger.balance("pool.lapsed:p1") == 1_000 * YUAN - 4_200_000
    [after] = ledger.rate(usage(2, start_ms=end + DAY_MS))
    assert after.limit is Limit.OUTSIDE_VALIDITY


def test_a_revoked_voucher_gives_back_what_is_left_and_pays_no_more():
    ledger = Ledger(card(), policy(), voucher())
    ledger.rate(usage())
    ledger.tell(VoucherRevoked(at_ms=START_MS, voucher_id="v1", reason="granted twice"))
    assert ledger.balance("pool.available:p1") == 1_000_000 * YUAN - 4_200_000
    assert ledger.rate(usage(2))[0].limit is Limit.NO_VOUCHER
    ledger.tell(VoucherRevoked(at_ms=START_MS, voucher_id="v1", reason="again"))
    assert [one.txn.kind.value for one in ledger.posted].count("revocation") == 1


def test_a_reversal_names_what_it_corrects_and_undoes_all_of_it():
    ledger = Ledger(card(), policy(tenant_cap_micro_yuan=5 * YUAN), voucher())
    before = dict(ledger.book.balances)
    ledger.rate(usage())
    undo = ChargeReversed(at_ms=START_MS, usage_id=usage().id, reason="the card was faulty")
    [txn] = ledger.tell(undo)
    assert (txn.corrects, txn.note) == (f"usage:{usage().id}", "the card was faulty")
    assert {k: v for k, v in ledger.book.balances.items() if v} == {k: v for k, v in before.items() if v}
    assert ledger.tell(undo) == []
    assert ledger.rate(usage(2))[0].subsidy_micro_yuan == 4_200_000  # the cap has its room back


def test_what_a_reversal_gives_back_to_a_revoked_voucher_goes_on_to_the_pool():
    ledger = Ledger(card(), policy(), voucher())
    ledger.rate(usage())
    ledger.tell(VoucherRevoked(at_ms=START_MS, voucher_id="v1", reason="x"))
    ledger.tell(ChargeReversed(at_ms=START_MS, usage_id=usage().id, reason="y"))
    assert ledger.balance("pool.available:p1") == 1_000_000 * YUAN
    assert ledger.balance("voucher.active:v1") == 0


def test_what_a_reversal_gives_back_to_an_expired_voucher_expires_again():
    end = START_MS + 10 * DAY_MS
    ledger = Ledger(card(), policy(), voucher(valid_to_ms=end))
    ledger.rate(usage())
    ledger.tell(ChargeReversed(at_ms=end + 1, usage_id=usage().id, reason="x"))
    ledger.tell(card(2), at_ms=end + 2)
    assert ledger.balance("voucher.active:v1") == 0
    assert ledger.balance("pool.lapsed:p1") == 1_000 * YUAN


def test_the_same_record_is_booked_once():
    ledger = Ledger(card(), policy(), voucher())
    ledger.rate(usage())
    assert ledger.tell(usage()) == []


def test_a_fact_about_nothing_books_nothing():
    ledger = Ledger(card())
    assert ledger.tell(VoucherRevoked(at_ms=START_MS, voucher_id="v9", reason="")) == []
    assert ledger.tell(ChargeReversed(at_ms=START_MS, usage_id="l9:0:x", reason="")) == []
