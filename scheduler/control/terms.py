"""Prices, policies and vouchers as people write them in the configuration file, and as the ledger reads them.

Amounts are yuan with at most 6 decimals, which never become binary floats: 0.1 yuan is 100,000 micro-yuan. A date means
its midnight in China; as ``valid_until`` it means the end of that day, so both ends are as people say them.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from scheduler.control.operations import NAME, NAME_RULE
from scheduler.control.strict import UNKNOWN_FIELD, Strict
from scheduler.ledger.months import CHINA, LAST_YEAR
from scheduler.ledger.policy import BASIS
from scheduler.model import catalogue
from scheduler.model.errors import InvalidInput, Problem, unknown
from scheduler.model.job import StepKind
from scheduler.model.money import (
    ANY_MODEL,
    MICRO_YUAN,
    Payout,
    PolicyStatus,
    PolicyVersion,
    Pool,
    PoolRule,
    Price,
    RateCard,
    Rounding,
    Voucher,
)
from scheduler.model.usage import Sku

EXAMPLE_RATES = Path(__file__).with_name("rates.yaml")
MOST_YUAN = 1_000_000_000_000
"""A million million: 64-bit sums of micro-yuan hold nine of these."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Loader(yaml.SafeLoader):
    """YAML whose decimals stay as they were written."""


def _decimal(_: Loader, node: yaml.ScalarNode) -> Decimal | str:
    try:
        return Decimal(node.value)
    except InvalidOperation:
        return str(node.value)


Loader.add_constructor("tag:yaml.org,2002:float", _decimal)


def micro_yuan(value: Any) -> int:
    """Yuan as a number or its text. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise ValueError(f"{value!r} is not an amount in yuan, such as 14 or 0.12")  # noqa: TRY004 (pydantic reads it)
    try:
        exact = Decimal(value) * MICRO_YUAN
    except InvalidOperation:
        raise ValueError(f"{value!r} is not an amount in yuan, such as 14 or 0.12") from None
    if not exact.is_finite() or exact != exact.to_integral_value():
        raise ValueError(f"{value} yuan has more than 6 decimals")
    if not 0 <= exact <= MOST_YUAN * MICRO_YUAN:
        raise ValueError(f"must be 0 to {MOST_YUAN:,} yuan, not {value}")
    return int(exact)


def basis_points(value: Any) -> int:
    """``30%``, ``12.5%``. Raises ValueError."""
    try:
        exact = Decimal(str(value).strip().removesuffix("%")) * (BASIS // 100)
        if not str(value).strip().endswith("%") or exact != exact.to_integral_value() or not 0 < exact <= BASIS:
            raise ValueError
    except (InvalidOperation, ValueError):
        raise ValueError(f"{value!r} is not a share such as 30% (above 0, at most 100, at most two decimals)") from None
    return int(exact)


def instant_ms(value: Any) -> int:
    """A date (its midnight in China), or an instant; without a zone it is China time. Raises ValueError."""
    return _instant(value)[0]


def until_ms(value: Any) -> int:
    """Like :func:`instant_ms`, but a date means the end of its day. Raises ValueError."""
    at_ms, is_day = _instant(value)
    return at_ms + 86_400_000 if is_day else at_ms


def _instant(value: Any) -> tuple[int, bool]:
    found = value
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value) if len(value) > 10 else date.fromisoformat(value)
        except ValueError:
            found = None
    is_day = isinstance(found, date) and not isinstance(found, datetime)
    if is_day:
        found = datetime(found.year, found.month, found.day, tzinfo=CHINA)
    if not isinstance(found, datetime) or not 1970 <= found.year <= LAST_YEAR:
        raise ValueError(
            f"{value!r} is not a date such as 2026-01-01, nor an instant such as 2026-01-01T08:00:00+08:00"
        )
    aware = found if found.tzinfo is not None else found.replace(tzinfo=CHINA)
    return (aware - _EPOCH) // timedelta(milliseconds=1), is_day


def _name(value: Any) -> Any:
    if not isinstance(value, str) or NAME.fullmatch(value) is None:
        raise ValueError(f"{value!r} {NAME_RULE}")
    return value


Yuan = Annotated[int, BeforeValidator(micro_yuan)]
Share = Annotated[int, BeforeValidator(basis_points)]
From = Annotated[int, BeforeValidator(instant_ms)]
Until = Annotated[int, BeforeValidator(until_ms)]
Name = Annotated[str, BeforeValidator(_name)]


class PriceConfig(Strict):
    """An hour of one SKU."""

    sku: Sku
    model: str = ""
    yuan_per_hour: Yuan
    voucher: bool = False
    tax: Annotated[str, Field(min_length=1, max_length=60)] = "untaxed"

    @model_validator(mode="after")
    def _fits(self) -> PriceConfig:
        if self.sku in (Sku.VCPU, Sku.MEMORY) and self.model:
            raise ValueError(f"{self.sku.value} has no models; leave model out")
        if self.sku in (Sku.CARD, Sku.MIG) and self.model != ANY_MODEL:
            board, slash, _ = self.model.partition("/")
            if board not in catalogue.BY_ID:
                known = (*catalogue.known_models(), ANY_MODEL)
                raise ValueError(str(unknown("", "card model", board, catalogue.resolve_alias(board) or known)))
            if (self.sku is Sku.MIG) != bool(slash):
                raise ValueError("a MIG price names MODEL/PROFILE, a card price MODEL")
        return self


class RateConfig(Strict):
    """A version of the prices."""

    id: Name
    valid_from: From
    prices: Annotated[list[PriceConfig], Field(min_length=1)]
    rounding: Rounding = Rounding.HALF_UP
    charges_starting: bool = False
    example: bool = False
    note: Annotated[str, Field(max_length=500)] = ""

    @model_validator(mode="after")
    def _once(self) -> RateConfig:
        seen: set[tuple[Sku, str]] = set()
        for at, price in enumerate(self.prices):
            if (price.sku, price.model) in seen:
                raise ValueError(f"prices[{at}]: {price.sku.value} {price.model} has two prices".replace("  ", " "))
            seen.add((price.sku, price.model))
        return self

    def card(self) -> RateCard:
        """As the ledger reads it."""
        return RateCard(
            id=self.id,
            valid_from_ms=self.valid_from,
            prices=tuple(
                Price(sku=p.sku, model=p.model, hourly_micro_yuan=p.yuan_per_hour, voucher=p.voucher, tax=p.tax)
                for p in self.prices
            ),
            rounding=self.rounding,
            charges_starting=self.charges_starting,
            is_example=self.example,
            note=self.note,
        )


class PoolConfig(Strict):
    """A policy's money."""

    yuan: Yuan
    fiscal_year: Annotated[int, Field(ge=1970, lt=LAST_YEAR)]
    rule: PoolRule = PoolRule.RESERVE


