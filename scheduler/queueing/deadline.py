"""Deadlines: a timetable that meets them, admission with a promise, and what would turn a no into a yes.

Each item with a deadline gets a slot, the one of least card-time that ends in time, in the order of the deadlines
(after ElasticFlow's minimum satisfactory share, ASPLOS 2023, section 4; but one stretch on a constant number of cards,
since every resize costs a restart). Slots that were promised stay as they are.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from scheduler.model.job import Slot
from scheduler.queueing.item import NEVER_MS, Item, Place, Supply

RETIMED_MAX = 64
"""So many items without a promise are timed anew together (which is quadratic); more take what these leave."""


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

    def add(self, item: Item, by_ms: int) -> bool:
        """Enter the item's cheapest slot that ends by an instant; False: there is none."""
        slot = self.cheapest(item, by_ms)
        return slot is not None and self.put(item, slot)

    def cheapest(self, item: Item, by_ms: int) -> Slot | None:
        """Its slot of least card-time that ends in time; then the earliest, then the smaller place."""
        best: tuple[int, int, Place] | None = None
        found: Slot | None = None
        for place, speed in item.places():
            if place[0] not in self.profiles:
                continue
            length, cards = item.takes_ms(place, speed), item.cards(place[1])
            cost = cards * length
            if self.now_ms + length > by_ms or (best is not None and cost > best[0]):
                continue
            start = self.profiles[place[0]].earliest(cards, length, by_ms - length)
            if start + length <= by_ms and (best is None or (cost, start + length, place) < best):
                best = cost, start + length, place
                found = Slot(model=place[0], ranks=place[1], start_ms=start, end_ms=start + length)
        return found

    def soonest_ms(self, item: Item) -> int:
        """When it could end at the earliest; NEVER_MS: never on these cards."""
        ends = [NEVER_MS]
        for place, speed in item.places():
            if place[0] in self.profiles:
                length = item.takes_ms(place, speed)
                start = self.profiles[place[0]].earliest(item.cards(place[1]), length, NEVER_MS)
                ends.append(min(start + length, NEVER_MS))
        return min(ends)


def timetable(items: Iterable[Item], supply: Supply, now_ms: int, *, margin_ms: int = 0) -> Timetable:
    """Slots for items with a deadline: promised ones as they were promised, beside them as many others as fit.

    ``margin_ms``: slots end this long before the deadline where that is possible. Without failures, and with no fewer
    cards than at the promise, every promised item keeps a slot that ends in time: who runs early, or larger, only needs
    less of it. Where a promise cannot be kept as it is, all promised slots are sought anew. The others' slots are
    sought anew at every decision, least work first: one joins if all that joined before it still end in time.
    """
    dated = sorted((i for i in items if i.deadline_ms), key=_by_due)
    promised = [item for item in dated if item.slot is not None]
    base, late = _as_promised(promised, supply, now_ms)
    if late:
        base = _in_order(_empty(supply, now_ms), promised, margin_ms) or base
        for item in late:
            if item.key not in base.slots:
                base.add(item, item.deadline_ms)
    others = [item for item in dated if item.slot is None]
    return _in_order(base.copy(), others, margin_ms) or _joined(base, others, margin_ms)


def _joined(base: Timetable, items: Sequence[Item], margin_ms: int) -> Timetable:
    """Those that fit beside each other."""
    table = base
    kept: list[Item] = []
    for item in sorted(items, key=lambda i: (least_card_ms(i), i.key)):
        better = _in_order(base.copy(), [*kept, item], margin_ms) if len(kept) < RETIMED_MAX else None
        if better is not None:
            table = better
        elif not table.add(item, item.deadline_ms - margin_ms) and not table.add(item, item.deadline_ms):
            continue
        kept.append(item)
    return table


def least_card_ms(item: Item) -> int:
    """Cards times milliseconds of its cheapest way to the end; NEVER_MS: it may run nowhere."""
    costs = (item.cards(place[1]) * item.takes_ms(place, speed) for place, speed in item.places())
    return min(costs, default=NEVER_MS)


def _empty(supply: Supply, now_ms: int) -> Timetable:
    return Timetable(now_ms, {model: Profile([now_ms], [cards]) for model, cards in supply.cards})


def _by_due(item: Item) -> tuple[int, str]:
    return item.deadline_ms, item.key


