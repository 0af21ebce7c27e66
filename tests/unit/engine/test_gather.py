"""Small gangs that move so that a large one finds its cards on one node."""

import random

import pytest

from scheduler.engine.candidates import candidate_of
from scheduler.engine.gather import gather
from scheduler.engine.state import State
from scheduler.model.job import Together
from scheduler.model.policy import Policy
from scheduler.model.snapshot import Snapshot
from scheduler.placement.fit import demand_of
from scheduler.placement.future import allocate
from scheduler.placement.room import Mover
from scheduler.placement.view import NodeView
from scheduler.queueing import lifecycle
from tests.builders import FEATURES, a_job, a_node, a_step

STATE = State(Snapshot(), FEATURES)


class Farm:
    """Nodes of four cards, and what runs there."""

    def __init__(self, *names, cards=4, **models):
        self.views = {name: NodeView.empty(a_node(name, cards=cards, cpus=32)) for name in names}
        for name, model in models.items():
            self.views[name] = NodeView.empty(a_node(name, cards=cards, cpus=32, model=model))
        self.movers, self.left_ms = [], {}

    def runs(self, lease_id, node, cards=1, *, lose_ms=1, left_ms=100, may_move=True, models=(), cpus=1):
        step = a_step(cards=cards, cpus=cpus, resources={"card_models": models})
        demand = demand_of(step, "studio")
        held = allocate(self.views[node], demand, FEATURES)
        self.views[node] = self.views[node].take(held, "studio")
        if may_move:
            self.movers.append(
                Mover(lease_id=lease_id, tenant="studio", demand=demand, allocations=(held,), price=lose_ms)
            )
            self.left_ms[lease_id] = left_ms
        return self

    def moves(self, *asking, rng=None):
        """Who moves for these, in whatever order all is told."""
        views, movers = list(self.views.items()), list(self.movers)
        for told in (views, movers, asking := list(asking)) if rng else ():
            rng.shuffle(told)
        return gather(dict(views), asking, movers, self.left_ms, FEATURES)


def wants(cards=4, ranks=1, *, number=9, model="H100", cpus=1, **step):
    """A gang that waits and was given a place."""
    job = a_job(number, a_step(cards=cards, cpus=cpus, ranks=ranks, **step))
    return candidate_of(STATE, lifecycle.submitted(job, held=False), 0, 0, Policy()), (model, ranks)


def crumbs(**second):
    """Two nodes with one card taken on each."""
    return Farm("n1", "n2").runs("l1", "n1", lose_ms=5, left_ms=20).runs("l2", "n2", **second)


def test_who_loses_least_moves_where_no_node_has_room():
    assert crumbs(lose_ms=6).moves(wants()) == ["l1"]
    assert crumbs(lose_ms=4).moves(wants()) == ["l2"]


def test_nobody_moves_where_there_is_room_already():
    farm = crumbs()
    assert farm.moves(wants(3)) == []
    farm.views["n3"] = Farm("n3").views["n3"]
    assert farm.moves(wants()) == []
    assert farm.moves(wants(), wants(3, number=8)) == []


@pytest.mark.parametrize(("left_ms", "moves"), [(4, []), (5, []), (6, ["l1"])])
def test_a_gang_moves_only_if_it_loses_less_than_it_would_still_run(left_ms, moves):
    farm = Farm("n1", "n2").runs("l1", "n1", lose_ms=5, left_ms=left_ms).runs("l2", "n2", 1, lose_ms=9, left_ms=9)
    assert farm.moves(wants()) == moves


def test_all_that_move_together_lose_less_than_the_last_of_them_would_still_run():
    def farm(left_ms):
        farm = Farm("n1", "n2").runs("l1", "n1", lose_ms=5, left_ms=6).runs("l2", "n1", lose_ms=5, left_ms=left_ms)
        return farm.runs("l3", "n2", may_move=False)

    assert farm(10).moves(wants()) == []
    assert sorted(farm(11).moves(wants())) == ["l1", "l2"]


