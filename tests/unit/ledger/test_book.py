"""A book that is taken up again: nothing of what it must remember is only in memory."""

from scheduler.ledger.book import Book
from scheduler.model.event import ChargeReversed, TenantSet
from scheduler.model.money import Limit
from scheduler.model.queue import Tenant
from tests.money import DAY_MS, START_MS, YUAN, Ledger, card, later, policy, usage, voucher

TERMS = (card(), policy(tenant_cap_micro_yuan=6 * YUAN), voucher(1), voucher(2))


def taken_up(ledger):
    """The same ledger, its book rebuilt from what is stored."""
    again = Ledger()
    again.journal, again.posted = list(ledger.journal), list(ledger.posted)
    again.book = Book(ledger.book.head, ledger.book.balances, recall=again.recall)
    for event in ledger.journal:
        again.book.learn(event)
    return again


def test_it_remembers_how_much_of_a_cap_is_used():
    ledger = Ledger(*TERMS)
    ledger.rate(usage())
    [line] = taken_up(ledger).rate(later(usage(), DAY_MS))
    assert (line.subsidy_micro_yuan, line.subsidies[0].limit) == (1_800_000, Limit.TENANT_CAP)


def test_a_reversal_after_it_gives_the_cap_its_room_back():
    ledger = Ledger(*TERMS)
    ledger.rate(usage())
    again = taken_up(ledger)
    again.tell(ChargeReversed(at_ms=START_MS, usage_id=usage().id, reason="x"))
    assert again.rate(later(usage(), DAY_MS))[0].subsidy_micro_yuan == 4_200_000
    assert taken_up(again).rate(later(usage(), 2 * DAY_MS))[0].subsidy_micro_yuan == 1_800_000


def test_what_expires_after_it_expires():
    end = START_MS + 5 * DAY_MS
    ledger = Ledger(card(), policy(), voucher(valid_to_ms=end))
    again = taken_up(ledger)
    again.tell(card(2), at_ms=end)
    assert again.balance("voucher.expired:v1") == 1_000 * YUAN
    assert [one.hash for one in again.posted] == [
        *(one.hash for one in ledger.posted),
        *(one.hash for one in ledger.book.apply(len(again.journal), again.journal[-1])),
    ]


def budget(yuan, tenant="studio"):
    return TenantSet(at_ms=START_MS, tenant=Tenant(name=tenant, budget_micro_yuan=yuan * YUAN))


def test_a_tenant_that_owes_its_budget_is_unfunded_until_it_is_raised():
    ledger = Ledger(card(), budget(20), budget(20, "rival"), TenantSet(at_ms=START_MS, tenant=Tenant(name="free")))
    ledger.rate(usage())  # 14 yuan
    assert ledger.book.unfunded(START_MS) == ()
    ledger.rate(later(usage(), DAY_MS))
    assert ledger.book.unfunded(START_MS) == taken_up(ledger).book.unfunded(START_MS) == ("studio",)
    ledger.tell(budget(30))
    assert ledger.book.unfunded(START_MS) == ()


def test_without_credit_it_goes_on_as_long_as_vouchers_pay_everything():
    whole, now = policy(ratio_bp=10_000), START_MS + DAY_MS
    ledger = Ledger(card(), whole, voucher(yuan=14, valid_to_ms=now + 10 * DAY_MS), budget(0))
    assert ledger.book.unfunded(now) == ()
    assert ledger.book.unfunded(now + 10 * DAY_MS) == ("studio",), "the voucher has ended"
    ledger.rate(usage())
    assert ledger.book.unfunded(now) == ("studio",), "the voucher is empty"


def test_a_voucher_that_pays_a_part_does_not_make_a_budget_larger():
    ledger = Ledger(card(), policy(ratio_bp=9_999), voucher(), budget(0))
    assert ledger.book.unfunded(START_MS + DAY_MS) == ("studio",)
