"""Proof that the ledger is what the journal says: booked again from the start and compared, hash by hash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from scheduler.control.money_shapes import AuditView
from scheduler.control.ports import Ledger
from scheduler.ledger import posting
from scheduler.ledger.book import Book
from scheduler.model.money import LedgerHead, Posted, StoredTxn, columns_of

PAGE = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What an audit saw."""

    difference: str
    """Empty when all agrees; else what differs first, in a sentence."""
    head: LedgerHead
    journal_seq: int
    """How far the journal goes (or a page of it); rows above ``head.cursor`` wait to be booked."""


def audit(ledger: Ledger) -> Finding:
    """Check the chain, zero sums, balances, and that no pool or voucher went below zero; then book the journal again
    and compare. A service may write meanwhile: only what it had booked at first is looked at.
    """
    head = ledger.ledger_head()
    end = ledger.money_events(head.cursor, PAGE)[1]
    return Finding(difference=_chain(ledger, head) or _projection(ledger, head), head=head, journal_seq=end)


def view(found: Finding) -> AuditView:
    """As the faces show it."""
    return {
        "ok": not found.difference,
        "difference": found.difference,
        "ledger_seq": found.head.seq,
        "ledger_hash": found.head.hash.hex(),
        "ledger_cursor": found.head.cursor,
        "journal_seq": found.journal_seq,
    }


def _chain(ledger: Ledger, head: LedgerHead) -> str:
    seq, last = 0, posting.GENESIS
    balances: dict[str, int] = {}
    for at, body, prev_hash, own, _ in _rows(ledger, head):
        if at != seq + 1:
            return f"ledger: there is no transaction {seq + 1}"
        if (prev_hash, own) != (last, posting.link(last, body)):
            return f"ledger: transaction {at} was changed after it was written"
        entries = json.loads(body).get("entries", [])
        if sum(amount for _, amount in entries):
            return f"ledger: transaction {at} does not sum to zero"
        for name, amount in entries:
            balances[name] = balances.get(name, 0) + amount
        below = next(posting.negatives({name: balances[name] for name, _ in entries}), "")
        if below:
            return f"ledger: transaction {at} takes {below} below zero"
        seq, last = at, own
    if (seq, last) != (head.seq, head.hash):
        return f"ledger: it ends at transaction {seq}; the one written last was {head.seq}"
    return _balances(ledger, head, balances)


def _balances(ledger: Ledger, head: LedgerHead, ours: dict[str, int]) -> str:
    stored = ledger.ledger_balances()
    if ledger.ledger_head() != head:
        return ""  # a batch came in between: the next audit sees its balances
    for name in sorted({*ours, *stored}):
        if ours.get(name) != stored.get(name):
            return f"balance of {name}: the entries give {ours.get(name, 0)}, the table holds {stored.get(name, 0)}"
    return ""


def _projection(ledger: Ledger, head: LedgerHead) -> str:
    book, rows, after = Book(recall=ledger.txn), _rows(ledger, head), 0
    while after < head.cursor:
        events, until = ledger.money_events(after, PAGE)
        for seq, event in events:
            if seq > head.cursor:
                break
            for posted in book.apply(seq, event):
                stored = next(rows, None)
                if stored is None or stored.hash != posted.hash:
                    return _differs(posted, stored)
                if stored.columns != columns_of(posted.txn):
                    return f"ledger transaction {stored.seq}: its row says {stored.columns}, which its body does not"
        after = until
    left = next(rows, None)
    return f"ledger: transaction {left.seq} comes from nothing in the journal" if left else ""


def _differs(ours: Posted, stored: StoredTxn | None) -> str:
    held = stored.body if stored else "nothing"
    return f"ledger transaction {ours.txn.seq}: the journal gives {ours.body}, the table holds {held}"


def _rows(ledger: Ledger, head: LedgerHead) -> Iterator[StoredTxn]:
    after = 0
    while after < head.seq and (page := ledger.ledger_rows(after, min(PAGE, head.seq - after))):
        yield from page
        after = page[-1].seq
