"""What is left of a step, from the tasks that are done."""

import pytest

from scheduler.control.observe import Progress
from scheduler.control.views import eta_ms
from scheduler.model.job import StepRecord
from scheduler.model.ranges import Ranges


def record(waiting, running, mean_ms=10_000):
    return StepRecord(
        name="render",
        waiting=Ranges.span(0, waiting),
        running=Ranges.span(waiting, waiting + running),
        run_ms_mean=mean_ms,
        run_count=3,
    )


def progress(*parts):
    return [Progress(milli=milli, message="") for milli in parts]


@pytest.mark.parametrize(
    ("waiting", "running", "parts", "left_ms"),
    [
        (0, 1, (0,), 10_000),
        (0, 1, (750,), 2_500),
        (0, 2, (900, 400), 6_000),
        (4, 2, (500, 500), 25_000),
        (4, 2, (0, 0), 30_000),
        (5, 2, (500, 500), 35_000),
        (3, 1, (), 40_000),
        (0, 2, (900,), 10_000),
        (0, 1, (1000,), 1),
    ],
)
def test_what_is_left(waiting, running, parts, left_ms):
    assert eta_ms(record(waiting, running), progress(*parts)) == left_ms


@pytest.mark.parametrize(
    "known", [record(5, 0), record(5, 2, mean_ms=0), record(0, 0)], ids=["nothing runs", "none done", "over"]
)
def test_nothing_is_promised_without_a_measure(known):
    assert eta_ms(known, progress(500)) == 0


def test_more_at_once_is_sooner_done():
    assert eta_ms(record(96, 4), progress(*[0] * 4)) < eta_ms(record(98, 2), progress(0, 0))