def _in_order(table: Timetable, items: Sequence[Item], margin_ms: int) -> Timetable | None:
    """The table with a slot in time for every item, in the order of the deadlines; None: not so."""
    for item in sorted(items, key=_by_due):
        if not table.add(item, item.deadline_ms - margin_ms) and not table.add(item, item.deadline_ms):
            return None
    return table


def _as_promised(items: Sequence[Item], supply: Supply, now_ms: int) -> tuple[Timetable, list[Item]]:
    """What is still needed of the promised slots, and the items for which they do not do any more."""
    table = _empty(supply, now_ms)
    late: list[Item] = []
    for item in items:
        slot = item.slot
        assert slot is not None  # the caller chose these
        place = slot.model, slot.ranks
        speed = dict(item.places()).get(place, 0)
        start = max(slot.start_ms, now_ms)
        end = start + item.takes_ms(place, speed) if speed else NEVER_MS
        if end > item.deadline_ms or not table.put(item, replace(slot, start_ms=start, end_ms=end)):
            late.append(item)
    return table, late


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that would have made the answer yes; 0: this thing alone does not."""

    deadline_ms: int = 0
    """The earliest deadline that could be promised."""
    ranks: int = 0
    """The most ranks, fewer than asked for, with which the deadline could be promised."""
    cards: int = 0
    """The least number of further cards of ``model``."""
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """The answer to a job with a deadline."""

    slot: Slot | None
    """None: no."""
    slack_ms: int = 0
    """From the end of the slot to the deadline."""
    change: Change = Change()

    @property
    def is_made(self) -> bool:
        """Yes."""
        return self.slot is not None


def admit(promised: Sequence[Item], new: Item, supply: Supply, now_ms: int, *, margin_ms: int = 0) -> Promise:
    """Whether a new item's deadline can be promised beside what was promised before, and if not, what would do."""
    slot = _slot_for(promised, new, supply, now_ms, margin_ms)
    if slot is not None:
        return Promise(slot=slot, slack_ms=new.deadline_ms - slot.end_ms)
    base = timetable(promised, supply, now_ms, margin_ms=margin_ms)
    soonest = base.soonest_ms(new)
    cards, model = _more_cards(promised, new, supply, now_ms, margin_ms)
    return Promise(
        slot=None,
        change=Change(
            deadline_ms=soonest if soonest < NEVER_MS else 0,
            ranks=_fewer_ranks(promised, new, supply, now_ms, margin_ms),
            cards=cards,
            model=model,
        ),
    )


def _slot_for(promised: Sequence[Item], new: Item, supply: Supply, now_ms: int, margin_ms: int) -> Slot | None:
    table = timetable([*promised, replace(new, slot=None)], supply, now_ms, margin_ms=margin_ms)
    broken = [item for item in promised if item.slot is not None and item.key not in table.slots]
    return None if broken else table.slots.get(new.key)


def _fewer_ranks(promised: Sequence[Item], new: Item, supply: Supply, now_ms: int, margin_ms: int) -> int:
    """For a gang of a fixed size, at a speed in proportion to its ranks."""
    ranks = (new.ranks_min or new.ranks) // 2
    while ranks:
        less = replace(new, ranks_min=ranks)
        slot = _slot_for(promised, less, supply, now_ms, margin_ms)
        if slot is not None:
            return slot.ranks
        ranks //= 2
    return 0


def _more_cards(promised: Sequence[Item], new: Item, supply: Supply, now_ms: int, margin_ms: int) -> tuple[int, str]:
    """The least number of further cards with which it could be promised, and their model; ``(0, "")``: none would."""
    best: tuple[int, str] | None = None
    for model in new.models:
        most = new.cards(new.ranks)
        if _slot_for(promised, new, supply.plus(model, most), now_ms, margin_ms) is None:
            continue
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            fits = _slot_for(promised, new, supply.plus(model, middle), now_ms, margin_ms) is not None
            low, high = (low, middle) if fits else (middle, high)
        best = min(best or (high, model), (high, model))
    return best or (0, "")


def probability(slack_ms: int, *, length_ms: int, cards: int, failures_per_card_year: float, lose_ms: int) -> int:
    """Thousandths with which a slot of a length on so many cards ends within its slack.

    Failures are Poisson, each costs ``lose_ms``: a restart and what was done since the last checkpoint.
    """
    expected = failures_per_card_year * cards * length_ms / (365 * 86_400_000)
    bearable = slack_ms // max(lose_ms, 1)
    term = total = math.exp(-expected)
    for count in range(1, min(bearable, 1_000) + 1):
        term *= expected / count
        total += term
    return min(int(total * 1_000), 1_000)
