"""Verbs about money: prices, policies, vouchers, statements. Tenants see their own; changes need an operator."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.control import money_views as views
from scheduler.control.access import Caller, require_operator, visible
from scheduler.control.audit import audit, view
from scheduler.control.cycle import Cycle
from scheduler.control.keeper import Keeper
from scheduler.control.money_shapes import (
    AuditView,
    PolicyList,
    RateList,
    StatementList,
    StatementView,
    VoucherList,
    VoucherView,
)
from scheduler.control.operations import NAME, NAME_RULE
from scheduler.control.ports import Ledger
from scheduler.engine import Engine
from scheduler.ledger import statement as sums
from scheduler.ledger.book import Book
from scheduler.ledger.months import month_of, month_range_ms
from scheduler.model.errors import Conflict, InvalidInput, NotFound, Problem, unknown
from scheduler.model.event import ChargeReversed, Event, PolicySet, RateCardSet, VoucherGranted, VoucherRevoked
from scheduler.model.money import PolicyStatus, PolicyVersion, PoolRule, RateCard, Txn, Voucher, yuan

MOST_LINES = 10_000


class Money:
    """Prices and what became of them. Every method takes the caller first and raises only ShisuanErrors."""

    def __init__(self, cycle: Cycle, keeper: Keeper, ledger: Ledger) -> None:
        self._cycle = cycle
        self._keeper = keeper
        self._ledger = ledger
        self._issued: set[str] = set()
        """Ids given by this process: two grants may meet in one cycle."""

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def rates(self, caller: Caller) -> RateList:
        """Every version of the prices; the one in force now first."""
        now_ms = self._cycle.now_ms()
        with self._keeper.book() as book:
            held = book.tariff.card_at(now_ms)
            cards = sorted(book.tariff.cards, key=lambda c: (c is not held, -c.valid_from_ms))
            return {"rates": [views.rate(c, book.known[f"rate:{c.id}"], in_force=c is held) for c in cards]}

    def policies(self, caller: Caller) -> PolicyList:
        """Every policy version; an operator also sees where its pool's money is."""
        with self._keeper.book() as book:
            shown = [views.policy(p, book, pool=caller.is_operator) for p in book.policies.values()]
        return {"policies": shown}

    def vouchers(self, caller: Caller) -> VoucherList:
        """The caller's vouchers (an operator's: all), in the order they burn."""
        now_ms = self._cycle.now_ms()
        with self._keeper.book() as book:
            mine = [v for v in book.vouchers.values() if caller.sees(v.tenant)]
            mine.sort(key=lambda v: (v.tenant, v.priority, v.valid_to_ms))  # equals stay in the order of granting
            return {"vouchers": [views.voucher(v, book, now_ms) for v in mine]}

    def statement(
        self, caller: Caller, *, tenant: str = "", month: str = "", job_id: str = "", lines: bool = False
    ) -> StatementList:
        """What was used in a month (default: the present one) or by one job, and what it costs. Raises NotFound,
        InvalidInput, Forbidden for another tenant's.
        """
        start_ms, end_ms = 0, 0
        if job_id:
            tenant = self._tenant_of(caller, job_id)
            if month:
                raise InvalidInput([Problem("month", "give either a month or a job")])
        else:
            tenant = self._whose(caller, tenant)
            start_ms, end_ms = self._period(month)
        head = self._keeper.catch_up()
        txns = self._all(tenant, job_id, start_ms, end_ms)
        found = sums.build(txns, start_ms, end_ms)
        if tenant:
            found.setdefault(tenant, sums.Statement(tenant=tenant, rows={}))
        names = self._job_names({key.job_id for s in found.values() for key in s.rows})
        with self._keeper.book() as book:
            made = [views.statement(found[name], book, names) for name in sorted(found)]
            for one in made:
                self._complete(one, (start_ms, end_ms), job_id, txns if lines else (), book)
        return {"ledger_seq": head.seq, "ledger_hash": head.hash.hex(), "statements": made}

    def verify(self, caller: Caller) -> AuditView:
        """Book the whole journal again and compare. Raises Forbidden."""
        require_operator(caller)
        self._keeper.catch_up()
        return view(audit(self._ledger))

    # ── changing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def grant(self, caller: Caller, voucher: Voucher) -> VoucherView:
        """Give a voucher; without an id it gets one, without ``valid_from_ms`` it is valid from now. Raises Forbidden,
        InvalidInput.
        """
        require_operator(caller)
        self._keeper.catch_up()

        def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], str]:
            with self._keeper.book() as book:
                made = self._numbered(voucher, book, now_ms)
                check_voucher(engine, book, made, "", self._issued)
            self._issued.add(made.id)
            return (VoucherGranted(at_ms=now_ms, voucher=made, by=caller.key_id),), made.id

        return self._voucher(self._cycle.call(decide))

    def revoke(self, caller: Caller, voucher_id: str, reason: str) -> VoucherView:
        """Give what is left back to the pool. Raises Forbidden, NotFound, Conflict when it was revoked before."""
        require_operator(caller)
        self._keeper.catch_up()

        def decide(_: Engine, now_ms: int) -> tuple[Sequence[Event], None]:
            with self._keeper.book() as book:
                if voucher_id not in book.vouchers:
                    raise NotFound(f"no voucher {voucher_id!r}")
                if voucher_id in book.revoked:
                    raise Conflict(f"voucher {voucher_id} was revoked before")
            return (VoucherRevoked(at_ms=now_ms, voucher_id=voucher_id, reason=reason, by=caller.key_id),), None

        self._cycle.call(decide)
        return self._voucher(voucher_id)

    def reverse(self, caller: Caller, usage_id: str, reason: str) -> StatementList:
        """Take back everything charged for one usage record; the job's statement. Raises Forbidden, NotFound,
        Conflict.
        """
        require_operator(caller)
        self._keeper.catch_up()

        def decide(_: Engine, now_ms: int) -> tuple[Sequence[Event], Txn]:
            first = self._ledger.txn(f"usage:{usage_id}")
            if first is None:
                raise NotFound(f"no charge for a usage record {usage_id!r}")
            if self._ledger.txn(f"reversal:{usage_id}") is not None:
                raise Conflict(f"the charge for {usage_id} was taken back before")
            return (ChargeReversed(at_ms=now_ms, usage_id=usage_id, reason=reason, by=caller.key_id),), first

        first = self._cycle.call(decide)
        return self.statement(caller, job_id=first.job_id, lines=True)

    # ── terms of the configuration file ──────────────────────────────────────────────────────────────────────────

    def set_rate(self, card: RateCard, pointer: str) -> None:
        """Record a version of the prices unless it is recorded. Raises InvalidInput for an edited one."""
        self._keeper.catch_up()  # here, so that the cycle does not wait for a backlog

        def decide(_: Engine, now_ms: int) -> tuple[Sequence[Event], None]:
            with self._keeper.book() as book:
                known = next((c for c in book.tariff.cards if c.id == card.id), None)
            _refuse_edit(known, card, pointer)
            return (() if known else (RateCardSet(at_ms=now_ms, card=card),)), None

        self._cycle.call(decide)

    def set_policy(self, version: PolicyVersion, pointer: str) -> None:
        """Record a policy version unless it is recorded. Raises InvalidInput for an edited one."""
        self._keeper.catch_up()  # here, so that the cycle does not wait for a backlog

        def decide(_: Engine, now_ms: int) -> tuple[Sequence[Event], None]:
            with self._keeper.book() as book:
                known = book.policies.get(version.id)
            _refuse_edit(known, version, pointer)
            return (() if known else (PolicySet(at_ms=now_ms, policy=version),)), None

        self._cycle.call(decide)

    def set_voucher(self, voucher: Voucher, pointer: str) -> None:
        """Grant the configuration file's voucher unless it was. Raises InvalidInput."""
        self._keeper.catch_up()  # here, so that the cycle does not wait for a backlog

        def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], None]:
            with self._keeper.book() as book:
                known = book.vouchers.get(voucher.id)
                _refuse_edit(known, voucher, pointer)
                if known is None:
                    check_voucher(engine, book, voucher, pointer, ())
            return (() if known else (VoucherGranted(at_ms=now_ms, voucher=voucher),)), None

        self._cycle.call(decide)

    def has_rates(self) -> bool:
        """Whether any version of the prices is recorded."""
        with self._keeper.book() as book:
            return bool(book.tariff.cards)

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _voucher(self, voucher_id: str) -> VoucherView:
        with self._keeper.book() as book:
            return views.voucher(book.vouchers[voucher_id], book, self._cycle.now_ms())

    def _numbered(self, voucher: Voucher, book: Book, now_ms: int) -> Voucher:
        number = len(book.vouchers) + 1
        while f"v{number}" in book.vouchers or f"v{number}" in self._issued:
            number += 1
        return views.with_defaults(voucher, f"v{number}", now_ms)

    def _whose(self, caller: Caller, tenant: str) -> str:
        """The tenant whose statement is asked for; empty: an operator asks for all."""
        if tenant and not caller.sees(tenant):
            raise NotFound(f"no tenant {tenant!r}")
        with self._cycle.state() as engine:
            names = [t.name for t in engine.tenants()]
        if tenant and tenant not in names:
            raise InvalidInput([unknown("tenant", "tenant", tenant, names)])
        return tenant or caller.scope

    def _tenant_of(self, caller: Caller, job_id: str) -> str:
        with self._cycle.state() as engine:
            return visible(caller, engine.job(job_id), job_id).job.tenant

    def _period(self, month: str) -> tuple[int, int]:
        if not month:
            return month_range_ms(*month_of(self._cycle.now_ms()))
        year, dash, number = month.partition("-")
        if not (dash and len(year) == 4 and (year + number).isascii() and (year + number).isdecimal()):
            raise InvalidInput([Problem("month", f"{month!r} is not a month such as 2026-11")])
        if not (1970 <= int(year) <= 9998 and 1 <= int(number) <= 12):
            raise InvalidInput([Problem("month", f"{month!r} is not a month such as 2026-11")])
        return month_range_ms(int(year), int(number))

    def _all(self, tenant: str, job_id: str, start_ms: int, end_ms: int) -> list[Txn]:
        found: list[Txn] = []
        while True:
            after = found[-1].seq if found else 0
            page = self._ledger.txns(tenant=tenant, job_id=job_id, start_ms=start_ms, end_ms=end_ms, after=after)
            found += page
            if len(page) < MOST_LINES:
                return found

    def _job_names(self, job_ids: set[str]) -> dict[str, str]:
        with self._cycle.state() as engine:
            records = [engine.job(job_id) for job_id in job_ids]
        return {r.job.id: r.job.name for r in records if r is not None}

    @staticmethod
    def _complete(view: StatementView, period: tuple[int, int], job_id: str, txns: Sequence[Txn], book: Book) -> None:
        view["start_ms"], view["end_ms"] = period
        view["job_id"] = job_id
        mine = [t for t in txns if t.tenant == view["tenant"]]
        view["lines"] = [views.line(t, one, book) for t, one in sums.lines_of(mine, *period)][:MOST_LINES]


