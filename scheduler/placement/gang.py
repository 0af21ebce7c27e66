"""All ranks or none, on as few nodes as possible."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.placement.score import Score


def spread(room: Sequence[tuple[int, Score, str]], ranks: int) -> tuple[tuple[str, int], ...]:
    """``(node, ranks on it)`` from ``(copies that fit, score, node)``; empty when not all ranks fit.

    Largest rooms first gives the fewest nodes; the last node is the smallest room that still holds the rest.
    """
    if sum(copies for copies, _, _ in room) < ranks:
        return ()
    left = sorted(room, key=lambda r: (-r[0], r[1], r[2]))
    chosen: list[tuple[str, int]] = []
    while ranks > 0:
        holders = [r for r in left if r[0] >= ranks]
        pick = min(holders, key=lambda r: (r[0], r[1], r[2])) if holders else left[0]
        left.remove(pick)
        chosen.append((pick[2], min(pick[0], ranks)))
        ranks -= chosen[-1][1]
    return tuple(chosen)
