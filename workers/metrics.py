"""PURE. What a training run says of itself, kept small: a series of at most :data:`MAX_POINTS`, and the first bad loss.

The series is thinned as it grows: when it is full every second point goes, and from then on twice as many are passed
over. Its first and its last point are always there::

    [{"step": 1, "loss": 4.1, "tokens_per_s": 8100, "ms": 810}, {"step": 2, "loss": 3.9, "ms": 902}]

``ms`` is the time since the attempt's runner started. A number that is not finite is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

MAX_POINTS = 500
DIGITS = 7
"""Significant digits that are kept: a float32 has no more."""
TIME = "ms"
STEP = "step"

Values = Sequence[tuple[str, float]]


def is_loss(name: str) -> bool:
    """``loss``, ``val_loss``, ``loss/train``: what must stay finite."""
    return "loss" in name.lower()


def not_finite(values: Values) -> tuple[str, float] | None:
    """The first loss among them that is NaN or infinite."""
    return next(((name, value) for name, value in values if is_loss(name) and not math.isfinite(value)), None)


class Series:
    """Fed one metric line at a time."""

    def __init__(self, most: int = MAX_POINTS) -> None:
        self._most = most
        self._points: list[dict[str, float]] = []
        self._last: dict[str, float] | None = None
        self._every, self._seen = 1, 0
        self.good_step = -1
        """The last step whose losses were all finite, before any that was not."""
        self.bad = False

    def take(self, values: Values, since_start_ms: int) -> None:
        """One line's numbers."""
        point = {**dict(values), TIME: since_start_ms}
        step = point.get(STEP)
        self._judge(values, int(step) if step is not None and math.isfinite(step) else -1)
        if self._seen % self._every == 0:
            self._points.append(point)
            if len(self._points) >= self._most:
                del self._points[1::2]
                self._every *= 2
        self._last = point
        self._seen += 1

    def points(self) -> list[dict[str, float]]:
        """The series; empty when nothing was said."""
        points = list(self._points)
        if self._last is not None and points[-1] is not self._last:
            points.append(self._last)
        return [{name: _short(value) for name, value in point.items() if math.isfinite(value)} for point in points]

    def last(self) -> str:
        """The newest numbers in words: ``step 40, loss 2.31, 8,400 tokens/s``."""
        return ", ".join(_words(name, value) for name, value in (self._last or {}).items() if name != TIME)

    def _judge(self, values: Values, step: int) -> None:
        if self.bad:
            return
        if not_finite(values) is not None:
            self.bad = True
        elif step >= 0 and any(is_loss(name) for name, _ in values):
            self.good_step = max(self.good_step, step)


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")


def _words(name: str, value: float) -> str:
    if not math.isfinite(value):
        return f"{name} {value}"
    if name.endswith("_per_s"):
        return f"{value:,.0f} {name.removesuffix('_per_s').replace('_', ' ')}/s"
    text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return f"{name.replace('_', ' ')} {text}"
