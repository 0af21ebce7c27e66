"""Frame arithmetic in integers: frame ranges, frame rates, timecode. People's ranges include their end, ours do not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from scheduler.model.units import MS_PER_SECOND

MAX_FRAME = 99_999_999
MAX_SPANS = 1_000
_SPAN = re.compile(r"(\d{1,9})(?:\s*-\s*(\d{1,9})(?:\s*x\s*(\d{1,9}))?)?", re.ASCII)
# The decimals people write for the NTSC rates; the rates themselves are N * 1000/1001 (SMPTE ST 12-1).
_NTSC = {
    "23.976": Fraction(24_000, 1_001),
    "23.98": Fraction(24_000, 1_001),
    "29.97": Fraction(30_000, 1_001),
    "47.952": Fraction(48_000, 1_001),
    "59.94": Fraction(60_000, 1_001),
    "119.88": Fraction(120_000, 1_001),
}


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Distinct non-negative frame numbers (or array indices) in the order they were written.

    ``spans`` are half-open ``(start, end, step)`` triples, so a million frames cost as much as one.
    """

    spans: tuple[tuple[int, int, int], ...]

    @classmethod
    def parse(cls, text: str) -> FrameRange:
        """``"1-24"``, ``"1-100x2"`` (every second one), ``"1,5,10-20"``. Raises ValueError saying what is wrong."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > MAX_SPANS:
            raise ValueError(f"more than {MAX_SPANS} ranges")
        return cls(tuple(_parse_span(part) for part in parts)).checked()

    def checked(self) -> FrameRange:
        """This range. Raises ValueError when a number is in it twice."""
        twice = self._first_duplicate()
        if twice is not None:
            raise ValueError(f"{twice} is named twice")
        return self

    def _first_duplicate(self) -> int | None:
        """Spans that do not interleave cannot share a number, so only the others are enumerated."""
        ordered = sorted(self.spans)
        suspects: set[tuple[int, int, int]] = set()
        reach = -1
        widest = ordered[0] if ordered else None
        for span in ordered:
            if span[0] < reach and widest is not None:
                suspects |= {widest, span}
            if span[1] > reach:
                reach, widest = span[1], span
        seen: set[int] = set()
        for span in self.spans:
            if span not in suspects:
                continue
            for number in range(*span):
                if number in seen:
                    return number
                seen.add(number)
        return None

    def __len__(self) -> int:
        return sum(len(range(*span)) for span in self.spans)

    def __iter__(self) -> Iterator[int]:
        for span in self.spans:
            yield from range(*span)

    def at(self, index: int) -> int:
        """The number at position ``index``. Raises IndexError outside ``[0, len)``."""
        left = index
        for span in self.spans:
            count = len(range(*span))
            if 0 <= left < count:
                return span[0] + left * span[2]
            left -= count
        raise IndexError(f"index {index} must be in [0, {len(self)})")

    def __str__(self) -> str:
        """The way people write it; ``parse`` gives this range back."""
        return ",".join(_span_text(range(*span)) for span in self.spans)


def _parse_span(part: str) -> tuple[int, int, int]:
    match = _SPAN.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r} is not a range like 1-24, 1-100x2 or 7")
    first = int(match[1])
    last = int(match[2] or first)
    step = int(match[3] or 1)
    if max(first, last) > MAX_FRAME:
        raise ValueError(f"{part!r} goes beyond {MAX_FRAME}")
    if last < first:
        raise ValueError(f"{part!r} ends before it starts")
    if step == 0:
        raise ValueError(f"{part!r} has step 0")
    return (first, last + 1, step)


def _span_text(numbers: range) -> str:
    first, last = numbers[0], numbers[-1]
    if first == last:
        return str(first)
    return f"{first}-{last}" if numbers.step == 1 else f"{first}-{last}x{numbers.step}"


def parse_rate(text: str) -> Fraction:
    """Frames per second, exactly: ``"24"``, ``"24000/1001"``, ``"12.5"``, ``"23.976"``. Raises ValueError."""
    text = text.strip()
    if text in _NTSC:
        return _NTSC[text]
    if re.fullmatch(r"\d{1,7}(/\d{1,7}|\.\d{1,6})?", text, re.ASCII) is None or text.endswith(("/0", "/00")):
        raise ValueError(f"{text!r} is not a frame rate like 24, 25, 23.976 or 24000/1001")
    try:
        rate = Fraction(text)
    except ZeroDivisionError:
        raise ValueError(f"{text!r} divides by zero") from None
    if not 1 <= rate <= 1_000:
        raise ValueError(f"{text!r} is not between 1 and 1000 frames per second")
    return rate


def rate_text(rate: Fraction) -> str:
    """``"24"`` or ``"24000/1001"``: what ffmpeg takes without loss."""
    return str(rate)


def duration_ms(frames: int, rate: Fraction) -> int:
    """Length of ``frames`` frames in whole ms, rounded to nearest, ties up."""
    return int((frames * MS_PER_SECOND / rate) + Fraction(1, 2))


def frame_at(instant_ms: int, rate: Fraction) -> int:
    """Number of the frame shown at ``instant_ms``: frame ``n`` is shown in ``[n/rate, (n+1)/rate)``."""
    return int(instant_ms * rate / MS_PER_SECOND)


def timecode(frame: int, rate: Fraction) -> str:
    """``HH:MM:SS:FF``, wrapping after 24 hours; drop-frame, with ``;``, for 29.97 and 59.94 (SMPTE ST 12-1)."""
    base = _timecode_base(rate)
    dropped = _dropped_per_minute(rate)
    per_minute, per_ten = base * 60 - dropped, base * 600 - dropped * 9
    frame %= per_ten * 6 * 24
    if dropped:
        tens, left = divmod(frame, per_ten)
        # The first minute of ten drops nothing, so it is `dropped` frames longer than the other nine.
        frame += dropped * (9 * tens + max(0, (left - dropped) // per_minute))
    seconds, ff = divmod(frame, base)
    separator = ";" if dropped else ":"
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{separator}{ff:02d}"


def timecode_frame(text: str, rate: Fraction) -> int:
    """Inverse of :func:`timecode`. Raises ValueError for a malformed or dropped timecode."""
    match = re.fullmatch(r"(\d\d):([0-5]\d):([0-5]\d)[:;](\d{2,3})", text, re.ASCII)
    base = _timecode_base(rate)
    if match is None or int(match[4]) >= base or int(match[1]) > 23:
        raise ValueError(f"{text!r} is not a timecode HH:MM:SS:FF at {rate} frames per second")
    hours, minutes, seconds, ff = (int(group) for group in match.groups())
    dropped = _dropped_per_minute(rate)
    if dropped and minutes % 10 and seconds == 0 and ff < dropped:
        raise ValueError(f"{text!r} is a dropped timecode at {rate} frames per second")
    minutes += hours * 60
    return (minutes * 60 + seconds) * base + ff - dropped * (minutes - minutes // 10)


def _timecode_base(rate: Fraction) -> int:
    """Frames counted per second of timecode: the rate rounded up."""
    return -(-rate.numerator // rate.denominator)


def _dropped_per_minute(rate: Fraction) -> int:
    return {Fraction(30_000, 1_001): 2, Fraction(60_000, 1_001): 4}.get(rate, 0)


def frame_name(base: str, frame: int, extension: str) -> str:
    """``film.0001.exr``: at least four digits, as studios' tools expect."""
    return f"{base}.{frame:04d}.{extension}"
