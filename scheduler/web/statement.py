"""What the statement's page shows, gathered for one caller. Nothing here changes anything."""

from __future__ import annotations

from typing import Any

from scheduler.control.access import Caller
from scheduler.control.money import Money
from scheduler.control.money_shapes import RowView, StatementView
from scheduler.ledger.months import CHINA, month_of
from scheduler.model.money import yuan
from scheduler.report import figures
from scheduler.report import money as told
from scheduler.web.words import WORDS

ROWS_SHOWN = 400
VOUCHERS_SHOWN = 100


def gather(money: Money, caller: Caller, month: str, now_ms: int) -> dict[str, Any]:
    """A month's statements. Raises InvalidInput for what is no month."""
    present = month_of(now_ms)
    found = money.statement(caller, month=month)
    asked = month or f"{present[0]}-{present[1]:02d}"
    year, number = int(asked[:4]), int(asked[5:])
    listed = money.vouchers(caller)["vouchers"][:VOUCHERS_SHOWN]
    return {
        "month": asked,
        "before": _month(year, number - 1),
        "after": _month(year, number + 1) if (year, number) < present else "",
        "statements": [_statement(one) for one in found["statements"]],
        "ledger_seq": found["ledger_seq"],
        "ledger_hash": found["ledger_hash"],
        "known": WORDS,
        "vouchers": [
            {
                **one,
                "amount": yuan(one["amount_micro_yuan"]),
                "left": yuan(one["left_micro_yuan"]),
                "paid": yuan(one["burnt_micro_yuan"]),
                "until": figures.instant(one["valid_to_ms"], CHINA),
            }
            for one in listed
        ],
    }


def _month(year: int, number: int) -> str:
    at = year * 12 + number - 1
    return f"{at // 12}-{at % 12 + 1:02d}"


def _statement(one: StatementView) -> dict[str, Any]:
    rows, last = [], ""
    for row in one["rows"][:ROWS_SHOWN]:
        rows.append({**_row(row), "first": row["job_id"] != last})
        last = row["job_id"]
    return {
        "tenant": one["tenant"],
        "example": one["example"],
        "gross": yuan(one["gross_micro_yuan"]),
        "deducted": yuan(one["deducted_micro_yuan"]),
        "granted": yuan(one["granted_micro_yuan"]),
        "due": told.fen(one["due_fen"]),
        "exact": yuan(one["due_micro_yuan"]),
        "rounding": yuan(one["rounding_micro_yuan"]),
        "rows": rows,
        "more": max(0, len(one["rows"]) - ROWS_SHOWN),
    }


def _row(row: RowView) -> dict[str, Any]:
    return {
        **row,
        "quantity": told.quantity(row["sku"], row["amount"]),
        "hourly": yuan(row["hourly_micro_yuan"]),
        "gross": yuan(row["gross_micro_yuan"]),
        "due": yuan(row["due_micro_yuan"]),
        "subsidies": [{**part, "yuan": yuan(part["micro_yuan"])} for part in row["subsidies"]],
        "passed_over": [(policy, yuan(paid)) for policy, paid in row["passed_over"].items()],
    }
