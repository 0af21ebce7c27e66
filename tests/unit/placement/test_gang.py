import numpy as np
import pytest

from scheduler.model.job import Together
from scheduler.placement.gang import spread


def rooms(*rows, ranks, together=Together.ANYWHERE):
    """``(copies that fit, cost, rack)`` by row; ranks per row as spread over them."""
    copies = np.array([row[0] for row in rows], np.int32)
    key = np.array([(row[1], 0) for row in rows], np.int64).reshape(-1, 2)
    racks = np.array([row[2] for row in rows], np.int32)
    return spread(copies, key, np.arange(len(rows), dtype=np.int32), racks, ranks, together)


def copies(*counts):
    return [(count, 0, 0) for count in counts]


@pytest.mark.parametrize(
    ("room", "ranks", "expected"),
    [
        (copies(4, 4), 4, ((0, 4),)),
        (copies(8, 4), 4, ((1, 4),)),
        (copies(3, 5, 2), 7, ((1, 5), (2, 2))),
        (copies(1, 1, 1), 3, ((0, 1), (1, 1), (2, 1))),
        (copies(1, 1), 3, ()),
        ([], 1, ()),
    ],
)
def test_fewest_nodes_and_the_tightest_last(room, ranks, expected):
    assert rooms(*room, ranks=ranks) == expected


def test_the_better_score_wins_between_equal_rooms():
    assert rooms((2, 5, 0), (2, 1, 0), ranks=2) == ((1, 2),)


def test_one_rack_is_nearer_than_fewer_nodes_across_racks():
    assert rooms((3, 0, 0), (3, 0, 1), (2, 0, 1), (1, 0, 1), ranks=6) == ((1, 3), (2, 2), (3, 1))
    assert rooms((3, 0, 0), (3, 0, 1), ranks=6) == ((0, 3), (1, 3))


def test_the_rack_with_the_fewest_nodes_then_the_least_room():
    two = [(2, 0, 0), (2, 0, 0), (4, 0, 1), (1, 0, 1)]
    assert rooms(*two, ranks=4) == ((2, 4),)
    assert rooms((2, 0, 0), (2, 0, 0), (1, 0, 0), (2, 0, 1), (2, 0, 1), ranks=4) == ((3, 2), (4, 2))


@pytest.mark.parametrize(
    ("together", "expected"),
    [(Together.ANYWHERE, ((0, 2), (1, 2))), (Together.RACK, ()), (Together.NODE, ())],
)
def test_how_near_the_ranks_must_be(together, expected):
    assert rooms((2, 0, 0), (2, 0, 1), ranks=4, together=together) == expected


def test_in_one_rack_but_not_on_one_node():
    rack = [(2, 0, 0), (2, 0, 0), (9, 0, 1)]
    assert rooms(*rack[:2], ranks=4, together=Together.RACK) == ((0, 2), (1, 2))
    assert rooms(*rack[:2], ranks=4, together=Together.NODE) == ()
    assert rooms(*rack, ranks=4, together=Together.NODE) == ((2, 4),)
