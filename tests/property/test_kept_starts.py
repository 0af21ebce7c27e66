"""A reserved start is never delayed by backfill.

What holds, exactly. A plan promises a start to some who are next and do not fit (``Reserve``: the first with EASY, up
to ``reservations_max`` with conservative backfill). *Backfill* is whatever a plan starts behind such a promise, what
leaves for it included. From then on, as long as

- nothing ends later than the plan expected, and no node or attempt is lost,
- nobody else goes ahead: what each later plan does before it reaches the promised step is no more than to promise
  again, or to start as promised, what was promised ahead of it, in the same order (fair share may turn the order round
  at any time, and a job of a higher priority may come: then the promise is void, and not by backfill),
- nobody ahead without a promise (a single task of a shape that others hold) would take the room that is made for it,
- what is to leave for it may: a floor or a guarantee that would be short without it keeps it,

no later plan promises the step a later start than any plan before it, and it starts no later than the earliest of these
instants. This holds for every promise, also where something ends earlier (a job is cancelled), and beside slots and
tracks of promised deadlines, windows, guarantees, floors, priorities and elastic gangs.

Run times are known exactly here. Where they are known roughly, what leaves is told when nine of ten others will have
ended, and a start may be later than promised by its notice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import pytest

from scheduler.engine import ends, plan
from scheduler.engine.expected import End, Expected
from scheduler.engine.guard import Guard, Promise
from scheduler.engine.headroom import Headroom
from scheduler.engine.starts import Starts
from scheduler.engine.trial import Trial
from scheduler.model.policy import Backfill
from tests.property.kept import ALLOWANCE_MS, World, watched

EASY, CONSERVATIVE = Backfill.EASY, Backfill.CONSERVATIVE
CASES = ((EASY, False), (EASY, True), (CONSERVATIVE, False), (CONSERVATIVE, True))
LEAST = 2
"""Promises per park that must have been followed to their start, on average; and as many backfilled leases."""


def held(backfill: Backfill, early: bool, seeds: Sequence[int], *, wide: bool = False) -> list[str]:
    """Broken promises of some parks. With EASY backfill who stops others is promised a start too, beside the first."""
    broken, started, backfilled = list[str](), 0, 0
    for seed in seeds:
        witness, _ = watched(World(seed, backfill, early=early, wide=wide), first_only=backfill is EASY)
        broken += [f"seed {seed}: {line}" for line in witness.broken]
        started += witness.started
        backfilled += witness.backfilled
    assert min(started, backfilled) >= LEAST * len(seeds), "too little happened: nothing was tested"
    return broken


@pytest.mark.parametrize(("backfill", "early"), CASES)
def test_backfill_delays_no_promised_start(backfill: Backfill, early: bool) -> None:
    assert held(backfill, early, range(8)) == []


@pytest.mark.parametrize(("backfill", "early"), CASES)
def test_nor_where_a_park_has_everything_else(backfill: Backfill, early: bool) -> None:
    assert held(backfill, early, range(6), wide=True) == []


MANY = range(1_000, 1_040)


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(("backfill", "early"), CASES)
def test_backfill_delays_no_promised_start_in_many_parks(backfill: Backfill, early: bool) -> None:
    assert held(backfill, early, MANY) == []


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(("backfill", "early"), CASES)
def test_nor_in_many_parks_that_have_everything_else(backfill: Backfill, early: bool) -> None:
    assert held(backfill, early, MANY, wide=True) == []


def test_a_first_promise_is_the_start_it_would_have_if_nothing_else_started_any_more() -> None:
    """The twin: same records, same ends, everything else that waits is held. Who starts as promised was not delayed."""
    compared = 0
    for seed in range(8):
        world = World(seed, EASY)
        for start, key, at_ms, promised_ms in watched(world, first_only=True)[0].first[:4]:
            assert promised_ms <= world.alone(start, key, at_ms) + ALLOWANCE_MS, f"seed {seed}: {key} at {at_ms}"
            compared += 1
    assert compared > 16


# ── faults planted on purpose ────────────────────────────────────────────────────────────────────────────────────────


def no_guard(guard: Guard, *_: object) -> frozenset[str]:
    return frozenset()


def no_limits(headroom: Headroom, *_: object) -> None:
    return None


def first_rank_only(check: object) -> object:
    """As it was: whether there is room beside one rank of a gang, however many it puts on the node."""

    def barred(guard: Guard, demand: object, stay: object, tenant: str, ranks: int) -> frozenset[str]:
        return check(guard, demand, stay, tenant, 1)  # type: ignore[operator,no-any-return]

    return barred


def leaves_for_all(known: object) -> object:
    """As it was: what leaves for one counts as leaving for whoever asks."""

    def ends_of(expected: Expected, node: str, for_job: str) -> Iterator[End]:
        for record in [expected._state.leases[key] for key in expected._state.leases_of_node.get(node, ())]:
            end_ms = expected.end_ms(record, record.lease.leaves_for)
            yield from ((end_ms, a, record.lease.id) for a in record.lease.allocations if a.node == node)

    return ends_of


def grace_from_now(record: object, step: object, now_ms: int) -> int:
    """As it was: what is being stopped has its whole grace left whenever it is looked at."""
    return step.grace_ms  # type: ignore[attr-defined,no-any-return]


def no_second_look(trial: Trial) -> bool:
    return True


def no_records(*_: object) -> None:
    """As it was: every plan promises anew, and knows nothing of what the last one promised."""


def no_claims(starts: Starts, candidate: object) -> list[Promise]:
    """Who is promised a start ahead of others finds its place, and calls others away, as if those had none."""
    return []


@contextmanager
def planted(fault: str) -> Iterator[None]:
    """The engine with one fault."""
    target, name, broken = {
        "no guard": (Guard, "barred", no_guard),
        "one rank": (Guard, "barred", first_rank_only(Guard.barred)),
        "no limits": (Headroom, "needed_by", no_limits),
        "leaves for all": (Expected, "_ends_of", leaves_for_all(Expected._ends_of)),
        "grace from now": (ends, "_grace_left", grace_from_now),
        "no second look": (Trial, "holds", no_second_look),
        "no records": (plan, "recall", no_records),
        "no claims": (Starts, "others", no_claims),
    }[fault]
    with patch.object(target, name, broken):
        yield


@pytest.mark.parametrize(
    ("fault", "backfill", "early", "seeds"),
    [
        ("no guard", EASY, False, (3,)),
        ("one rank", EASY, False, (31,)),
        ("no limits", CONSERVATIVE, False, (117,)),
        ("leaves for all", CONSERVATIVE, False, (1,)),
        ("grace from now", EASY, True, (1,)),
        ("no second look", CONSERVATIVE, False, (13,)),
        ("no records", CONSERVATIVE, True, (5,)),
        ("no claims", CONSERVATIVE, True, (5,)),
    ],
)
def test_a_planted_fault_is_noticed(fault: str, backfill: Backfill, early: bool, seeds: Sequence[int]) -> None:
    """In parks where it does harm; the engine as it is does none there."""
    first_only = backfill is EASY

    def broken(seed: int) -> list[str]:
        return watched(World(seed, backfill, early=early), first_only=first_only)[0].broken

    assert [line for seed in seeds for line in broken(seed)] == []
    with planted(fault):
        assert any(broken(seed) for seed in seeds)
