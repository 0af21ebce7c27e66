import math
import random
from dataclasses import replace

import pytest

from scheduler.model.job import JobState
from scheduler.queueing.calibration import Calibration, bounds
from scheduler.queueing.histogram import ATOMS
from scheduler.queueing.lifecycle import submitted
from tests.builders import a_job

HOUR = 3_600_000


def waits(median, deviation):
    z = [-1.96, -1.44, -1.15, -0.935, -0.755, -0.598, -0.454, -0.319, -0.189, -0.063]
    z += [-x for x in reversed(z)]
    assert len(z) == ATOMS
    return tuple(round(median * math.exp(deviation * x)) for x in z)


def a_start(number, forecast, wait):
    asked_ms = HOUR + 200 * HOUR * number
    job = a_job(number, submitted_ms=asked_ms, forecast_raw_ms=tuple(asked_ms + at for at in bounds(forecast)))
    return replace(submitted(job, held=False), started_ms=asked_ms + wait)


def told(records):
    calibration = Calibration()
    for record in records:
        calibration.put(None, record)
    return calibration


@pytest.mark.parametrize(("bias", "true_deviation"), [(1.0, 0.5), (2.5, 0.5), (0.4, 0.5), (1.0, 1.5), (1.0, 0.3)])
def test_forecasts_that_are_wrong_in_one_way_come_out_right(bias, true_deviation):
    draw = random.Random(4)
    calibration, covered, number = Calibration(), [], 0
    for number in range(3_000):
        median = 10 ** draw.uniform(5, 8)
        forecast = waits(median, 0.5)
        wait = round(median * bias * math.exp(draw.gauss(0, true_deviation)))
        low, _, high = bounds(calibration.corrected(forecast))
        covered.append(low <= wait <= high)
        calibration.put(None, a_start(number, forecast, wait))
    late = covered[1_500:]
    assert 0.85 <= sum(late) / len(late) <= 0.95


def test_before_anything_started_the_futures_are_taken_at_their_word():
    forecast = waits(HOUR, 0.5)
    low, middle, high = bounds(Calibration().corrected(forecast))
    raw = bounds(forecast)
    assert (low, middle, high) == tuple(pytest.approx(at, rel=0.12) for at in raw)
    assert Calibration().corrected(()) == ()


def test_a_start_at_once_is_not_blurred():
    assert Calibration().corrected((0,) * ATOMS) == (0,) * ATOMS


def test_learning_is_a_function_of_the_records_in_any_order():
    draw = random.Random(2)
    records = [a_start(n, waits(10**6, 0.4), draw.randrange(10**7)) for n in range(50)]
    calibration = told(records)
    shuffled = draw.sample(records, len(records))
    assert calibration == told(shuffled)
    for record in shuffled:
        calibration.put(record, replace(record, started_ms=0))
    assert calibration == Calibration()


def test_what_was_learned_long_ago_is_forgotten():
    calibration = told(a_start(n, waits(10**6, 0.4), 10**5 + n) for n in range(400))
    early = bounds(calibration.corrected(waits(10**6, 0.4)))
    for number in range(400, 800):
        calibration.put(None, a_start(number, waits(10**6, 0.4), 10**7 + number))
    late = bounds(calibration.corrected(waits(10**6, 0.4)))
    assert early[1] < 10**6 < late[1]
    assert late == bounds(calibration.copy().corrected(waits(10**6, 0.4)))


def promised(number, permille, *, kept):
    job = a_job(number, promise_permille=permille, deadline_ms=HOUR)
    return replace(submitted(job, held=False), state=JobState.SUCCEEDED, finished_ms=HOUR if kept else HOUR + 1)


def test_promises_that_were_broken_make_later_ones_smaller_and_never_larger():
    assert Calibration().promise(950) == 950
    broken = told([promised(n, 950, kept=n % 2 == 0) for n in range(400)])
    assert broken.promise(950) == pytest.approx(500, abs=40)
    assert broken.promise(300) == 300
    assert told([promised(n, 920, kept=True) for n in range(400)]).promise(920) == 920


def test_a_job_that_its_owner_cancelled_or_runs_again_breaks_no_promise():
    record = promised(1, 900, kept=False)
    calibration = Calibration()
    calibration.put(None, replace(record, cancelled=True))
    assert calibration == Calibration()
    calibration.put(None, record)
    calibration.put(record, replace(record, state=JobState.WAITING, finished_ms=0))
    assert calibration == Calibration()
