"""What the park's ledger is sent: outbox rows in batches, signed. docs/feed.md is the contract.

A row names the row before it (``prev``), so that a receiver sees a gap without knowing which numbers are in use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

FEED_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """A recorded fact on its way out."""

    seq: int
    """Number of the journal row it comes from: ascending, not contiguous."""
    prev: int
    """``seq`` of the outbox row before it; 0 for the first."""
    kind: str
    """The event's name; new kinds may appear at any time."""
    version: int
    body: str
    """Canonical JSON of the event, as the journal has it."""

    @property
    def id(self) -> str:
        """``<seq>-<hash>``: two rows of one number and other contents have different ids."""
        content = f"{self.kind}\n{self.version}\n{self.body}".encode("utf-8", "surrogatepass")
        return f"{self.seq}-{hashlib.sha256(content).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The bytes that are signed, and what they hold."""

    id: str
    """The same rows give the same id."""
    after: int
    through: int
    """``seq`` of the last row; ``after`` when there is none."""
    rows: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBatch:
    """A batch as it is sent, with the headers of the Standard Webhooks specification."""

    batch: Batch
    timestamp_s: int
    """Unix seconds at which it was signed."""
    signature: str
    """``v1a,<base64 of the Ed25519 signature>``"""

    @property
    def headers(self) -> dict[str, str]:
        """Beside the body."""
        return {
            "content-type": "application/json",
            "webhook-id": self.batch.id,
            "webhook-timestamp": str(self.timestamp_s),
            "webhook-signature": self.signature,
        }


def batch_of(source: str, after: int, rows: Sequence[OutboxRow]) -> Batch:
    """The rows that follow ``after``; none: a question for the receiver's cursor. ``source`` names the installation."""
    through = rows[-1].seq if rows else after
    value = {
        "feed": FEED_VERSION,
        "source": source,
        "after": after,
        "through": through,
        "items": [
            {
                "seq": row.seq,
                "prev": row.prev,
                "id": row.id,
                "kind": row.kind,
                "version": row.version,
                "body": json.loads(row.body),
            }
            for row in rows
        ],
    }
    return Batch(id=f"{source}-{after}-{through}", after=after, through=through, rows=len(rows), body=_canonical(value))


def signed_bytes(batch_id: str, timestamp_s: int, body: bytes) -> bytes:
    """What the signature covers: ``<id>.<timestamp>.<body>``."""
    return b"%s.%d.%s" % (batch_id.encode(), timestamp_s, body)


def _canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate, from a file name that is not UTF-8
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
