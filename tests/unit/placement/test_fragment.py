import numpy as np
import pytest

from scheduler.placement.fragment import NONE, memo_of, score, tie, value
from scheduler.placement.mix import FIXED, ROLLOUTS, Demand, NodeClass, content_key, mix_of

UNIT = ROLLOUTS * FIXED


def a_class(cards=2, cpus=8, gib=64, count=10, kinds=None):
    kinds = kinds or (0,) * cards
    key = content_key((cpus, gib, *kinds))
    return NodeClass(cpu_milli=cpus * 1000, memory_mib=gib * 1024, slots=kinds, count=count, key=key)


def a_demand(cpus=4, gib=8, *, cards=1, milli=1000, weight=1, slots=(0b11,)):
    return Demand(
        cpu_milli=cpus * 1000, memory_mib=gib * 1024, cards=cards, card_milli=milli, slots=slots, weight=weight
    )


def worth(mix, cpus, gib, free, klass=0):
    return value(mix, memo_of(4), klass, cpus * 1000, gib * 1024, np.array(free, np.int64))


def cost(mix, cpus, gib, free, demand, *, klass=0):
    row = np.array(free, np.int64)
    before = value(mix, memo_of(4), klass, cpus * 1000, gib * 1024, row)
    shape = (demand.cpu_milli, demand.memory_mib, demand.cards, demand.card_milli, demand.slots[klass])
    return score(mix, memo_of(4), before, klass, cpus * 1000, gib * 1024, row, *shape)


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


def test_a_gap_that_a_demand_fills_is_filled_first():
    mix = mix_of([a_demand(cpus=1, milli=400), a_demand(cpus=1, milli=600)], [a_class()])
    small = a_demand(cpus=1, milli=400)
    assert cost(mix, 8, 64, (1000, 400), small)[1] == 0b10
    assert cost(mix, 8, 64, (1000, 400), small)[0] < cost(mix, 8, 64, (1000, 0), small)[0]


def test_work_without_cards_goes_where_processors_have_no_card_to_serve():
    mix = mix_of([a_demand(), a_demand(cards=0, milli=0)], [a_class()])
    work = a_demand(cards=0, milli=0)
    assert cost(mix, 8, 64, (1000, 0), work) == (0, 0)
    assert cost(mix, 8, 64, (1000, 1000), work)[0] > 0


def test_a_whole_node_is_kept_for_gangs():
    single, pair = a_demand(weight=9), a_demand(cards=2, weight=1)
    mix = mix_of([single, pair], [a_class()])
    assert cost(mix, 4, 56, (1000, 0), single)[0] < cost(mix, 8, 64, (1000, 1000), single)[0]
    assert cost(mix, 8, 64, (1000, 1000), pair)[1] == 0b11


def test_the_only_class_that_can_is_opened_last():
    common, rare = a_class(count=90), a_class(gib=512, count=10)
    wide = a_demand(gib=256, weight=5, slots=(0b11, 0b11))
    single = a_demand(weight=95, slots=(0b11, 0b11))
    mix = mix_of([single, wide], [common, rare])
    assert cost(mix, 8, 64, (1000, 1000), single, klass=0)[0] < cost(mix, 8, 512, (1000, 1000), single, klass=1)[0]


@pytest.mark.parametrize(
    ("cpus", "gib", "free", "demand"),
    [
        (3, 64, (1000, 1000), a_demand()),
        (8, 7, (1000, 1000), a_demand()),
        (8, 64, (999, 999), a_demand()),
        (8, 64, (1000, 999), a_demand(cards=2)),
        (8, 64, (1000, 1000), a_demand(slots=(0,))),
        (8, 64, (0, 1000), a_demand(slots=(0b01,))),
    ],
)
def test_what_does_not_fit_has_no_score(cpus, gib, free, demand):
    assert cost(mix_of([a_demand()], [a_class()]), cpus, gib, free, demand) == (NONE, 0)


def test_slots_of_one_kind_are_interchangeable_and_others_are_not():
    mix = mix_of([a_demand(milli=300, slots=(0b111,))], [a_class(cards=3, kinds=(0, 0, 1))])

    def told(*free):
        return tie(mix, 0, 8000, 65536, np.array(free, np.int64))

    assert told(300, 700, 1000) == told(700, 300, 1000)
    assert told(300, 700, 1000) != told(300, 1000, 700)


