import numpy as np
import pytest

from scheduler.model.job import Resources
from scheduler.model.lease import Allocation
from scheduler.model.node import Device, Node
from scheduler.placement import fit
from scheduler.placement.cluster import Cluster
from scheduler.placement.fragment import memo_of, value
from scheduler.placement.mix import FIXED, GOLDEN, MASK64, ROLLOUTS, Demand, NodeClass, content_key, mix_of, splitmix64
from scheduler.placement.placer import Placer
from scheduler.placement.wanted import wanted_of

UNIT = ROLLOUTS * FIXED


def a_class(cards=2, cpus=8, gib=64, count=10, kinds=None):
    kinds = kinds or (0,) * cards
    key = content_key(bytes((cpus, gib, *kinds)))
    return NodeClass(cpu_milli=cpus * 1000, memory_mib=gib * 1024, slots=kinds, count=count, key=key)


def a_demand(cpus=4, gib=8, *, cards=1, milli=1000, weight=1, slots=(0b11,)):
    return Demand(
        cpu_milli=cpus * 1000, memory_mib=gib * 1024, cards=cards, card_milli=milli, slots=slots, weight=weight
    )


def worth(mix, cpus, gib, free, klass=0):
    return value(mix, memo_of(4), klass, cpus * 1000, gib * 1024, np.array(free, np.int64))


@pytest.mark.parametrize(
    ("cpus", "gib", "free", "milli"),
    [
        (8, 64, (1000, 1000), 2000),
        (4, 64, (1000, 1000), 1000),
        (3, 64, (1000, 1000), 0),
        (8, 15, (1000, 1000), 1000),
        (8, 64, (1000, 999), 1000),
        (8, 64, (500, 999), 0),
        (8, 64, (0, 0), 0),
    ],
)
def test_a_node_is_worth_what_the_mix_can_still_take(cpus, gib, free, milli):
    mix = mix_of([a_demand()], [a_class()])
    assert worth(mix, cpus, gib, free) == milli * UNIT


def test_nothing_asked_for_is_worth_nothing():
    assert worth(mix_of([], [a_class()]), 8, 64, (1000, 1000)) == 0


def a_shape(cpus=4, gib=8, *, cards=1, milli=0, tenant=""):
    ask = Resources(cpu_milli=cpus * 1000, memory_mib=gib * 1024, cards=0 if milli else cards, card_milli=milli)
    return fit.Demand(resources=ask, lane="pool", tenant="a" if milli else tenant)


def on(*nodes, shares=()):
    """A placer of nodes ``(cpus, gib, cards)``, the mix being ``shares``."""
    placer = Placer(Cluster(), wanted_of(shares))
    for number, (cpus, gib, cards) in enumerate(nodes):
        devices = tuple(Device(id=f"{number}-{slot}", index=slot, model="T4") for slot in range(cards))
        placer.set_node(Node(name=f"n{number}", cpu_milli=cpus * 1000, memory_mib=gib * 1024, devices=devices))
    return placer


def costs(placer, demand):
    """The cost of one copy by node."""
    return placer.room(placer.shape(demand))[1][:, 0].tolist()


def test_a_gap_that_a_demand_fills_is_filled_first():
    small, large = a_shape(cpus=1, milli=400), a_shape(cpus=1, milli=600)
    placer = on((8, 64, 2), shares=[(small, 1), (large, 1)])
    first = placer.place(placer.shape(large))
    assert placer.place(placer.shape(small)) == first
    assert placer.place(placer.shape(small)) != first


def test_work_without_cards_goes_where_processors_have_no_card_to_serve():
    single, work = a_shape(), a_shape(cards=0)
    placer = on((8, 64, 2), (8, 64, 2), shares=[(single, 1), (work, 1)])
    placer.take(placer.shape(a_shape(cpus=0, gib=0)), 1)
    free, half = costs(placer, work)
    assert half < free


def test_a_whole_node_is_kept_for_gangs():
    single, pair = a_shape(), a_shape(cards=2)
    placer = on((8, 64, 2), (8, 64, 2), shares=[(single, 9), (pair, 1)])
    placer.take(placer.shape(single), 0)
    opened, whole = costs(placer, single)
    assert opened < whole


def test_the_only_class_that_can_is_opened_last():
    wide, single = a_shape(gib=256), a_shape()
    placer = on(*[(8, 64, 2)] * 9, (8, 512, 2), shares=[(single, 95), (wide, 5)])
    *common, rare = costs(placer, single)
    assert max(common) < rare


def test_what_rows_share_is_weighed_once_and_what_they_lack_row_by_row():
    placer = on(*[(8, 64, 2)] * 3, shares=[(a_shape(), 1)])
    full = placer.shape(a_shape(cpus=8))
    placer.hold(Allocation(node="n1", devices=(), cpu_milli=1), "a")  # the same whole levels but for one part
    placer.hold(Allocation(node="n2", devices=(), scratch_mib=0, cpu_milli=7_999), "a")
    assert placer.place(full)[0] == 0
    assert placer.best(full) is None
    assert placer.best(placer.shape(a_shape(cpus=7))) == 1


def test_the_order_of_demands_changes_no_draw():
    some = [a_demand(milli=m, cpus=1, weight=2, slots=(0b11, mask)) for m in (200, 300, 400) for mask in (0, 0b11)]
    classes = [a_class(), a_class(cpus=9)]
    for one, other in zip(arrays(mix_of(some, classes)), arrays(mix_of(some[::-1], classes)), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"\xff" * 9, repr(("pool", "ready", ("视", 2**40), 0.5)).encode() * 20]
)
def test_the_key_of_a_class_is_the_mixer_over_its_bytes(content):
    key = len(content)
    for byte in content:
        key = splitmix64((key * GOLDEN + byte + 1) & MASK64)
    assert content_key(content) == key
    assert isinstance(content_key(content), int)


def arrays(found):
    """The arrays of a tuple of arrays and of tuples of them."""
    return [array for each in found for array in (arrays(each) if isinstance(each, tuple) else [each])]
