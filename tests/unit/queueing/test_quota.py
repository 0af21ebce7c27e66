import random
from collections import Counter

import pytest

from scheduler.model.queue import UNLIMITED, Queue
from scheduler.queueing.order import NONE, minus, plus
from scheduler.queueing.quota import Quotas, Rule, ancestors

TOTALS = (64_000, 256_000, 16_000, 0)


def cards(n):
    return 0, 0, n * 1_000, 0


def most(n):
    return -1, -1, n * 1_000, -1


def lend(n):
    return -1, -1, n * 1_000, -1


def make(*queues, held=None, jobs=()):
    return Quotas(queues, {name: cards(n) for name, n in (held or {}).items()}, TOTALS, jobs)


def test_without_quotas_nothing_is_in_the_way():
    quotas = make(Queue(name="a"), held={"a": 16})
    assert quotas.block("a", cards(1)) is None
    assert quotas.block("unknown", cards(100)) is None


def test_a_limit_holds_and_says_its_numbers():
    quotas = make(Queue(name="film", limit=most(4)), Queue(name="comp", parent="film"), held={"film": 1, "comp": 2})
    assert quotas.block("comp", cards(1)) is None
    block = quotas.block("comp", cards(2))
    assert (block.queue, block.rule, block.resource) == ("film", Rule.LIMIT, "card")
    assert (block.held, block.asked, block.most) == (3_000, 2_000, 4_000)


def test_what_is_not_lent_stays_free_and_what_is_lent_does_not():
    quotas = make(Queue(name="film", guaranteed=cards(8), lends=lend(3)), Queue(name="ai"), held={"ai": 10})
    assert quotas.block("ai", cards(1)) is None
    block = quotas.block("ai", cards(2))
    assert (block.queue, block.rule, block.held, block.most, block.kept) == ("", Rule.KEPT, 10_000, 16_000, 5_000)
    assert quotas.block("film", cards(6)) is None
    quotas.take("film", cards(5))
    assert quotas.block("ai", cards(1)) is None


def test_a_sibling_leaves_room_for_what_another_keeps_under_their_parents_limit():
    quotas = make(
        Queue(name="film", limit=most(8)),
        Queue(name="a", parent="film", guaranteed=cards(4), lends=lend(0)),
        Queue(name="b", parent="film"),
        held={"b": 4},
    )
    block = quotas.block("b", cards(1))
    assert (block.queue, block.rule, block.held, block.kept, block.most) == ("film", Rule.SIBLINGS, 4_000, 4_000, 8_000)
    assert quotas.block("a", cards(4)) is None


def test_jobs_at_once_are_counted_with_the_queues_below():
    quotas = make(
        Queue(name="film", jobs_max=2), Queue(name="comp", parent="film"), jobs=[("film", "j1"), ("comp", "j2")]
    )
    assert quotas.block("comp", cards(1), "j2") is None
    assert quotas.block("comp", cards(1), "j3").rule is Rule.JOBS
    quotas.give("film", NONE, "j1")
    assert quotas.block("comp", cards(1), "j3") is None


def test_entitlement_and_borrowing():
    quotas = make(Queue(name="film", guaranteed=cards(8)), Queue(name="ai", guaranteed=cards(4)), held={"ai": 12})
    assert quotas.borrowed("ai") == cards(8)
    assert quotas.entitled("film", cards(8))
    assert not quotas.entitled("film", cards(9))
    assert quotas.may_reclaim("film", cards(8), "ai", cards(1))
    assert not quotas.may_reclaim("ai", cards(1), "film", cards(1))
    quotas.give("ai", cards(8))
    assert not quotas.may_reclaim("film", cards(8), "ai", cards(1))


def test_several_leases_are_reclaimed_only_down_to_the_guarantee():
    quotas = make(Queue(name="film", guaranteed=cards(8)), Queue(name="ai", guaranteed=cards(4)), held={"ai": 7})
    one = ("ai", cards(1))
    assert quotas.may_reclaim_all("film", cards(1), [one] * 3)
    assert not quotas.may_reclaim_all("film", cards(1), [one] * 4)
    assert quotas.may_reclaim_all("film", cards(1), [("ai", cards(4)), one, one]), "the smallest first"
    assert quotas.held("ai") == cards(7), "asking changes nothing"


def test_a_guarantee_of_cards_covers_what_its_leases_need_beside_them():
    quotas = Quotas([Queue(name="film", guaranteed=cards(8)), Queue(name="ai")], {"ai": (60_000, 0, 1_000, 0)}, TOTALS)
    assert quotas.may_reclaim("film", (8_000, 0, 1_000, 0), "ai", (60_000, 0, 0, 0))
    assert not quotas.entitled("film", (8_000, 0, 0, 0))


