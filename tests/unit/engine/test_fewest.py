"""The smallest set that works: what it is, and how many trials it takes."""

import random
from itertools import combinations

import pytest

from scheduler.engine.fewest import SETS_SURE, fewest

MOST = 64


class Counted:
    """A question that notes what it is asked."""

    def __init__(self, works):
        self._works, self.asked = works, []

    def __call__(self, members):
        self.asked.append(members)
        return self._works(members)

    def of_size(self, size):
        return sum(len(members) == size for members in self.asked)


def names(count):
    return [f"l{number:03}" for number in range(count)]


def holding(*sets):
    """Works where one of the sets is in it."""
    return lambda members: any(members.issuperset(one) for one in sets)


@pytest.mark.parametrize("seed", range(40))
def test_nothing_can_be_left_out_and_nothing_smaller_works_where_all_that_is_smaller_can_be_tried(seed):
    rng = random.Random(seed)
    members = names(rng.choice((3, 7, 12, 13, 15, 40)))
    wanted = [frozenset(rng.sample(members, rng.choice((1, 2, 3)))) for _ in range(3)]
    works = Counted(holding(*wanted))
    found = fewest([members, rng.sample(members, len(members))], works, MOST)
    assert found in wanted
    assert not any(works(found - {name}) for name in found)
    if len(members) <= 15:
        assert len(found) == min(len(one) for one in wanted)


def test_a_smaller_set_is_found_though_more_of_it_does_not_work():
    members, wanted = names(13), frozenset({"l003", "l007"})
    works = Counted(lambda some: some == wanted or (len(some) >= 3 and "l002" in some and "l012" in some))
    assert fewest([members], works, MOST) == wanted


def test_sets_are_tried_one_by_one_only_where_all_smaller_ones_can_be():
    few, many = Counted(holding(names(3))), Counted(holding(names(3)))
    fewest([names(15)], few, MOST)
    assert (few.of_size(1), few.of_size(2)) >= (15, 105), "120 are smaller"
    found = fewest([names(16)], many, MOST)
    assert found == frozenset(names(3))
    assert len(many.asked) < 20, "136 are smaller, and some of them would prove nothing"
    assert 15 + 105 <= SETS_SURE < 16 + 120


@pytest.mark.parametrize(("count", "wanted"), [(800, 2), (800, 8), (10_000, 8), (10_000, 64)])
def test_on_a_large_farm_a_few_trials_for_each_member_are_enough(count, wanted):
    members = names(count)
    near = Counted(holding(members[count // 2 :][:wanted]))
    assert fewest([members], near, MOST) == frozenset(members[count // 2 :][:wanted])
    far = Counted(holding(members[:: count // wanted][:wanted]))
    assert fewest([members], far, MOST) == frozenset(members[:: count // wanted][:wanted])
    assert len(set(near.asked)) == len(near.asked), "nothing is tried twice"
    assert len(near.asked) < 30 + 5 * wanted
    assert len(far.asked) < 30 + 25 * wanted


def test_the_order_in_which_a_smaller_set_comes_together_is_taken():
    members = names(300)
    works = holding(members[:5], members[-4:])
    assert fewest([members], works, MOST) == frozenset(members[:5])
    assert fewest([members, members[::-1]], works, MOST) == frozenset(members[-4:])
    assert fewest([members[::-1], members], works, MOST) == frozenset(members[-4:])


def test_what_turns_out_not_to_be_needed_is_left_out():
    """More of them do not always work: the first alone works, and with some more it does not."""
    members = names(300)
    works = Counted(lambda some: some == {"l000"} or {"l000", "l100"} <= some or len(some) == 300)
    assert fewest([members], works, MOST) == {"l000"}


def test_nothing_is_named_where_all_together_do_not_work_or_more_are_needed_than_anybody_can_use():
    assert fewest([names(30)], lambda some: False, MOST) == frozenset()
    assert fewest([[]], bool, MOST) == frozenset()
    assert len(fewest([names(300)], lambda some: len(some) >= MOST, MOST)) == MOST
    works = Counted(lambda some: len(some) > MOST)
    assert fewest([names(300)], works, MOST) == frozenset()


def test_all_pairs_of_a_small_park_are_the_answers_that_trying_everything_finds():
    members = names(13)
    for wanted in combinations(members, 2):
        assert fewest([members], holding(wanted), MOST) == frozenset(wanted)
