"""What wants cards and what there is: the terms in which ``allot`` and ``deadline`` think.

An item is a gang or an elastic job. Its work is the milliseconds it would take with all its ranks on the fastest card
model; on another model or with fewer ranks it goes at a part of that speed, in millionths.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from scheduler.model.job import Step

WHOLE = 1_000_000
"""Full speed: all ranks on the fastest model."""
NEVER_MS = 2**60
"""Later than any instant."""
Place = tuple[str, int]
"""``(card model, ranks)``"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One gang (or one task) that runs or wants to run."""

    key: str
    """Unique; the last tie-break."""
    remaining_ms: int
    """Work still to do, as known or as estimated from what similar ones took; at least 1."""
    careful_ms: int = 0
    """The same if it turns out longer than is likely, for deadlines; 0: nobody says more than ``remaining_ms``."""
    index_ms: int = 0
    """What it is ranked by instead where the work is not known (``gittins.index_ms``); 0: by ``remaining_ms``."""
    models: tuple[str, ...]
    """Card models it may use."""
    ranks: int = 1
    ranks_min: int = 0
    """Elastic from this many to ``ranks``; 0: always ``ranks``."""
    cards_per_rank: int = 1
    speeds: tuple[tuple[str, int], ...] = ()
    """As ``Step.speeds``: thousandths of the fastest model's speed; models that are absent run at full speed."""
    scaling: tuple[tuple[int, int], ...] = ()
    """As ``Step.scaling``: thousandths of the speed with all ranks."""
    weight: int = 100
    """How much its completion counts."""
    deadline_ms: int = 0
    """0: none."""
    running: Place | None = None
    """Where it runs, or is on its way to: else what was stopped to go on elsewhere would lose its place by leaving."""
    settles_ms: int = 0
    """It started where it runs a moment ago, and is left alone until then, but for a deadline that cannot wait."""
    lose_ms: int = 0
    """Work done again and time spent restarting if what runs is stopped or resized now; for what waits, its restart."""
    submitted_ms: int = 0

    def levels(self) -> tuple[tuple[int, int], ...]:
        """``(ranks, speed)`` worth having, ascending: each is faster than every smaller one. Speed in thousandths.

        Without ``scaling`` speed is in proportion to the ranks, and ranks double from one level to the next.
        """
        return _levels(self.ranks_min or self.ranks, self.ranks, self.scaling)

    def places(self) -> tuple[tuple[Place, int], ...]:
        """Every ``(model, ranks)`` it may have, with its speed in millionths: by model, then by ranks."""
        running = self.running if self.running is not None and self.running[0] in self.models else None
        return _places(self.models, self.speeds, self.levels(), running)

    def takes_ms(self, place: Place, speed: int, *, careful: bool = False) -> int:
        """Time from now to its end there, restart included unless it runs there already; at least 1.

        ``careful``: if it turns out longer than is likely.
        """
        extra = self.lose_ms if self.running != place else 0
        work_ms = self.careful_ms if careful else self.remaining_ms
        return max(-(-work_ms * WHOLE // speed), 1) + extra

    def cards(self, ranks: int) -> int:
        """Cards that so many ranks hold."""
        return ranks * self.cards_per_rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """Whole cards there are for these items, by model, sorted."""

    cards: tuple[tuple[str, int], ...]

    def plus(self, model: str, cards: int) -> Supply:
        """With so many more (or, negative, fewer) cards of a model."""
        now = dict(self.cards)
        now[model] = now.get(model, 0) + cards
        return Supply(cards=tuple(sorted(now.items())))


def item_of(step: Step, *, key: str, remaining_ms: int, models: Iterable[str]) -> Item:
    """A waiting item with what its step says of speeds; the caller sets deadline and what runs."""
    allowed = step.resources.card_models
    return Item(
        key=key,
        remaining_ms=max(remaining_ms, 1),
        models=tuple(sorted(m for m in models if not allowed or m in allowed)),
        ranks=step.ranks,
        ranks_min=step.ranks_min,
        cards_per_rank=step.resources.cards,
        speeds=step.speeds,
        scaling=step.scaling,
        lose_ms=step.restart_ms,
    )


def held(items: Mapping[str, Item], places: Mapping[str, Place]) -> dict[str, int]:
    """Cards that these places take, by model."""
    found: dict[str, int] = {}
    for key, (model, ranks) in places.items():
        found[model] = found.get(model, 0) + items[key].cards(ranks)
    return found


@lru_cache(maxsize=4_096)
def _levels(least: int, most: int, scaling: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    given = dict(scaling) or {n: n * 1_000 // most for n in _doubling(least, most)}
    given[most] = 1_000
    found: list[tuple[int, int]] = []
    for ranks in sorted(n for n in given if least <= n <= most):
        if not found or given[ranks] > found[-1][1]:
            found.append((ranks, given[ranks]))
    return tuple(found)


@lru_cache(maxsize=16_384)
def _places(
    models: tuple[str, ...],
    speeds: tuple[tuple[str, int], ...],
    levels: tuple[tuple[int, int], ...],
    running: Place | None,
) -> tuple[tuple[Place, int], ...]:
    by_model = dict(speeds)
    found = {(m, n): by_model.get(m, 1_000) * part for m in models for n, part in levels}
    if running is not None and running not in found:
        found[running] = by_model.get(running[0], 1_000) * _between(levels, running[1])
    return tuple(sorted((place, speed) for place, speed in found.items() if speed > 0))


def _doubling(least: int, most: int) -> tuple[int, ...]:
    found = [least]
    while found[-1] * 2 < most:
        found.append(found[-1] * 2)
    return (*found, most)


def _between(levels: tuple[tuple[int, int], ...], ranks: int) -> int:
    """Speed of a number of ranks that is no level: that of the next smaller level, or in proportion below all."""
    below = [part for n, part in levels if n <= ranks]
    return below[-1] if below else levels[0][1] * ranks // levels[0][0]
