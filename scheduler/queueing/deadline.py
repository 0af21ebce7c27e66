"""Deadlines under an objective: a timetable of cards that meets as many as it can.

Each item with a deadline gets a slot, the one of least card-time that ends in time, in the order of the deadlines
(after ElasticFlow's minimum satisfactory share, ASPLOS 2023, section 4; but one stretch on a constant number of cards,
since every resize costs a restart). It is long enough for more work than is likely where there is room for that. It
promises nothing: deadlines that were promised have slots on named nodes (``scheduler/engine/slots.py``) and are not
steered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scheduler.model.job import Slot
from scheduler.queueing.item import NEVER_MS, Item, Place, Supply

RETIMED_MAX = 64
"""So many items are timed anew together (which is quadratic); more take what these leave."""


@dataclass(slots=True)
class Profile:
    """Free cards of one model over time: ``free[i]`` in ``[starts[i], starts[i + 1])``, the last one for ever."""

    starts: list[int]
    free: list[int]

    def earliest(self, cards: int, length_ms: int, latest_ms: int) -> int:
        """Least start, not after ``latest_ms``, of a stretch with so many free cards; NEVER_MS: none."""
        start = self.starts[0]
        for at, free in enumerate(self.free):
            end = self.starts[at + 1] if at + 1 < len(self.starts) else NEVER_MS
            if free < cards:
                start = end
                if start > latest_ms:
                    break
            elif end - start >= length_ms:
                return start
        return NEVER_MS

    def take(self, start_ms: int, end_ms: int, cards: int) -> bool:
        """Reduce what is free in a stretch; False, and nothing is taken, if there is less."""
        start_ms = max(start_ms, self.starts[0])
        if start_ms >= end_ms:
            return True
        first, last = self._cut(start_ms), self._cut(end_ms)
        if min(self.free[first:last]) < cards:
            return False
        for at in range(first, last):
            self.free[at] -= cards
        return True

    def _cut(self, instant_ms: int) -> int:
        """Index of the stretch that begins at an instant, split there if need be."""
        at = bisect_right(self.starts, instant_ms) - 1
        if self.starts[at] == instant_ms:
            return at
        self.starts.insert(at + 1, instant_ms)
        self.free.insert(at + 1, self.free[at])
        return at + 1


@dataclass(slots=True)
class Timetable:
    """Slots by item, and what stays free beside them."""

    now_ms: int
    profiles: dict[str, Profile]
    slots: dict[str, Slot] = field(default_factory=dict)

    def copy(self) -> Timetable:
        """For a trial."""
        profiles = {m: Profile(list(p.starts), list(p.free)) for m, p in self.profiles.items()}
        return Timetable(self.now_ms, profiles, dict(self.slots))

    def put(self, item: Item, slot: Slot) -> bool:
        """Enter a slot; False if its cards are not free."""
        profile = self.profiles.get(slot.model)
        if profile is None or not profile.take(slot.start_ms, slot.end_ms, item.cards(slot.ranks)):
            return False
        self.slots[item.key] = slot
        return True

    def add(self, item: Item, margin_ms: int) -> bool:
        """Enter the item's cheapest slot that ends by its deadline; False: there is none.

        One that is long enough even if it takes longer than is likely and ends the margin before, where there is one;
        else one that ends the margin before; else any.
        """
        by_ms = item.deadline_ms
        slot = self.cheapest(item, by_ms - margin_ms, careful=True) if item.careful_ms > item.remaining_ms else None
        slot = slot or self.cheapest(item, by_ms - margin_ms) or self.cheapest(item, by_ms)
        return slot is not None and self.put(item, slot)

    def cheapest(self, item: Item, by_ms: int, *, careful: bool = False) -> Slot | None:
        """Its slot of least card-time that ends in time; then the earliest, then the smaller place.

        ``careful``: see :meth:`Item.takes_ms`.
        """
        best: tuple[int, int, Place] | None = None
        found: Slot | None = None
        for place, speed in item.places():
            if place[0] not in self.profiles:
                continue
            length, cards = item.takes_ms(place, speed, careful=careful), item.cards(place[1])
            cost = cards * length
            if self.now_ms + length > by_ms or (best is not None and cost > best[0]):
                continue
            start = self.profiles[place[0]].earliest(cards, length, by_ms - length)
            if start + length <= by_ms and (best is None or (cost, start + length, place) < best):
                best = cost, start + length, place
                found = Slot(model=place[0], ranks=place[1], start_ms=start, end_ms=start + length)
        return found


def timetable(items: Iterable[Item], supply: Supply, now_ms: int, *, margin_ms: int = 0) -> Timetable:
    """Slots for as many of the items with a deadline as fit beside each other, sought anew at every decision.

    Least work first: one joins if all that joined before it still end in time. ``margin_ms``: slots end this long
    before the deadline where that is possible.
    """
    dated = [item for item in items if item.deadline_ms and _is_possible(item, now_ms)]
    base = _empty(supply, now_ms)
    return _in_order(base.copy(), dated, margin_ms) or _joined(base, dated, margin_ms)


def _joined(base: Timetable, items: Sequence[Item], margin_ms: int) -> Timetable:
    """Those that fit beside each other."""
    table = base
    kept: list[Item] = []
    for item in sorted(items, key=lambda i: (least_card_ms(i), i.key)):
        better = _in_order(base.copy(), [*kept, item], margin_ms) if len(kept) < RETIMED_MAX else None
        if better is not None:
            table = better
        elif not table.add(item, margin_ms):
            continue
        kept.append(item)
    return table


def least_card_ms(item: Item) -> int:
    """Cards times milliseconds of its cheapest way to the end; NEVER_MS: it may run nowhere."""
    costs = (item.cards(place[1]) * item.takes_ms(place, speed) for place, speed in item.places())
    return min(costs, default=NEVER_MS)


def _is_possible(item: Item, now_ms: int) -> bool:
    """Whether it would end in time if all cards were free: else no table has a slot for it, and looking costs most."""
    return any(now_ms + item.takes_ms(place, speed) <= item.deadline_ms for place, speed in item.places())


def _empty(supply: Supply, now_ms: int) -> Timetable:
    return Timetable(now_ms, {model: Profile([now_ms], [cards]) for model, cards in supply.cards})


def _by_due(item: Item) -> tuple[int, str]:
    return item.deadline_ms, item.key


def _in_order(table: Timetable, items: Sequence[Item], margin_ms: int) -> Timetable | None:
    """The table with a slot in time for every item, in the order of the deadlines; None: not so."""
    for item in sorted(items, key=_by_due):
        if not table.add(item, margin_ms):
            return None
    return table
