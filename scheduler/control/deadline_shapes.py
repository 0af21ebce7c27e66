"""The answer to a deadline, as plain JSON values."""

from __future__ import annotations

from typing_extensions import TypedDict  # pydantic reads these for OpenAPI, and typing's own only from Python 3.12


class SlotView(TypedDict):
    """A stretch of time that is kept for a job because its deadline was promised."""

    model: str
    """Card model; empty for work without cards."""
    ranks: int
    nodes: list[str]
    start_ms: int
    end_ms: int


class DeadlineView(TypedDict):
    """The answer to a job with a deadline."""

    deadline_ms: int
    slot: SlotView | None
    """Yes: kept for it from its submission on; nothing that comes later delays it. None: no, it runs when it can."""
    permille: int
    """Thousandths of the probability that the deadline is met, promised with a slot, else expected; -1: not known."""
    sure_ms: int
    """Without a slot: the earliest deadline that it would meet with nine chances in ten; 0: not known."""
    reason: str
    """Why it can have no slot, whatever is free; empty: it could have one."""
    changes: list[str]
    """Where the answer is no: smallest changes that would each make it yes."""
