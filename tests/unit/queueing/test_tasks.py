from scheduler.model.ranges import Ranges
from scheduler.queueing import tasks
from tests.builders import a_step


def running(count=3, indices=(0, 1, 2)):
    return tasks.grant(tasks.new_step(a_step(count=count)), indices)


def test_a_waiting_task_costs_nothing_however_many_there_are():
    record = tasks.new_step(a_step(count=1_000_000))
    assert record.waiting.spans == ((0, 1_000_000),)
    assert record.attempts == ()


def test_first_attempts_that_run_and_succeed_are_not_stored():
    record = running()
    assert record.attempts == ()
    assert tasks.tries(record, 1) == (1, 0)
    assert tasks.succeed(record, 1, run_ms=5).attempts == ()


def test_tries_are_counted_over_failures_and_losses():
    record = tasks.wait_again(running(), 1, counted=True, lost=False)
    record = tasks.wait_again(tasks.grant(record, (1,)), 1, counted=False, lost=True)
    assert tasks.tries(record, 1) == (2, 1)
    assert tasks.times_lost(record, 1) == 1
    assert tasks.tries(tasks.grant(record, (1,)), 1) == (3, 1)


def test_success_after_a_failure_keeps_how_often_it_was_tried_and_forgets_losses():
    record = tasks.wait_again(running(), 1, counted=True, lost=True)
    record = tasks.succeed(tasks.grant(record, (1,)), 1, run_ms=5)
    assert tasks.tries(record, 1) == (2, 1)
    assert tasks.times_lost(record, 1) == 0


def test_reset_forgives_failures_but_never_reuses_an_attempt_number():
    record = tasks.fail(running(), 1, counted=True)
    again = tasks.reset(record)
    assert tasks.tries(again, 1) == (1, 0)
    assert tasks.tries(tasks.grant(again, (1,)), 1) == (2, 0)


def test_reset_of_some_indices_leaves_the_others():
    record = tasks.cancel_waiting(tasks.new_step(a_step(count=10)))
    again = tasks.reset(record, (2, 3, 7, 99))
    assert again.waiting == Ranges.of((2, 3, 7))
    assert again.cancelled == Ranges.of((0, 1, 4, 5, 6, 8, 9))


def test_reset_without_anything_to_reset_returns_the_same_record():
    record = tasks.new_step(a_step(count=2))
    assert tasks.reset(record) is record


def test_the_mean_run_time_follows_the_tasks():
    record = running(200, range(200))
    for index in range(100):
        record = tasks.succeed(record, index, run_ms=100)
    assert record.run_ms_mean == 100
    for index in range(100, 200):
        record = tasks.succeed(record, index, run_ms=1_000)
    assert 700 < record.run_ms_mean <= 1_000
    assert record.run_count == 200


def test_a_task_whose_start_was_never_seen_teaches_nothing_about_run_time():
    assert tasks.succeed(running(), 0, run_ms=0).run_count == 0


def test_warm_nodes_are_few_and_latest_first():
    record = tasks.new_step(a_step(count=10))
    for index, node in enumerate(("a", "b", "c", "d", "e", "b")):
        record = tasks.grant(record, (index,), (node,))
    assert record.warm_nodes == ("b", "e", "d", "c")
