"""How prices, vouchers and statements look from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from scheduler.control.money_shapes import (
    LineView,
    PolicyView,
    RateView,
    RowView,
    StatementView,
    SubsidyView,
    VoucherView,
)
from scheduler.ledger import posting
from scheduler.ledger.book import Book
from scheduler.ledger.statement import Row, Statement
from scheduler.model import codec
from scheduler.model.money import (
    Payout,
    PolicyStatus,
    PolicyVersion,
    RateCard,
    RatedLine,
    Subsidy,
    Txn,
    Voucher,
)


def rate(card: RateCard, known_from_ms: int, *, in_force: bool) -> RateView:
    """A version of the prices."""
    return {
        "id": card.id,
        "valid_from_ms": card.valid_from_ms,
        "known_from_ms": known_from_ms,
        "in_force": in_force,
        "example": card.is_example,
        "rounding": card.rounding.value,
        "charges_starting": card.charges_starting,
        "note": card.note,
        "prices": [
            {
                "sku": p.sku.value,
                "model": p.model,
                "hourly_micro_yuan": p.hourly_micro_yuan,
                "voucher": p.voucher,
                "tax": p.tax,
            }
            for p in card.prices
        ],
    }


def policy(version: PolicyVersion, book: Book, *, pool: bool) -> PolicyView:
    """A policy version; with its pool's accounts for whoever may see them."""
    return {
        "id": version.id,
        "title": version.title,
        "status": version.status.value,
        "owner": version.owner,
        "ratio_bp": version.ratio_bp,
        "valid_from_ms": version.valid_from_ms,
        "valid_to_ms": version.valid_to_ms,
        "known_from_ms": book.known[f"policy:{version.id}"],
        "fiscal_year": version.pool.fiscal_year,
        "pool_rule": version.pool.rule.value,
        "skus": [sku.value for sku in version.skus],
        "purposes": list(version.purposes),
        "tenant_cap_micro_yuan": version.tenant_cap_micro_yuan,
        "truncation_micro_yuan": version.truncation_micro_yuan,
        "payout": version.payout.value,
        "example": version.is_example,
        "source": version.source,
        "pool": {
            "amount_micro_yuan": version.pool.amount_micro_yuan,
            "available_micro_yuan": book.balance(posting.AVAILABLE, version.id),
            "reserved_micro_yuan": book.balance(posting.RESERVED, version.id),
            "committed_micro_yuan": book.balance(posting.COMMITTED, version.id),
            "paid_micro_yuan": book.balance(posting.PAID, version.id),
            "lapsed_micro_yuan": book.balance(posting.LAPSED, version.id),
        }
        if pool
        else None,
    }


def voucher(record: Voucher, book: Book, now_ms: int) -> VoucherView:
    """A voucher, what is left and what it paid."""
    version = book.policies.get(record.policy)
    left, state = book.balance(posting.ACTIVE, record.id), "active"
    if record.id in book.revoked:
        state = "revoked"
    elif version is None or version.status is not PolicyStatus.IN_FORCE:
        state = "draft"
    elif not book.balance(posting.PROMISED, record.id):
        state = "not_funded"
    elif record.valid_to_ms <= now_ms:
        left, state = 0, "expired"
    elif not left:
        state = "used_up"
    elif now_ms < record.valid_from_ms:
        state = "not_yet"
    return {
        "id": record.id,
        "tenant": record.tenant,
        "policy": record.policy,
        "owner": version.owner if version is not None else "",
        "state": state,
        "amount_micro_yuan": record.amount_micro_yuan,
        "left_micro_yuan": left,
        "burnt_micro_yuan": book.balance(posting.BURNT, record.id),
        "valid_from_ms": record.valid_from_ms,
        "valid_to_ms": record.valid_to_ms,
        "priority": record.priority,
        "excluded": record.excluded or book.excluded.get(record.tenant, ""),
    }


def with_defaults(record: Voucher, voucher_id: str, now_ms: int) -> Voucher:
    """The voucher with an id and a beginning, where it has none."""
    return replace(record, id=record.id or voucher_id, valid_from_ms=record.valid_from_ms or now_ms)


