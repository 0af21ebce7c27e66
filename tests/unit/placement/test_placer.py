from dataclasses import replace
from itertools import product

import pytest

from scheduler.model.catalogue import FEATURES
from scheduler.model.job import Resources
from scheduler.model.node import Device, DeviceKind, Health, NodeState
from scheduler.placement import ranking
from scheduler.placement.cluster import Cluster
from scheduler.placement.core import address_of
from scheduler.placement.fit import Demand, suitable
from scheduler.placement.placer import Placer
from scheduler.placement.score import static_cost
from tests.builders import a_node


def a_placer(*nodes):
    placer = Placer(Cluster())
    for node in nodes:
        placer.set_node(node)
    return placer


def shape(placer, **ask):
    return placer.shape(Demand(resources=Resources(**ask), lane="pool", tenant=""))


def test_a_place_names_slots_beyond_the_eighth():
    placer = a_placer(a_node(cpus=64, cards=12, island=12))
    assert placer.place(shape(placer, cpu_milli=0, memory_mib=0, cards=9)) == (0, tuple(range(9)))
    assert placer.place(shape(placer, cpu_milli=0, memory_mib=0, cards=2)) == (0, (9, 10))
    assert placer.place(shape(placer, cpu_milli=0, memory_mib=0, cards=2)) is None


def test_a_gang_over_two_islands_takes_the_fuller_one_first():
    placer = a_placer(a_node(cpus=64, cards=6, island=3))
    one, four = (shape(placer, cpu_milli=0, memory_mib=0, cards=cards) for cards in (1, 4))
    assert placer.place(one) == (0, (0,))
    first = placer.place(four)
    assert first == (0, (3, 4, 5, 1))
    placer.release(four, first)
    assert placer.place_many(four, 2) == [first]


def test_nodes_that_had_too_little_are_looked_at_again_when_they_have_more():
    placer = a_placer(a_node("n1", cpus=24), a_node("n2", cpus=24))
    most, little, asked = (shape(placer, cpu_milli=cpu, memory_mib=0) for cpu in (23_400, 200, 500))
    assert {placer.place(most)[0] for _ in range(2)} == {0, 1}
    for row in (0, 1):
        placer.take(little, row)
    assert placer.place(asked) is None
    assert placer.place(asked) is None
    placer.release(little, (1, ()))
    assert placer.place(asked) == (1, ())


def test_an_empty_node_takes_all_it_has_however_coarse_its_levels():
    placer = a_placer(a_node(cpus=24, memory_mib=5))  # three levels of 1 MiB
    assert placer.place(shape(placer, cpu_milli=0, memory_mib=6)) is None
    assert placer.place(shape(placer, cpu_milli=0, memory_mib=5)) == (0, ())
    assert placer.place(shape(placer, cpu_milli=0, memory_mib=1)) is None


def test_kernels_compiled_for_other_arrays_are_refused():
    placer = a_placer(a_node())
    placer.shape(Demand(resources=Resources(cpu_milli=1), lane="pool", tenant=""))
    with pytest.raises(RuntimeError, match="other arrays"):
        address_of(placer._core, ranking.layout() + 1)


def test_cards_of_one_kind_cost_what_each_of_them_would():
    cards = [
        Device(id=f"G{at}", index=at, model=model, memory_mib=memory_mib, health=health, only_whole=only_whole)
        for at, (model, memory_mib, health, only_whole) in enumerate(
            product(
                ("L40S", "H100-SXM-80GB", "unknown"), (16_384, 81_920), (Health.OK, Health.QUARANTINED), (False, True)
            )
        )
    ] * 2
    cards = [replace(card, id=f"{card.id}-{at}", index=at) for at, card in enumerate(cards)]
    cluster = Cluster()
    cluster.set_node(
        replace(a_node(cpus=64), devices=(*cards, Device(id="M", index=99, model="L40S", kind=DeviceKind.MIG)))
    )
    (kind,) = cluster.classes
    for ask in (Resources(cards=1), Resources(cards=2, card_memory_mib=40_000), Resources(card_milli=500)):
        for speeds in ((), (("H100-SXM-80GB", 500),), (("L40S", 100), ("unknown", 300))):
            demand = Demand(resources=ask, lane="pool", speeds=speeds)
            each = [replace(kind, slots=(card,), leasable=(True,), kinds=(0,), islands=(0,)) for card in kind.slots]
            alone = [
                static_cost(demand, one, FEATURES) for one in each if suitable(one.slots, demand.resources, FEATURES)
            ]
            assert static_cost(demand, kind, FEATURES) == min(alone)
            assert len(set(alone)) > 1


def test_nodes_that_differ_in_labels_alone_are_judged_once_and_by_their_labels():
    def park(labelled):
        nodes = [a_node(f"n{at}", cpus=64, cards=4, island=2) for at in range(6)]
        nodes += [replace(node, name=f"m{node.name}", state=NodeState.CORDONED) for node in nodes[:2]]
        nodes += [replace(a_node("s", cpus=8, cards=1), devices=())]
        return a_placer(*(replace(node, labels=labelled(node.name)) for node in nodes))

    def judged(placer, ask):
        number = placer.shape(Demand(resources=ask, lane="pool"))
        klass, asks = placer.cluster.rows.klass[: placer.cluster.count], placer.table.asks
        return [
            (
                asks.empty[number, at],
                asks.cost[number, at],
                placer.table.healed[number][at],
                asks.group[number, at].tolist(),
            )
            for at in klass
        ]

    alike, named = park(lambda _: ()), park(lambda name: (("host", name),))
    assert len(alike.cluster.classes) < len(named.cluster.classes)
    assert {kind.likeness for kind in named.cluster.classes} == {kind.likeness for kind in alike.cluster.classes}
    for ask in (Resources(), Resources(cards=1), Resources(cards=3, same_island=True), Resources(card_milli=500)):
        assert judged(named, ask) == judged(alike, ask)
    chosen = judged(named, Resources(cards=1, labels=(("host", "n4"),)))
    assert [at for at, found in enumerate(chosen) if found[0]] == [4]
    assert chosen[4] == judged(named, Resources(cards=1))[4]
    known = named.shape(Demand(resources=Resources(cards=1), lane="pool"))
    named.set_node(replace(a_node("new", cpus=64, cards=4, island=2), labels=(("host", "new"),)))
    assert named.copies(known) == 28
    assert judged(named, Resources(cards=1))[-1] == chosen[4]