class PolicyConfig(Strict):
    """A version of a voucher policy."""

    id: Name
    title: Annotated[str, Field(max_length=200)] = ""
    status: PolicyStatus
    owner: Annotated[str, Field(min_length=1, max_length=200)]
    pool: PoolConfig
    valid_from: From
    valid_until: Until
    ratio: Share
    skus: Annotated[list[Sku], Field(min_length=1, default_factory=lambda: [Sku.CARD, Sku.MIG])]
    purposes: Annotated[list[StepKind], Field(default_factory=list)]
    tenant_cap_yuan: Yuan = 0
    truncate_to_yuan: Yuan = 1
    payout: Payout = Payout.DEDUCT
    example: bool = False
    source: Annotated[str, Field(max_length=500)] = ""

    @model_validator(mode="after")
    def _fits(self) -> PolicyConfig:
        if self.valid_until <= self.valid_from:
            raise ValueError("valid_until lies before valid_from")
        if not self.truncate_to_yuan:
            raise ValueError("truncate_to_yuan must be above 0")
        return self

    def version(self) -> PolicyVersion:
        """As the ledger reads it."""
        return PolicyVersion(
            id=self.id,
            title=self.title,
            status=self.status,
            owner=self.owner,
            pool=Pool(amount_micro_yuan=self.pool.yuan, fiscal_year=self.pool.fiscal_year, rule=self.pool.rule),
            valid_from_ms=self.valid_from,
            valid_to_ms=self.valid_until,
            ratio_bp=self.ratio,
            skus=tuple(dict.fromkeys(self.skus)),
            purposes=tuple(dict.fromkeys(kind.value for kind in self.purposes)),
            tenant_cap_micro_yuan=self.tenant_cap_yuan,
            truncation_micro_yuan=self.truncate_to_yuan,
            payout=self.payout,
            is_example=self.example,
            source=self.source,
        )


class VoucherConfig(Strict):
    """A voucher granted by the configuration file."""

    id: Name
    tenant: str
    policy: str
    yuan: Yuan
    valid_from: From
    valid_until: Until
    priority: Annotated[int, Field(ge=0, le=1_000)] = 100
    excluded: Annotated[str, Field(max_length=200)] = ""

    @model_validator(mode="after")
    def _fits(self) -> VoucherConfig:
        if self.valid_until <= self.valid_from:
            raise ValueError("valid_until lies before valid_from")
        if not self.yuan:
            raise ValueError("yuan must be above 0")
        return self

    def voucher(self) -> Voucher:
        """As the ledger reads it."""
        return Voucher(
            id=self.id,
            tenant=self.tenant,
            policy=self.policy,
            amount_micro_yuan=self.yuan,
            valid_from_ms=self.valid_from,
            valid_to_ms=self.valid_until,
            priority=self.priority,
            excluded=self.excluded,
        )


def example_card() -> RateCard:
    """The prices that come with the program."""
    [found] = yaml.load(EXAMPLE_RATES.read_text("utf-8"), Loader)  # noqa: S506 (a SafeLoader)
    return RateConfig.model_validate(found).card()


def parsed(read: Any, value: Any, pointer: str) -> int:
    """A reader of this module on a verb's argument. Raises InvalidInput at ``pointer``."""
    try:
        return int(read(value))
    except ValueError as error:
        raise InvalidInput([Problem(pointer, str(error))]) from None


def problems_of(error: ValidationError) -> list[Problem]:
    """Pydantic's findings as pointers into the file."""
    return [_problem(found) for found in error.errors()]


def _problem(found: Any) -> Problem:
    place = tuple(part for part in found["loc"] if part != "[key]")
    if found["type"] == UNKNOWN_FIELD:
        name = found["ctx"]["name"]
        return unknown(_pointer((*place, name)), "field", name, found["ctx"]["valid"])
    return Problem(_pointer(place), found["msg"].removeprefix("Value error, "))


def _pointer(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
