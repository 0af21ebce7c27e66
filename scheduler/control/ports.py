"""The doors the control plane needs, as structural Protocols.

``scheduler/wiring.py`` names who stands behind them; ``tests/contract`` proves that the fake and the real one fit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

from scheduler.model.event import Event, MoneyEvent
from scheduler.model.feed import OutboxRow
from scheduler.model.job import Job
from scheduler.model.key import ApiKey, Role
from scheduler.model.lease import AttemptRecord, LeaseRecord
from scheduler.model.money import LedgerHead, Posted, StoredTxn, Txn
from scheduler.model.node import CardCut, Device, Lane
from scheduler.model.order import KeptFile, LeaseOrder, LogChunk, Report
from scheduler.model.sample import Sample
from scheduler.model.snapshot import Changes, Snapshot
from scheduler.model.usage import UsageRecord


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

    def move(self, lanes: Mapping[str, Lane]) -> None:
        """Let these nodes, on which nothing runs, serve another lane. Returns at once; repeating is harmless.

        It is done when a node's NODE report says so.
        """
        ...

    def recut(self, cuts: Mapping[str, Sequence[CardCut]]) -> None:
        """Cut cards anew: by node, all cuts that are under way there; none: what was asked before is given up.

        Returns at once; repeating is harmless. Instances that stay go on; one that somebody uses is never destroyed. It
        is done when the node's NODE report shows the layout; one that cannot be had has a NODE report whose facts have
        that CardCut with the ``problem``.
        """
        ...

    def poll(self, timeout_ms: int) -> tuple[Report, ...]:
        """Wait up to ``timeout_ms`` for at least one report, then return all that are there, in order per agent."""
        ...

    def acknowledge(self, cursors: Sequence[str]) -> None:
        """These reports are recorded and need not be kept."""
        ...

    def read_log(self, node: str, attempt_id: str, offset: int, limit: int, rank: int = 0) -> LogChunk:
        """Part of an attempt's combined stdout and stderr from byte ``offset``. Raises NotFound."""
        ...

    def close(self) -> None:
        """Let go of the connection; what runs keeps running."""
        ...


class KeptLogs(Protocol):
    """Logs that lie in a tenant's storage. Roots are the tenant's: nothing outside them is touched.

    All raise StorageError and OSError.
    """

    def read(self, uri: str, roots: Sequence[str], offset: int, limit: int, *, is_over: bool) -> LogChunk | None:
        """Part of a log from byte ``offset``, at most ``limit`` bytes; None: there is no such log. ``is_over``: nobody
        writes it any more.
        """
        ...


class LogFiles(Protocol):
    """The files in which logs lie, for whoever takes away what is old. All raise StorageError and OSError."""

    def of_job(self, job: Job, roots: Sequence[str]) -> tuple[KeptFile, ...]:
        """Those of all its attempts; none twice."""
        ...

    def remove(self, file: KeptFile, roots: Sequence[str]) -> None:
        """Take one away, if it is still there."""
        ...


class Store(Protocol):
    """The only truth. One writer at a time, fenced by the epoch."""

    def acquire_epoch(self, owner: str) -> int:
        """Become the writer: a new, larger epoch. Earlier holders' commits raise StaleEpoch from now on."""
        ...

    def load(self) -> Snapshot:
        """The tables as the engine wants them."""
        ...

    def commit(
        self, epoch: int, events: Sequence[Event], changes: Changes, meanwhile: Callable[[], object] | None = None
    ) -> int:
        """One transaction: journal rows, projections, usage. Returns the last journal number.

        ``meanwhile`` is called once, in another thread, while the database makes it durable: nothing that it does may
        be seen outside before this returns.

        Raises StaleEpoch (nothing written) or StoreError.
        """
        ...


class Waker(Protocol):
    """Lets another thread end a ``poll`` early."""

    def wake(self) -> None:
        """Make a blocked poll return."""
        ...


class Telemetry(Protocol):
    """What a machine's devices are and do. NVML is one implementation of several to come."""

    why_none: str
    """After ``devices`` found none: the reason, in a sentence."""

    def devices(self) -> tuple[Device, ...]:
        """Schedulable devices: cards, and MIG instances in place of their cards."""
        ...

    def sample(self) -> tuple[Sample, ...]:
        """A reading of each, in the same order; a device that does not answer gives one with its ``problem``."""
        ...

    def sample_of(self, device_id: str) -> Sample:
        """A reading of one; may hang as long as a driver does."""
        ...

    def close(self) -> None:
        """Let go of the driver."""
        ...


