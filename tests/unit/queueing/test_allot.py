"""Who gets how many cards: bounds, independence of order, hysteresis, objectives."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from scheduler.model.policy import Objective
from scheduler.queueing.allot import allot
from scheduler.queueing.balance import balance, least_end_ms
from scheduler.queueing.gittins import index_ms
from scheduler.queueing.item import Item, Supply, held

SUPPLY = Supply(cards=(("a", 16), ("b", 8)))
MINUTE = 60_000


def item(key: str, **fields: object) -> Item:
    given = {"key": key, "remaining_ms": 60 * MINUTE, "models": ("a", "b"), **fields}
    return Item(**given)  # type: ignore[arg-type]


def anything(rng: random.Random, count: int) -> list[Item]:
    """Items of all kinds; what runs fits in the supply."""
    found: list[Item] = []
    free = dict(SUPPLY.cards)
    for at in range(count):
        ranks = rng.choice((1, 2, 4, 8))
        least = rng.choice((0, 1, ranks))
        fields: dict[str, object] = {
            "ranks": ranks,
            "ranks_min": least,
            "cards_per_rank": rng.choice((1, 1, 2)),
            "remaining_ms": rng.randrange(1, 500) * MINUTE,
            "models": rng.choice((("a",), ("b",), ("a", "b"))),
            "speeds": rng.choice(((), (("b", 400),))),
            "scaling": rng.choice(((), ((1, 300), (2, 550), (4, 800), (8, 1_000)))),
            "deadline_ms": rng.choice((0, 0, rng.randrange(10, 900) * MINUTE)),
            "lose_ms": rng.choice((0, MINUTE)),
            "settles_ms": rng.choice((0, 0, rng.randrange(1, 10) * MINUTE)),
        }
        made = item(f"i{at}", **fields)
        place = rng.choice(made.places())[0]
        if rng.random() < 0.4 and free[place[0]] >= made.cards(place[1]):
            free[place[0]] -= made.cards(place[1])
            made = replace(made, running=place)
        found.append(made)
    return found


@pytest.mark.parametrize("objective", [Objective.COMPLETION, Objective.MAKESPAN])
@pytest.mark.parametrize("seed", range(25))
def test_stays_within_the_supply_and_the_ranks_whatever_the_order(seed: int, objective: Objective) -> None:
    rng = random.Random(seed)
    items = anything(rng, rng.randrange(1, 30))
    by_key = {i.key: i for i in items}
    found = allot(items, SUPPLY, 0, objective)
    used = held(by_key, found.places)
    assert all(used.get(model, 0) <= cards for model, cards in SUPPLY.cards)
    for key, (model, ranks) in found.places.items():
        assert model in by_key[key].models
        assert (by_key[key].ranks_min or by_key[key].ranks) <= ranks <= by_key[key].ranks
    rng.shuffle(items)
    assert allot(items, SUPPLY, 0, objective) == found


def test_less_work_goes_first_but_what_runs_stays_for_a_small_difference() -> None:
    full = Supply(cards=(("a", 4),))
    runs = item("runs", ranks=4, remaining_ms=60 * MINUTE, running=("a", 4), lose_ms=MINUTE)
    near = item("near", ranks=4, remaining_ms=55 * MINUTE)
    short = item("short", ranks=4, remaining_ms=30 * MINUTE)
    assert set(allot([runs, near], full, 0).places) == {"runs"}
    assert set(allot([runs, short], full, 0).places) == {"short"}
    assert set(allot([replace(runs, running=None), near], full, 0).places) == {"near"}


def test_who_started_a_moment_ago_is_left_alone_but_for_a_deadline_that_cannot_wait() -> None:
    full = Supply(cards=(("a", 4),))
    runs = item("runs", ranks=4, remaining_ms=600 * MINUTE, running=("a", 4), lose_ms=MINUTE, settles_ms=5 * MINUTE)
    soon = item("soon", ranks=4, remaining_ms=10 * MINUTE, deadline_ms=16 * MINUTE)
    assert set(allot([runs, soon], full, 0).places) == {"runs"}, "there is time until it may be stopped"
    assert set(allot([replace(runs, settles_ms=0), soon], full, 0).places) == {"soon"}
    assert set(allot([runs, replace(soon, deadline_ms=14 * MINUTE)], full, 0).places) == {"soon"}
    assert set(allot([runs, replace(soon, deadline_ms=0)], full, 0).places) == {"runs"}, "only gains may wait"
    assert set(allot([runs, replace(soon, deadline_ms=9 * MINUTE)], full, 0).places) == {"runs"}, "it cannot be met"


def test_of_what_started_a_moment_ago_the_least_is_stopped_for_a_deadline() -> None:
    full = Supply(cards=(("a", 4),))
    fields = {"ranks": 2, "remaining_ms": 600 * MINUTE, "running": ("a", 2), "settles_ms": 5 * MINUTE}
    much, little = item("0", lose_ms=3 * MINUTE, **fields), item("1", lose_ms=MINUTE, **fields)
    soon = item("soon", ranks=2, remaining_ms=10 * MINUTE, deadline_ms=12 * MINUTE)
    assert set(allot([much, little, soon], full, 0).places) == {"0", "soon"}
    assert set(allot([replace(much, lose_ms=0), little, soon], full, 0).places) == {"1", "soon"}


def test_an_index_ranks_what_is_not_known() -> None:
    one = Supply(cards=(("a", 1),))
    assert set(allot([item("x", index_ms=5), item("y", index_ms=4)], one, 0).places) == {"y"}


def test_a_gang_moves_to_a_faster_model_only_when_that_gains_more_than_it_loses() -> None:
    slow = item("x", speeds=(("b", 900),), running=("b", 1))
    assert allot([replace(slow, lose_ms=10 * MINUTE)], SUPPLY, 0).places == {"x": ("b", 1)}
    assert allot([replace(slow, lose_ms=MINUTE)], SUPPLY, 0).places == {"x": ("a", 1)}


def test_idle_cards_go_where_they_save_most_time_and_not_into_a_late_resize() -> None:
    ten = Supply(cards=(("a", 10),))
    scales = ((1, 125), (2, 250), (4, 500), (8, 1_000))
    flat = ((1, 700), (2, 800), (4, 900), (8, 1_000))
    pair = [
        item("scales", ranks=8, ranks_min=1, scaling=scales, models=("a",)),
        item("flat", ranks=8, ranks_min=1, scaling=flat, models=("a",)),
    ]
    assert allot(pair, ten, 0).places == {"scales": ("a", 8), "flat": ("a", 2)}
    ending = replace(pair[0], remaining_ms=1_000, running=("a", 1), lose_ms=MINUTE)
    assert allot([ending], ten, 0).places == {"scales": ("a", 1)}


def test_an_elastic_gang_shrinks_before_another_waits() -> None:
    four = Supply(cards=(("a", 4),))
    large = item("large", ranks=4, ranks_min=1, running=("a", 4), lose_ms=MINUTE)
    assert allot([large], four, 0).places == {"large": ("a", 4)}
    assert set(allot([large, item("new", ranks=2)], four, 0).places) == {"large", "new"}


def test_makespan_uses_each_model_for_what_it_is_comparatively_good_at() -> None:
    good, bad = item("good", speeds=(("b", 900),)), item("bad", speeds=(("b", 100),))
    one = Supply(cards=(("a", 1), ("b", 1)))
    assert allot([good, bad], one, 0, Objective.MAKESPAN).places == {"good": ("b", 1), "bad": ("a", 1)}


@pytest.mark.parametrize("seed", range(10))
def test_the_balance_is_near_its_bound(seed: int) -> None:
    rng = random.Random(seed)
    times = [[rng.randrange(10, 200) * MINUTE for _ in range(3)] for _ in range(60)]
    cards = [rng.choice((1, 1, 2, 4)) for _ in times]
    caps = [8, 16, 24]
    chosen = balance(times, cards, caps)
    loads = [sum(times[at][m] * cards[at] for at in range(60) if chosen[at] == m) / cap for m, cap in enumerate(caps)]
    bound = least_end_ms(times, cards, caps)
    longest = max(times[at][m] for at, m in enumerate(chosen))
    assert bound <= max(*loads, longest) <= max(1.1 * bound, longest)


def test_the_index_is_the_least_expected_time_per_end() -> None:
    atoms = (10, 10, 10, 1_000)
    assert index_ms(atoms, 0) == (10 * 4) // 3
    assert index_ms(atoms, 10) == 990
    assert index_ms(atoms, 2_000) == 2_000
    assert index_ms((), 0) == 1