def test_scoring_leaves_the_node_as_it_was():
    mix = mix_of([a_demand(milli=300, cpus=1)], [a_class()])
    row = np.array((700, 1000), np.int64)
    score(mix, memo_of(4), 0, 0, 8000, 65536, row, 1000, 1024, 1, 300, 0b11)
    score(mix, memo_of(4), 0, 0, 8000, 65536, row, 1000, 1024, 2, 300, 0b11)
    assert row.tolist() == [700, 1000]


CLASSES = (a_class(count=6), a_class(cards=4, cpus=16, gib=128, count=5), a_class(kinds=(0, 1), cpus=32, count=4))
SHAPES = (
    (1, 2, 1, 300, 30),
    (2, 4, 1, 500, 20),
    (4, 16, 1, 1000, 30),
    (12, 64, 4, 1000, 5),
    (6, 8, 0, 0, 15),
    (1, 30, 2, 1000, 4),
)


def demands(order):
    """Only the second class has room for four cards; the last class's second slot is closed to whole cards."""
    found = []
    for cpus, gib, cards, milli, weight in SHAPES:
        masks = {0: 0b11, 1: 0b1111, 2: 0b01 if milli == 1000 else 0b11}
        found.append(a_demand(cpus, gib, cards=cards, milli=milli, weight=weight, slots=tuple(masks[c] for c in order)))
    return found


def placed(order, names, memo_bits=12):
    """Fill a small farm whose classes and nodes are listed in an order; what was left of nodes and who was refused."""
    mix, memo, asked = mix_of(demands(order), [CLASSES[c] for c in order]), memo_of(memo_bits), demands(order)
    klass = np.repeat(np.arange(3), [CLASSES[c].count for c in order])[names]
    have = [CLASSES[order[k]] for k in klass]
    cpu, memory = [c.cpu_milli for c in have], [c.memory_mib for c in have]
    free = np.array([[1000 * (d < len(c.slots)) for d in range(4)] for c in have], np.int64)
    refused = []
    for i, s in enumerate(np.random.default_rng(7).choice(len(SHAPES), 150, p=np.array([s[4] for s in SHAPES]) / 104)):
        d, best = asked[s], None
        for n, k in enumerate(klass):
            before = value(mix, memo, k, cpu[n], memory[n], free[n])
            shape = (d.cpu_milli, d.memory_mib, d.cards, d.card_milli, d.slots[k])
            points, mask = score(mix, memo, before, k, cpu[n], memory[n], free[n], *shape)
            found = (points, tie(mix, k, cpu[n], memory[n], free[n]), n, mask)
            if points < NONE and (best is None or found[:2] < best[:2]):
                best = found
        if best is None:
            refused.append(i)
            continue
        _, _, n, mask = best
        cpu[n], memory[n] = cpu[n] - d.cpu_milli, memory[n] - d.memory_mib
        free[n] -= [d.card_milli * ((mask >> slot) & 1) for slot in range(4)]
        assert min(cpu[n], memory[n], free[n].min()) >= 0
    left = sorted((have[n].key, cpu[n], memory[n], *_by_kind(have[n], free[n])) for n in range(len(klass)))
    return left, refused


def _by_kind(node, free):
    return sorted(zip(node.slots, free.tolist(), strict=False))


def test_the_order_of_nodes_and_classes_changes_nothing():
    plain = placed((0, 1, 2), np.arange(15))
    assert plain[1], "the farm must become full, else the test shows little"
    for seed in range(4):
        rng = np.random.default_rng(seed)
        assert placed(tuple(rng.permutation(3).tolist()), rng.permutation(15)) == plain


def test_the_memo_changes_no_decision():
    assert placed((0, 1, 2), np.arange(15), memo_bits=0) == placed((0, 1, 2), np.arange(15))


def test_the_order_of_demands_changes_no_draw():
    some = [a_demand(milli=m, cpus=1, weight=2, slots=(0b11, mask)) for m in (200, 300, 400) for mask in (0, 0b11)]
    classes = [a_class(), a_class(cpus=9)]
    for one, other in zip(mix_of(some, classes), mix_of(some[::-1], classes), strict=True):
        assert np.array_equal(one, other)
