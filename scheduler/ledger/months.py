"""Calendar months and years in China time (UTC+8, no summer time): where statements and pools end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

CHINA = timezone(timedelta(hours=8))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
LAST_YEAR = 9998
"""The calendar ends with 9999, and a range needs the instant after it."""


def month_start_ms(year: int, month: int) -> int:
    """First instant of a month. Raises ValueError for what is no month."""
    return (datetime(year, month, 1, tzinfo=CHINA) - _EPOCH) // _MS


def month_of(at_ms: int) -> tuple[int, int]:
    """Year and month (1 to 12) of an instant."""
    local = (_EPOCH + at_ms * _MS).astimezone(CHINA)
    return local.year, local.month


def month_range_ms(year: int, month: int) -> tuple[int, int]:
    """``[start, end)`` of a month. Raises ValueError for what is no month."""
    return month_start_ms(year, month), month_start_ms(year + month // 12, month % 12 + 1)


def year_range_ms(year: int) -> tuple[int, int]:
    """``[start, end)`` of a year."""
    return month_start_ms(year, 1), month_start_ms(year + 1, 1)
