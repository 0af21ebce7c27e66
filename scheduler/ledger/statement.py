"""A statement: what one tenant used in a period, what it costs, who pays, and where each figure comes from.

Lines are grouped, never changed: a row is the exact sum of its lines, a statement the exact sum of its rows. Only the
amount to pay is rounded, once, to fen; the difference is shown as the account ``rounding`` would hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from scheduler.model.money import MICRO_YUAN_PER_FEN, Limit, Payout, RatedLine, Txn


class Key(NamedTuple):
    """What the lines of one row have in common."""

    job_id: str
    step: str
    sku: str
    model: str
    rate: str
    hourly_micro_yuan: int
    free: str
    is_fallback: bool
    tax: str
    limit: Limit
    limit_note: str
    is_reversal: bool


class Payer(NamedTuple):
    """A voucher, and what decided how much it paid."""

    voucher: str
    policy: str
    payout: Payout
    limit: Limit


@dataclass(slots=True, kw_only=True)
class Row:
    """Lines of one step, SKU, price and reason, added up."""

    key: Key
    lines: int = 0
    held_ms: int = 0
    amount: int = 0
    gross_micro_yuan: int = 0
    due_micro_yuan: int = 0
    paid: dict[Payer, int]
    passed_over: dict[str, int]
    """Policy version → what it would have paid."""
    first_seq: int = 0
    last_seq: int = 0
    """Transactions that the lines stand in."""

    def add(self, seq: int, line: RatedLine) -> None:
        """One more line."""
        self.lines += 1
        self.held_ms += (line.end_ms - line.start_ms) * (-1 if self.key.is_reversal else 1)
        self.amount += line.amount
        self.gross_micro_yuan += line.gross_micro_yuan
        self.due_micro_yuan += line.due_micro_yuan
        for part in line.subsidies:
            payer = Payer(part.voucher, part.policy, part.payout, part.limit)
            self.paid[payer] = self.paid.get(payer, 0) + part.micro_yuan
        for policy, micro_yuan in line.passed_over:
            self.passed_over[policy] = self.passed_over.get(policy, 0) + micro_yuan
        self.first_seq = min(self.first_seq or seq, seq)
        self.last_seq = max(self.last_seq, seq)


@dataclass(slots=True, kw_only=True)
class Statement:
    """Everything of one tenant in a period. Amounts are exact, in micro-yuan; only ``due_fen`` is rounded."""

    tenant: str
    rows: dict[Key, Row]

    @property
    def gross_micro_yuan(self) -> int:
        """At list prices."""
        return sum(row.gross_micro_yuan for row in self.rows.values())

    @property
    def due_micro_yuan(self) -> int:
        """What the tenant pays the park."""
        return sum(row.due_micro_yuan for row in self.rows.values())

    @property
    def due_fen(self) -> int:
        """The same in whole fen, half up: the one rounding of a statement."""
        return to_fen(self.due_micro_yuan)

    @property
    def rounding_micro_yuan(self) -> int:
        """``due_fen`` less the exact sum."""
        return self.due_fen * MICRO_YUAN_PER_FEN - self.due_micro_yuan

    def subsidy_micro_yuan(self, payout: Payout) -> int:
        """What vouchers pay in this way."""
        return sum(m for row in self.rows.values() for payer, m in row.paid.items() if payer.payout is payout)

    def sorted_rows(self) -> list[Row]:
        """By job, step, SKU and reason."""
        return sorted(self.rows.values(), key=lambda row: (_number(row.key.job_id), row.key))


def to_fen(micro_yuan: int) -> int:
    """Whole fen, half away from zero, so that a refund rounds as the charge did."""
    fen = (2 * abs(micro_yuan) + MICRO_YUAN_PER_FEN) // (2 * MICRO_YUAN_PER_FEN)
    return fen if micro_yuan >= 0 else -fen


def lines_of(txns: Iterable[Txn], start_ms: int, end_ms: int) -> Iterator[tuple[Txn, RatedLine]]:
    """The transactions' lines of service in ``[start_ms, end_ms)`` (0: no bound). No line crosses a month's end."""
    for txn in txns:
        for line in txn.lines:
            if line.start_ms >= start_ms and (not end_ms or line.start_ms < end_ms):
                yield txn, line


def build(txns: Iterable[Txn], start_ms: int = 0, end_ms: int = 0) -> dict[str, Statement]:
    """Tenant → statement of the period."""
    found: dict[str, Statement] = {}
    for txn, line in lines_of(txns, start_ms, end_ms):
        statement = found.get(txn.tenant)
        if statement is None:
            statement = found[txn.tenant] = Statement(tenant=txn.tenant, rows={})
        key = key_of(txn, line)
        row = statement.rows.get(key)
        if row is None:
            row = statement.rows[key] = Row(key=key, paid={}, passed_over={})
        row.add(txn.seq, line)
    return found


def key_of(txn: Txn, line: RatedLine) -> Key:
    """The row that a line belongs to."""
    return Key(
        job_id=txn.job_id,
        step=txn.step,
        sku=line.sku.value,
        model=line.model,
        rate=line.rate,
        hourly_micro_yuan=line.hourly_micro_yuan,
        free=line.free,
        is_fallback=line.is_fallback,
        tax=line.tax,
        limit=line.limit,
        limit_note=line.limit_note,
        is_reversal=bool(txn.corrects),
    )


def _number(job_id: str) -> int:
    return int(job_id[1:]) if job_id[1:].isdecimal() else 0
