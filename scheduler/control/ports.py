"""The doors the control plane needs, as structural Protocols.

``scheduler/wiring.py`` names who stands behind them; ``tests/contract`` proves that the fake and the real one fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from scheduler.model.event import Event
from scheduler.model.order import LeaseOrder, LogChunk, Report
from scheduler.model.snapshot import Changes, Snapshot


class Clock(Protocol):
    """Wall time."""

    def now_ms(self) -> int:
        """Unix time in ms, UTC."""
        ...


class Executor(Protocol):
    """Runs attempts. It reports at least once; the control plane applies idempotently, records, then acknowledges."""

    def start(self, orders: Sequence[LeaseOrder]) -> None:
        """Begin these leases. Orders of one gang come in one call. Returns at once; repeating an order is harmless."""
        ...

    def stop(self, lease_ids: Sequence[str], reason: str) -> None:
        """SIGTERM, grace, SIGKILL. Unknown or finished leases are ignored. Ends appear as FINISHED reports."""
        ...

    def poll(self, timeout_ms: int) -> tuple[Report, ...]:
        """Wait up to ``timeout_ms`` for at least one report, then return all that are there, in order per agent."""
        ...

    def acknowledge(self, cursors: Sequence[str]) -> None:
        """These reports are recorded and need not be kept."""
        ...

    def read_log(self, node: str, attempt_id: str, offset: int, limit: int) -> LogChunk:
        """Part of an attempt's combined stdout and stderr from byte ``offset``. Raises NotFound."""
        ...

    def close(self) -> None:
        """Let go of the connection; what runs keeps running."""
        ...


class Store(Protocol):
    """The only truth. One writer at a time, fenced by the epoch."""

    def acquire_epoch(self, owner: str) -> int:
        """Become the writer: a new, larger epoch. Earlier holders' commits raise StaleEpoch from now on."""
        ...

    def load(self) -> Snapshot:
        """The tables as the engine wants them."""
        ...

    def commit(self, epoch: int, events: Sequence[Event], changes: Changes) -> int:
        """One transaction: journal rows, projections, outbox rows for UsageSealed. Returns the last journal number.

        Raises StaleEpoch (nothing written) or StoreError.
        """
        ...


class Waker(Protocol):
    """Lets another thread end a ``poll`` early."""

    def wake(self) -> None:
        """Make a blocked poll return."""
        ...
