"""The yard sees what must not happen: without that the failover tests would prove nothing."""

from scheduler.model.order import LeaseOrder, TaskOrder
from tests.fakes.executor import FakeClock, FakeExecutor
from tests.kills.yard import Yard


def order(lease_id, *attempts, device="GPU-alpha0"):
    tasks = tuple(TaskOrder(attempt_id=attempt, number=1, argv=("true",)) for attempt in attempts)
    return LeaseOrder(lease_id=lease_id, tenant="default", node="alpha", devices=(device,), tasks=tasks)


def yard():
    made = Yard(FakeClock(0))
    return made, FakeExecutor(made)


def finish(executor):
    """Let everything end, and record it."""
    for _ in range(5):
        executor.acknowledge([report.cursor for report in executor.poll(1_000) if report.cursor])


def test_repeats_of_what_is_known_start_nothing():
    made, executor = yard()
    for _ in range(2):
        executor.start([order("l1", "j1.s.0.a1", "j1.s.1.a1")])
    finish(executor)
    assert (sum(made.starts.values()), made.wrong) == (2, [])


def test_an_order_that_comes_after_its_end_was_recorded_is_a_second_start():
    made, executor = yard()
    executor.start([order("l1", "j1.s.0.a1")])
    finish(executor)
    executor.start([order("l1", "j1.s.0.a1")])
    assert made.wrong == ["j1.s.0.a1 rank 0 started again, under epoch 0"]


def test_a_card_of_two_leases_at_once_and_a_task_that_runs_twice_are_seen():
    made, executor = yard()
    executor.start([order("l1", "j1.s.0.a1")])
    executor.start([order("l2", "j1.s.0.a2")])
    assert made.wrong == [
        "['GPU-alpha0'] belong to l1 and to l2 at once",
        "j1.s.0.a2 started while j1.s.0.a1 still runs, under epoch 0",
    ]


def test_one_lease_with_two_contents_is_seen():
    made, executor = yard()
    executor.start([order("l1", "j1.s.0.a1")])
    executor.start([order("l1", "j2.s.0.a1")])
    assert len(made.wrong) == 1
    assert made.wrong[0].startswith("lease l1 was granted twice")
