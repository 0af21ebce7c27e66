"""Double entry: which accounts a fact moves, and how a transaction becomes a link of the chain.

Accounts are ``kind:name``. Debits are positive: what is receivable, held in a pool or left on a voucher is positive,
and its counterpart (revenue, the department's budget, what was promised) negative. Pools and vouchers never go below 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from scheduler.model.codec import encode
from scheduler.model.money import Payout, PolicyVersion, Posted, RatedLine, Txn

GENESIS = bytes(32)
"""``prev_hash`` of the first transaction."""
RECEIVABLE_CUSTOMER = "receivable.customer"
RECEIVABLE_GOVERNMENT = "receivable.government"
REVENUE = "revenue"
BUDGET = "pool.budget"
AVAILABLE = "pool.available"
RESERVED = "pool.reserved"
COMMITTED = "pool.committed"
"""Burnt, and so to be claimed."""
PAID = "pool.paid"
LAPSED = "pool.lapsed"
PROMISED = "voucher.promised"
ACTIVE = "voucher.active"
BURNT = "voucher.burnt"
EXPIRED = "voucher.expired"
REVOKED = "voucher.revoked"
ROUNDING = "rounding"
"""Of statements: the difference between a sum in fen and its exact lines."""
NEVER_NEGATIVE = (AVAILABLE, RESERVED, COMMITTED, PAID, LAPSED, ACTIVE, BURNT, EXPIRED, REVOKED)

Moves = dict[str, int]
"""Account → micro-yuan."""


def account(kind: str, name: str) -> str:
    """The account of one tenant, pool, voucher or tax class."""
    return f"{kind}:{name}"


def kind_of(name: str) -> str:
    """``pool.available`` of ``pool.available:2026-a``."""
    return name.partition(":")[0]


def move(moves: Moves, name: str, micro_yuan: int) -> None:
    """Add an amount to an account's movement."""
    moves[name] = moves.get(name, 0) + micro_yuan


def shift(moves: Moves, kinds: tuple[str, str], name: str, micro_yuan: int) -> None:
    """From one account of ``name`` to another one."""
    move(moves, account(kinds[0], name), -micro_yuan)
    move(moves, account(kinds[1], name), micro_yuan)


def charge(moves: Moves, tenant: str, line: RatedLine) -> None:
    """A line's price: owed by the tenant, and by the pools' owners for what was deducted; revenue of its tax class."""
    if not line.gross_micro_yuan:
        return
    move(moves, account(REVENUE, line.tax), -line.gross_micro_yuan)
    move(moves, account(RECEIVABLE_CUSTOMER, tenant), line.due_micro_yuan)
    for part in line.subsidies:
        if part.payout is Payout.DEDUCT:
            move(moves, account(RECEIVABLE_GOVERNMENT, part.policy), part.micro_yuan)


def burn(moves: Moves, version: PolicyVersion, voucher: str, micro_yuan: int, *, from_reserve: bool) -> None:
    """A voucher pays: its pool's money is committed, from the reserve or as first come."""
    shift(moves, (ACTIVE, BURNT), voucher, micro_yuan)
    shift(moves, (RESERVED if from_reserve else AVAILABLE, COMMITTED), version.id, micro_yuan)


def entries(moves: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Sorted, without zeros. Raises ValueError when they do not sum to zero."""
    if sum(moves.values()):
        raise ValueError(f"entries sum to {sum(moves.values())}, not to zero")
    return tuple(sorted((name, amount) for name, amount in moves.items() if amount))


def canonical(txn: Txn) -> str:
    """The transaction's body: canonical JSON that any database's text column takes."""
    value = encode(replace(txn, entries=(), lines=()))
    # The two long fields by hand: the general encoder looks at every item's type.
    if txn.entries:
        value["entries"] = txn.entries
    if txn.lines:
        value["lines"] = [encode(line) for line in txn.lines]
    out = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        out.encode()
    except UnicodeEncodeError:  # a lone surrogate in a note
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    return out


def link(prev_hash: bytes, body: str) -> bytes:
    """SHA-256 over the hash before and the body."""
    return hashlib.sha256(prev_hash + body.encode()).digest()


def chained(txn: Txn, prev_hash: bytes) -> Posted:
    """The transaction as the next link after ``prev_hash``."""
    body = canonical(txn)
    return Posted(txn, body, prev_hash, link(prev_hash, body))


def negatives(balances: Mapping[str, int]) -> Iterable[str]:
    """Accounts of pools and vouchers below zero: none, ever."""
    return (name for name, amount in sorted(balances.items()) if amount < 0 and kind_of(name) in NEVER_NEGATIVE)
