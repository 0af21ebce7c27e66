"""Who gets how many cards of which model now.

1. Deadlines: slots that begin now (``deadline.timetable``).
2. The rest in the order of the objective, each on the model that ends it first, as long as there are cards.
3. Cards nobody waits for make elastic ones larger, where they save the most time per card.

What runs is stopped, moved or resized only where that gains more than it loses: its restart and the work since its last
checkpoint are part of every other choice, and someone else goes before it only with clearly less work. What started a
moment ago is left alone, but for who would miss a deadline by waiting for that.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scheduler.model.job import Slot
from scheduler.model.policy import Objective
from scheduler.queueing.balance import NOWHERE_MS, balance
from scheduler.queueing.deadline import Timetable, timetable
from scheduler.queueing.item import NEVER_MS, Item, Place, Supply

STAY_PERMILLE = 850
"""Someone takes a running gang's cards only with less than this part of its remaining card-time."""
SCORE = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """What is to run from now on; who is not named has nothing."""

    places: dict[str, Place]
    slots: dict[str, Slot]
    """Timetable of those with a deadline: a deadline whose item is not here cannot be met for certain."""
    wake_ms: int
    """The next instant at which the timetable wants something else; NEVER_MS: none."""


def allot(
    items: Iterable[Item],
    supply: Supply,
    now_ms: int,
    objective: Objective = Objective.COMPLETION,
    *,
    margin_ms: int = 0,
) -> Allotment:
    """Targets for all items. Any order of ``items`` gives the same. ``margin_ms``: see ``timetable``."""
    ranked = sorted(items, key=lambda i: i.key)
    table = timetable(ranked, supply, now_ms, margin_ms=margin_ms)
    hand = _Hand(dict(supply.cards), {i.key: i for i in ranked}, {})
    settling = [i for i in ranked if i.settles_ms > now_ms]
    _begin_slots(hand, _urgent(ranked, table, settling), table)
    left_alone = _leave_alone(hand, settling)
    _begin_slots(hand, ranked, table)
    waiting = [i for i in ranked if i.key not in hand.places]
    _fill(hand, [i for i in waiting if not i.deadline_ms], supply, objective)
    _fill(hand, [i for i in waiting if i.deadline_ms], supply, Objective.COMPLETION)
    elastic = [i for i in ranked if i.ranks_min and i.key in hand.places and i.key not in left_alone]
    _restore(hand, elastic)
    _grow(hand, elastic)
    later = [slot.start_ms for slot in table.slots.values() if slot.start_ms > now_ms]
    begun = ((key, slot) for key, slot in table.slots.items() if slot.start_ms <= now_ms)
    if any(hand.places.get(key) != (slot.model, slot.ranks) for key, slot in begun):
        later += [item.settles_ms for item in settling]  # they have what somebody's deadline wants
    return Allotment(places=hand.places, slots=table.slots, wake_ms=min(later, default=NEVER_MS))


@dataclass(slots=True)
class _Hand:
    """What is still free, and what was given."""

    free: dict[str, int]
    items: dict[str, Item]
    places: dict[str, Place]

    def give(self, item: Item, place: Place) -> bool:
        """Put it there, instead of where it was put before; False: not enough cards."""
        before = self.places.get(item.key)
        back = item.cards(before[1]) if before is not None and before[0] == place[0] else 0
        if self.free.get(place[0], 0) + back < item.cards(place[1]):
            return False
        if before is not None:
            self.free[before[0]] += item.cards(before[1])
        self.free[place[0]] -= item.cards(place[1])
        self.places[item.key] = place
        return True


def _urgent(items: Sequence[Item], table: Timetable, settling: Sequence[Item]) -> list[Item]:
    """Those who would miss their deadline if they waited until somebody who runs may be stopped."""
    if not settling:
        return []
    first_ms = min(i.settles_ms for i in settling)
    slots = ((item, table.slots[item.key]) for item in items if item.key in table.slots)
    return [item for item, slot in slots if first_ms + slot.end_ms - slot.start_ms > item.deadline_ms]


def _leave_alone(hand: _Hand, settling: Sequence[Item]) -> set[str]:
    """Keep what started a moment ago where it is, as far as there are cards; the keys of what is kept."""
    kept = set[str]()
    for item in sorted(settling, key=lambda i: (-i.lose_ms * i.ranks, i.key)):
        if item.running is not None and item.key not in hand.places and hand.give(item, item.running):
            kept.add(item.key)
    return kept