def statement(made: Statement, book: Book, job_names: Mapping[str, str]) -> StatementView:
    """A statement without its lines; the caller names the period."""
    cards = {card.id: card for card in book.tariff.cards}
    rows = made.sorted_rows()
    return {
        "tenant": made.tenant,
        "start_ms": 0,
        "end_ms": 0,
        "job_id": "",
        "gross_micro_yuan": made.gross_micro_yuan,
        "deducted_micro_yuan": made.subsidy_micro_yuan(Payout.DEDUCT),
        "granted_micro_yuan": made.subsidy_micro_yuan(Payout.GRANT),
        "due_micro_yuan": made.due_micro_yuan,
        "due_fen": made.due_fen,
        "rounding_micro_yuan": made.rounding_micro_yuan,
        "example": any(cards[row.key.rate].is_example for row in rows if row.key.rate in cards),
        "rows": [_row(row, book, job_names) for row in rows],
        "lines": [],
    }


def _row(row: Row, book: Book, job_names: Mapping[str, str]) -> RowView:
    key = row.key
    return {
        "job_id": key.job_id,
        "job_name": job_names.get(key.job_id, ""),
        "step": key.step,
        "sku": key.sku,
        "model": key.model,
        "rate": key.rate,
        "fallback": key.is_fallback,
        "hourly_micro_yuan": key.hourly_micro_yuan,
        "free": key.free,
        "tax": key.tax,
        "lines": row.lines,
        "held_ms": row.held_ms,
        "amount": row.amount,
        "gross_micro_yuan": row.gross_micro_yuan,
        "subsidies": [
            _subsidy(
                Subsidy(
                    voucher=payer.voucher,
                    policy=payer.policy,
                    micro_yuan=paid,
                    limit=payer.limit,
                    payout=payer.payout,
                ),
                book,
            )
            for payer, paid in sorted(row.paid.items())
        ],
        "limit": key.limit.value,
        "limit_note": key.limit_note,
        "passed_over": dict(sorted(row.passed_over.items())),
        "due_micro_yuan": row.due_micro_yuan,
        "reversal": key.is_reversal,
        "ledger_seq": [row.first_seq, row.last_seq],
    }


def line(txn: Txn, rated: RatedLine, book: Book) -> LineView:
    """One line with everything it comes from."""
    return {
        "usage_id": (txn.corrects or txn.idem).partition(":")[2],
        "lease_id": txn.lease_id,
        "job_id": txn.job_id,
        "step": txn.step,
        "start_ms": rated.start_ms,
        "end_ms": rated.end_ms,
        "sku": rated.sku.value,
        "model": rated.model,
        "rate": rated.rate,
        "hourly_micro_yuan": rated.hourly_micro_yuan,
        "amount": rated.amount,
        "free": rated.free,
        "gross_micro_yuan": rated.gross_micro_yuan,
        "subsidies": [_subsidy(part, book) for part in rated.subsidies],
        "limit": rated.limit.value,
        "limit_note": rated.limit_note,
        "due_micro_yuan": rated.due_micro_yuan,
        "corrects": txn.corrects,
        "note": txn.note,
        "ledger_seq": txn.seq,
    }


def _subsidy(part: Subsidy, book: Book) -> SubsidyView:
    version = book.policies.get(part.policy)
    return {
        "voucher": part.voucher,
        "policy": part.policy,
        "owner": version.owner if version is not None else "",
        "payout": part.payout.value,
        "micro_yuan": part.micro_yuan,
        "limit": part.limit.value,
    }


def first_difference(known: object, given: object) -> str:
    """The first field in which two records of one class differ, with both values."""
    for field in fields(known):  # type: ignore[arg-type]
        ours, theirs = getattr(known, field.name), getattr(given, field.name)
        if ours == theirs:
            continue
        if isinstance(ours, tuple) and isinstance(theirs, tuple) and len(ours) == len(theirs):
            at = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
            return f"{field.name}[{at}]: {_text(ours[at])} is recorded, now it says {_text(theirs[at])}"
        return f"{field.name}: {_text(ours)} is recorded, now it says {_text(theirs)}"
    return ""


def _text(value: object) -> str:
    return codec.dumps(value)
