"""The ledger as a projection: the same journal gives the same transactions, byte for byte, in batches of any size.

A book is either fresh, or built from the balances and terms that an earlier one left (:meth:`Book.learn`); both go on
alike. It has no clock: a voucher's expiry is booked with the first money fact recorded after it, effective at its own
instant.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from scheduler.ledger import posting
from scheduler.ledger.policy import Room, pays_all
from scheduler.ledger.posting import Moves, account, shift
from scheduler.ledger.tariff import NO_PRICE, Tariff
from scheduler.ledger.voucher import Purse, subsidise
from scheduler.model.event import (
    ChargeReversed,
    MoneyEvent,
    PolicySet,
    RateCardSet,
    TenantSet,
    UsageSealed,
    VoucherGranted,
    VoucherRevoked,
)
from scheduler.model.money import (
    LedgerHead,
    Limit,
    PolicyStatus,
    PolicyVersion,
    PoolRule,
    Posted,
    RatedLine,
    Subsidy,
    Txn,
    TxnKind,
    Voucher,
)
from scheduler.model.usage import UsageRecord

Recall = Callable[[str], Txn | None]
"""The transaction booked under an ``idem``, if any."""


class Book:
    """Accounts, terms and the chain's end. :meth:`apply` takes the journal's money events in order."""

    def __init__(
        self,
        head: LedgerHead | None = None,
        balances: Mapping[str, int] | None = None,
        *,
        recall: Recall = lambda _: None,
    ) -> None:
        self.head = head or LedgerHead()
        self.balances: dict[str, int] = dict(balances or {})
        self.tariff = Tariff()
        self.policies: dict[str, PolicyVersion] = {}
        self.vouchers: dict[str, Voucher] = {}
        self.excluded: dict[str, str] = {}
        """Tenant → why no voucher pays for it."""
        self.budgets: dict[str, int] = {}
        """Tenant → most that it may owe, for those with a limit."""
        self.known: dict[str, int] = {}
        """``rate:<id>`` and ``policy:<id>`` → instant since when it is known."""
        self.changed: set[str] = set()
        """Accounts moved since somebody last emptied this set."""
        self.seen: set[str] = set()
        """``idem`` of what is booked already; whoever goes on from stored balances adds the ones that may recur."""
        self._recall = recall
        self._purses: dict[str, Purse] = {}
        self._burnt: dict[tuple[str, str], int] = {}
        self._ends: list[tuple[int, str]] = []
        self._posted: list[Posted] = []
        self._pending: Moves = {}
        """What the usage record being rated has moved so far."""
        self.revoked: set[str] = set()

    # ── terms ────────────────────────────────────────────────────────────────────────────────────────────────────

    def learn(self, event: MoneyEvent) -> None:
        """Take in an event's terms without booking anything: it was booked before ``balances`` were stored."""
        handler = _LEARN.get(type(event))
        if handler is not None:
            handler(self, event)

    def _learn_card(self, event: RateCardSet) -> None:
        if event.card.id not in {card.id for card in self.tariff.cards}:
            self.tariff.add(event.card)
            self.known[f"rate:{event.card.id}"] = event.at_ms

    def _learn_policy(self, event: PolicySet) -> None:
        if event.policy.id not in self.policies:
            self.policies[event.policy.id] = event.policy
            self.known[f"policy:{event.policy.id}"] = event.at_ms

    def _learn_tenant(self, event: TenantSet) -> None:
        self.excluded[event.tenant.name] = event.tenant.subsidy_excluded
        self.budgets.pop(event.tenant.name, None)
        if event.tenant.budget_micro_yuan >= 0:
            self.budgets[event.tenant.name] = event.tenant.budget_micro_yuan

    def _learn_voucher(self, event: VoucherGranted) -> None:
        voucher = event.voucher
        if voucher.id in self.vouchers:
            return
        self.vouchers[voucher.id] = voucher
        self._purses.setdefault(voucher.tenant, Purse()).add(voucher)
        burnt = self.balance(posting.BURNT, voucher.id)
        if burnt:
            key = (voucher.policy, voucher.tenant)
            self._burnt[key] = self._burnt.get(key, 0) + burnt
        if self.balance(posting.ACTIVE, voucher.id):
            heapq.heappush(self._ends, (voucher.valid_to_ms, voucher.id))

    def _learn_revoked(self, event: VoucherRevoked) -> None:
        voucher = self.vouchers.get(event.voucher_id)
        if voucher is not None:
            self._purses[voucher.tenant].remove(voucher.id)
            self.revoked.add(voucher.id)

    # ── booking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def apply(self, seq: int, event: MoneyEvent) -> list[Posted]:
        """What journal row ``seq`` books, in order. An event booked before books nothing."""
        self._posted = []
        self._expire(seq, event.at_ms)
        _BOOK[type(event)](self, seq, event)
        self.head = replace(self.head, cursor=seq)
        return self._posted

    def unfunded(self, now_ms: int) -> tuple[str, ...]:
        """Tenants that owe as much as they may, but for those whose vouchers pay for everything now; sorted."""
        owing = (name for name, most in self.budgets.items() if self.balance(posting.RECEIVABLE_CUSTOMER, name) >= most)
        return tuple(sorted(name for name in owing if not self._owes_nothing(name, now_ms)))

    def _owes_nothing(self, tenant: str, now_ms: int) -> bool:
        """Some policy pays whole lines for it, and has money left."""
        purse = self._purses.get(tenant)
        if self.excluded.get(tenant) or purse is None:
            return False
        return any(
            pays_all(version, vouchers, self._room(version, vouchers), now_ms)
            for name, vouchers in purse.by_policy.items()
            if (version := self.policies.get(name)) is not None
        )

    def balance(self, kind: str, name: str) -> int:
        """An account's balance, 0 when nothing moved it yet."""
        key = account(kind, name)
        return self.balances.get(key, 0) + self._pending.get(key, 0)

    def _post(self, idem: str, kind: TxnKind, moves: Moves, **fields: Any) -> None:
        txn = Txn(seq=self.head.seq + 1, idem=idem, kind=kind, entries=posting.entries(moves), **fields)
        for name, amount in txn.entries:
            self.balances[name] = self.balances.get(name, 0) + amount
            self.changed.add(name)
        posted = posting.chained(txn, self.head.hash)
        self.head = replace(self.head, seq=txn.seq, hash=posted.hash)
        self.seen.add(idem)
        self._posted.append(posted)

    def _set_terms(self, _: int, event: RateCardSet | TenantSet) -> None:
        self.learn(event)

    def _fund(self, seq: int, event: PolicySet) -> None:
        version, idem = event.policy, f"pool:{event.policy.id}"
        if idem in self.seen or version.id in self.policies:
            return
        self.learn(event)
        if version.status is PolicyStatus.IN_FORCE:
            moves: Moves = {}
            shift(moves, (posting.BUDGET, posting.AVAILABLE), version.id, version.pool.amount_micro_yuan)
            self._post(idem, TxnKind.FUNDING, moves, at_ms=event.at_ms, journal_seq=seq, note=version.owner)

    def _grant(self, seq: int, event: VoucherGranted) -> None:
        voucher, idem = event.voucher, f"grant:{event.voucher.id}"
        if idem in self.seen or voucher.id in self.vouchers:
            return
        version = self.policies.get(voucher.policy)
        if version is not None and self.can_grant(version, voucher.amount_micro_yuan):
            moves: Moves = {}
            shift(moves, (posting.PROMISED, posting.ACTIVE), voucher.id, voucher.amount_micro_yuan)
            if version.pool.rule is PoolRule.RESERVE:
                shift(moves, (posting.AVAILABLE, posting.RESERVED), version.id, voucher.amount_micro_yuan)
            self._post(idem, TxnKind.GRANT, moves, at_ms=event.at_ms, journal_seq=seq, tenant=voucher.tenant)
        self.learn(event)

    def can_grant(self, version: PolicyVersion, micro_yuan: int) -> bool:
        """Whether a voucher of this amount can be given: drafts give none, a reserving pool no more than it holds."""
        if version.status is not PolicyStatus.IN_FORCE:
            return False
        return version.pool.rule is not PoolRule.RESERVE or micro_yuan <= self.balance(posting.AVAILABLE, version.id)

    def _revoke(self, seq: int, event: VoucherRevoked) -> None:
        voucher, idem = self.vouchers.get(event.voucher_id), f"revocation:{event.voucher_id}"
        if voucher is None or idem in self.seen:
            return
        left = self.balance(posting.ACTIVE, voucher.id)
        version = self.policies.get(voucher.policy)
        if left and version is not None:
            moves: Moves = {}
            shift(moves, (posting.ACTIVE, posting.REVOKED), voucher.id, left)
            if version.pool.rule is PoolRule.RESERVE:
                shift(moves, (posting.RESERVED, posting.AVAILABLE), version.id, left)
            self._post(
                idem, TxnKind.REVOCATION, moves, at_ms=event.at_ms, journal_seq=seq, tenant=voucher.tenant,
                corrects=f"grant:{voucher.id}", note=event.reason,
            )  # fmt: skip
        self.learn(event)

    def _expire(self, seq: int, at_ms: int) -> None:
        """Vouchers that ended by now lose what is left; in a reserving pool that money lapses."""
        while self._ends and self._ends[0][0] <= at_ms:
            end_ms, voucher_id = heapq.heappop(self._ends)
            left, voucher = self.balance(posting.ACTIVE, voucher_id), self.vouchers[voucher_id]
            if left:
                moves: Moves = {}
                shift(moves, (posting.ACTIVE, posting.EXPIRED), voucher_id, left)
                if self.policies[voucher.policy].pool.rule is PoolRule.RESERVE:
                    shift(moves, (posting.RESERVED, posting.LAPSED), voucher.policy, left)
                again = account(posting.EXPIRED, voucher_id) in self.balances  # a reversal gave something back since
                idem = f"expiry:{voucher_id}:{seq}" if again else f"expiry:{voucher_id}"
                self._post(
                    idem, TxnKind.EXPIRY, moves, at_ms=at_ms, journal_seq=seq,
                    tenant=voucher.tenant, start_ms=end_ms, end_ms=end_ms,
                )  # fmt: skip

    # ── usage ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _usage(self, seq: int, event: UsageSealed) -> None:
        record, idem = event.record, f"usage:{event.record.id}"
        if idem in self.seen:
            return
        lines = []
        for plain in self.tariff.lines(record):
            line = self._paid(plain, record)
            posting.charge(self._pending, record.tenant, line)
            for part in line.subsidies:
                self._burn(seq, event, part)
            lines.append(line)
        moves, self._pending = self._pending, {}
        self._post(
            idem, TxnKind.USAGE, moves, at_ms=event.at_ms, journal_seq=seq, tenant=record.tenant, job_id=record.job_id,
            lease_id=record.lease_id, step=record.step, start_ms=record.start_ms, end_ms=record.end_ms,
            lines=tuple(lines),
        )  # fmt: skip

    def _paid(self, line: RatedLine, record: UsageRecord) -> RatedLine:
        """The line with its subsidies, or the reason why there are none."""
        if line.free:
            return replace(line, limit=Limit.NO_PRICE if line.free == NO_PRICE else Limit.FREE)
        price = self.tariff.price(self.tariff.card_at(line.start_ms), line.sku, line.model)
        if price is None or not price.voucher:
            return replace(line, limit=Limit.NOT_ELIGIBLE)
        if reason := self.excluded.get(record.tenant, ""):
            return replace(line, limit=Limit.EXCLUDED, limit_note=reason)
        purse = self._purses.get(record.tenant)
        return subsidise(line, purse, self.policies, self._room, purpose=record.purpose)

    def _room(self, version: PolicyVersion, vouchers: Sequence[Voucher]) -> Room:
        """What is left, less what earlier lines of the same record took. Expired money still pays for its own time."""
        left = {v.id: self.balance(posting.ACTIVE, v.id) + self.balance(posting.EXPIRED, v.id) for v in vouchers}
        used = self._burnt.get((version.id, vouchers[0].tenant), 0)
        cap, is_reserved = version.tenant_cap_micro_yuan, version.pool.rule is PoolRule.RESERVE
        return Room(
            vouchers=left,
            cap=max(0, cap - used) if cap else None,
            pool=None if is_reserved else self.balance(posting.AVAILABLE, version.id),
        )

    def _burn(self, seq: int, event: UsageSealed, part: Subsidy) -> None:
        version, voucher = self.policies[part.policy], self.vouchers[part.voucher]
        is_reserved = version.pool.rule is PoolRule.RESERVE
        missing = part.micro_yuan - self.balance(posting.ACTIVE, voucher.id)
        if missing > 0:
            moves: Moves = {}
            shift(moves, (posting.EXPIRED, posting.ACTIVE), voucher.id, missing)
            if is_reserved:
                shift(moves, (posting.LAPSED, posting.RESERVED), version.id, missing)
            self._post(
                f"reinstatement:{voucher.id}:{event.record.id}:{self.head.seq}", TxnKind.REINSTATEMENT, moves,
                at_ms=event.at_ms, journal_seq=seq, tenant=voucher.tenant, corrects=f"expiry:{voucher.id}",
            )  # fmt: skip
        posting.burn(self._pending, version, voucher.id, part.micro_yuan, from_reserve=is_reserved)
        self._note_burnt(voucher, part.micro_yuan)

    def _note_burnt(self, voucher: Voucher, micro_yuan: int) -> None:
        key = (voucher.policy, voucher.tenant)
        self._burnt[key] = self._burnt.get(key, 0) + micro_yuan

    def _reverse(self, seq: int, event: ChargeReversed) -> None:
        """Everything the record's transaction moved goes back; what a revoked voucher gets back is revoked, too."""
        idem, named = f"reversal:{event.usage_id}", f"usage:{event.usage_id}"
        first = None if idem in self.seen else self._recall(named)
        if first is None:
            return
        moves = {name: -amount for name, amount in first.entries}
        for part in (part for line in first.lines for part in line.subsidies):
            voucher = self.vouchers[part.voucher]
            self._note_burnt(voucher, -part.micro_yuan)
            if voucher.id in self.revoked:
                shift(moves, (posting.ACTIVE, posting.REVOKED), voucher.id, part.micro_yuan)
                if self.policies[part.policy].pool.rule is PoolRule.RESERVE:
                    shift(moves, (posting.RESERVED, posting.AVAILABLE), part.policy, part.micro_yuan)
            else:
                heapq.heappush(self._ends, (voucher.valid_to_ms, voucher.id))
        self._post(
            idem, TxnKind.REVERSAL, moves, at_ms=event.at_ms, journal_seq=seq, tenant=first.tenant, job_id=first.job_id,
            lease_id=first.lease_id, step=first.step, start_ms=first.start_ms, end_ms=first.end_ms,
            lines=tuple(_negated(line) for line in first.lines), corrects=named, note=event.reason,
        )  # fmt: skip


def _negated(line: RatedLine) -> RatedLine:
    parts = tuple(replace(part, micro_yuan=-part.micro_yuan) for part in line.subsidies)
    return replace(line, amount=-line.amount, gross_micro_yuan=-line.gross_micro_yuan, subsidies=parts)


_LEARN: Mapping[type, Callable[[Book, Any], None]] = {
    RateCardSet: Book._learn_card,
    PolicySet: Book._learn_policy,
    TenantSet: Book._learn_tenant,
    VoucherGranted: Book._learn_voucher,
    VoucherRevoked: Book._learn_revoked,
}
_BOOK: Mapping[type, Callable[[Book, int, Any], None]] = {
    TenantSet: Book._set_terms,
    RateCardSet: Book._set_terms,
    PolicySet: Book._fund,
    VoucherGranted: Book._grant,
    VoucherRevoked: Book._revoke,
    UsageSealed: Book._usage,
    ChargeReversed: Book._reverse,
}
MONEY_KINDS: tuple[type, ...] = tuple(_BOOK)
