"""Short spellings for money tests: terms, usage records, a journal that numbers itself."""

from dataclasses import replace

from scheduler.ledger.book import Book
from scheduler.ledger.months import month_start_ms
from scheduler.model.event import PolicySet, RateCardSet, UsageSealed, VoucherGranted
from scheduler.model.money import PolicyStatus, PolicyVersion, Pool, PoolRule, Price, RateCard, Voucher
from scheduler.model.usage import Bucket, Quantity, Sku, UsageRecord

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
YUAN = 1_000_000
START_MS, END_MS = month_start_ms(2026, 1), month_start_ms(2027, 1)
H100 = "H100-SXM-80GB"


def card(number=1, yuan_per_hour=14, valid_from_ms=START_MS, **more):
    prices = more.pop("prices", None) or (
        Price(sku=Sku.CARD, model=H100, hourly_micro_yuan=int(yuan_per_hour * YUAN), voucher=True, tax="it-6"),
        Price(sku=Sku.VCPU, hourly_micro_yuan=120_000, tax="it-6", voucher=more.pop("vcpu_voucher", False)),
    )
    return RateCard(id=f"r{number}", valid_from_ms=valid_from_ms, prices=prices, **more)


def policy(number=1, *, yuan=1_000_000, rule=PoolRule.RESERVE, year=2026, **more):
    fields = {
        "id": f"p{number}", "status": PolicyStatus.IN_FORCE, "owner": "数据局", "ratio_bp": 3_000,
        "pool": Pool(amount_micro_yuan=int(yuan * YUAN), fiscal_year=year, rule=rule),
        "valid_from_ms": START_MS, "valid_to_ms": END_MS,
    }  # fmt: skip
    return PolicyVersion(**fields | more)


def voucher(number=1, *, yuan=1_000, tenant="studio", under="p1", **more):
    fields = {
        "id": f"v{number}", "tenant": tenant, "policy": under, "amount_micro_yuan": int(yuan * YUAN),
        "valid_from_ms": START_MS, "valid_to_ms": END_MS,
    }  # fmt: skip
    return Voucher(**fields | more)


def usage(number=1, *, hours=1, start_ms=START_MS + DAY_MS, length_ms=None, cards=1, vcpus=0, **more):
    length_ms = int(hours * HOUR_MS) if length_ms is None else length_ms
    held = ((Sku.CARD, more.pop("model", H100), 1_000 * cards), (Sku.VCPU, "", 1_000 * vcpus))
    fields = {
        "id": f"l{number}:{start_ms}:held_charged", "lease_id": f"l{number}", "job_id": "j1", "step": "render",
        "tenant": "studio", "queue": "default", "start_ms": start_ms, "end_ms": start_ms + length_ms,
        "bucket": Bucket.HELD_CHARGED, "purpose": "render",
        "quantities": tuple(Quantity(sku=s, model=m, amount=a * length_ms) for s, m, a in held if a),
    }  # fmt: skip
    return UsageRecord(**fields | more)


class Ledger:
    """A journal and the book over it; everything posted is kept."""

    def __init__(self, *terms, at_ms=START_MS):
        self.journal = []
        self.posted = []
        self.book = Book(recall=self.recall)
        for one in terms:
            self.tell(one, at_ms=at_ms)

    def recall(self, idem):
        return next((one.txn for one in self.posted if one.txn.idem == idem), None)

    def tell(self, thing, at_ms=None):
        """Record a term, a usage record or an event; the transactions it makes."""
        at_ms = at_ms if at_ms is not None else (self.journal[-1].at_ms if self.journal else START_MS)
        event = {
            RateCard: lambda: RateCardSet(at_ms=at_ms, card=thing),
            PolicyVersion: lambda: PolicySet(at_ms=at_ms, policy=thing),
            Voucher: lambda: VoucherGranted(at_ms=at_ms, voucher=thing),
            UsageRecord: lambda: UsageSealed(at_ms=at_ms, record=thing),
        }.get(type(thing), lambda: thing)()
        self.journal.append(event)
        found = self.book.apply(len(self.journal), event)
        self.posted += found
        return [one.txn for one in found]

    def rate(self, record, at_ms=None):
        """The lines of one usage record."""
        return self.tell(record, at_ms)[-1].lines

    def balance(self, name):
        return self.book.balances.get(name, 0)


def later(record, ms):
    """The same use at another time."""
    start_ms = record.start_ms + ms
    return replace(record, id=f"{record.lease_id}:{start_ms}", start_ms=start_ms, end_ms=record.end_ms + ms)
