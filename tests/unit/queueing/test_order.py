from collections import Counter

from scheduler.model.queue import Queue
from scheduler.queueing.order import NONE, Order, amounts_of
from tests.builders import a_step

TOTALS = (1_000, 1_000, 1_000, 1_000)
CPU = (10, 0, 0, 0)


def drain(order, amounts=CPU, limit=100):
    """Charge whoever is next until ``limit``; the names in order."""
    served = []
    while len(served) < limit and (entry := order.peek()) is not None:
        served.append(entry)
        order.charge(amounts)
    return served


def make(queues, entries, held=None):
    return Order(queues, TOTALS, held or {}, entries)


def test_weights_divide_what_is_handed_out():
    order = make([Queue(name="a", weight=300), Queue(name="b", weight=100)], {"a": ["a"], "b": ["b"]})
    assert Counter(drain(order, limit=40)) == {"a": 30, "b": 10}


def test_what_is_held_already_counts():
    order = make([Queue(name="a"), Queue(name="b")], {"a": ["a"], "b": ["b"]}, {"a": (50, 0, 0, 0)})
    assert drain(order, limit=7) == ["b"] * 5 + ["a", "b"]


def test_the_dominant_resource_counts():
    order = make(
        [Queue(name="a"), Queue(name="b")], {"a": ["a"], "b": ["b"]}, {"a": (10, 0, 500, 0), "b": (400, 0, 0, 0)}
    )
    assert order.peek() == "b"


def test_shares_are_fair_at_each_level_of_the_tree():
    queues = [
        Queue(name="film"),
        Queue(name="film-a", parent="film"),
        Queue(name="film-b", parent="film", weight=300),
        Queue(name="ai"),
    ]
    order = make(queues, {"film-a": ["film-a"], "film-b": ["film-b"], "ai": ["ai"]})
    assert Counter(drain(order, limit=80)) == {"ai": 40, "film-b": 30, "film-a": 10}


def test_jobs_straight_in_a_parent_queue_compete_like_a_child():
    queues = [Queue(name="film"), Queue(name="film-a", parent="film")]
    order = make(queues, {"film": ["film"], "film-a": ["film-a"]})
    assert Counter(drain(order, limit=20)) == {"film": 10, "film-a": 10}


def test_an_idle_queue_leaves_its_share_to_the_others():
    order = make([Queue(name="a"), Queue(name="b")], {"a": ["a"]})
    assert drain(order, limit=3) == ["a", "a", "a"]


def test_entries_come_in_their_order_and_the_queue_leaves_when_it_is_empty():
    order = make([Queue(name="a"), Queue(name="b")], {"a": ["a1", "a2"], "b": ["b1"]})
    seen = []
    while (entry := order.peek()) is not None:
        seen.append(entry)
        order.drop()
    assert seen == ["a1", "a2", "b1"]


def test_names_break_ties():
    assert make([Queue(name="b"), Queue(name="a")], {"b": ["b"], "a": ["a"]}).peek() == "a"


def test_unknown_queues_and_circles_of_parents_count_as_top_level():
    queues = [Queue(name="x", parent="y"), Queue(name="y", parent="x"), Queue(name="z", parent="nowhere")]
    order = make(queues, {"x": ["x"], "y": ["y"], "z": ["z"], "new": ["new"]})
    assert Counter(drain(order, limit=40)) == {"x": 10, "y": 10, "z": 10, "new": 10}


def test_nothing_waits():
    assert make([Queue(name="a")], {}).peek() is None


def test_what_a_lease_counts_for():
    assert amounts_of(a_step(cpus=2, memory_mib=100, cards=3).resources, 2) == (4_000, 200, 6_000, 0)
    assert amounts_of(a_step(cards=1, resources={"mig_profile": "1g"}).resources, 1)[2:] == (0, 1_000)
    assert amounts_of(a_step(cpus=0, memory_mib=0, resources={"card_milli": 250}).resources, 1) == (0, 0, 250, 0)
    assert NONE == (0, 0, 0, 0)
