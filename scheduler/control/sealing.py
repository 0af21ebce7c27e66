"""Closed leases become sealed usage, in the same transaction that closes them."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.engine import Engine
from scheduler.ledger import meter
from scheduler.model.changed import replace
from scheduler.model.event import AttemptFinished, Event
from scheduler.model.lease import AttemptRecord, LeaseRecord
from scheduler.model.node import Device
from scheduler.model.snapshot import Changes
from scheduler.model.usage import UsageRecord


class Sealer:
    """Remembers the attempts of leases that may close in this cycle: the engine lets go of them when they do."""

    def __init__(self) -> None:
        self._attempts: dict[str, AttemptRecord] = {}

    def before(self, engine: Engine, event: Event) -> None:
        """Call before the engine applies ``event``."""
        if not isinstance(event, AttemptFinished):
            return
        ending = engine.attempt(event.attempt_id)
        record = engine.lease(ending.lease_id) if ending is not None else None
        if record is None or len(record.lease.attempts) == 1:
            return  # the one that ends is among the changes
        for attempt_id in record.lease.attempts:
            attempt = engine.attempt(attempt_id)
            if attempt is not None:
                self._attempts[attempt_id] = attempt

    def seal(self, engine: Engine, changes: Changes, heartbeats: Mapping[str, int]) -> tuple[UsageRecord, ...]:
        """Usage of every lease that ``changes`` closes. ``heartbeats``: last sign of life per attempt, in Unix ms."""
        closed = [record for record in changes.leases if record.closed_ms]
        if not closed:
            self._attempts.clear()
            return ()
        self._attempts.update({attempt.id: attempt for attempt in changes.attempts})
        sealed: list[UsageRecord] = []
        for record in closed:
            attempts = [self._alive(self._attempts[a], heartbeats) for a in record.lease.attempts]
            sealed += meter.seal(record, attempts, _devices(engine, record), self._purpose(engine, record))
        self._attempts.clear()
        return tuple(sealed)

    @staticmethod
    def _purpose(engine: Engine, record: LeaseRecord) -> str:
        """Kind of the lease's step."""
        job = engine.job(record.lease.job_id)
        steps = job.job.steps if job is not None else ()
        return next((step.kind.value for step in steps if step.name == record.lease.step), "")

    @staticmethod
    def _alive(attempt: AttemptRecord, heartbeats: Mapping[str, int]) -> AttemptRecord:
        heard_ms = heartbeats.get(attempt.id, 0)
        return replace(attempt, heartbeat_ms=heard_ms) if heard_ms > attempt.heartbeat_ms else attempt


def _devices(engine: Engine, record: LeaseRecord) -> dict[str, Device]:
    """What the nodes of a lease that holds cards say about them; they keep a card while it is leased."""
    found: dict[str, Device] = {}
    for held in record.lease.allocations:
        node = engine.node(held.node) if held.devices else None
        if node is not None:
            found |= {device.id: device for device in node.devices if device.id in held.devices}
    return found