def check_voucher(engine: Engine, book: Book, voucher: Voucher, pointer: str, taken: Sequence[str] | set[str]) -> None:
    """Raises InvalidInput with every mistake; ``pointer`` is where the voucher stands in a configuration file."""
    problems = [] if NAME.fullmatch(voucher.id) else [Problem(f"{pointer}id", f"{voucher.id!r} {NAME_RULE}")]
    if voucher.id in book.vouchers or voucher.id in taken:
        problems.append(Problem(f"{pointer}id", f"there is a voucher {voucher.id!r} already"))
    tenants = [t.name for t in engine.tenants()]
    if voucher.tenant not in tenants:
        problems.append(unknown(f"{pointer}tenant", "tenant", voucher.tenant, tenants))
    if voucher.valid_to_ms <= voucher.valid_from_ms:
        problems.append(Problem(f"{pointer}valid_until", "lies before the voucher is valid"))
    if voucher.amount_micro_yuan <= 0:
        problems.append(Problem(f"{pointer}yuan", "must be above 0"))
    version = book.policies.get(voucher.policy)
    if version is None:
        problems.append(unknown(f"{pointer}policy", "policy version", voucher.policy, book.policies))
    elif version.status is not PolicyStatus.IN_FORCE:
        problems.append(Problem(f"{pointer}policy", f"{version.id} is a draft: nothing can be granted under it"))
    elif version.pool.rule is PoolRule.RESERVE and not book.can_grant(version, voucher.amount_micro_yuan):
        left = yuan(book.balance("pool.available", version.id))
        problems.append(Problem(f"{pointer}yuan", f"the pool of {version.id} has only {left} yuan to give"))
    if problems:
        raise InvalidInput(problems)


def _refuse_edit(known: object, given: object, pointer: str) -> None:
    """What is recorded is never edited. Raises InvalidInput with what differs first."""
    difference = "" if known is None or known == given else views.first_difference(known, given)
    if difference:
        name = getattr(given, "id", "")
        text = f"{name} is recorded with other content ({difference}) and is never edited: give the change a new id"
        raise InvalidInput([Problem(pointer.rstrip("."), text)])
