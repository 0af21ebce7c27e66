"""From a usage record to priced lines: quantity x price per hour as one exact rational, rounded once per line.

A record is priced by the card in force at its start and split where another card begins, so that a price change in the
middle of a render charges each part by its own prices. It is split at the end of a month (China time) too: every line
lies in one month, and months add up. Prices are never divided down to seconds first: 14 yuan an hour is 0.00388… a
second.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from scheduler.ledger.months import month_of, month_range_ms
from scheduler.model.money import ANY_MODEL, Price, RateCard, RatedLine, Rounding
from scheduler.model.units import MILLI, MS_PER_HOUR
from scheduler.model.usage import Bucket, Quantity, Sku, UsageRecord

HOUR_OF: Mapping[Sku, int] = {
    Sku.CARD: MILLI * MS_PER_HOUR,
    Sku.MIG: MILLI * MS_PER_HOUR,
    Sku.VCPU: MILLI * MS_PER_HOUR,
    Sku.MEMORY: 1_024 * MS_PER_HOUR,
}
"""The SKU's amount that is one hour of one unit (card, instance, vCPU, GiB)."""
NO_PRICE = "no_price"
SIMULATED = "simulated"


class _Span(NamedTuple):
    """A stretch of time with one rate card, inside one month."""

    start_ms: int
    end_ms: int
    card: RateCard | None


class Tariff:
    """Every version of the prices known so far."""

    def __init__(self) -> None:
        self.cards: list[RateCard] = []
        self._starts: list[int] = []
        self._prices: dict[str, dict[tuple[Sku, str], Price]] = {}
        self._span: _Span | None = None

    def add(self, card: RateCard) -> None:
        """A version becomes known; of two that begin at one instant, the one known later holds."""
        at = bisect_right(self._starts, card.valid_from_ms)
        self.cards.insert(at, card)
        self._starts.insert(at, card.valid_from_ms)
        self._prices[card.id] = {(price.sku, price.model): price for price in card.prices}
        self._span = None

    def card_at(self, at_ms: int) -> RateCard | None:
        """The version in force; None before the first one."""
        at = bisect_right(self._starts, at_ms)
        return self.cards[at - 1] if at else None

    def price(self, card: RateCard | None, sku: Sku, model: str) -> Price | None:
        """The price of one hour, the card's fallback for models it does not name, or None."""
        prices = self._prices[card.id] if card is not None else {}
        return prices.get((sku, model)) or prices.get((sku, ANY_MODEL))

    def lines(self, record: UsageRecord) -> Iterator[RatedLine]:
        """The record's priced lines, without subsidies; what is free or has no price is a line of 0 with the reason."""
        length_ms = record.end_ms - record.start_ms
        for span in self._spans(record.start_ms, record.end_ms):
            for quantity in record.quantities:
                until, since = (quantity.amount * (at - record.start_ms) // length_ms for at in (span[1], span[0]))
                yield self._line(record, quantity, until - since, span)
            if record.simulated:
                yield RatedLine(
                    start_ms=span.start_ms,
                    end_ms=span.end_ms,
                    sku=Sku.CARD,
                    model=SIMULATED,
                    amount=0,
                    rate=span.card.id if span.card else "",
                    free=SIMULATED,
                )

    def _line(self, record: UsageRecord, quantity: Quantity, amount: int, span: _Span) -> RatedLine:
        start_ms, end_ms, card = span
        price = self.price(card, quantity.sku, quantity.model)
        free = _free(record, card) or ("" if price is not None else NO_PRICE)
        hourly = price.hourly_micro_yuan if price is not None else 0
        rounding = card.rounding if card is not None else Rounding.HALF_UP
        return RatedLine(
            start_ms=start_ms,
            end_ms=end_ms,
            sku=quantity.sku,
            model=quantity.model,
            amount=amount,
            hourly_micro_yuan=hourly,
            rate=card.id if card is not None else "",
            gross_micro_yuan=0 if free else divide(amount * hourly, HOUR_OF[quantity.sku], rounding),
            free=free,
            is_fallback=price is not None and price.model == ANY_MODEL,
            tax=price.tax if price is not None else "",
        )

    def _spans(self, start_ms: int, end_ms: int) -> Iterator[_Span]:
        while start_ms < end_ms:
            whole = self._span
            if whole is None or not whole.start_ms <= start_ms < whole.end_ms:
                self._span = whole = self._around(start_ms)
            until_ms = min(end_ms, whole.end_ms)
            yield _Span(start_ms, until_ms, whole.card)
            start_ms = until_ms

    def _around(self, at_ms: int) -> _Span:
        """The longest stretch around an instant without a change of card or month."""
        start_ms, end_ms = month_range_ms(*month_of(at_ms))
        at = bisect_right(self._starts, at_ms)
        if at:
            start_ms = max(start_ms, self._starts[at - 1])
        if at < len(self._starts):
            end_ms = min(end_ms, self._starts[at])
        return _Span(start_ms, end_ms, self.cards[at - 1] if at else None)


def divide(numerator: int, denominator: int, rounding: Rounding) -> int:
    """An exact amount (0 or more) in whole units: the one rounding of a line."""
    whole, rest = divmod(numerator, denominator)
    if rounding is Rounding.DOWN or not rest:
        return whole
    if rounding is Rounding.UP or 2 * rest > denominator:
        return whole + 1
    if 2 * rest < denominator:
        return whole
    return whole + (1 if rounding is Rounding.HALF_UP else whole % 2)


def _free(record: UsageRecord, card: RateCard | None) -> str:
    """Why this bucket's time costs nothing; empty when it is charged."""
    if record.bucket is Bucket.HELD_CHARGED:
        return ""
    if record.bucket is Bucket.STARTING:
        return "" if card is not None and card.charges_starting else record.bucket.value
    return record.free_reason or record.bucket.value
