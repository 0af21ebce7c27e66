"""Takes one attempt's output: keeps the log and what it measures, finds the protocol lines, tells about progress."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from workers.metrics import Series
from workers.process import LogWriter
from workers.protocol import LineParser, Message, MessageKind

MESSAGE_CHARS = 2_000
"""Longest status or reason that leaves the node."""
_PROGRESS = (MessageKind.PROGRESS, MessageKind.STATUS, MessageKind.METRIC)


class Listener:
    """Fed by the loop with what the runner prints while it works on this attempt."""

    def __init__(
        self,
        log: LogWriter,
        on_progress: Callable[[Listener], None],
        on_checkpoint: Callable[[int], None] | None = None,
        on_bad_loss: Callable[[int], None] | None = None,
    ) -> None:
        """``on_checkpoint`` hears of each step said to be saved, ``on_bad_loss`` once the last step that was good."""
        self._log = log
        self._on_checkpoint, self._on_bad_loss = on_checkpoint, on_bad_loss
        self._series = Series()
        self._began = time.monotonic()
        self._parser = LineParser()
        self._on_progress = on_progress
        self.milli = 0
        self.status = ""
        self.failure = ""
        """The runner's own reason, once it said ``shisuan_fail``."""
        self.result = ""
        """Canonical JSON, once it said ``shisuan_done``."""
        self.log_error = ""

    def feed(self, data: bytes) -> bool:
        """Take output; True once the runner said how the request ended."""
        self._write(data)
        self._hear(self._parser.feed(data))
        return bool(self.failure or self.result)

    def finish(self) -> None:
        """The output ended."""
        self._hear(self._parser.finish())
        self._log.close()

    def facts(self, **more: object) -> str:
        """Canonical JSON of the runner's result, its series and ``more``; empty when there is nothing to tell."""
        points = self._series.points()
        kept = {name: value for name, value in more.items() if value}
        if not points and not kept:
            return self.result
        told = json.loads(self.result) if self.result else {}
        if not isinstance(told, dict):
            told = {"result": told}
        told |= kept | ({"metrics": points} if points else {})
        return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def _write(self, data: bytes) -> None:
        try:
            self._log.write(data)
        except OSError as error:
            self.log_error = f"the log cannot be written: {error.strerror}"

    def _hear(self, messages: list[Message]) -> None:
        for message in messages:
            match message.kind:
                case MessageKind.PROGRESS:
                    self.milli = message.milli
                case MessageKind.STATUS:
                    self.status = message.text[:MESSAGE_CHARS]
                case MessageKind.FAIL:
                    self.failure = self.failure or message.text[:MESSAGE_CHARS]
                case MessageKind.DONE:
                    self.result = message.text
                case MessageKind.METRIC:
                    self._measured(message)
                case MessageKind.CHECKPOINT if self._on_checkpoint is not None:
                    self._on_checkpoint(message.step)
        if any(m.kind in _PROGRESS for m in messages):
            self._on_progress(self)

    def _measured(self, message: Message) -> None:
        was_bad = self._series.bad
        self._series.take(message.values, round((time.monotonic() - self._began) * 1_000))
        self.status = self._series.last()[:MESSAGE_CHARS]
        if self._series.bad and not was_bad and self._on_bad_loss is not None:
            self._on_bad_loss(self._series.good_step)
