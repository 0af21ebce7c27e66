"""What every handler is given: the services, and who asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import Depends, Header, Request

from scheduler.control.access import Caller
from scheduler.control.cycle import Cycle
from scheduler.control.defrag import Defragmentation
from scheduler.control.feed import Feed
from scheduler.control.housekeeping import Housekeeping
from scheduler.control.maintenance import Maintenance
from scheduler.control.money import Money
from scheduler.control.operations import Operations
from scheduler.control.pricing import Pricing
from scheduler.control.reservations import Reservations
from scheduler.control.service import Service
from scheduler.control.tokens import PREFIX, Tokens
from scheduler.model.errors import Forbidden, Unauthorized

log = structlog.get_logger("shisuan.api")


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Everything the faces may touch; kept in ``app.state.doors``."""

    service: Service
    operations: Operations
    maintenance: Maintenance
    housekeeping: Housekeeping
    money: Money
    pricing: Pricing
    cycle: Cycle
    tokens: Tokens
    feed: Feed
    reservations: Reservations
    defragmentation: Defragmentation


def doors(request: Request) -> Doors:
    """The doors of this application."""
    found = request.app.state.doors
    assert isinstance(found, Doors)
    return found


Authorization = Annotated[str, Header(alias="Authorization", description="`Bearer KEY`", include_in_schema=False)]


def bearer(authorization: str) -> str:
    """The secret in an Authorization header. Raises Unauthorized."""
    scheme, _, secret = authorization.partition(" ")
    if not authorization:
        raise Unauthorized("no API key: send the header 'Authorization: Bearer KEY'")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthorized("the Authorization header must read 'Bearer KEY'")
    return secret.strip()


def caller(request: Request, open_doors: Annotated[Doors, Depends(doors)], authorization: Authorization = "") -> Caller:
    """Whoever holds the key or token of this request; what changes anything is logged with them.

    Raises Unauthorized, Forbidden, IssuerSilent.
    """
    found = known(open_doors, authorization)
    if request.method not in ("GET", "HEAD"):
        log.info("asked", by=found.key_id, tenant=found.tenant, method=request.method, path=request.url.path)
    return found


def known(open_doors: Doors, authorization: str, *, figures: bool = False) -> Caller:
    """Who shows this header. ``figures``: only those are asked for. Raises as :func:`caller`."""
    secret = bearer(authorization)
    if secret.startswith(PREFIX):
        open_doors.tokens.check(secret, open_doors.cycle.now_ms())
        raise Forbidden("an attempt token opens nothing but /v1/attempts/self")
    return open_doors.operations.authenticate(secret, figures=figures)


Open = Annotated[Doors, Depends(doors)]
Who = Annotated[Caller, Depends(caller)]
