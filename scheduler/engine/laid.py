"""What one plan makes of nodes whose cards are cut all at once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from scheduler.model.plan import Recut


@dataclass(slots=True, kw_only=True)
class Laid:
    """Grows while the plan is made."""

    now: dict[str, Recut] = field(default_factory=dict)
    """Nodes that are to be put into another layout now."""
    draining: dict[tuple[str, str], tuple[str, str, int]] = field(default_factory=dict)
    """By step for which a node drains: the node, the layout that it is to be put into, and when it is empty."""
    kinds: dict[str, Hashable] = field(default_factory=dict)
    """Of nodes, once asked for: those of a kind can be put into the same layouts for the same demands."""