def test_a_parents_guarantee_protects_its_children_from_outside_but_not_from_each_other():
    queues = (
        Queue(name="film", guaranteed=cards(8)),
        Queue(name="a", parent="film", guaranteed=cards(4)),
        Queue(name="b", parent="film"),
        Queue(name="ai", guaranteed=cards(8)),
    )
    quotas = make(*queues, held={"b": 6})
    assert not quotas.may_reclaim("ai", cards(1), "b", cards(1))
    assert quotas.may_reclaim("a", cards(4), "b", cards(1))
    assert not quotas.may_reclaim("b", cards(1), "a", cards(1))
    assert quotas.may_reclaim("a", cards(1), "film", cards(1)), "jobs straight in a parent have no guarantee against it"
    assert not quotas.may_reclaim("film", cards(1), "a", cards(1))


def test_ancestors_end_in_a_circle():
    queues = {
        q.name: q for q in (Queue(name="x", parent="y"), Queue(name="y", parent="x"), Queue(name="z", parent="x"))
    }
    assert ancestors(queues, "z") == ("z", "x", "y")
    assert ancestors(queues, "no") == ("no",)
    quotas = Quotas([Queue(name="x", parent="y", limit=most(1)), Queue(name="y", parent="x")], {}, TOTALS)
    assert quotas.block("x", cards(2)).rule is Rule.LIMIT


def a_farm(rng):
    """A tree whose guarantees fit into the farm and into the limits above them."""
    left, queues = 16, []
    for top in range(rng.randint(1, 4)):
        mine = rng.randint(0, left)
        left -= mine
        below = mine
        parts = []
        for child in range(rng.randint(0, 3)):
            part = rng.randint(0, below)
            below -= part
            parts.append(a_queue(rng, f"q{top}c{child}", f"q{top}", part))
        queues += [a_queue(rng, f"q{top}", "", mine), *parts]
    return queues


def a_queue(rng, name, parent, mine):
    return Queue(
        name=name,
        parent=parent,
        guaranteed=cards(mine),
        lends=rng.choice([UNLIMITED, lend(rng.randint(0, max(mine, 1)))]),
        limit=rng.choice([UNLIMITED, most(rng.randint(mine, 16))]),
    )


def below(queues, name):
    parents = {q.name: q for q in queues}
    return [q.name for q in queues if name in ancestors(parents, q.name)]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_taken_and_given_quotas_hold_and_conserve(seed):
    rng = random.Random(seed)
    queues = a_farm(rng)
    names = [q.name for q in queues]
    quotas, held, leases = Quotas(queues, {}, TOTALS), Counter(), []
    for _ in range(120):
        if leases and rng.random() < 0.4:
            name, n = leases.pop(rng.randrange(len(leases)))
            quotas.give(name, cards(n))
            held[name] -= n
        else:
            name, n = rng.choice(names), rng.randint(1, 5)
            fits = sum(held.values()) + n <= 16
            if quotas.block(name, cards(n)) is None and fits:
                quotas.take(name, cards(n))
                held[name] += n
                leases.append((name, n))
        for queue in queues:
            used = sum(held[name] for name in below(queues, queue.name))
            assert quotas.held(queue.name) == cards(used)
            limit = queue.limit[2]
            assert limit < 0 or used * 1_000 <= limit
            borrowed = quotas.borrowed(queue.name)
            assert minus(quotas.held(queue.name), borrowed)[2] <= queue.guaranteed[2]
            assert all(part >= 0 for part in borrowed)
            keeps = max(0, queue.guaranteed[2] - queue.lends[2]) if queue.lends[2] >= 0 else 0
            free = 16_000 - sum(held.values()) * 1_000
            assert free >= keeps - used * 1_000, "the unlent part of an idle guarantee stays free"
        fresh = Quotas(queues, {name: cards(n) for name, n in held.items()}, TOTALS)
        probe = rng.choice(names), cards(rng.randint(1, 9))
        assert quotas.block(*probe) == fresh.block(*probe) == quotas.copy().block(*probe)


@pytest.mark.parametrize("seed", range(60))
def test_what_is_guaranteed_can_always_be_got_back(seed):
    rng = random.Random(1_000 + seed)
    queues = a_farm(rng)
    names = [q.name for q in queues]
    quotas, leases, free = Quotas(queues, {}, TOTALS), [], 16
    for _ in range(60):
        name = rng.choice(names)
        if free and quotas.block(name, cards(1)) is None:
            quotas.take(name, cards(1))
            leases.append(name)
            free -= 1
    for name in sorted(names, key=lambda _: rng.random()):
        while name in quotas.covered_by(name, cards(1)):
            while not free or quotas.block(name, cards(1)) is not None:
                victims = [v for v in leases if quotas.may_reclaim(name, cards(1), v, cards(1))]
                assert victims, f"{name} is guaranteed more and nobody gives it back"
                victim = rng.choice(victims)
                before = plus(quotas.borrowed(victim), NONE)
                quotas.give(victim, cards(1))
                leases.remove(victim)
                free += 1
                assert before >= quotas.borrowed(victim)
            quotas.take(name, cards(1))
            leases.append(name)
            free -= 1
            assert not any(quotas.may_reclaim(other, cards(1), name, cards(1)) for other in _strangers(queues, name))


def _strangers(queues, name):
    parents = {q.name: q for q in queues}
    line = set(ancestors(parents, name))
    return [q.name for q in queues if q.name not in line and name not in ancestors(parents, q.name)]
