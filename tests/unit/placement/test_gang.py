import pytest

from scheduler.placement.gang import spread


def rooms(**copies):
    return [(count, (0, 0, 0, 0), name) for name, count in copies.items()]


@pytest.mark.parametrize(
    ("room", "ranks", "expected"),
    [
        (rooms(a=4, b=4), 4, (("a", 4),)),
        (rooms(a=8, b=4), 4, (("b", 4),)),
        (rooms(a=3, b=5, c=2), 7, (("b", 5), ("c", 2))),
        (rooms(a=1, b=1, c=1), 3, (("a", 1), ("b", 1), ("c", 1))),
        (rooms(a=1, b=1), 3, ()),
        ([], 1, ()),
    ],
)
def test_fewest_nodes_and_the_tightest_last(room, ranks, expected):
    assert spread(room, ranks) == expected


def test_the_better_score_wins_between_equal_rooms():
    assert spread([(2, (0, 0, 5, 0), "a"), (2, (0, 0, 1, 0), "b")], 2) == (("b", 2),)
