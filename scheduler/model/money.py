"""Money's nouns: dated prices, voucher policies with their pools, vouchers, and what the ledger books.

Amounts are integers in 10**-6 yuan (``_micro_yuan``), ratios in basis points (``_bp``), instants Unix ms; ranges are
half-open.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from scheduler.model.usage import Sku

MICRO_YUAN = 1_000_000
"""Of one yuan."""
MICRO_YUAN_PER_FEN = 10_000
ANY_MODEL = "*"
"""As a price's model: every model of the SKU that has no price of its own."""


def yuan(micro_yuan: int) -> str:
    """Exact, with at least two decimals and no further zeros: ``14.00``, ``-0.004667``."""
    sign, whole = ("-" if micro_yuan < 0 else ""), abs(micro_yuan)
    decimals = f"{whole % MICRO_YUAN:06d}"
    return f"{sign}{whole // MICRO_YUAN}.{decimals[:2]}{decimals[2:].rstrip('0')}"


class Rounding(StrEnum):
    """How an exact amount becomes whole micro-yuan. Once per line."""

    HALF_UP = "half_up"
    HALF_EVEN = "half_even"
    DOWN = "down"
    UP = "up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What an hour of one SKU costs."""

    sku: Sku
    model: str = ""
    """Card model, ``model/profile`` for MIG, :data:`ANY_MODEL`; empty for SKUs without models."""
    hourly_micro_yuan: int
    voucher: bool = False
    """Vouchers may pay for it, where their policy names the SKU."""
    tax: str = "untaxed"
    """Name of the tax class; which one is right is a tax adviser's word, so it is data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCard:
    """One version of the prices, known from its event's instant on. Never edited: other prices are another version."""

    id: str
    valid_from_ms: int
    """Prices hold from here to the next version's ``valid_from_ms``."""
    prices: tuple[Price, ...]
    rounding: Rounding = Rounding.HALF_UP
    charges_starting: bool = False
    """Time before the runner runs is charged, too."""
    is_example: bool = False
    """Figures made up to try things out: nobody's offer. Every face says so."""
    note: str = ""


class PolicyStatus(StrEnum):
    """Whether a version may pay."""

    DRAFT = "draft"
    """Text for comment: it is shown, it never pays."""
    IN_FORCE = "in_force"


class Payout(StrEnum):
    """Who gets the public money."""

    DEDUCT = "deduct"
    """The tenant pays less; the park claims the rest from the pool's owner."""
    GRANT = "grant"
    """The tenant pays in full and is granted the subsidy by the pool's owner afterwards."""


class PoolRule(StrEnum):
    """When a pool's money is set aside."""

    RESERVE = "reserve"
    """With the grant: every voucher is covered."""
    FIRST_COME = "first_come"
    """With the use: vouchers may promise more than the pool holds, and who uses first is served first."""


