"""What attempts are seen to do. Real processes tell their own processor time: nothing here depends on the machine's."""

import json
import random
from pathlib import Path

import pytest

from scheduler.model.errors import ExecutorError
from scheduler.model.lease import AttemptState
from scheduler.model.measured import MOST_POINTS, DeviceUse, MeasuredBy
from scheduler.model.order import LeaseOrder
from scheduler.model.sample import Sample
from tests.unit.workers.helpers import NODE, PYTHON, TENANT, ask, lease, shell, task
from workers.measure import CardMeter, Measuring, Meter, Series
from workers.spent import NOTHING, Spent

RUNNER = Path(__file__).with_name("resident_runner.py")
SPIN = "import time\nwhile time.process_time() < {cpu_s}: pass\nprint(f'used {{time.process_time():.6f}}', flush=True)"
SECOND_NS = 1_000_000_000


@pytest.fixture
def quick(run):
    """An agent that looks ten times a second."""
    return run(measure_every_s=0.1)


def spin(cpu_s, **fields):
    return task(PYTHON, "-c", SPIN.format(cpu_s=cpu_s), **fields)


def said_ms(one, index=0):
    return float(one.read_log(f"j1.s.{index}.a1").text.split()[-1]) * 1_000


def only(report):
    (rank,) = report.measured.ranks
    return rank


def series_ms(seen):
    """Processor time by the series."""
    starts = (0, *seen.until_ms)
    return sum(c * (b - a) / 1_000 for c, a, b in zip(seen.cpu_series_milli, starts, seen.until_ms, strict=False))


def test_a_spinner_has_used_the_time_that_it_says(quick):
    one, reader = quick
    one.submit([lease(spin(0.6))])
    seen = only(reader.finished())
    assert (seen.source, seen.note, seen.node, seen.rank, seen.devices) == (MeasuredBy.PROCESS, "", NODE, 0, ())
    assert said_ms(one) <= seen.cpu_ms + 1 < 1.5 * said_ms(one)  # the interpreter's own end comes on top
    assert seen.samples >= 2
    assert seen.rss_peak_mib >= seen.rss_mean_mib > 0
    assert seen.read_bytes > 0


def test_its_series_adds_up_to_its_total(quick):
    one, reader = quick
    one.submit([lease(spin(0.6))])
    seen = only(reader.finished())
    assert 0.5 * seen.cpu_ms < series_ms(seen) <= 1.05 * seen.cpu_ms
    assert list(seen.until_ms) == sorted(set(seen.until_ms))
    assert len(seen.rss_series_mib) == len(seen.until_ms)


def test_a_sleeper_has_used_next_to_nothing(quick):
    one, reader = quick
    one.submit([lease(shell("sleep 0.5"))])
    seen = only(reader.finished())
    assert seen.samples
    assert seen.cpu_ms < 0.2 * 500


def test_children_and_what_they_leave_count(quick):
    one, reader = quick
    one.submit([lease(shell(f"{PYTHON} -c '{SPIN.format(cpu_s=0.4).replace(chr(39), chr(34))}' & wait; sleep 0.15"))])
    seen = only(reader.finished())
    assert said_ms(one) <= seen.cpu_ms + 1 < 2 * said_ms(one)
    assert sum(level > 0 for level in seen.cpu_series_milli) >= 2  # while it ran, not only once it was reaped


def test_a_short_attempt_is_told_exactly_without_a_look(run):
    one, reader = run()
    one.submit([lease(spin(0.1))])
    seen = only(reader.finished())
    assert (seen.samples, seen.until_ms, seen.rss_mean_mib) == (0, (), None)
    assert said_ms(one) <= seen.cpu_ms + 1 < 3 * said_ms(one)


def test_bytes_written_are_counted(run, tmp_path):
    one, reader = run()
    one.submit([lease(shell(f"head -c 3000000 /dev/zero > {tmp_path}/zeros"))])
    seen = only(reader.finished())
    assert 3_000_000 <= seen.written_bytes < 3_100_000


def test_memory_that_was_held_shows(quick):
    one, reader = quick
    hold = "import time\nx = bytearray(150 << 20)\nend = time.monotonic() + 0.5\nwhile time.monotonic() < end: pass"
    one.submit([lease(task(PYTHON, "-c", hold))])
    assert only(reader.finished()).rss_peak_mib >= 150


def test_tasks_of_one_sandbox_have_each_their_own(run):
    try:
        one, reader = run(confinement="bubblewrap")
    except ExecutorError as error:
        pytest.skip(str(error))
    count = "i=0; while [ $i -lt {n} ]; do i=$((i+1)); done; cat /proc/$$/stat"
    one.submit([lease(*(shell(count.format(n=n), index=i) for i, n in enumerate((300_000, 1, 100_000))))])
    ends = [only(reader.finished(f"j1.s.{i}.a1")) for i in range(3)]
    told = [one.read_log(f"j1.s.{i}.a1").text.split()[13:15] for i in range(3)]
    for seen, ticks in zip(ends, told, strict=True):
        assert abs(seen.cpu_ms - 10 * sum(map(int, ticks))) <= 40  # two clock ticks at each end
    assert ends[1].cpu_ms < ends[0].cpu_ms


@pytest.mark.parametrize("confinement", ["none", "bubblewrap"])
def test_a_resident_is_charged_to_the_attempt_it_worked_for(run, confinement):
    try:
        one, reader = run(confinement=confinement, runner=RUNNER, measure_every_s=0.1)
    except ExecutorError as error:
        pytest.skip(str(error))
    for i, request in enumerate(({}, {"do": "spin", "cpu_s": 0.4}, {}, {"do": "spin", "cpu_s": 0.2})):
        one.submit([lease(ask(json.dumps(request), index=i), lease_id=f"l{i}", warm_key="scene")])
        reader.finished(f"j1.s.{i}.a1")
    _, long, idle, short = (only(reader.finished(f"j1.s.{i}.a1")) for i in range(4))
    assert 380 <= long.cpu_ms < 600
    assert 180 <= short.cpu_ms < 390
    assert idle.cpu_ms < 100
    assert (idle.rss_peak_mib or 0) > 0
    assert long.samples > 0


