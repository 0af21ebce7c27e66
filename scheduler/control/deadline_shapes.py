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


class KeptView(TypedDict):
    """What is kept for one step of a film: places in which its tasks run one after the other."""

    step: str
    tasks: int
    """Tasks that have time there, each as long as is to be expected with care; the step has no more than these."""
    places: int
    """Most tasks that run there at once."""
    nodes: list[str]
    start_ms: int
    end_ms: int


class DeadlineView(TypedDict):
    """The answer to a job with a deadline."""

    deadline_ms: int
    promised: bool
    """Yes: time is kept for it from now on, and nothing that comes later delays it. No: it runs when it can."""
    slot: SlotView | None
    """What is kept for a job of one task or one gang."""
    kept: list[KeptView]
    """What is kept for one of many tasks or several steps, by step."""
    permille: int
    """Thousandths of the probability that the deadline is met, promised or only expected; -1: not known."""
    sure_ms: int
    """Without a promise: the earliest deadline that it would meet with nine chances in ten; 0: not known."""
    reason: str
    """Why it can be promised nothing, whatever is free; empty: it could."""
    changes: list[str]
    """Where the answer is no: smallest changes that would each make it yes."""
