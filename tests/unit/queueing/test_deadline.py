"""Timetables of cards: slots in time, side by side, least work first."""

from __future__ import annotations

import random

import pytest

from scheduler.queueing.deadline import Profile, timetable
from scheduler.queueing.item import NEVER_MS, Item, Supply

SECOND = 1_000
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
def test_slots_end_in_time_and_fit_beside_each_other(seed: int) -> None:
    rng = random.Random(seed)
    items = [wish(rng, f"i{at}", 0) for at in range(25)]
    table = timetable(items, SUPPLY, 0)
    assert 0 < len(table.slots) < len(items)
    slots = [(item, table.slots[item.key]) for item in items if item.key in table.slots]
    assert all(slot.end_ms <= item.deadline_ms for item, slot in slots)
    for instant in {slot.start_ms for _, slot in slots}:
        assert sum(i.cards(s.ranks) for i, s in slots if s.start_ms <= instant < s.end_ms) <= 8


def test_more_work_than_fits_leaves_out_the_largest() -> None:
    small = [item(f"s{at}", 100, 110) for at in range(8)]
    assert timetable([item("large", 500, 630, ranks=8), *small], SUPPLY, 0).slots.keys() == {
        "large", *(i.key for i in small)
    }  # fmt: skip
    late = timetable([item("large", 500, 520, ranks=8), *small], SUPPLY, 0)
    assert late.slots.keys() == {i.key for i in small}


def test_a_slot_is_long_enough_for_more_work_than_is_likely_where_there_is_room() -> None:
    doubtful = item("d", 100, 400, careful_ms=200 * SECOND, ranks=8, ranks_min=1, scaling=SCALING)
    alone = timetable([doubtful], SUPPLY, 0).slots["d"]
    assert (alone.ranks, alone.end_ms) == (4, 322_500)  # 200 s at 0.64 of full speed, and the restart
    others = [item(f"o{at}", 389, 399, ranks=2) for at in range(3)]
    beside = timetable([doubtful, *others], SUPPLY, 0)
    assert len(beside.slots) == 4, "who may take longer leaves nobody out"
    assert (beside.slots["d"].ranks, beside.slots["d"].end_ms) == (2, 287_778)  # 100 s at 0.36


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