class History(Protocol):
    """What the database answers beside the engine: everything that is over. Safe from any thread."""

    def job_of_request(self, tenant: str, request_id: str) -> str:
        """Id of the job this request made; empty when there is none."""
        ...

    def leases(
        self,
        *,
        job_id: str = "",
        tenant: str = "",
        start_ms: int = 0,
        end_ms: int = 0,
        after: str = "",
        limit: int = ...,
    ) -> tuple[LeaseRecord, ...]:
        """Open and closed leases, by number."""
        ...

    def attempts(
        self, job_id: str, *, step: str = "", after: tuple[str, int, int] | None = None, limit: int = ...
    ) -> tuple[AttemptRecord, ...]:
        """A job's attempts by step, index and number; ``after``: that triple of the last one seen."""
        ...

    def latest_attempts(self, job_id: str, limit: int = ...) -> tuple[AttemptRecord, ...]:
        """A job's attempts that ended last, then those that have not ended."""
        ...

    def attempt(self, attempt_id: str) -> AttemptRecord:
        """One attempt. Raises NotFound."""
        ...

    def usage(
        self,
        *,
        job_id: str = "",
        tenant: str = "",
        start_ms: int = 0,
        end_ms: int = 0,
        after: str = "",
        limit: int = ...,
    ) -> tuple[UsageRecord, ...]:
        """Sealed usage in order of sealing; ``after``: the id of the last record seen."""
        ...

    def journal(self, after: int = 0) -> Iterator[tuple[int, Event]]:
        """Every recorded fact with its number."""
        ...


class Outbox(Protocol):
    """What the park's ledger is told, in order. Safe from any thread."""

    def outbox_rows(self, after: int, limit: int) -> tuple[OutboxRow, ...]:
        """At most ``limit`` rows above ``after``, which is the number of a row or 0."""
        ...

    def outbox_holds(self, seq: int) -> bool:
        """There is a row of this number."""
        ...

    def outbox_backlog(self, after: int) -> int:
        """How many rows lie above ``after``."""
        ...


class Ledger(Protocol):
    """The ledger's rows. Safe from any thread; only the keeper posts."""

    def ledger_state(self) -> tuple[LedgerHead, dict[str, int], list[tuple[int, MoneyEvent]]]:
        """Where the ledger ends, its balances, and the terms it had read by then: one consistent view."""
        ...

    def money_events(self, after: int, limit: int) -> tuple[list[tuple[int, MoneyEvent]], int]:
        """At most ``limit`` of the ledger's events above journal row ``after``, and up to which row these are all."""
        ...

    def booked(self, idems: Collection[str]) -> set[str]:
        """Which of these are in the ledger already."""
        ...

    def post(
        self, epoch: int, before: LedgerHead, after: LedgerHead, posted: Sequence[Posted], balances: Mapping[str, int]
    ) -> None:
        """All of it or nothing. Raises StaleEpoch when another process is the writer, or has written the ledger."""
        ...

    def ledger_head(self) -> LedgerHead:
        """Where the ledger ends."""
        ...

    def ledger_balances(self) -> dict[str, int]:
        """Every account's balance, in micro-yuan."""
        ...

    def txn(self, idem: str) -> Txn | None:
        """The transaction booked for this."""
        ...

    def txns(
        self,
        *,
        tenant: str = "",
        job_id: str = "",
        start_ms: int = 0,
        end_ms: int = 0,
        after: int = 0,
        limit: int = ...,
    ) -> tuple[Txn, ...]:
        """Transactions of service in ``[start_ms, end_ms)`` (0: no bound), in the ledger's order."""
        ...

    def charged(self, job_id: str) -> tuple[int, int]:
        """What is booked for a job, in micro-yuan: at list prices, and what its tenant pays of it."""
        ...

    def ledger_rows(self, after: int = 0, limit: int = ...) -> list[StoredTxn]:
        """Rows as they stand in the database, for whoever checks them."""
        ...


class KeyRing(Protocol):
    """API keys; only hashes are kept."""

    def add_key(
        self, tenant: str, role: Role | str = ..., expires_ms: int = 0, label: str = "", *, now_ms: int = 0
    ) -> tuple[str, str]:
        """A new key: its id and its secret, which cannot be had again."""
        ...

    def keep_key(self, secret: str, tenant: str, role: Role | str, label: str = "") -> None:
        """A secret that was made elsewhere is a key from now on."""
        ...

    def find_key(self, secret: str, now_ms: int) -> ApiKey:
        """Whose key this is. Raises Unauthorized."""
        ...

    def list_keys(self, tenant: str = "") -> tuple[ApiKey, ...]:
        """Every key, in order of making."""
        ...

    def revoke_key(self, key_id: str, *, now_ms: int = 0) -> None:
        """The key opens nothing any more. Raises NotFound."""
        ...
