"""Units and small arithmetic shared by every room.

All quantities are integers. The unit is the last word of a name:

* ``_ms``: milliseconds; instants are Unix time in UTC, intervals are half-open ``[start, end)``
* ``_mib``: mebibytes; ``_milli``: thousandths (of a vCPU, or of one card for software fractions); ``_mw``: milliwatts
* ``_micro_yuan``: 10**-6 CNY
"""

from __future__ import annotations

MS_PER_SECOND = 1_000
MS_PER_HOUR = 3_600_000
MS_PER_DAY = 24 * MS_PER_HOUR
MILLI = 1_000
WHOLE_CARD_MILLI = 1_000


def overlap_ms(a_start_ms: int, a_end_ms: int, b_start_ms: int, b_end_ms: int) -> int:
    """Length in ms shared by two half-open intervals; 0 when they only touch."""
    return max(0, min(a_end_ms, b_end_ms) - max(a_start_ms, b_start_ms))
