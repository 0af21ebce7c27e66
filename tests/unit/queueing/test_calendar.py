import random

import pytest

from scheduler.model.policy import Band, Floor
from scheduler.model.queue import Reservation, ReservationKind
from scheduler.queueing.calendar import FOREVER_MS, Bands, Calendar, Floors, windows

HOUR = 3_600_000
MIDNIGHT = 16 * HOUR
"""00:00 at UTC+8, on the second day of Unix time there."""


def a_reservation(name="r", start=100, end=200, kind=ReservationKind.MAINTENANCE, nodes=("n1",), **more):
    return Reservation(name=name, kind=kind, nodes=nodes, start_ms=start, end_ms=end, **more)


def test_windows_repeat_as_often_as_they_are_held():
    daily = a_reservation(every_ms=1_000, repeats=3)
    assert windows(daily, 0, 10_000) == ((100, 200), (1_100, 1_200), (2_100, 2_200))
    assert windows(daily, 200, 1_100) == ()
    assert windows(daily, 199, 1_101) == ((100, 200), (1_100, 1_200))
    assert windows(a_reservation(every_ms=1_000, repeats=0), 10**9, 10**9 + 1_000) == ((10**9 + 100, 10**9 + 200),)
    assert windows(a_reservation(cancelled=True), 0, 10_000) == ()
    assert windows(a_reservation(every_ms=0, repeats=5), 0, 10_000) == ((100, 200),)


def test_what_cannot_end_before_a_window_opens_does_not_start_on_its_nodes():
    calendar = Calendar([a_reservation()])
    assert calendar.closed("n1", ("q",), 0, 100) is None
    assert calendar.closed("n1", ("q",), 0, 101).name == "r"
    assert calendar.closed("n1", ("q",), 150, 151).name == "r"
    assert calendar.closed("n1", ("q",), 150, 150).name == "r"
    assert calendar.closed("n1", ("q",), 200, 900) is None
    assert calendar.closed("n2", ("q",), 0, 900) is None
    assert set(calendar.nodes) == {"n1"}


def test_an_event_is_for_its_queues_and_maintenance_for_nobody():
    event = a_reservation(kind=ReservationKind.EVENT, queues=("live",))
    calendar = Calendar([event])
    assert calendar.closed("n1", ("live-a", "live"), 0, 900) is None
    assert calendar.closed("n1", ("film",), 0, 900) == event
    both = Calendar([event, a_reservation("a-repair", 50, 60, queues=("live",))])
    assert both.closed("n1", ("live",), 0, 900).name == "a-repair"
    assert both.closed("n1", ("live",), 60, 900) is None


def test_how_long_a_node_is_open_and_when_it_is_again():
    calendar = Calendar([a_reservation(every_ms=1_000, repeats=0), a_reservation("s", 250, 300)])
    assert calendar.open_until_ms("n1", ("q",), 0) == 100
    assert calendar.open_until_ms("n1", ("q",), 120) == 120
    assert calendar.open_until_ms("n2", ("q",), 0) == FOREVER_MS
    assert calendar.opens_ms("n1", ("q",), 0, 100) == 0
    assert calendar.opens_ms("n1", ("q",), 0, 101) == 300
    assert calendar.opens_ms("n1", ("q",), 150, 10) == 200
    assert calendar.opens_ms("n1", ("q",), 0, 901) == FOREVER_MS


@pytest.mark.parametrize("seed", range(40))
def test_the_calendar_agrees_with_a_look_at_every_window(seed):
    rng = random.Random(seed)
    reservations = [
        a_reservation(
            f"r{i}",
            start := rng.randrange(300),
            start + rng.randint(1, 60),
            kind=rng.choice(list(ReservationKind)),
            nodes=tuple(sorted(rng.sample(["n1", "n2", "n3"], rng.randint(1, 3)))),
            every_ms=rng.choice([0, rng.randint(60, 200)]),
            repeats=rng.randint(0, 4),
            queues=tuple(rng.sample(["a", "b"], rng.randint(0, 2))),
            cancelled=rng.random() < 0.1,
        )
        for i in range(rng.randint(1, 5))
    ]
    calendar = Calendar(reservations)
    for _ in range(60):
        node, queue = rng.choice(["n1", "n2", "n3"]), rng.choice(["a", "b", "c"])
        start = rng.randrange(900)
        end = start + rng.randint(1, 200)
        against = [
            r
            for r in reservations
            if node in r.nodes
            and windows(r, start, end)
            and not (r.kind is ReservationKind.EVENT and queue in r.queues)
        ]
        found = calendar.closed(node, (queue,), start, end)
        assert (found is not None) == bool(against)
        assert found is None or found in against
        assert (calendar.open_until_ms(node, (queue,), start) >= end) == (not against)
        opens = calendar.opens_ms(node, (queue,), start, 30)
        assert opens == FOREVER_MS or (opens >= start and calendar.closed(node, (queue,), opens, opens + 30) is None)


def test_bands_pass_midnight_at_utc_plus_8():
    bands = Bands([Band(name="valley", start_minute=23 * 60, end_minute=7 * 60)])
    assert bands.is_open("valley", MIDNIGHT)
    assert bands.is_open("valley", MIDNIGHT - HOUR)
    assert not bands.is_open("valley", MIDNIGHT - HOUR - 1)
    assert bands.is_open("valley", MIDNIGHT + 7 * HOUR - 1)
    assert not bands.is_open("valley", MIDNIGHT + 7 * HOUR)
    assert bands.next_opening_ms("valley", MIDNIGHT + 7 * HOUR + 12_345) == MIDNIGHT + 23 * HOUR
    assert bands.next_opening_ms("valley", MIDNIGHT + 5) == MIDNIGHT + 5


def test_a_band_by_day_an_unknown_one_and_none():
    bands = Bands(
        [Band(name="day", start_minute=9 * 60, end_minute=17 * 60), Band(name="all", start_minute=5, end_minute=5)]
    )
    assert bands.next_opening_ms("day", MIDNIGHT) == MIDNIGHT + 9 * HOUR
    assert bands.next_opening_ms("day", MIDNIGHT + 17 * HOUR) == MIDNIGHT + 33 * HOUR
    assert bands.is_open("all", MIDNIGHT + 12_345)
    assert bands.is_open("", 17)
    assert bands.next_opening_ms("weekend", 17) is None
    assert not bands.is_open("weekend", 17)


def test_a_kind_below_its_floor_goes_first_until_it_has_it():
    floors = Floors([Floor(kind="RenderJob", permille=250)], {"RenderJob": (0, 0, 1_000, 0)}, (8_000, 0, 8_000, 0))
    card, cpu = (1_000, 0, 1_000, 0), (1_000, 0, 0, 0)
    assert floors.is_below("RenderJob", card)
    assert not floors.is_below("TrainJob", card)
    floors.take("RenderJob", card)
    assert not floors.is_below("RenderJob", card)
    assert floors.is_below("RenderJob", cpu), "work without cards is measured on vCPUs"
    floors.take("RenderJob", cpu)
    assert not floors.is_below("RenderJob", cpu)
    assert not floors.is_below("RenderJob", (0, 0, 0, 1_000)), "there are no instances to have a share of"