def test_who_is_dearer_moves_where_the_cheaper_one_would_end_sooner():
    farm = Farm("n1", "n2").runs("l1", "n1", lose_ms=5, left_ms=5).runs("l2", "n2", lose_ms=50, left_ms=100)
    assert farm.moves(wants()) == ["l2"]


def test_who_would_end_first_stays_where_all_together_lose_too_much():
    farm = Farm("n1", "n2").runs("l1", "n1", lose_ms=5, left_ms=6).runs("l2", "n1", lose_ms=5, left_ms=8)
    farm.runs("l3", "n1", lose_ms=6).runs("l4", "n2", 2, may_move=False)
    assert sorted(farm.moves(wants(3))) == ["l2", "l3"]


def test_nobody_moves_who_may_not():
    farm = Farm("n1", "n2").runs("l1", "n1", may_move=False).runs("l2", "n2", lose_ms=90)
    assert farm.moves(wants()) == ["l2"]
    assert farm.runs("l3", "n2", may_move=False).moves(wants()) == []


def test_only_smaller_gangs_move():
    assert Farm("n1", n2="L4").runs("l1", "n1", 3).moves(wants()) == ["l1"]
    assert Farm("n1", n2="L4").runs("l1", "n1", 4).moves(wants()) == []


def test_nobody_moves_who_would_find_no_room_elsewhere():
    full = Farm("n1", "n2").runs("l1", "n1").runs("l2", "n2", 4, may_move=False)
    assert full.moves(wants()) == []
    one = Farm("n1", "n2").runs("l1", "n1").runs("l2", "n1").runs("l3", "n2", 3, may_move=False)
    assert one.moves(wants()) == [], "there is room for one of the two"
    assert sorted(one.moves(wants(3))) == ["l1"]
    other = Farm("n1", n2="L4").runs("l1", "n1", models=("H100",))
    assert other.moves(wants()) == [], "its card model is not there"
    assert Farm("n1", n2="L4").runs("l1", "n1").moves(wants()) == ["l1"]
    cpus = Farm("n1", "n2").runs("l1", "n1", cpus=20).runs("l2", "n2", cpus=20, may_move=False)
    assert cpus.moves(wants()) == [], "there are cards, but no vCPU"


def test_a_gang_goes_to_nodes_of_the_model_that_it_was_given():
    farm = Farm("n1", n2="L4", n3="L4").runs("l2", "n2").runs("l3", "n3", lose_ms=2)
    assert farm.moves(wants(model="L4")) == ["l2"]
    assert farm.moves(wants(model="H100")) == []


def test_a_gang_finds_room_for_all_ranks_or_moves_nobody():
    farm = Farm("n1", "n2", "n3", "n4").runs("l2", "n2").runs("l3", "n3", lose_ms=2).runs("l4", "n4", may_move=False)
    assert farm.moves(wants(ranks=1)) == []
    assert farm.moves(wants(ranks=2)) == ["l2"]
    assert sorted(farm.moves(wants(ranks=3))) == ["l2", "l3"], "neither goes where the other makes room"
    assert farm.moves(wants(ranks=4)) == [], "for the fourth there is none"


def test_each_gang_has_a_node_of_its_own_and_the_largest_is_served_first():
    farm = Farm("n0", "n1", "n2").runs("l1", "n1").runs("l2", "n2", lose_ms=2).runs("l0", "n0", 2, may_move=False)
    assert sorted(farm.moves(wants(number=8), wants(number=9))) == ["l1", "l2"]
    narrow = Farm("n1", "n2").runs("l1", "n1").runs("l2", "n2", 2, may_move=False)
    assert narrow.moves(wants(3, number=8), wants(4, number=9)) == ["l1"], "for the large one; then there is no room"


