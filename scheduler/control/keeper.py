"""The ledger's keeper: reads what the journal gained, books it, stores rows, balances and cursor in one transaction.

It runs beside the cycle, in a thread of its own, a batch at a time: the cycle never waits longer than for one batch's
inserts.
Killed anywhere, it goes on from the stored cursor; what it had not stored it books again, the same byte for byte.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from scheduler.control.ports import Ledger
from scheduler.ledger.book import Book
from scheduler.model.errors import StaleEpoch
from scheduler.model.event import ChargeReversed, MoneyEvent, UsageSealed
from scheduler.model.money import LedgerHead, Posted, Txn

log = structlog.get_logger("shisuan.keeper")
BATCH = 500
"""Journal rows per transaction: its inserts keep the database's one writer busy for about 10 ms."""
GATHER_S = 0.2
"""Rest between two rounds, in which usage gathers; whoever asks for a statement does not wait for it."""
TROUBLE_S = 5.0


class Keeper:
    """Owns the book. :meth:`book` lends it, up to date."""

    def __init__(self, ledger: Ledger, epoch: int, *, batch: int = BATCH) -> None:
        self._ledger = ledger
        self._epoch = epoch
        self._batch = batch
        self._lock = threading.RLock()
        self._open: Book | None = None
        self._stored = LedgerHead()
        self._read = 0
        self._fresh: dict[str, Txn] = {}
        self.listener: Callable[[Book], None] = lambda _: None
        """Told of the book each time it is up to date; must not ask the keeper for anything."""
        self._woken = threading.Event()
        self._stopping = threading.Event()

    # ── other threads ────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def book(self) -> Iterator[Book]:
        """The book with everything recorded so far. Keep it short. Raises StaleEpoch, StoreError."""
        with self._lock:
            yield self._caught_up()

    def catch_up(self) -> LedgerHead:
        """Book all that is recorded; where the ledger ends then. Raises StaleEpoch, StoreError."""
        with self.book():
            return self._stored

    def wake(self) -> None:
        """Something was recorded."""
        self._woken.set()

    def stop(self) -> None:
        """Make :meth:`run` return after the round it is in."""
        self._stopping.set()
        self._woken.set()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Book until :meth:`stop`, or until another service is the writer.

        What fails is tried again: the park's work goes on while its ledger is behind; a statement says why it fails.
        """
        while not self._stopping.is_set():
            self._woken.clear()
            rest_s = GATHER_S
            try:
                self.catch_up()
            except StaleEpoch:
                log.warning("keeper_stops", reason="another service writes this database now")
                return
            except Exception:
                log.exception("ledger_behind")
                rest_s = TROUBLE_S
            self._stopping.wait(rest_s)
            self._woken.wait()

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _caught_up(self) -> Book:
        try:
            book = self._open or self._load()
            while self._round(book):
                pass
            self.listener(book)
        except BaseException:
            self._open = None  # it may hold what was not stored
            raise
        return book

    def _load(self) -> Book:
        self._stored, balances, terms = self._ledger.ledger_state()
        self._open = book = Book(self._stored, balances, recall=self._recall)
        self._read = self._stored.cursor
        for _, event in terms:
            book.learn(event)
        return book

    def _round(self, book: Book) -> bool:
        """One batch; whether there may be more."""
        events, until = self._ledger.money_events(self._read, self._batch)
        if events:
            posted = self._project(book, events)
            changed = {name: book.balances[name] for name in sorted(book.changed)}
            after = LedgerHead(cursor=until, seq=book.head.seq, hash=book.head.hash)
            self._ledger.post(self._epoch, self._stored, after, posted, changed)
            self._stored = after
            book.changed.clear()
            self._fresh.clear()
        self._read = until
        return len(events) == self._batch

    def _project(self, book: Book, events: list[tuple[int, MoneyEvent]]) -> list[Posted]:
        book.seen = self._ledger.booked({idem for _, event in events for idem in _idems(event)})
        posted: list[Posted] = []
        for seq, event in events:
            found = book.apply(seq, event)
            posted += found
            self._fresh.update({one.txn.idem: one.txn for one in found})
        return posted

    def _recall(self, idem: str) -> Txn | None:
        return self._fresh.get(idem) or self._ledger.txn(idem)


def _idems(event: MoneyEvent) -> tuple[str, ...]:
    """Under which names this event may have been booked before."""
    if isinstance(event, UsageSealed):
        return (f"usage:{event.record.id}",)
    if isinstance(event, ChargeReversed):
        return (f"reversal:{event.usage_id}",)
    return ()
