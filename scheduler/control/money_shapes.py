"""The JSON of prices, vouchers and statements. Amounts are integers in micro-yuan unless a name says ``fen``."""

from __future__ import annotations

from typing_extensions import TypedDict  # see shapes.py

from scheduler.control.shapes import JobDetail, TrialView


class PriceView(TypedDict):
    """What an hour of one SKU costs."""

    sku: str
    model: str
    hourly_micro_yuan: int
    voucher: bool
    tax: str


class RateView(TypedDict):
    """One version of the prices."""

    id: str
    valid_from_ms: int
    known_from_ms: int
    in_force: bool
    example: bool
    rounding: str
    charges_starting: bool
    note: str
    prices: list[PriceView]


class RateList(TypedDict):
    """Versions of the prices, the one in force first."""

    rates: list[RateView]


class PoolView(TypedDict):
    """Where a pool's money is; for operators."""

    amount_micro_yuan: int
    available_micro_yuan: int
    reserved_micro_yuan: int
    committed_micro_yuan: int
    paid_micro_yuan: int
    lapsed_micro_yuan: int


class PolicyView(TypedDict):
    """One version of a voucher policy."""

    id: str
    title: str
    status: str
    owner: str
    ratio_bp: int
    valid_from_ms: int
    valid_to_ms: int
    known_from_ms: int
    fiscal_year: int
    pool_rule: str
    skus: list[str]
    purposes: list[str]
    tenant_cap_micro_yuan: int
    truncation_micro_yuan: int
    payout: str
    example: bool
    source: str
    pool: PoolView | None


class PolicyList(TypedDict):
    """Policy versions in the order they became known."""

    policies: list[PolicyView]


class VoucherView(TypedDict):
    """A voucher and what is left of it."""

    id: str
    tenant: str
    policy: str
    owner: str
    state: str
    amount_micro_yuan: int
    left_micro_yuan: int
    burnt_micro_yuan: int
    valid_from_ms: int
    valid_to_ms: int
    priority: int
    excluded: str


class VoucherList(TypedDict):
    """Vouchers in the order they burn."""

    vouchers: list[VoucherView]


class SubsidyView(TypedDict):
    """What a voucher pays of a row, and what decided the amount."""

    voucher: str
    policy: str
    owner: str
    payout: str
    micro_yuan: int
    limit: str


class RowView(TypedDict):
    """Lines of one step, SKU, price and reason, added up; ``ledger_seq`` is the span of transactions they stand in."""

    job_id: str
    job_name: str
    step: str
    sku: str
    model: str
    rate: str
    fallback: bool
    hourly_micro_yuan: int
    free: str
    tax: str
    lines: int
    held_ms: int
    amount: int
    gross_micro_yuan: int
    subsidies: list[SubsidyView]
    limit: str
    limit_note: str
    passed_over: dict[str, int]
    due_micro_yuan: int
    reversal: bool
    ledger_seq: list[int]


class LineView(TypedDict):
    """One line, down to the record, the lease and the transaction it comes from."""

    usage_id: str
    lease_id: str
    job_id: str
    step: str
    start_ms: int
    end_ms: int
    sku: str
    model: str
    rate: str
    hourly_micro_yuan: int
    amount: int
    free: str
    gross_micro_yuan: int
    subsidies: list[SubsidyView]
    limit: str
    limit_note: str
    due_micro_yuan: int
    corrects: str
    note: str
    ledger_seq: int


class StatementView(TypedDict):
    """What one tenant owes for a period, and why. ``due_fen`` is the sum of the rows, rounded once."""

    tenant: str
    start_ms: int
    end_ms: int
    job_id: str
    gross_micro_yuan: int
    deducted_micro_yuan: int
    granted_micro_yuan: int
    due_micro_yuan: int
    due_fen: int
    rounding_micro_yuan: int
    example: bool
    rows: list[RowView]
    lines: list[LineView]


class StatementList(TypedDict):
    """One statement per tenant; ``ledger_seq``: everything up to this transaction is in it."""

    ledger_seq: int
    ledger_hash: str
    statements: list[StatementView]


class CostView(TypedDict):
    """What a job has cost so far: what is sealed and booked, and what runs now at today's prices, before vouchers."""

    sealed_gross_micro_yuan: int
    sealed_due_micro_yuan: int
    running_micro_yuan: int
    example: bool


class StepPrice(TypedDict):
    """What a step would cost at today's prices, before vouchers; estimates are 0 where run times are unknown."""

    step: str
    hourly_low_micro_yuan: int
    hourly_high_micro_yuan: int
    parallel: int
    run_ms_mean: int
    estimate_low_micro_yuan: int
    estimate_high_micro_yuan: int
    basis: str


class AuditView(TypedDict):
    """Whether the ledger is what the journal says."""

    ok: bool
    difference: str
    ledger_seq: int
    ledger_hash: str
    ledger_cursor: int
    journal_seq: int


class PricedJob(JobDetail):
    """A job with what it has cost so far."""

    cost: CostView


class PricedTrial(TrialView):
    """What would happen if the job were submitted now, and what it would cost."""

    prices: list[StepPrice]
    example_prices: bool