def test_a_stopped_attempt_says_what_it_did(quick):
    one, reader = quick
    one.submit([lease(task(PYTHON, "-c", "while True: pass", grace_ms=100))])
    reader.started()
    one._site.measuring._stopping.wait(0.35)
    one.stop(["l1"], "cancelled by studio")
    end = reader.finished()
    assert end.state is AttemptState.CANCELLED
    assert only(end).cpu_ms > 0


def test_an_attempt_that_never_began_has_no_measurement(run):
    one, reader = run()
    one.submit([lease(task("/no/such/program"))])
    assert reader.finished().measured is None


class Broken:
    why_none = "no NVIDIA driver here"

    def devices(self):
        return ()


def test_cards_that_nobody_can_read_are_told_with_the_reason(run):
    one, reader = run(telemetry=Broken, measure_every_s=0.1)
    one.submit([lease(shell("sleep 0.3"), devices=("GPU-1",))])
    seen = only(reader.finished())
    assert (seen.source, seen.note) == (MeasuredBy.PROCESS, "no NVIDIA driver here")
    assert seen.devices == (DeviceUse(device="GPU-1"),)


def test_simulated_cards_are_not_asked_for(run):
    one, reader = run(telemetry=lambda: pytest.fail("there is nothing to read"))
    one.submit([lease(shell("true"), devices=("sim-1",), simulated=True)])
    assert only(reader.finished()).devices == ()


def test_a_look_that_fails_ends_nothing(run, monkeypatch, caplog):
    monkeypatch.setattr("workers.procfs.Accounts.now", lambda: (_ for _ in ()).throw(OSError("no /proc")))
    one, reader = run(measure_every_s=0.05)
    one.submit([lease(shell("sleep 0.3"))])
    assert reader.finished().state is AttemptState.SUCCEEDED
    assert "a look at the processes failed" in caplog.text


# -- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [1, 59, 60, 61, 120, 121, 1_000, 12_345])
def test_a_series_stays_short_and_loses_no_time(looks):
    rng, series, cpu_us = random.Random(looks), Series(500), 500
    for n in range(1, looks + 1):
        cpu_us += rng.randrange(2_000_000)
        series.add(1_000 * n, cpu_us, rng.randrange(1_000) if n != looks // 2 else 9_999, {"g": (50, 1)})
    columns = series.columns()
    until_ms, starts = columns["until_ms"], (0, *columns["until_ms"])
    assert 0 < len(until_ms) <= MOST_POINTS
    assert until_ms[-1] == 1_000 * looks
    total_us = sum(c * (b - a) for c, a, b in zip(columns["cpu_series_milli"], starts, until_ms, strict=False))
    assert abs(total_us - (cpu_us - 500)) < 1_000 * looks  # each point is rounded down to a whole thousandth
    assert looks < 2 or max(columns["rss_series_mib"]) == 9_999
    assert set(series.of_card(DeviceUse(device="g", samples=1)).series_milli) == {500}


def readings(meter, *samples):
    for second, fields in enumerate(samples, 1):
        meter.add(Sample(device="g", at_ms=0, **fields), second * SECOND_NS)
    return meter.end()


def test_energy_is_the_counters_growth_over_resets():
    use = readings(CardMeter("g"), *({"energy_mj": e} for e in (700, 840, 35, 175)))
    assert (use.energy_mj, use.energy_resets, use.samples, use.covered_ms) == (140 + 35 + 140, 1, 4, 3_000)


def test_a_counter_that_leaps_did_not_count_energy():
    use = readings(CardMeter("g"), *({"energy_mj": e} for e in (700, 10**15, 10**15 + 50)))
    assert use.energy_mj == 50


def test_means_are_over_what_was_told_and_silence_is_a_gap():
    silent = {"problem": "no answer in 1000 ms"}
    use = readings(CardMeter("g"), {"gpu_percent": 100, "power_mw": 300}, silent, {"gpu_percent": 51}, silent)
    assert (use.gpu_milli, use.power_mw, use.samples, use.gaps, use.energy_mj) == (755, 300, 2, 2, None)
    assert (use.encoder_milli, use.memory_peak_mib) == (None, None)


class Stand:
    pid, base = 1, Spent(cpu_us=5_000_000, read_bytes=100, written_bytes=None)


def test_what_was_used_before_the_attempt_is_not_its_own():
    meter = Meter(LeaseOrder(lease_id="l1", tenant=TENANT, node=NODE), Stand)
    meter.look(Spent(cpu_us=6_000_000, rss_mib=70, read_bytes=160), meter.began_ns + SECOND_NS)
    meter.look(Spent(cpu_us=5_900_000, rss_mib=30, read_bytes=150), meter.began_ns + 2 * SECOND_NS)
    (seen,) = meter.end(None, "").ranks
    assert (seen.cpu_ms, seen.read_bytes, seen.written_bytes) == (1_000, 50, None)  # a sum that fell is not believed
    assert (seen.rss_peak_mib, seen.rss_mean_mib) == (70, 50)
    assert seen.cpu_series_milli == (1_000, 0)


def test_nothing_seen_is_no_measurement():
    measuring = Measuring(Broken)
    meter = Meter(LeaseOrder(lease_id="l1", tenant=TENANT, node=NODE), Stand)
    assert measuring.end(meter, None) is None
    assert measuring.end(meter, NOTHING) is not None
