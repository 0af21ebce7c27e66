"""Brings the feed to a receiver: in order, again and again until it is stored there, from where the receiver says.

The receiver's cursor decides, always: what this side remembers is only shown to people while the receiver is away. So
neither a crash here, nor there, nor a lost answer can lose a row; they can make one arrive twice.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import structlog
from typing_extensions import TypedDict  # pydantic reads these for OpenAPI, and typing's own only from Python 3.12

from scheduler.control.feed import Feed
from scheduler.control.ports import Clock
from scheduler.model.errors import ShisuanError
from scheduler.model.feed import SignedBatch

log = structlog.get_logger("shisuan.feed")

BATCH_ROWS = 500
GATHER_S = 0.2
"""After news, so that one batch carries what a few transactions sealed."""
IDLE_MS = 60_000
"""A look at the outbox without news."""
ASK_AGAIN_MS = 300_000
"""A receiver that was given everything is asked for its cursor again after this long: it may have been restored."""
FIRST_PAUSE_MS = 1_000
LONGEST_PAUSE_MS = 300_000
"""An outage of days ends within five minutes of its end."""
LONGEST_ASKED_MS = 3_600_000
"""A receiver may ask for a longer pause than ours (Retry-After), but not for ever."""


class Unreachable(Exception):
    """Nobody answered, or not in HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a receiver said."""

    status: int
    cursor: int | None = None
    """``seq`` of the last row it has stored durably."""
    message: str = ""
    retry_after_s: int = 0


class Post(Protocol):
    """Hands one batch over."""

    def __call__(self, signed: SignedBatch, /) -> Answer:
        """Raises Unreachable."""
        ...


class FeedState(StrEnum):
    """How the delivery stands."""

    STARTING = "starting"
    CURRENT = "current"
    """The receiver has everything."""
    SENDING = "sending"
    RETRYING = "retrying"
    """The receiver does not answer, or says that it cannot now."""
    REFUSED = "refused"
    """The receiver will not take it: a person must look. It is tried again all the same."""


class FeedView(TypedDict):
    """For people and Prometheus."""

    url: str
    state: str
    message: str
    cursor: int
    lag: int
    delivered: int
    failures: int
    next_try_ms: int


class Delivery:
    """Runs on a thread of its own; :meth:`step` is one exchange. Others may call :meth:`wake` and :meth:`view`."""

    def __init__(
        self,
        feed: Feed,
        post: Post,
        clock: Clock,
        *,
        url: str = "",
        hint: Path | None = None,
        batch_rows: int = BATCH_ROWS,
        rng: random.Random | None = None,
    ) -> None:
        """``hint``: a file that remembers the cursor for people; losing it costs nothing."""
        self._feed = feed
        self._post = post
        self._clock = clock
        self._url = url
        self._hint = hint
        self._batch_rows = batch_rows
        self._rng = rng or random.Random()
        self._cursor: int | None = None
        """What the receiver said last; None: it has to be asked."""
        self._shown = self._remembered()
        self.state, self._message = FeedState.STARTING, ""
        self._failures = 0
        """Since something was last stored."""
        self._went_back = False
        self._heard_ms = 0
        self.failed = 0
        self.delivered = 0
        self._next_try_ms = 0
        self._news = threading.Event()
        self._stopping = threading.Event()

    # ── other threads ────────────────────────────────────────────────────────────────────────────────────────────

    def wake(self) -> None:
        """Something was recorded. Cheap; never ends the pause after a failure."""
        self._news.set()

    def stop(self) -> None:
        """Make :meth:`run` return after the exchange it is in."""
        self._stopping.set()
        self._news.set()

    def view(self) -> FeedView:
        """How it stands. Counts the rows the receiver lacks."""
        return {
            "url": self._url,
            "state": self.state.value,
            "message": self._message,
            "cursor": self._shown,
            "lag": self._feed.outbox.outbox_backlog(self._shown),
            "delivered": self.delivered,
            "failures": self.failed,
            "next_try_ms": self._next_try_ms,
        }

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Deliver until :meth:`stop`."""
        while not self._stopping.is_set():
            try:
                pause_ms = self.step()
            except ShisuanError as error:  # the database: the cycle meets the same and ends the process
                pause_ms = self._fail(FeedState.RETRYING, str(error), 0)
            if pause_ms and self._failures:
                self._stopping.wait(pause_ms / 1_000)
            elif pause_ms and self._news.wait(pause_ms / 1_000):
                self._stopping.wait(GATHER_S)

    def step(self) -> int:
        """One exchange with the receiver; ms until the next one is due, 0 for at once. Raises StoreError."""
        self._news.clear()
        asking = self._cursor is None
        signed = self._feed.batch(self._cursor or 0, 0 if asking else self._batch_rows)
        if not asking and not signed.batch.rows:
            if self._clock.now_ms() - self._heard_ms >= ASK_AGAIN_MS:
                self._cursor = None
                return 0
            self._settle(FeedState.CURRENT)
            return IDLE_MS
        try:
            answer = self._post(signed)
        except Unreachable as error:
            return self._fail(FeedState.RETRYING, f"no answer: {error}", 0)
        return self._hear(signed, answer)

    def _hear(self, signed: SignedBatch, answer: Answer) -> int:
        self._heard_ms = self._clock.now_ms()
        if answer.status == 409 and answer.cursor not in (None, self._cursor) and not self._went_back:
            self._went_back = True  # once: a receiver that sends us to and fro is not one
            return self._resume(answer.cursor)
        if not 200 <= answer.status < 300:
            busy = answer.status in (408, 425, 429) or answer.status >= 500
            state = FeedState.RETRYING if busy else FeedState.REFUSED
            return self._fail(state, f"it answered {answer.status}: {answer.message}", answer.retry_after_s)
        if answer.cursor is None:
            return self._fail(FeedState.REFUSED, f"it answered {answer.status} without its cursor", 0)
        if signed.batch.rows and answer.cursor <= signed.batch.after:
            return self._fail(FeedState.RETRYING, f"it stored nothing beyond {answer.cursor}", 0)
        if signed.batch.rows:  # an answer to a question proves little: pauses grow until something was stored
            self._went_back = False
            self.delivered += signed.batch.rows if answer.cursor == signed.batch.through else 0
            self._settle(FeedState.SENDING)
        return self._resume(answer.cursor)

    def _resume(self, cursor: int | None) -> int:
        """Go on after what the receiver has."""
        if cursor is None or not self._feed.holds(cursor):
            words = f"it has stored entry {cursor}, which this database lacks: another installation's receiver, or an "
            return self._fail(FeedState.REFUSED, f"{words}older copy of this database", 0)
        self._cursor = cursor
        self._remember(cursor)
        return 0

    def _settle(self, state: FeedState) -> None:
        if self._failures:
            log.info("feed_resumed", url=self._url, cursor=self._cursor, failures=self._failures)
        self.state, self._message, self._failures, self._next_try_ms = state, "", 0, 0

    def _fail(self, state: FeedState, message: str, asked_s: int) -> int:
        """Exponential pause with jitter: many senders must not come back in step."""
        if not self._failures or state is not self.state:
            log.warning("feed_interrupted", url=self._url, state=state.value, message=message)
        most_ms = min(FIRST_PAUSE_MS << min(self._failures, 20), LONGEST_PAUSE_MS)
        pause_ms = self._rng.randint(most_ms // 2, most_ms)
        pause_ms = max(pause_ms, min(asked_s * 1_000, LONGEST_ASKED_MS))
        self._cursor, self._went_back = None, False
        self._failures += 1
        self.failed += 1
        self.state, self._message = state, message
        self._next_try_ms = self._clock.now_ms() + pause_ms
        return pause_ms

    def _remembered(self) -> int:
        try:
            return int(self._hint.read_text("ascii")) if self._hint is not None else 0
        except (OSError, ValueError):
            return 0

    def _remember(self, cursor: int) -> None:
        if cursor == self._shown:
            return
        self._shown = cursor
        if self._hint is not None:
            try:
                self._hint.write_text(str(cursor), "ascii")
            except OSError as error:
                log.warning("feed_hint_lost", error=str(error))  # it is asked of the receiver at the next start
