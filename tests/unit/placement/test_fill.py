import random

import numpy as np

from scheduler.placement.fill import SCRATCH, filled_in_lanes, kept_in_lanes, lanes_of
from scheduler.placement.fragment import SLOTS_MOST, filled, kept, memo_of, value
from scheduler.placement.mix import FIXED, LEVELS_PER_CARD, Demand, NodeClass, mix_of


def test_lanes_take_and_keep_what_one_after_the_other_does():
    rng = random.Random(5)
    kept_at_all = 0
    for _ in range(40):
        cards = rng.randrange(1, 9)
        node = NodeClass(
            cpu_milli=cards * 12_000, memory_mib=cards * 48_000, slots=(0,) * cards, count=1, key=rng.getrandbits(60)
        )
        demands = [
            Demand(
                cpu_milli=rng.randrange(0, 20_000),
                memory_mib=rng.randrange(0, 60_000),
                cards=(many := rng.choice((0, 1, 1, 1, 1, 2, 4))),
                card_milli=rng.choice((1, 100, 300, 333, 500, 730, 1_000)) if many == 1 else 1_000,
                slots=((1 << cards) - 1 if rng.random() < 0.9 else 0,),
                weight=rng.randrange(1, 9),
            )
            for _ in range(12)
        ]
        mix = mix_of(demands, [node])
        assert mix.has_lanes[0]
        asks = lanes_of.py_func(mix, 0)  # type: ignore[attr-defined]
        for _ in range(50):
            free = np.zeros(8, np.int64)
            free[:cards] = [rng.choice((0, 90, 300, 500, 999, 1_000, 1_000)) for _ in range(cards)]
            cpu, memory = rng.randrange(int(mix.tops[0]) + 1), rng.randrange(int(mix.tops[0]) + 1)
            slow = filled(mix, np.zeros(SLOTS_MOST, np.int64), 0, cpu, memory, free)
            assert filled_in_lanes(asks, np.zeros(SCRATCH, np.int16), cpu, memory, free) == slow
            worth = kept(mix, 0, cpu, memory, free)
            assert kept_in_lanes(asks, cpu, memory, free) == worth
            kept_at_all += worth > 0
    assert kept_at_all > 100


def test_a_value_from_a_fill_that_nothing_bound_is_that_of_its_own_fill():
    rng = random.Random(6)
    bound = 0
    for _ in range(30):
        cards = rng.randrange(1, 9)
        top = LEVELS_PER_CARD * cards
        node = NodeClass(
            cpu_milli=top * 1_000, memory_mib=top * 4_096, slots=(0,) * cards, count=1, key=rng.getrandbits(60)
        )
        demands = [
            Demand(
                cpu_milli=rng.randrange(0, 6_000),
                memory_mib=rng.randrange(0, 24_000),
                cards=(many := rng.choice((1, 1, 1, 2))),
                card_milli=rng.choice((250, 470, 1_000)) if many == 1 else 1_000,
                slots=((1 << cards) - 1,),
                weight=rng.randrange(1, 9),
            )
            for _ in range(8)
        ]
        mix, memo = mix_of(demands, [node]), memo_of(8)
        for _ in range(6):
            free = np.zeros(8, np.int64)
            free[:cards] = [rng.choice((0, 530, 1_000)) for _ in range(cards)]
            most = filled(mix, np.zeros(SLOTS_MOST, np.int64), 0, top, top, free)
            for _ in range(20):
                cpu, memory = rng.randrange(top + 1), rng.randrange(top + 1)
                fill = filled(mix, np.zeros(SLOTS_MOST, np.int64), 0, cpu, memory, free)
                worth = fill * FIXED + kept(mix, 0, cpu, memory, free)
                assert value(mix, memo, 0, cpu * 1_000, memory * 4_096, free) == worth
                bound += fill < most
    assert 500 < bound < 3_000