def test_what_moved_for_one_gang_has_no_room_to_give_to_another():
    farm = Farm("n1", "n2", "n3", "n4", "n5", "n6").runs("l1", "n1").runs("l2", "n1").runs("l6", "n6", lose_ms=50)
    for node, cards in (("n2", 3), ("n3", 3), ("n4", 3), ("n5", 3), ("n6", 2)):
        farm.runs(f"for-{node}", node, cards, may_move=False)
    assert sorted(farm.moves(wants(4, number=8), wants(2, number=9))) == ["l1", "l2", "l6"]


def test_a_gang_takes_the_room_that_it_finds_and_who_moved_for_it_too():
    assert crumbs().moves(wants(number=8), wants(number=9)) == ["l2"], "its place is beside the other"
    farm = Farm("n0", "n1", "n2").runs("l1", "n1").runs("l2", "n2", lose_ms=2).runs("l0", "n0", 3, may_move=False)
    assert farm.moves(wants(number=8), wants(number=9)) == ["l1"], "the last free card is taken"


def test_what_is_left_of_the_room_that_was_made_serves_the_next_gang():
    farm = Farm("n0", "n1", "n2", "n3", cards=8).runs("l1", "n1", 3, cpus=20).runs("l2", "n2", lose_ms=2)
    for node, cards in (("n0", 5), ("n1", 2), ("n2", 6), ("n3", 7)):
        farm.runs(f"for-{node}", node, cards, may_move=False)
    assert farm.moves(wants(4, number=8), wants(2, cpus=15, number=9)) == ["l1"]


def test_nothing_is_done_for_ranks_that_must_lie_near_to_each_other():
    farm = Farm("n1", "n2", "n3").runs("l2", "n2").runs("l3", "n3", may_move=False)
    assert farm.moves(wants(ranks=2)) == ["l2"]
    assert farm.moves(wants(ranks=2, together=Together.RACK)) == []
    assert crumbs().moves(wants(together=Together.RACK)) == ["l2"], "one rank is near to itself"


def a_farm(rng):
    farm = Farm("n1", "n2", "n3", "n4")
    for number in range(1, rng.choice((4, 8, 12))):
        cards = rng.choice((1, 1, 2))
        rooms = [name for name in farm.views if len(farm.views[name].held) + cards <= 4]
        if rooms:
            farm.runs(
                f"l{number}", rng.choice(rooms), cards,
                lose_ms=rng.randrange(1, 30), left_ms=rng.randrange(1, 90), may_move=rng.random() < 0.8,
            )  # fmt: skip
    return farm


def seated(free, sizes):
    """Whether cards on one node each are to be had for all of these."""
    if not sizes:
        return True
    first, *rest = sizes
    nodes = [name for name in free if free[name] >= first]
    return any(seated(free | {name: free[name] - first}, rest) for name in nodes)


@pytest.mark.parametrize("seed", range(150))
def test_all_find_room_and_nobody_moves_in_vain_in_whatever_order_all_is_told(seed):
    rng = random.Random(seed)
    farm = a_farm(rng)
    sizes = [rng.choice((2, 3, 4)) for _ in range(rng.choice((1, 1, 2)))]
    asking = [wants(size, number=number) for number, size in enumerate(sizes, 90)]
    moved = farm.moves(*asking)
    for again in range(3):
        assert farm.moves(*asking, rng=random.Random(again)) == moved
    movers = {mover.lease_id: mover for mover in farm.movers}
    assert len(set(moved)) == len(moved)
    free = {name: 4 - len(view.held) for name, view in farm.views.items()}
    if not moved:
        return
    assert not seated(free, sizes)
    cards = [movers[lease_id].demand.resources.cards for lease_id in moved]
    for lease_id, count in zip(moved, cards, strict=True):
        free[movers[lease_id].allocations[0].node] += count
    # Of two gangs the first may find no room, and the second may still get its own.
    assert any(seated(free, sorted((*cards, *some), reverse=True)) for some in (sizes, [max(sizes)], [min(sizes)]))
    if len(sizes) == 1:
        assert sum(movers[lease_id].price for lease_id in moved) < max(farm.left_ms[lease_id] for lease_id in moved)
        assert max(cards) < sizes[0]
