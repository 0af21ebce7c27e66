"""The outbox as signed batches, for whoever delivers or fetches them."""

from __future__ import annotations

from typing import Protocol

from typing_extensions import TypedDict  # pydantic reads these for OpenAPI, and typing's own only from Python 3.12

from scheduler.control.access import Caller, require_operator
from scheduler.control.ports import Clock, Outbox
from scheduler.model.errors import InvalidInput, Problem
from scheduler.model.feed import OutboxRow, SignedBatch, batch_of, signed_bytes

PAGE_ROWS = 50
MOST_ROWS = 1_000
MOST_BYTES = 1024 * 1024
"""A batch ends with the row that passes this, so memory stays small whatever an outage has piled up."""


class Signer(Protocol):
    """The installation's key."""

    public: str
    """For receivers: ``whpk_<base64>``."""
    source: str
    """Names the installation, from its public key."""

    def sign(self, data: bytes) -> str:
        """``v1a,<base64>``"""
        ...


class KeyOfFeed(TypedDict):
    """What a receiver needs to check signatures."""

    algorithm: str
    key: str
    source: str


class Feed:
    """Safe from any thread."""

    def __init__(self, outbox: Outbox, signer: Signer, clock: Clock) -> None:
        self.outbox = outbox
        self._signer = signer
        self._clock = clock

    def key(self) -> KeyOfFeed:
        """The public key. It is no secret; that it is ours must be confirmed on another way."""
        return {"algorithm": "ed25519", "key": self._signer.public, "source": self._signer.source}

    def fetch(self, caller: Caller, after: int, limit: int) -> SignedBatch:
        """What follows ``after``, for a receiver that fetches. Raises Forbidden, InvalidInput."""
        require_operator(caller)
        if not self.holds(after):
            raise InvalidInput([Problem("after", f"{after} is no entry of this feed: use the last seq you stored")])
        return self.batch(after, limit)

    def holds(self, seq: int) -> bool:
        """``seq`` is an entry of this feed, or its beginning."""
        return seq == 0 or self.outbox.outbox_holds(seq)

    def batch(self, after: int, limit: int) -> SignedBatch:
        """At most ``limit`` rows that follow ``after``, signed now; none with a ``limit`` of 0."""
        rows: list[OutboxRow] = []
        size_bytes, at = 0, after
        limit = min(limit, MOST_ROWS)
        while len(rows) < limit and size_bytes < MOST_BYTES:
            asked = min(PAGE_ROWS, limit - len(rows))
            page = self.outbox.outbox_rows(at, asked)
            for row in page:
                rows.append(row)
                size_bytes += len(row.body)
                if size_bytes >= MOST_BYTES:
                    break
            if len(page) < asked:
                break
            at = rows[-1].seq
        return self._signed(after, rows)

    def _signed(self, after: int, rows: list[OutboxRow]) -> SignedBatch:
        batch = batch_of(self._signer.source, after, rows)
        timestamp_s = self._clock.now_ms() // 1_000
        signature = self._signer.sign(signed_bytes(batch.id, timestamp_s, batch.body))
        return SignedBatch(batch=batch, timestamp_s=timestamp_s, signature=signature)
