"""Addresses under ``/v1`` about money: prices, policies, vouchers, statements, the ledger's proof."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from scheduler.api.doors import Open, Who
from scheduler.api.schemas import GrantBody, ReasonBody
from scheduler.control import terms
from scheduler.control.money_shapes import (
    AuditView,
    PolicyList,
    RateList,
    StatementList,
    VoucherList,
    VoucherView,
)
from scheduler.model.money import Voucher

router = APIRouter(prefix="/v1", tags=["money"])
Month = Annotated[str, Query(description="Such as 2026-11, in China time; empty: the present one")]


@router.get("/rates", summary="Prices")
def rates(open_doors: Open, who: Who) -> RateList:
    """Every version; the one in force first."""
    return open_doors.money.rates(who)


@router.get("/policies", summary="Voucher policies")
def policies(open_doors: Open, who: Who) -> PolicyList:
    """Every version; for operators with its pool."""
    return open_doors.money.policies(who)


@router.get("/vouchers", summary="Vouchers and what is left of them")
def vouchers(open_doors: Open, who: Who) -> VoucherList:
    """Yours; an operator's key sees everyone's."""
    return open_doors.money.vouchers(who)


@router.post("/vouchers", status_code=201, tags=["operators"], summary="Grant a voucher")
def grant(open_doors: Open, who: Who, body: GrantBody) -> VoucherView:
    """Under a policy version that is in force, from its pool."""
    return open_doors.money.grant(
        who,
        Voucher(
            id=body.id,
            tenant=body.tenant,
            policy=body.policy,
            amount_micro_yuan=terms.parsed(terms.micro_yuan, body.yuan, "yuan"),
            valid_from_ms=terms.parsed(terms.instant_ms, body.valid_from, "valid_from") if body.valid_from else 0,
            valid_to_ms=terms.parsed(terms.until_ms, body.valid_until, "valid_until"),
            priority=body.priority,
            excluded=body.excluded,
        ),
    )


@router.post("/vouchers/{voucher_id}/revoke", tags=["operators"], summary="Take back what is left of a voucher")
def revoke(open_doors: Open, who: Who, voucher_id: str, body: ReasonBody) -> VoucherView:
    """What it paid stays paid."""
    return open_doors.money.revoke(who, voucher_id, body.reason)


@router.get("/statement", summary="What was used, what it costs, who pays")
def statement(  # noqa: PLR0917 (each is a named query parameter)
    open_doors: Open,
    who: Who,
    tenant: str = "",
    month: Month = "",
    job: str = "",
    lines: Annotated[bool, Query(description="Also every single line, 10,000 at most")] = False,
) -> StatementList:
    """Of a month, or of one job; an operator's key without `tenant` gets one per tenant."""
    return open_doors.money.statement(who, tenant=tenant, month=month, job_id=job, lines=lines)


@router.post("/usage/{usage_id}/reverse", tags=["operators"], summary="Take back what a usage record was charged")
def reverse(open_doors: Open, who: Who, usage_id: str, body: ReasonBody) -> StatementList:
    """A new booking that names the old one; nothing is deleted. Answers the job's statement."""
    return open_doors.money.reverse(who, usage_id, body.reason)


@router.get("/ledger/verify", tags=["operators"], summary="Is the ledger what the journal says?")
def verify(open_doors: Open, who: Who) -> AuditView:
    """Books the whole journal again and compares every hash, sum and balance."""
    return open_doors.money.verify(who)
