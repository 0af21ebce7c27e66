"""Proof that the journal is the truth: replayed through a fresh engine it gives the live tables, and its leases and
nodes account for every device-millisecond, and the ledger is what the same journal books.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Protocol

from scheduler.control.audit import audit
from scheduler.control.ports import History, Ledger, Store
from scheduler.engine import Engine
from scheduler.ledger import conservation
from scheduler.model import codec
from scheduler.model.event import Event, NodeLost, NodeSeen, UsageSealed
from scheduler.model.lease import AttemptRecord, LeaseRecord, number_of
from scheduler.model.snapshot import Snapshot
from scheduler.model.usage import Bucket, UsageRecord


class Recorded(Store, History, Ledger, Protocol):
    """A store that can also be read."""


class Replayed:
    """Everything the journal says, rebuilt."""

    def __init__(self) -> None:
        self._engine = Engine.from_snapshot(Snapshot())
        self.leases: dict[str, LeaseRecord] = {}
        self.attempts: dict[str, AttemptRecord] = {}
        self.usage: dict[str, UsageRecord] = {}
        self._nodes: list[Event] = []

    @property
    def snapshot(self) -> Snapshot:
        """What the live engine should hold."""
        return self._engine.snapshot()

    def read(self, store: Recorded) -> Replayed:
        """Apply the whole journal."""
        for _, event in store.journal():
            self._engine.apply(event)
            changes = self._engine.take_changes()
            self.leases.update({r.lease.id: r for r in changes.leases})
            self.attempts.update({r.id: r for r in changes.attempts})
            if isinstance(event, UsageSealed):
                self.usage[event.record.id] = event.record
            elif isinstance(event, NodeSeen | NodeLost):
                self._nodes.append(event)
        return self

    def buckets(self) -> dict[str, dict[Bucket, int]]:
        """Where each device's time went, from the first fact about nodes to the last fact of all.

        Raises ledger.conservation.Overlap when a device was leased twice at some instant.
        """
        leases = [(r, [self.attempts[a] for a in r.lease.attempts]) for r in self.leases.values()]
        start_ms, end_ms = self.period()
        return conservation.buckets(conservation.inventory(self._nodes), leases, start_ms, end_ms)

    def period(self) -> tuple[int, int]:
        """The journal's span that :meth:`buckets` looks at."""
        end_ms = self._engine.now_ms
        return (self._nodes[0].at_ms if self._nodes else end_ms), end_ms


def first_difference(store: Recorded) -> str:
    """Empty when journal and tables agree; else what differs first, in a sentence with both values.

    A service that writes meanwhile may show as a difference that is none: look again.
    """
    replayed = Replayed().read(store)
    for name, journal, live in _pairs(replayed, store):
        for ours, theirs in zip_longest(journal, live):
            if ours != theirs:
                return f"{name}: the journal gives {_text(ours)}, the tables hold {_text(theirs)}"
    return _unaccounted(replayed) or audit(store).difference


def _unaccounted(replayed: Replayed) -> str:
    """What breaks ``sum of the buckets = devices x time``, or a lease that its usage does not cover exactly."""
    try:
        error = conservation.error(replayed.buckets(), *replayed.period())
    except conservation.Overlap as overlap:
        return f"device time: {overlap}"
    if error:
        return f"device time: the buckets miss devices x time by {error} thousandths of a device x ms"
    sealed: dict[str, list[tuple[int, int]]] = {}
    for record in replayed.usage.values():
        sealed.setdefault(record.lease_id, []).append((record.start_ms, record.end_ms))
    for lease in replayed.leases.values():
        edge_ms = lease.lease.granted_ms
        for start_ms, end_ms in sorted(sealed.get(lease.lease.id, [])) if lease.closed_ms else ():
            if start_ms != edge_ms:
                return f"usage of lease {lease.lease.id}: from {edge_ms} it jumps to {start_ms}"
            edge_ms = end_ms
        if lease.closed_ms and edge_ms != lease.closed_ms:
            return f"usage of lease {lease.lease.id}: it ends at {edge_ms}, the lease at {lease.closed_ms}"
    return ""


def _pairs(replayed: Replayed, store: Recorded) -> Iterator[tuple[str, Iterable[object], Iterable[object]]]:
    journal, live = replayed.snapshot, store.load()
    for name in ("queues", "tenants", "nodes", "jobs", "leases", "attempts"):
        yield f"open {name}" if name in ("leases", "attempts") else name, getattr(journal, name), getattr(live, name)
    yield (
        "counters",
        (journal.at_ms, journal.next_job, journal.next_lease),
        (live.at_ms, live.next_job, live.next_lease),
    )
    yield "leases", _by_number(replayed.leases.values()), _by_number(_all_leases(store))
    yield "attempts", _by_id(replayed.attempts.values()), _by_id(_all_attempts(store, live))
    yield "usage", list(replayed.usage.values()), _all_usage(store)


def _all_leases(store: Recorded) -> Iterator[LeaseRecord]:
    after = ""
    while page := store.leases(after=after):
        yield from page
        after = page[-1].lease.id


def _all_attempts(store: Recorded, live: Snapshot) -> Iterator[AttemptRecord]:
    for job in live.jobs:
        after: tuple[str, int, int] | None = None
        while page := store.attempts(job.job.id, after=after):
            yield from page
            after = (page[-1].step, page[-1].index, page[-1].number)


def _all_usage(store: Recorded) -> Iterator[UsageRecord]:
    after = ""
    while page := store.usage(after=after):
        yield from page
        after = page[-1].id


def _by_number(records: Iterable[LeaseRecord]) -> list[LeaseRecord]:
    return sorted(records, key=lambda r: number_of(r.lease.id))


def _by_id(records: Iterable[AttemptRecord]) -> list[AttemptRecord]:
    return sorted(records, key=lambda r: r.id)


def _text(value: object) -> str:
    return "nothing" if value is None else codec.dumps(value)
