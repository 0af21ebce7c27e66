"""The real clock; tests and the simulator bring their own."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's wall clock."""

    def now_ms(self) -> int:
        """Unix time in ms, UTC."""
        return time.time_ns() // 1_000_000
