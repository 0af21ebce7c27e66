"""What devices do, by the real bindings on our stub."""

import pytest

from scheduler.model.sample import DeviceProcess
from tests.nvml_stub.stub import dgx, h100, line
from tests.unit.nvml.test_devices import MIG_CARD

BUSY = {
    "gpu": 97, "memory": 40, "encoder": 12, "decoder": 7, "power_mw": 640_123, "temperature": 71, "used_mib": 70_000,
}  # fmt: skip


def test_a_busy_card(machine):
    box = machine(dgx(**BUSY))
    box.devices()
    box.become([*dgx(**BUSY), line("process", card=0, pid=42, memory_mib=60_000),
                line("process", card=0, pid=7, memory_mib=10, kind="graphics"),
                line("process", card=1, pid=99, memory_mib=1)], clock_ms=10_000)  # fmt: skip
    sample = box.sample()[0]
    assert (sample.gpu_percent, sample.memory_percent) == (97, 40)
    assert (sample.encoder_percent, sample.decoder_percent) == (12, 7)
    assert (sample.power_mw, sample.energy_mj, sample.temperature_c) == (640_123, 6_401_230, 71)
    assert sample.memory_used_mib == 70_000
    assert sample.processes == (DeviceProcess(pid=7, memory_mib=10), DeviceProcess(pid=42, memory_mib=60_000))
    assert (sample.rejected, sample.problem) == ((), "")
    assert sample.at_ms > 0


def test_samples_come_in_the_devices_order(machine):
    box = machine(dgx())
    assert [d.id for d in box.devices()] == [s.device for s in box.sample()]


def test_energy_grows_as_power_times_time(machine):
    box = machine(dgx(power_mw=500_000))
    box.devices()
    readings = []
    for clock_ms in (0, 1_000, 3_000):
        box.become(dgx(power_mw=500_000), clock_ms=clock_ms)
        readings.append(box.sample()[0].energy_mj)
    assert readings == [0, 500_000, 1_500_000]


def test_a_mig_instance_says_only_what_it_can(machine):
    box = machine([*MIG_CARD, line("process", card=0, mig=1, pid=5, memory_mib=100)])
    box.devices()
    one, other = box.sample()
    assert (one.gpu_percent, one.power_mw, one.energy_mj, one.encoder_percent, one.temperature_c) == (None,) * 5
    assert one.memory_used_mib == 0
    assert (one.processes, other.processes) == ((), (DeviceProcess(pid=5, memory_mib=100),))


def test_what_is_not_supported_is_asked_once(machine):
    box = machine([h100(0, without="power,encoder,utilisation")])
    box.devices()
    first, second = box.ask("calls_of", "sample"), box.ask("calls_of", "sample")
    assert set(first) - set(second) == {
        "nvmlDeviceGetPowerUsage", "nvmlDeviceGetEncoderUtilization", "nvmlDeviceGetUtilizationRates",
    }  # fmt: skip
    (sample,) = box.sample()
    assert (sample.power_mw, sample.encoder_percent, sample.gpu_percent) == (None, None, None)
    assert sample.decoder_percent == 0


def test_what_a_card_cannot_say_is_remembered_for_that_card_alone(machine):
    box = machine(dgx(without="power"))
    box.devices()
    box.sample()
    box.devices()
    calls = box.ask("calls_of", "sample")
    assert calls["nvmlDeviceGetPowerUsage"] == 7
    assert [s.power_mw for s in box.sample()] == [None, *range(70_001, 70_008)]


def test_an_old_driver_lacks_functions(machine, old_library):
    box = machine([h100(0, used_mib=1_000)], old_library)
    (card,) = box.devices()
    (sample,) = box.sample()
    assert card.health_reason == ""
    assert sample.energy_mj is None
    assert sample.memory_used_mib == 1_557  # its only memory reading counts what the firmware keeps
    assert sample.power_mw == 70_000


def test_impossible_readings_are_left_out_and_named(machine):
    box = machine(dgx(fault="garbage", temperature=35))
    box.devices()
    sample = box.sample()[0]
    assert (sample.gpu_percent, sample.power_mw, sample.energy_mj) == (None, None, None)
    assert sample.rejected == ("utilisation", "power", "energy")
    assert sample.temperature_c == 35


def test_a_lost_card_is_a_problem_not_an_exception(machine):
    box = machine(dgx())
    box.devices()
    box.become(dgx(fault="lost"))
    lost, *others = box.sample()
    assert "GPU is lost" in lost.problem
    assert lost.gpu_percent is None
    assert [s.problem for s in others] == [""] * 7


def test_an_unknown_device_is_a_problem(machine):
    assert machine(dgx()).sample_of("GPU-who").problem == "no such device"


@pytest.mark.parametrize("count", [0, 1, 63])
def test_any_number_of_processes(machine, count):
    box = machine([h100(0), *(line("process", card=0, pid=n + 1, memory_mib=n) for n in range(count))])
    box.devices()
    assert [p.pid for p in box.sample()[0].processes] == list(range(1, count + 1))