def _begin_slots(hand: _Hand, items: Sequence[Item], table: Timetable) -> None:
    for item in items:
        slot = table.slots.get(item.key) if item.key not in hand.places else None
        if slot is not None and slot.start_ms <= table.now_ms:
            hand.give(item, (slot.model, slot.ranks))


def _fill(hand: _Hand, items: Sequence[Item], supply: Supply, objective: Objective) -> None:
    """Give to items in the order of the objective while there are cards."""
    wanted = _balanced(items, supply) if objective is Objective.MAKESPAN else {}
    order = _longest_first if objective is Objective.MAKESPAN else _shortest_first
    for item in sorted(items, key=order):
        _first_fit(hand, item, wanted.get(item.key, ""))
    if wanted:
        for item in sorted(items, key=order):
            if item.key not in hand.places:
                _first_fit(hand, item, "")


def _first_fit(hand: _Hand, item: Item, model: str) -> None:
    """Its smallest size where it ends first (or on ``model``), if that is free."""
    places = item.places()
    if len(places) == 1:
        hand.give(item, places[0][0])
        return
    least = item.levels()[0][0]
    options = [
        (item.takes_ms(place, speed), place)
        for place, speed in places
        if (place[1] == least or place == item.running) and model in ("", place[0])
    ]
    for _, place in sorted(options):
        if hand.give(item, place):
            return


def _shortest_first(item: Item) -> tuple[int, int, str]:
    """By remaining card-time per weight; what runs counts as shorter, by what is lost if it stops."""
    work = (item.index_ms or item.remaining_ms) * item.cards(item.ranks)
    if item.running is not None:
        work = (work - item.lose_ms * item.cards(item.running[1])) * STAY_PERMILLE // 1_000
    return work * 100 // max(item.weight, 1), item.submitted_ms, item.key


def _longest_first(item: Item) -> tuple[int, int, str]:
    return -item.remaining_ms * (1_000 if item.running is None else 1_300), item.submitted_ms, item.key


def _balanced(items: Sequence[Item], supply: Supply) -> dict[str, str]:
    """A card model for each item."""
    models = [model for model, cards in supply.cards if cards > 0]
    if not models:
        return {}
    rows: list[list[int]] = []
    for item in items:
        times = {place: item.takes_ms(place, speed) for place, speed in item.places()}
        rows.append([times.get((m, item.ranks), NOWHERE_MS) for m in models])
    chosen = balance(rows, [i.cards(i.ranks) for i in items], [dict(supply.cards)[m] for m in models])
    return {item.key: models[at] for item, at in zip(items, chosen, strict=True)}


def _restore(hand: _Hand, items: Sequence[Item]) -> None:
    """Leave what runs larger than it must as large as it is, where nobody needs the cards."""
    for item in sorted(items, key=lambda i: (-i.lose_ms * i.ranks, i.key)):
        now = hand.places[item.key]
        if item.running is not None and now[0] == item.running[0] and now[1] < item.running[1]:
            hand.give(item, item.running)


def _grow(hand: _Hand, items: Sequence[Item]) -> None:
    """One level at a time for whoever gains the most time per further card."""
    heap: list[tuple[int, str, int]] = []
    for item in items:
        _offer(hand, heap, item.key)
    while heap:
        _, key, ranks = heapq.heappop(heap)
        item, now = hand.items[key], hand.places[key]
        if hand.give(item, (now[0], ranks)):
            _offer(hand, heap, key)


def _offer(hand: _Hand, heap: list[tuple[int, str, int]], key: str) -> None:
    item, now = hand.items[key], hand.places[key]
    speeds = {place[1]: speed for place, speed in item.places() if place[0] == now[0]}
    larger = [n for n, _ in item.levels() if n > now[1]]
    if not larger or now[1] not in speeds:
        return
    nearer = item.takes_ms((now[0], larger[0]), speeds[larger[0]])
    saved = item.takes_ms(now, speeds[now[1]]) - nearer
    if saved > (item.lose_ms if now == item.running else 0):
        heapq.heappush(heap, (-saved * SCORE // item.cards(larger[0] - now[1]), key, larger[0]))
