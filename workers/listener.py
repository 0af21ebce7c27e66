"""Takes one attempt's output: keeps the log, finds the protocol lines, tells the outbox about progress."""

from __future__ import annotations

from collections.abc import Callable

from workers.process import LogWriter
from workers.protocol import LineParser, Message, MessageKind

MESSAGE_CHARS = 2_000
"""Longest status or reason that leaves the node."""


class Listener:
    """Fed by the loop with what the runner prints while it works on this attempt."""

    def __init__(self, log: LogWriter, on_progress: Callable[[Listener], None]) -> None:
        self._log = log
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
        if any(m.kind in (MessageKind.PROGRESS, MessageKind.STATUS) for m in messages):
            self._on_progress(self)
