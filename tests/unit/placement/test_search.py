import random

from scheduler.placement.fit import capacity, demand_of
from scheduler.placement.score import score
from scheduler.placement.search import Search
from scheduler.placement.view import NodeView, totals
from tests.builders import FEATURES, a_node, a_step


def views(*nodes):
    return {node.name: NodeView.empty(node) for node in nodes}


def search(*nodes):
    return Search(views(*nodes), FEATURES, totals(nodes))


def test_the_heap_finds_what_a_full_scan_finds():
    rng = random.Random(7)
    nodes = [a_node(f"n{i}", cpus=rng.randrange(2, 33), cards=rng.choice((0, 0, 2, 4, 8))) for i in range(30)]
    trial = search(*nodes)
    demands = [demand_of(a_step(cpus=rng.randrange(1, 5), cards=rng.choice((0, 1, 2))), "t") for _ in range(6)]
    for _ in range(300):
        demand = rng.choice(demands)
        fitting = [v for v in trial.nodes.values() if capacity(v, demand, FEATURES)]
        ranked = sorted((score(v, demand, FEATURES, totals(nodes)), v.node.name) for v in fitting)
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
    nodes = views(a_node("n1"))
    Search(nodes, FEATURES, (1, 1, 1, 1)).place(demand_of(a_step(), "t"), 1, "t")
    assert nodes == views(a_node("n1"))
