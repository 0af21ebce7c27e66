"""Addresses under ``/v1/feed``: the outbox for a receiver that fetches, and the key that signs it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from scheduler.api.doors import Open, Who
from scheduler.control.feed import MOST_ROWS, KeyOfFeed

router = APIRouter(prefix="/v1/feed", tags=["operators"])


@router.get(
    "",
    summary="Fetch sealed usage as a signed batch",
    response_class=Response,
    responses={200: {"content": {"application/json": {}}, "description": "Signed: see `webhook-signature`"}},
)
def fetch(
    open_doors: Open,
    who: Who,
    after: Annotated[int, Query(ge=0, le=2**53, description="The last seq you stored; 0: from the beginning")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 500,
) -> Response:
    """The same bytes and headers that a receiver is sent; no items: nothing new."""
    signed = open_doors.feed.fetch(who, after, limit)
    return Response(signed.batch.body, headers=signed.headers)


@router.get("/key", summary="Public key of the feed")
def key(open_doors: Open) -> KeyOfFeed:
    """Needs no key. Compare it with what the operator tells you on another way before you trust it."""
    return open_doors.feed.key()
