"""A book that is taken up again: nothing of what it must remember is only in memory."""

from scheduler.ledger.book import Book
from scheduler.model.event import ChargeReversed
from scheduler.model.money import Limit
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
