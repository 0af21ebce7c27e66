"""PURE. The line protocol between a runner's stdout and the agent.

::

    shisuan_progress: 42.5      percent done, 0-100
    shisuan_status: text        what it does now
    shisuan_fail: reason        why it fails, in a sentence for the job's owner
    shisuan_done: {json}        end of one request (resident runners), or facts about a finished task
    shisuan_metric: {json}      numbers by name, such as {"step": 40, "loss": 2.31, "tokens_per_s": 8400}
    shisuan_checkpoint: 40      the checkpoint ``step-40`` is complete, under its final name

Every other line is log. The form follows Open Job Description's ``openjd_progress:`` lines.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from enum import StrEnum

MAX_LINE_BYTES = 64 * 1024
"""Longest protocol line that is read; longer log lines are passed over without being kept."""

_PREFIX = b"shisuan_"
MAX_METRICS = 16
"""Numbers of one metric line that are kept."""
MAX_NAME_CHARS = 40
MAX_STEP_DIGITS = 15
_NOT_FINITE = ("nan", "inf", "infinity")
_DECODER = json.JSONDecoder()


class MessageKind(StrEnum):
    """The words a runner can say."""

    PROGRESS = "progress"
    STATUS = "status"
    FAIL = "fail"
    DONE = "done"
    METRIC = "metric"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One protocol line. ``milli`` is set for PROGRESS (0-1000), ``values`` for METRIC, ``step`` for CHECKPOINT and
    ``text`` for the others (canonical JSON for DONE).
    """

    kind: MessageKind
    text: str = ""
    milli: int = 0
    step: int = 0
    values: tuple[tuple[str, float], ...] = ()
    """In the runner's order; may hold NaN and infinities."""


class LineParser:
    """Finds protocol lines in a byte stream that arrives in arbitrary pieces. Never raises on a runner's bytes."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = max_line_bytes
        self._held = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[Message]:
        """Messages completed by ``data``."""
        if not self._held and not self._skipping and _PREFIX not in data:
            return self._hold(data[data.rfind(b"\n") + 1 :])
        found: list[Message] = []
        *lines, rest = data.split(b"\n")
        for line in lines:
            if not self._skipping:
                message = parse_line(self._held + line, self._max)
                if message is not None:
                    found.append(message)
            self._held, self._skipping = b"", False
        self._hold(rest)
        return found

    def finish(self) -> list[Message]:
        """The stream ended: a last line without a newline counts."""
        return self.feed(b"\n") if self._held else []

    def _hold(self, tail: bytes) -> list[Message]:
        """Keep an unfinished line only while it may still be a protocol line."""
        if self._skipping or not tail:
            return []
        line = self._held + tail
        if line.startswith(_PREFIX) or _PREFIX.startswith(line):
            self._held = line[: self._max + 1]
        else:
            self._held, self._skipping = b"", True
        return []


def parse_line(line: bytes, max_line_bytes: int = MAX_LINE_BYTES) -> Message | None:
    """The message in one line, or None when it is log. A DONE that cannot be read becomes a FAIL that says so."""
    if not line.startswith(_PREFIX):
        return None
    word, colon, rest = line[len(_PREFIX) :].partition(b":")
    if not colon:
        return None
    text = rest[:max_line_bytes].decode("utf-8", errors="replace").strip()
    if word == b"progress":
        return _progress(text)
    if word == b"status":
        return Message(kind=MessageKind.STATUS, text=text)
    if word == b"fail":
        return Message(kind=MessageKind.FAIL, text=text or "the runner gave no reason")
    if word == b"done":
        return _done(text, too_long=len(line) > max_line_bytes, max_line_bytes=max_line_bytes)
    if word == b"metric":
        return _metric(text)
    if word == b"checkpoint":
        return _checkpoint(text)
    return None


def _progress(text: str) -> Message | None:
    whole, _, part = text.removesuffix("%").strip().partition(".")
    if not (whole.isascii() and whole.isdigit() and len(whole) <= 3) or not (part == "" or part.isdigit()):
        return None
    tenth = part[:1] if part.isascii() else ""
    return Message(kind=MessageKind.PROGRESS, milli=min(1_000, int(whole) * 10 + int(tenth or "0")))


def _metric(text: str) -> Message | None:
    """What follows the object is left: another rank's output may have slipped in before the line's end."""
    try:
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    numbers = [(name, _number(item)) for name, item in value.items() if len(name) <= MAX_NAME_CHARS]
    values = tuple([(name, number) for name, number in numbers if number is not None][:MAX_METRICS])
    return Message(kind=MessageKind.METRIC, values=values) if values else None


def _number(value: object) -> float | None:
    """Whole numbers stay whole; ``"nan"`` and ``"inf"`` as texts count too, since JSON itself has neither."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return value
    if isinstance(value, float) or (isinstance(value, str) and value.strip("+-").lower() in _NOT_FINITE):
        return float(value)
    return None


def _checkpoint(text: str) -> Message | None:
    digits = text[: len(text) - len(text.lstrip("0123456789"))]
    if not digits or len(digits) > MAX_STEP_DIGITS:
        return None
    return Message(kind=MessageKind.CHECKPOINT, step=int(digits))


def _done(text: str, *, too_long: bool, max_line_bytes: int) -> Message:
    if too_long:
        return Message(kind=MessageKind.FAIL, text=f"the runner's result line is longer than {max_line_bytes} bytes")
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return Message(kind=MessageKind.FAIL, text="the runner's result is not JSON")
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Message(kind=MessageKind.DONE, text=canonical)
