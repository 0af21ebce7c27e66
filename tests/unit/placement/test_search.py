import random

from scheduler.model.lease import Allocation
from scheduler.model.node import NodeState
from scheduler.placement.fit import capacity, demand_of
from scheduler.placement.score import score
from scheduler.placement.search import Search
from scheduler.placement.shapes import Potential, Shapes
from scheduler.placement.view import NodeView
from tests.builders import FEATURES, a_node, a_step


def shapes(*nodes):
    found = Shapes(FEATURES)
    for node in nodes:
        found.set_node(NodeView.empty(node))
    return found


def search(*nodes):
    return Search(shapes(*nodes))


def test_the_heap_finds_what_a_full_scan_finds():
    rng = random.Random(7)
    nodes = [a_node(f"n{i}", cpus=rng.randrange(2, 33), cards=rng.choice((0, 0, 2, 4, 8))) for i in range(30)]
    trial = search(*nodes)
    demands = [demand_of(a_step(cpus=rng.randrange(1, 5), cards=rng.choice((0, 1, 2))), "t") for _ in range(6)]
    for _ in range(300):
        demand = rng.choice(demands)
        fitting = [v for v in trial.nodes.values() if capacity(v, demand, FEATURES)]
        ranked = sorted((score(v, demand, FEATURES), v.node.name) for v in fitting)
        assert trial.copies(demand) == sum(capacity(v, demand, FEATURES) for v in fitting)
        placed = trial.place(demand, 1, "t")
        assert [a.node for a in placed] == [name for _, name in ranked[:1]]


def test_a_warm_node_is_preferred_while_it_has_room():
    demand = demand_of(a_step(cpus=1), "t")
    trial = search(a_node("tight", cpus=1), a_node("warm", cpus=2))
    assert [trial.place(demand, 1, "t", ("gone", "warm"))[0].node for _ in range(3)] == ["warm", "warm", "tight"]


def test_a_gang_that_does_not_fit_takes_nothing():
    demand = demand_of(a_step(cpus=1), "t")
    trial = search(a_node("n1", cpus=2))
    assert trial.place(demand, 3, "t") == ()
    assert trial.copies(demand) == 2


def test_a_trial_does_not_touch_the_views_it_started_from():
    real = shapes(a_node("n1"))
    demand = demand_of(a_step(), "t")
    assert Search(real).place(demand, 1, "t")
    assert real.nodes == {"n1": NodeView.empty(a_node("n1"))}
    assert real.of(demand).ranking.copies == 8


def test_shapes_follow_what_is_held():
    real = shapes(a_node("n1", cpus=2), a_node("n2", cpus=1))
    demand = demand_of(a_step(cpus=2), "t")
    assert real.of(demand).ranking.copies == 1
    real.set_held(real.nodes["n1"].take(Allocation(node="n1", cpu_milli=1_000), "t"))
    shape = real.of(demand)
    assert (shape.ranking.copies, real.potential(shape).empty, list(real.refusals(shape))) == (0, {"n1": 1}, ["n1"])
    real.set_node(NodeView.empty(a_node("n2", cpus=4)))
    assert real.of(demand).ranking.copies == 2
    assert real.potential(shape).empty == {"n1": 1, "n2": 2}
    real.set_node(NodeView.empty(a_node("n1", state=NodeState.CORDONED)))
    assert real.potential(real.of(demand)) == Potential(seen=4, empty={"n2": 2}, healed={"n1": 4, "n2": 2})
