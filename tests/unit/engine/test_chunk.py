import pytest

from scheduler.engine.chunk import chunk_size
from scheduler.model.job import StepRecord
from scheduler.model.policy import Policy
from scheduler.model.ranges import Ranges
from tests.builders import a_step

POLICY = Policy(chunk_target_ms=1_000, chunk_max=64, chunk_after=3)


def size(*, waiting=10_000, mean=10, count=100, slots=2, **step):
    record = StepRecord(name="work", waiting=Ranges.span(0, waiting), run_ms_mean=mean, run_count=count)
    return chunk_size(a_step(**step), record, POLICY, slots)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 64),
        ({"mean": 100}, 10),
        ({"mean": 999}, 1),
        ({"mean": 5_000}, 1),
        ({"count": 2}, 1),
        ({"mean": 0}, 1),
        ({"waiting": 30, "slots": 10}, 3),
        ({"waiting": 5, "slots": 10}, 1),
        ({"waiting": 31, "slots": 10}, 4),
        ({"chunk": 7, "count": 0}, 7),
        ({"chunk": 7, "mean": 60_000}, 7),
        ({"ranks": 2}, 1),
        ({"ranks": 2, "chunk": 7}, 1),
    ],
)
def test_tasks_per_lease(arguments, expected):
    assert size(**arguments) == expected
