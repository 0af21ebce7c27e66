"""All ranks or none, on as few nodes as possible."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from scheduler.model.job import Together
from scheduler.placement.score import Score
from scheduler.placement.view import NodeView

NOWHERE: Collection[str] = frozenset()


def groups(names: Iterable[str], views: Mapping[str, NodeView], together: Together) -> list[list[str]]:
    """The sets of nodes within which all ranks must be, each sorted by name."""
    ordered = sorted(names)
    if together is Together.ANYWHERE:
        return [ordered]
    if together is Together.NODE:
        return [[name] for name in ordered]
    racks: dict[str, list[str]] = {}
    for name in ordered:
        racks.setdefault(views[name].node.rack, []).append(name)
    return [racks[rack] for rack in sorted(racks)]


def most(
    copies: Mapping[str, int], views: Mapping[str, NodeView], together: Together, barred: Collection[str] = NOWHERE
) -> int:
    """The most ranks that fit near enough to each other; ``copies`` by node."""
    names = [name for name, count in copies.items() if count > 0 and name not in barred]
    return max((sum(copies[name] for name in group) for group in groups(names, views, together)), default=0)


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
