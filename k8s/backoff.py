"""How long to wait before trying again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits that double up to a limit; half of each is drawn, so that many clients do not come back together.

    Nothing here draws: :meth:`wait_s` is given a number from [0, 1).
    """

    first_s: float = 0.25
    most_s: float = 30.0
    asked_most_s: float = 60.0
    """A server's Retry-After is obeyed up to here."""
    tries: int = 5
    """How often one request is made, the first time included."""

    def wait_s(self, failures: int, draw: float, asked_s: float = 0.0) -> float:
        """After ``failures`` in a row (at least 1), when the server ``asked`` to wait so long."""
        limit_s = min(self.most_s, self.first_s * 2 ** min(failures - 1, 32))
        return max(limit_s * (1 + draw) / 2, min(asked_s, self.asked_most_s) * (1 + draw / 4))
