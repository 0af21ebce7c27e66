import random
from collections import Counter

import pytest

from scheduler.model.policy import USAGE_HALF_LIFE_MS, Policy
from scheduler.model.queue import Queue, QueueUse
from scheduler.queueing.order import NONE, Order, plus, times
from scheduler.queueing.usage import (
    DECAY_STEP_MS,
    FRACTION_BITS,
    STEP_FACTOR,
    STEPS_PER_HALF_LIFE,
    add,
    decayed,
    now_used,
    with_past,
)

BIG = (10**15, 3 * 10**14, 7, 0)


def test_the_factor_is_the_root_of_a_half_to_the_last_bit():
    half = 1 << (FRACTION_BITS * STEPS_PER_HALF_LIFE - 1)
    assert STEP_FACTOR**STEPS_PER_HALF_LIFE <= half < (STEP_FACTOR + 1) ** STEPS_PER_HALF_LIFE


def test_a_half_life_halves_and_the_past_changes_nothing():
    use = QueueUse(name="q", at_ms=5, used=BIG)
    assert decayed(use, 5 + USAGE_HALF_LIFE_MS) == (BIG[0] // 2, BIG[1] // 2, 3, 0)
    assert decayed(use, 0) == BIG
    assert decayed(use, USAGE_HALF_LIFE_MS * 200) == NONE


@pytest.mark.parametrize("seed", range(20))
def test_however_often_a_record_is_touched_it_forgets_the_same(seed):
    rng = random.Random(seed)
    use, at_ms = QueueUse(name="q", at_ms=0, used=BIG), 0
    for _ in range(500):
        at_ms += rng.randrange(2 * DECAY_STEP_MS)
        use = add(use, "q", NONE, 0, at_ms)
    once = decayed(QueueUse(name="q", at_ms=0, used=BIG), at_ms)
    assert 0 <= once[0] - use.used[0] <= 500
    assert use.at_ms == at_ms


def test_leases_that_close_out_of_order_count_the_same():
    early, late = ((4_000, 0, 0, 0), 3_600_000, 7_000_000), ((0, 0, 2_000, 0), 60_000, 90_000_000)
    one = add(add(None, "q", *early), "q", *late)
    two = add(add(None, "q", *late), "q", *early)
    assert one == two
    assert one.used[2] == 2_000 * 60


def test_open_leases_count_what_they_held_so_far():
    held, since = {"q": (3_000, 0, 0, 0)}, {"q": (1_000 * 10_000 + 2_000 * 40_000, 0, 0, 0)}
    assert now_used([], held, since, 50_000) == {"q": (1_000 * 40 + 2_000 * 10, 0, 0, 0)}


def test_the_past_counts_by_the_scarcest_resource_and_a_little_of_a_rare_one_counts_little():
    totals = (100_000, 0, 10_000, 1_000)
    used = {"a": (0, 0, 9_000 * 100, 0), "b": (50_000 * 100, 0, 0, 0), "c": (0, 0, 0, 10)}
    counted = with_past({"a": (1, 1, 1, 1)}, used, totals, 1_000)
    assert counted["a"] == (1, 1, 1 + 9_000 * 100 // 90, 1)
    assert counted["c"] == NONE, "a moment of an instance nobody else used is not a whole share"
    assert with_past({"a": BIG}, used, totals, 0) == {"a": BIG}
    assert with_past({"a": BIG}, {}, totals, 500) == {"a": BIG}


CARDS = 96


class Farm:
    """Gangs of 64 cards beside frames of one card, minute by minute; a gang that is ahead lets the frames drain."""

    def __init__(self, weights, usage_weight_permille):
        self.queues = [Queue(name=name, weight=weight) for name, weight in weights.items()]
        self.weight = usage_weight_permille
        self.at, self.open, self.uses = 0, [], {}
        self.served = Counter()

    def minute(self, rng):
        self.close()
        held, since = {}, {}
        for queue, cards, granted, _ in self.open:
            amounts = (0, 0, cards * 1_000, 0)
            held[queue] = plus(held.get(queue, NONE), amounts)
            since[queue] = plus(since.get(queue, NONE), times(amounts, granted))
        used = now_used(self.uses.values(), held, since, self.at)
        totals = (0, 0, CARDS * 1_000, 0)
        counted = with_past(held, used, totals, self.weight)
        order = Order(self.queues, totals, counted, {q.name: [q.name] for q in self.queues})
        free = CARDS - sum(cards for _, cards, _, _ in self.open)
        while free and (queue := order.peek()) is not None:
            cards, minutes = (64, rng.randint(20, 60)) if queue == "gangs" else (1, 1)
            if cards > free:
                break  # what is ahead and does not fit is waited for
            self.open.append((queue, cards, self.at, self.at + minutes * 60_000))
            free -= cards
            order.charge((0, 0, cards * 1_000, 0))
        self.at += 60_000

    def close(self):
        for lease in [lease for lease in self.open if lease[3] <= self.at]:
            queue, cards, granted, end = lease
            self.open.remove(lease)
            self.served[queue] += cards * (end - granted)
            self.uses[queue] = add(self.uses.get(queue), queue, (0, 0, cards * 1_000, 0), end - granted, end)


@pytest.mark.parametrize("weights", [{"gangs": 100, "frames": 100}, {"gangs": 100, "frames": 300}])
def test_long_run_shares_of_gangs_beside_frames_are_within_two_per_cent_of_the_weights(weights):
    farm, rng = Farm(weights, Policy().usage_weight_permille), random.Random(4)
    for _ in range(36 * 60):
        farm.minute(rng)
    whole = sum(farm.served.values())
    for name, weight in weights.items():
        share = farm.served[name] / whole
        assert abs(share - weight / sum(weights.values())) < 0.02, (name, share, farm.served)
