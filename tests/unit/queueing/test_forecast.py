import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.model.policy import Backfill
from scheduler.queueing import rollout
from scheduler.queueing.durations import Estimate, Source
from scheduler.queueing.forecast import forecast
from scheduler.queueing.histogram import ATOMS, quantile
from scheduler.queueing.pool import Arrivals, Ask, Pool, Running

MINUTE = 60_000


def sure(minutes):
    return Estimate(atoms=(minutes * MINUTE,) * ATOMS, source=Source.ALL)


def rough(minutes, factor=4):
    values = np.geomspace(minutes * MINUTE / factor, minutes * MINUTE * factor, ATOMS)
    return Estimate(atoms=tuple(int(v) for v in values), source=Source.ALL)


def running(amount, minutes, node=0, elapsed=0):
    return Running(nodes=(node,), amount=amount, elapsed_ms=elapsed * MINUTE, estimate=sure(minutes))


def ask(amount, minutes=10, ranks=1, count=1):
    return Ask(amount=amount, ranks=ranks, count=count, estimate=sure(minutes))


def middle(pool, wanted=None, seed=1):
    return quantile(forecast(pool, wanted or ask(1), seed), 500) / MINUTE


def test_what_fits_now_starts_now():
    waits = forecast(Pool(free=(0, 2), running=()), ask(2), seed=1)
    assert waits == (0,) * ATOMS


def test_a_gang_starts_when_enough_leases_have_ended():
    pool = Pool(free=(0, 0), running=(running(8, 30), running(8, 90, node=1)))
    assert middle(pool, ask(8)) == pytest.approx(30, rel=0.1)
    assert middle(pool, ask(8, ranks=2)) == pytest.approx(90, rel=0.1)
    assert forecast(pool, ask(9), seed=1) == ()


def test_a_lease_has_only_the_rest_to_run():
    assert middle(Pool(free=(0,), running=(running(1, 60, elapsed=45),))) == pytest.approx(15, rel=0.1)


def test_those_ahead_go_first_unless_the_hole_is_too_small_for_them():
    blocked = {"free": (2,), "running": (running(6, 60),), "ahead": (ask(8, 10),)}
    small, long = ask(2, 30), ask(2, 90)
    assert middle(Pool(**blocked, backfill=Backfill.NONE), small) == pytest.approx(70, rel=0.1)
    assert middle(Pool(**blocked, backfill=Backfill.EASY), small) == 0
    assert middle(Pool(**blocked, backfill=Backfill.EASY), long) == pytest.approx(70, rel=0.1)
    assert middle(Pool(**blocked, backfill=Backfill.ANY), long) == 0


def test_many_equal_tasks_ahead_are_played_as_chains_of_the_same_work():
    few = Pool(free=(64,), running=(), ahead=(ask(1, 10, count=640),), backfill=Backfill.NONE)
    assert middle(few) == pytest.approx(100, rel=0.1)


def test_arrivals_that_go_ahead_delay_and_those_behind_do_not():
    pool = {"free": (0,), "running": (running(1, 60),)}
    coming = Arrivals(gap_ms=20 * MINUTE, asks=(ask(1, 15),))
    ahead = Arrivals(gap_ms=20 * MINUTE, asks=(ask(1, 15),), are_ahead=True)
    alone = middle(Pool(**pool))
    assert middle(Pool(**pool, arrivals=(coming,))) == pytest.approx(alone, rel=0.1)
    assert middle(Pool(**pool, arrivals=(ahead,))) > alone + 30


def test_rough_estimates_give_wide_forecasts():
    def width(estimate):
        lease = Running(nodes=(0,), amount=1, elapsed_ms=0, estimate=estimate)
        waits = forecast(Pool(free=(0,), running=(lease,)), ask(1), seed=5)
        return quantile(waits, 950) / quantile(waits, 50)

    assert width(sure(60)) < 3 < width(rough(60))


def test_the_same_arguments_give_the_same_answer_and_another_seed_a_similar_one():
    leases = tuple(Running(nodes=(i % 4,), amount=2, elapsed_ms=i, estimate=rough(30 + i)) for i in range(16))
    pool = Pool(free=(0,) * 4, running=leases, ahead=(ask(8, ranks=2), ask(4)))
    assert forecast(pool, ask(8), 7) == forecast(pool, ask(8), 7)
    assert middle(pool, ask(8), 7) == pytest.approx(middle(pool, ask(8), 8), rel=0.3)


def played(free, ends, tasks, target, backfill):
    """The kernel on one node: ``ends`` of unit leases, ``tasks`` as (amount, run)."""
    count = len(ends)
    board = rollout.Board(
        free=np.array([free], np.int64),
        spare=np.array([free], np.int64),
        first=np.arange(count + len(tasks) + 1, dtype=np.int64),
        nodes=np.zeros(count + len(tasks), np.int64),
        amounts=np.array([1] * count + [0] * len(tasks), np.int64),
        leases=count,
    )
    at = np.zeros(len(tasks), np.int64)
    asks, runs = (np.array(column, np.int64) for column in zip(*tasks, strict=True))
    moves = rollout.Moves(asks, np.array(ends, np.int64), at, np.arange(len(tasks)), runs)
    return rollout.start_of(
        board, moves, target, {"none": rollout.NONE, "any": rollout.ANY, "easy": rollout.EASY}[backfill]
    )


def by_hand(free, ends, tasks, backfill):
    """The same in plain Python: starts of all tasks, with or without skipping what does not fit."""
    open_until, waiting, starts, now = [(end, 1) for end in ends], list(range(len(tasks))), {}, 0
    while waiting:
        free += sum(amount for end, amount in open_until if end <= now)
        open_until = [(end, amount) for end, amount in open_until if end > now]
        for i in list(waiting):
            amount, run = tasks[i]
            if amount <= free:
                free -= amount
                open_until.append((now + run, amount))
                starts[i] = now
                waiting.remove(i)
            elif backfill == "none":
                break
        if not open_until:
            return starts
        now = min(end for end, _ in open_until)
    return starts


pools = st.integers(1, 8).flatmap(
    lambda size: st.tuples(
        st.lists(st.integers(1, 50), max_size=size),
        st.lists(st.tuples(st.integers(1, size), st.integers(1, 50)), min_size=1, max_size=12),
        st.just(size),
    )
)


@settings(max_examples=150, deadline=None)
@given(pools, st.sampled_from(("none", "any")))
def test_the_kernel_starts_each_task_when_plain_python_does(pool, backfill):
    ends, tasks, size = pool
    starts = by_hand(size - len(ends), ends, tasks, backfill)
    for target in range(len(tasks)):
        assert played(size - len(ends), ends, tasks, target, backfill) == starts[target]


@settings(max_examples=150, deadline=None)
@given(pools)
def test_backfill_never_delays_the_head_and_nobody_waits_for_ever(pool):
    ends, tasks, size = pool
    free = size - len(ends)
    assert played(free, ends, tasks, 0, "easy") == played(free, ends, tasks[:1], 0, "none")
    assert all(played(free, ends, tasks, i, "easy") < rollout.NEVER for i in range(len(tasks)))
