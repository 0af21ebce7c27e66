"""The Telemetry port: one suite, on the NVML stub and, where there is one, on the real driver (``make test-gpu``)."""

import inspect

import pytest

from scheduler.control import ports
from scheduler.model.catalogue import UNKNOWN, known_models
from scheduler.model.node import DeviceKind
from tests.nvml_stub.stub import Machine, compile_stub, dgx, h100, line
from workers.nvml import NvmlTelemetry

MIXED = [
    h100(0, mig=1),
    line("mig", card=0, uuid="MIG-a", profile="1g.10gb", memory_mib=9984),
    line("mig", card=0, uuid="MIG-b", profile="3g.40gb", memory_mib=40448),
    *dgx()[1:],
]
PERCENTS = ("gpu_percent", "memory_percent", "encoder_percent", "decoder_percent")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return compile_stub(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(params=["8xH100", "MIG", pytest.param("real", marks=pytest.mark.gpu)])
def telemetry(request, tmp_path):
    if request.param == "real":
        source = NvmlTelemetry()
        if not source.devices():
            pytest.skip(f"no card here: {source.why_none}")
    else:
        cards = dgx() if request.param == "8xH100" else MIXED
        source = Machine(request.getfixturevalue("library"), tmp_path, cards)
    yield source
    source.close()


def test_fits_the_port():
    for name, wanted in inspect.getmembers(ports.Telemetry, inspect.isfunction):
        if not name.startswith("_"):
            ours = inspect.signature(getattr(NvmlTelemetry, name)).parameters
            assert list(ours) == list(inspect.signature(wanted).parameters), name


def test_devices_have_names_of_their_own_and_memory(telemetry):
    devices = telemetry.devices()
    assert len({d.id for d in devices}) == len(devices) > 0
    assert all(d.memory_mib > 0 for d in devices)
    assert telemetry.why_none == ""


def test_devices_are_the_same_when_asked_again(telemetry):
    assert telemetry.devices() == telemetry.devices()


def test_devices_are_cards_or_instances_of_a_card(telemetry):
    for device in telemetry.devices():
        is_part = device.kind is DeviceKind.MIG
        assert device.id.startswith("MIG-" if is_part else "GPU-")
        assert bool(device.parent) == bool(device.profile) == is_part
        assert device.model in (*known_models(), UNKNOWN)
        assert not device.simulated


def test_there_is_a_sample_of_each_device_in_order(telemetry):
    devices = telemetry.devices()
    samples = telemetry.sample()
    assert [s.device for s in samples] == [d.id for d in devices]
    assert all(s.problem == "" and s.at_ms > 0 for s in samples)


def test_readings_are_possible_or_absent(telemetry):
    memory = {d.id: d.memory_mib for d in telemetry.devices()}
    for sample in telemetry.sample():
        assert all(0 <= value <= 100 for name in PERCENTS if (value := getattr(sample, name)) is not None)
        assert sample.memory_used_mib is None or 0 <= sample.memory_used_mib <= memory[sample.device]
        assert sample.rejected == ()


def test_energy_never_runs_backwards(telemetry):
    telemetry.devices()
    first, second = telemetry.sample(), telemetry.sample()
    assert all(a.energy_mj is None or a.energy_mj <= b.energy_mj for a, b in zip(first, second, strict=True))


def test_one_device_can_be_read_alone(telemetry):
    device = telemetry.devices()[-1]
    sample = telemetry.sample_of(device.id)
    assert (sample.device, sample.problem) == (device.id, "")


def test_an_unknown_device_is_a_problem(telemetry):
    telemetry.devices()
    assert telemetry.sample_of("GPU-00000000-nobody").problem


def test_closing_twice_is_harmless(telemetry):
    telemetry.close()
    telemetry.close()
