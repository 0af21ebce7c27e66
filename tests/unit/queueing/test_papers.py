"""The harness of the papers' rules: known answers on small jobs, and the published deadline trace."""

from __future__ import annotations

from benchmarks.papers import (
    Rules,
    Run,
    classics,
    elasticflow_overhead,
    free_overhead,
    ours,
    own_overhead,
    runs_of,
    simulate,
    supply_of,
)
from benchmarks.pool import Learner, Pool, Task, fifo, las, learned
from benchmarks.training_traces import elasticflow, gavel
from scheduler.model.policy import Objective
from scheduler.queueing.item import Item, Supply
from tests.traces import traces

MINUTE = 60_000
ONE = Supply(cards=(("a", 1),))


def run(key: str, at: int, minutes: int) -> Run:
    return Run(item=Item(key=key, remaining_ms=minutes * MINUTE, models=("a",), submitted_ms=at), arrival_ms=at)


def test_the_shorter_of_two_goes_first_and_an_eviction_costs_a_minute() -> None:
    rules = Rules(slot_ms=MINUTE, overhead=own_overhead)
    found = simulate([run("long", 0, 100), run("short", 10 * MINUTE, 5)], ONE, ours(Objective.COMPLETION), rules)
    assert found.ends_ms == {"short": 15 * MINUTE, "long": 106 * MINUTE}
    assert found.moves == 1
    runs = [run("long", 0, 100), run("short", 10 * MINUTE, 5)]
    assert simulate(runs, ONE, classics(runs)["fifo"], rules).ends_ms["short"] == 105 * MINUTE


def test_rounds_begin_at_multiples_and_ends_fall_between() -> None:
    rules = Rules(slot_ms=6 * MINUTE, rounds=True, overhead=free_overhead)
    found = simulate([run("x", 0, 7), run("y", MINUTE, 4)], ONE, ours(Objective.COMPLETION), rules)
    assert found.ends_ms == {"x": 7 * MINUTE, "y": 16 * MINUTE}


def task(key: str, at: int, minutes: int, cards: int = 1) -> Task:
    return Task(
        key=key,
        cards=cards,
        classes=("all",),
        arrival_ms=at,
        left_ms=minutes * MINUTE,
        item=Item(key=key, remaining_ms=1, models=("P100",), cards_per_rank=cards, lose_ms=MINUTE),
    )


def test_the_pool_keeps_order_evicts_for_the_new_and_moves_small_jobs_together() -> None:
    def jobs() -> list[Task]:
        return [task("long", 0, 600, 8), task("new", 60 * MINUTE, 10, 8)]

    assert Pool(order=fifo, preempt=False, nodes=1).play(jobs()) == (600 + 550) * 60 / 2
    evicting = Pool(order=las, preempt=True, nodes=1)
    assert evicting.play(jobs()) == (611 + 10) * 60 / 2
    assert evicting.evictions == 1
    apart = [task("a", 0, 600, 5), task("b", 0, 600, 4), task("c", 1, 10, 3), task("d", 11 * MINUTE, 30, 4)]
    moving = Pool(order=learned, preempt=True, steer=True, nodes=2)
    moving.play([*apart, task("e", 12 * MINUTE, 5, 3)])
    assert set(moving.done_ms) == {"a", "b", "c", "d", "e"}


def test_learned_run_times_say_who_is_likely_to_be_done_soon() -> None:
    learner = Learner()
    for _ in range(30):
        learner.learn(("short", "all"), MINUTE)
    for _ in range(30):
        learner.learn(("long", "all"), 600 * MINUTE)
    assert learner.index_ms(("short", "all"), 0) < learner.index_ms(("long", "all"), 0)
    assert learner.index_ms(("new", "all"), 0) < learner.index_ms(("long", "all"), 0)
    assert learner.index_ms(("unseen",), 5_000) == 6_000


def test_more_deadlines_are_met_than_elasticflow_and_every_classic_order() -> None:
    trace = elasticflow(traces())
    supply = supply_of(trace)
    for overhead in (elasticflow_overhead(64), own_overhead):
        rules = Rules(slot_ms=MINUTE, overhead=overhead)
        met = simulate(runs_of(trace, ["T4"]), supply, ours(Objective.COMPLETION), rules).met
        assert met >= 0.74
        for name in ("fifo", "edf", "sjf", "las"):
            runs = runs_of(trace, ["T4"])
            assert met > simulate(runs, supply, classics(runs)[name], rules).met, name


def test_gavels_jobs_complete_sooner_than_by_every_classic_order() -> None:
    trace = gavel(traces())
    supply = supply_of(trace)
    rules = Rules(slot_ms=6 * MINUTE, rounds=True, overhead=own_overhead)
    models = [model for model, _ in supply.cards]
    hours = simulate(runs_of(trace, models), supply, ours(Objective.COMPLETION), rules).jct_hours
    assert hours <= 3.7
    for name in ("fifo", "sjf", "las"):
        runs = runs_of(trace, models)
        assert hours < simulate(runs, supply, classics(runs)[name], rules).jct_hours, name
