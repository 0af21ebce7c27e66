import random

import pytest

from scheduler.model.job import Together
from scheduler.model.lease import Allocation
from scheduler.model.node import NodeState
from scheduler.placement.fit import demand_of
from scheduler.placement.score import CARD
from scheduler.placement.search import Search
from scheduler.placement.shapes import SHAPES_KEPT, Shapes
from scheduler.placement.view import NodeView
from tests.builders import FEATURES, a_node, a_step


def shapes(*nodes):
    found = Shapes(FEATURES)
    for node in nodes:
        found.set_node(node)
    return found


def search(*nodes):
    return Search(shapes(*nodes))


def nodes_of(allocations):
    return [allocation.node for allocation in allocations]


def test_a_warm_node_is_preferred_while_it_has_room():
    demand = demand_of(a_step(cpus=1), "t")
    trial = search(a_node("tight", cpus=1), a_node("warm", cpus=2))
    assert [trial.place(demand, 1, "t", ("gone", "warm"))[0].node for _ in range(3)] == ["warm", "warm", "tight"]


def test_a_warm_node_is_worth_what_it_saves():
    demand = demand_of(a_step(cards=1), "t")
    nodes = a_node("plain", cards=1), a_node("engines", model="L4", cards=1)  # the engines cost two tenths of a card
    assert nodes_of(search(*nodes).place(demand, 1, "t", {"engines": CARD // 10})) == ["plain"]
    assert nodes_of(search(*nodes).place(demand, 1, "t", {"engines": CARD // 4, "gone": CARD})) == ["engines"]


def test_a_gang_that_does_not_fit_takes_nothing():
    demand = demand_of(a_step(cpus=1), "t")
    trial = search(a_node("n1", cpus=2))
    assert trial.place(demand, 3, "t") == ()
    assert trial.copies(demand) == 2


@pytest.mark.parametrize("together", Together)
def test_a_gang_keeps_together(together):
    nodes = [a_node(f"n{i}", cards=2, rack=f"r{i % 2}") for i in range(4)]
    demand = demand_of(a_step(cards=2), "t")
    placed = nodes_of(search(*nodes).place(demand, 2, "t", together=together))
    assert placed == ([] if together is Together.NODE else ["n0", "n2"])
    placed = nodes_of(search(*nodes).place(demand, 3, "t", together=together))
    assert placed == (["n0", "n1", "n2"] if together is Together.ANYWHERE else [])


def test_a_trial_does_not_touch_what_it_started_from():
    real = shapes(a_node("n1", cards=1))
    demand = demand_of(a_step(cards=1), "t")
    trial = Search(real)
    assert trial.place(demand, 1, "t")
    assert real.nodes == {"n1": NodeView.empty(a_node("n1", cards=1))}
    assert trial.nodes["n1"].held == {"GPU-n1-0": (1_000, "t")}
    assert (real.of(demand).ranking.copies, trial.copies(demand)) == (1, 0)


def test_what_is_given_back_in_a_trial_can_be_taken_again():
    demand = demand_of(a_step(cards=1), "t")
    trial = search(a_node("n1", cards=1))
    (held,) = trial.place(demand, 1, "t")
    assert trial.place(demand, 1, "t") == ()
    trial.give_back(held, "t")
    assert trial.place(demand, 1, "t") == (held,)


def test_shapes_follow_what_is_held_and_how_nodes_are():
    real = shapes(a_node("n1", cpus=2), a_node("n2", cpus=1))
    demand = demand_of(a_step(cpus=2), "t")

    def now():
        shape = real.of(demand)
        return shape.ranking.copies, real.placer.potential(shape.number)

    assert now() == (1, (1, 1))
    real.hold(Allocation(node="n1", cpu_milli=1_000), "t")
    assert now() == (0, (1, 1))
    real.set_node(a_node("n2", cpus=4))
    assert now() == (2, (3, 3))
    real.set_node(a_node("n1", cpus=2, state=NodeState.CORDONED))
    assert now() == (2, (2, 3))
    assert [node.name for node in real.placer.sick(real.of(demand).number)] == ["n1"]
    assert real.nodes["n1"].cpu_milli == 1_000, "what is held stays held"


def test_more_shapes_than_are_kept():
    real = shapes(a_node("n1", cpus=4, memory_mib=100_000))
    trial = Search(real)
    for memory in range(1, SHAPES_KEPT + 10):
        assert real.of(demand_of(a_step(memory_mib=memory), "t")).ranking.copies == 4
    assert trial.copies(demand_of(a_step(cpus=2), "t")) == 2


def test_work_that_needs_no_engine_leaves_the_cards_that_have_them():
    nodes = [a_node("engines", cards=1, model="L4"), a_node("plain", cards=1)]
    placed = [
        nodes_of(search(*nodes).place(demand_of(a_step(cards=1, resources=ask), "t"), 1, "t"))
        for ask in ({}, {"features": ("nvenc:h264",)}, {"card_milli": 500, "cards": 0})
    ]
    assert placed == [["plain"], ["engines"], ["plain"]]


def test_a_step_goes_where_it_runs_fast():
    nodes = [a_node("a", cards=1, model="L4"), a_node("b", cards=1)]
    slow = a_step(cards=1, speeds=(("H100", 300), ("L4", 1_000)))
    assert nodes_of(search(*nodes).place(demand_of(slow, "t"), 1, "t")) == ["a"]


def test_work_without_cards_takes_a_node_with_cards_only_when_nothing_else_is_left():
    demand = demand_of(a_step(cpus=2), "t")
    trial = search(a_node("gpu", cpus=2, cards=1), a_node("plain", cpus=64))
    assert nodes_of([trial.place(demand, 1, "t")[0] for _ in range(33)]) == ["plain"] * 32 + ["gpu"]


def test_many_at_once_are_what_one_after_the_other_gives():
    rng = random.Random(3)
    nodes = [a_node(f"n{i}", cpus=rng.randrange(1, 9), cards=rng.randrange(5)) for i in range(20)]
    for step in (a_step(cpus=1), a_step(cards=1), a_step(cards=2), a_step(resources={"card_milli": 300})):
        demand = demand_of(step, "t")
        one, many = search(*nodes), search(*nodes)
        singles = []
        while placed := one.place(demand, 1, "t"):
            singles += placed
        for count in (0, 3, 5_000):
            assert many.place_many(demand, count, "t") == tuple(singles[:count])
            del singles[:count]
        assert one.nodes == many.nodes