class Anchor(StrEnum):
    """Which instant decides whether a version applies. This version of the ledger knows one."""

    SERVICE = "service"
    """When the service was used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Public money of one year (January to December, China time), for service used in that year."""

    amount_micro_yuan: int
    fiscal_year: int
    rule: PoolRule = PoolRule.RESERVE


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One version of one rule of one department, with the pool it may spend. Never edited."""

    id: str
    title: str = ""
    status: PolicyStatus
    owner: str
    """The department that answers for the pool."""
    pool: Pool
    valid_from_ms: int
    valid_to_ms: int
    ratio_bp: int
    """Share of an eligible line that is paid, in basis points: 3000 is 30 %."""
    skus: tuple[Sku, ...] = (Sku.CARD, Sku.MIG)
    purposes: tuple[str, ...] = ()
    """Kinds of step (``render``, ``transcode`` …); empty: all."""
    tenant_cap_micro_yuan: int = 0
    """Most for one tenant from this pool; 0: no cap."""
    truncation_micro_yuan: int = 1
    """A line's subsidy is cut down to a multiple of this."""
    payout: Payout = Payout.DEDUCT
    anchor: Anchor = Anchor.SERVICE
    is_example: bool = False
    source: str = ""
    """Where the rule's text stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher:
    """A grant to one tenant under one policy version, for service inside ``[valid_from_ms, valid_to_ms)``."""

    id: str
    tenant: str
    policy: str
    amount_micro_yuan: int
    valid_from_ms: int
    valid_to_ms: int
    priority: int = 100
    """Smaller burns first; then the one that ends first, then the one granted first."""
    excluded: str = ""
    """Why it must not pay for now (a related party, the park's own use); empty: it pays."""


class Limit(StrEnum):
    """What decided the amount of a subsidy, or that there is none."""

    RATIO = "ratio"
    """Nothing less: the policy's full share."""
    VOUCHER_LEFT = "voucher_left"
    TENANT_CAP = "tenant_cap"
    POOL_LEFT = "pool_left"
    PARTLY_VALID = "partly_valid"
    """Only a part of the line's time lies inside the validity."""
    FREE = "free"
    NO_PRICE = "no_price"
    NOT_ELIGIBLE = "not_eligible"
    """The price says that vouchers do not pay for this."""
    EXCLUDED = "excluded"
    NO_VOUCHER = "no_voucher"
    DRAFT = "draft"
    """The voucher's policy is a draft (or unknown)."""
    NOT_IN_POLICY = "not_in_policy"
    """The policy does not name this SKU."""
    PURPOSE = "purpose"
    OUTSIDE_VALIDITY = "outside_validity"
    TRUNCATED = "truncated"
    """Less than the policy's smallest amount."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subsidy:
    """What one voucher pays of a line."""

    voucher: str
    policy: str
    micro_yuan: int
    limit: Limit
    payout: Payout = Payout.DEDUCT


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedLine:
    """A priced part of one usage record: one SKU, one price, inside one calendar month (China time)."""

    start_ms: int
    end_ms: int
    sku: Sku
    model: str = ""
    amount: int
    """Exact, in the SKU's integer unit (see :class:`scheduler.model.usage.Sku`)."""
    hourly_micro_yuan: int = 0
    rate: str = ""
    """Id of the rate card; empty: there was none."""
    gross_micro_yuan: int = 0
    free: str = ""
    """Why it costs nothing; empty for a priced line."""
    is_fallback: bool = False
    """Priced by the card's :data:`ANY_MODEL`."""
    tax: str = ""
    subsidies: tuple[Subsidy, ...] = ()
    limit: Limit = Limit.RATIO
    """Why there is no subsidy; RATIO where there is one."""
    limit_note: str = ""
    passed_over: tuple[tuple[str, int], ...] = ()
    """``(policy version, micro-yuan)`` of versions that would have paid as much or less: only the best one pays."""

    @property
    def subsidy_micro_yuan(self) -> int:
        """Over all vouchers."""
        return sum(part.micro_yuan for part in self.subsidies)

    @property
    def due_micro_yuan(self) -> int:
        """What the tenant pays the park: gross less what is deducted."""
        return self.gross_micro_yuan - sum(s.micro_yuan for s in self.subsidies if s.payout is Payout.DEDUCT)


class TxnKind(StrEnum):
    """What a transaction books."""

    FUNDING = "funding"
    GRANT = "grant"
    USAGE = "usage"
    EXPIRY = "expiry"
    REINSTATEMENT = "reinstatement"
    """Usage sealed late, of a time when the voucher was valid: what had expired comes back to pay for it."""
    REVOCATION = "revocation"
    REVERSAL = "reversal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Txn:
    """One booking. Entries sum to zero; it is never changed, only corrected by another that names it."""

    seq: int
    """1, 2, 3 … without gaps."""
    idem: str
    """What it came from (``usage:<record>``, ``grant:<voucher>``): booked once, ever."""
    kind: TxnKind
    at_ms: int
    """Of the journal's event."""
    journal_seq: int
    tenant: str = ""
    job_id: str = ""
    lease_id: str = ""
    step: str = ""
    start_ms: int = 0
    """Of the service; 0 where there is none."""
    end_ms: int = 0
    entries: tuple[tuple[str, int], ...] = ()
    """``(account, micro-yuan)``, sorted; debits are positive."""
    lines: tuple[RatedLine, ...] = ()
    corrects: str = ""
    """``idem`` of the transaction that this one corrects."""
    note: str = ""


class Posted(NamedTuple):
    """A transaction as it is stored: ``hash`` is SHA-256 over ``prev_hash`` and ``body``, its canonical JSON."""

    txn: Txn
    body: str
    prev_hash: bytes
    hash: bytes


class StoredTxn(NamedTuple):
    """A transaction's row as it stands in the database; ``columns`` repeat what is searched for and added up there."""

    seq: int
    body: str
    prev_hash: bytes
    hash: bytes
    columns: tuple[int | str, ...]


COLUMNS = (
    "idem",
    "kind",
    "tenant",
    "job_id",
    "start_ms",
    "end_ms",
    "journal_seq",
    "gross_micro_yuan",
    "due_micro_yuan",
)


def columns_of(txn: Txn) -> tuple[int | str, ...]:
    """What the :data:`COLUMNS` of the transaction's row must hold."""
    gross, due = (sum(amounts) for amounts in (
        [line.gross_micro_yuan for line in txn.lines], [line.due_micro_yuan for line in txn.lines],
    ))  # fmt: skip
    return txn.idem, txn.kind.value, txn.tenant, txn.job_id, txn.start_ms, txn.end_ms, txn.journal_seq, gross, due


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerHead:
    """How far the ledger has read the journal, and where it ends."""

    cursor: int = 0
    """Number of the last journal row that was read."""
    seq: int = 0
    hash: bytes = bytes(32)
