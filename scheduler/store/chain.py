"""The journal's rows and their chain: SHA-256 over a row and its predecessor's hash, so that any change shows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from scheduler.model.codec import dumps
from scheduler.model.event import EVENT_VERSION, Event
from scheduler.store.tables import storable

GENESIS = bytes(32)
"""``prev_hash`` of the first row."""


class JournalRow(NamedTuple):
    """One row as stored; ``body`` is canonical JSON."""

    seq: int
    at_ms: int
    kind: str
    version: int
    body: str
    prev_hash: bytes
    hash: bytes


def link(*, seq: int, at_ms: int, kind: str, version: int, body: str, prev_hash: bytes) -> bytes:
    """The row's hash. The head is one line of plain integers and a name, so no two rows share a spelling."""
    head = f"{seq} {at_ms} {kind} {version}\n".encode()
    return hashlib.sha256(prev_hash + head + body.encode()).digest()


def part(body: str, name: str) -> str:
    """Canonical JSON of the field ``name`` of an event whose only other field is its instant: nobody encodes it twice.

    A lease fills most of its LeaseGranted, a usage record of its UsageSealed, and both have tables of their own.
    """
    head = f',"{name}":'
    return body[body.index(head) + len(head) : -1]


def rows_of(events: Sequence[Event], head_seq: int, head_hash: bytes) -> list[JournalRow]:
    """Rows that continue a journal which ends at ``head_seq`` with ``head_hash``."""
    rows: list[JournalRow] = []
    for seq, event in enumerate(events, head_seq + 1):
        kind, body = type(event).__name__, storable(dumps(event))
        own = link(seq=seq, at_ms=event.at_ms, kind=kind, version=EVENT_VERSION, body=body, prev_hash=head_hash)
        rows.append(JournalRow(seq, event.at_ms, kind, EVENT_VERSION, body, head_hash, own))
        head_hash = own
    return rows
