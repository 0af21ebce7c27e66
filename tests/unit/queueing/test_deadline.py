"""Promises: kept in simulation without failures, kept with more cards, and a no that says what would make it a yes."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from scheduler.model.job import Slot
from scheduler.queueing.allot import allot
from scheduler.queueing.deadline import Profile, admit, probability, timetable
from scheduler.queueing.item import NEVER_MS, Item, Supply

SECOND = 1_000
MARGIN = 2 * SECOND
"""Rounding: a millisecond per decision."""
SUPPLY = Supply(cards=(("a", 8),))
SCALING = ((1, 200), (2, 360), (4, 640), (8, 1_000))


def item(key: str, work_s: int, deadline_s: int, **fields: object) -> Item:
    given = {
        "key": key,
        "remaining_ms": work_s * SECOND,
        "deadline_ms": deadline_s * SECOND,
        "models": ("a",),
        "lose_ms": 10 * SECOND,
        **fields,
    }
    return Item(**given)  # type: ignore[arg-type]


def wish(rng: random.Random, key: str, now_s: int) -> Item:
    work = rng.randrange(50, 2_000)
    due = now_s + work + rng.randrange(10, 6_000)
    if rng.random() < 0.7:
        return item(key, work, due, ranks=8, ranks_min=1, scaling=SCALING)
    return item(key, work, due, ranks=rng.choice((1, 2, 4)))


@pytest.mark.parametrize("seed", range(12))
def test_every_promise_is_kept_without_failures(seed: int) -> None:
    """Slots are recorded at the promise and stay."""
    rng = random.Random(seed)
    arrivals = sorted(rng.randrange(0, 20_000) for _ in range(40))
    live: dict[str, Item] = {}
    now, made = 0, 0
    while arrivals or live:
        while arrivals and arrivals[0] * SECOND <= now:
            new = wish(rng, f"i{len(arrivals)}", arrivals.pop(0))
            answer = admit(tuple(live.values()), new, SUPPLY, now, margin_ms=MARGIN)
            if answer.slot is not None:
                live[new.key] = replace(new, slot=answer.slot)
                made += 1
        plan = allot(live.values(), SUPPLY, now, margin_ms=MARGIN)
        ends = {}
        for key, one in live.items():
            place = plan.places.get(key)
            if place is not None:
                ends[key] = now + one.takes_ms(place, dict(one.places())[place])
        after = min([*ends.values(), plan.wake_ms, *(at * SECOND for at in arrivals[:1])], default=NEVER_MS)
        for key, one in list(live.items()):
            place = plan.places.get(key)
            if place is None:
                live[key] = replace(one, running=None)
            elif ends[key] <= after:
                assert ends[key] <= one.deadline_ms
                del live[key]
            else:
                late = one.lose_ms if one.running != place else 0
                work = max(after - now - late, 0) * dict(one.places())[place] // 1_000_000
                left = max(one.remaining_ms - work, 1) + (max(late - (after - now), 0) if late else 0)
                live[key] = replace(one, remaining_ms=left, running=place)
        now = max(after, now + 1)
    assert made > 10


@pytest.mark.parametrize("seed", range(20))
def test_more_cards_break_no_promise(seed: int) -> None:
    rng = random.Random(seed)
    promised: list[Item] = []
    for at in range(25):
        new = wish(rng, f"i{at}", 0)
        answer = admit(promised, new, SUPPLY, 0)
        if answer.slot is not None:
            promised.append(replace(new, slot=answer.slot))
    for more in (0, 1, 3, 8):
        table = timetable(promised, SUPPLY.plus("a", more), 0)
        assert table.slots.keys() == {i.key for i in promised}
        assert all(table.slots[i.key].end_ms <= i.deadline_ms for i in promised)


@pytest.mark.parametrize("seed", range(20))
def test_a_no_says_what_would_make_it_a_yes(seed: int) -> None:
    rng = random.Random(seed)
    promised: list[Item] = []
    refused = 0
    for at in range(25):
        new = wish(rng, f"i{at}", 0)
        answer = admit(promised, new, SUPPLY, 0)
        if answer.slot is not None:
            assert answer.slack_ms >= 0
            promised.append(replace(new, slot=answer.slot))
            continue
        refused += 1
        change = answer.change
        assert change.deadline_ms > new.deadline_ms
        assert admit(promised, replace(new, deadline_ms=change.deadline_ms), SUPPLY, 0).is_made
        if change.cards:
            assert admit(promised, new, SUPPLY.plus(change.model, change.cards), 0).is_made
        if change.ranks:
            assert admit(promised, replace(new, ranks_min=change.ranks), SUPPLY, 0).is_made
    assert refused


def test_promised_slots_are_kept_where_the_order_of_deadlines_finds_none() -> None:
    one = Supply(cards=(("a", 1),))
    slot = Slot(model="a", ranks=1, start_ms=0, end_ms=100 * SECOND)
    first = item("first", 100, 300, slot=slot)
    second = item("second", 100, 200, slot=replace(slot, start_ms=100 * SECOND, end_ms=200 * SECOND), lose_ms=0)
    table = timetable([replace(first, lose_ms=0), second], one, 0)
    assert table.slots.keys() == {"first", "second"}


def test_a_profile_finds_the_earliest_gap_that_is_long_enough() -> None:
    profile = Profile([0], [4])
    assert profile.take(10, 20, 3)
    assert profile.take(30, 40, 4)
    assert profile.earliest(2, 10, 100) == 0
    assert profile.earliest(2, 15, 100) == 40
    assert profile.earliest(4, 10, 100) == 0
    assert profile.earliest(4, 11, 30) == NEVER_MS
    assert not profile.take(15, 25, 2)
    assert profile.earliest(1, 25, 100) == 0


def test_the_probability_of_a_slot_falls_with_failures_and_rises_with_slack() -> None:
    day = 86_400 * SECOND
    some = {"length_ms": day, "cards": 512, "failures_per_card_year": 0.5, "lose_ms": 3_600 * SECOND}
    chances = [probability(hours * 3_600 * SECOND, **some) for hours in (0, 1, 2, 4)]  # type: ignore[arg-type]
    assert chances == sorted(chances)
    assert 450 < chances[0] < 550
    assert chances[-1] >= 990
    assert probability(0, length_ms=day, cards=8, failures_per_card_year=0.0, lose_ms=1) == 1_000
