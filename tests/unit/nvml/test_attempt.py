"""An attempt on cards, by the real bindings on our stub: what its record says of them."""

import json
import os
import subprocess
import sys
from ctypes.util import find_library

import pytest

from scheduler.model import codec
from scheduler.model.measured import Measured, MeasuredBy
from tests.nvml_stub.stub import h100, line

CARDS = ("GPU-00000000", "GPU-00000001")


class Played:
    """A machine whose cards change while an attempt runs on them."""

    def __init__(self, library, folder):
        self._scenario = folder / "scenario.txt"
        self._folder = folder
        self._environment = os.environ | {"LD_LIBRARY_PATH": str(library), "SHISUAN_NVML_SCENARIO": str(self._scenario)}
        self._child = None

    def become(self, *cards, clock_ms):
        fresh = self._scenario.with_suffix(".new")
        fresh.write_text("\n".join(["driver 580.65.06", f"clock_ms {clock_ms}", *cards]) + "\n")
        fresh.replace(self._scenario)

    def start(self, *devices):
        command = [sys.executable, "-m", "tests.nvml_stub.attempt", str(self._folder / "home"), ",".join(devices)]
        self._child = subprocess.Popen(
            command, env=self._environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, *words):
        self._child.stdin.write(" ".join(words) + "\n")
        self._child.stdin.flush()
        return json.loads(self._child.stdout.readline())

    def end(self):
        told = self.ask("end")
        assert self._child.wait(60) == 0  # an agent whose driver hangs closes all the same
        assert told["state"] == "succeeded"
        (rank,) = codec.decode(Measured, told["measured"]).ranks
        return rank

    def close(self):
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()


@pytest.fixture
def played(library, tmp_path):
    made = Played(library, tmp_path)
    yield made
    made.close()


def test_a_counter_reset_loses_nothing_but_what_the_driver_lost(played):
    played.become(h100(0, gpu=90, used_mib=2_000, encoder=30), clock_ms=10_000)
    played.start(CARDS[0])
    played.ask("wait")
    for clock_ms, fields in ((12_000, {"gpu": 90}), (500, {"gpu": 0}), (2_500, {"gpu": 60, "used_mib": 5_000})):
        played.become(h100(0, **fields), clock_ms=clock_ms)
        played.ask("wait")
    seen = played.end()
    (card,) = seen.devices
    assert (seen.source, seen.note) == (MeasuredBy.NVML, "")
    assert card.energy_mj == (2_000 + 500 + 2_000) * 70  # 70 W
    assert (card.energy_resets, card.gaps) == (1, 0)
    assert 0 < card.gpu_milli < 900
    assert card.memory_peak_mib == 5_000
    assert card.power_mw == 70_000
    assert 0 < card.encoder_milli < 300
    assert card.samples >= 8
    assert len(card.series_milli) == len(seen.until_ms) > 0
    told = [value for value in card.series_milli if value is not None]  # a busy machine may miss a reading
    assert max(told) > min(told)


def test_a_card_that_hangs_is_a_gap_and_delays_nothing(played):
    both = [h100(n, gpu=50) for n in range(2)]
    played.become(*both, clock_ms=1_000)
    played.start(*CARDS)
    played.ask("wait")
    played.become(h100(0, gpu=50), h100(1, gpu=50, fault="slow", slow_ms=600_000), clock_ms=2_000)
    played.ask("wait", CARDS[0])
    seen = played.end()
    good, hung = seen.devices
    assert (good.gaps, good.gpu_milli, good.energy_mj) == (0, 500, 70_000)
    assert hung.gaps > 0
    assert hung.samples > 0


def test_a_card_that_the_driver_lost_says_so_by_its_gaps(played):
    played.become(h100(0, gpu=50), clock_ms=1_000)
    played.start(CARDS[0])
    played.ask("wait")
    played.become(h100(0, fault="lost"), clock_ms=2_000)
    played.ask("wait")
    (card,) = played.end().devices
    assert card.gaps > 0
    assert card.energy_mj == 0


def test_a_mig_instance_tells_its_memory_alone(played):
    parts = [h100(0, mig=1), line("mig", card=0, uuid="MIG-a", profile="1g.10gb", memory_mib=9984, used_mib=700)]
    played.become(*parts, clock_ms=1_000)
    played.start("MIG-a")
    played.ask("wait")
    seen = played.end()
    (part,) = seen.devices
    assert seen.source is MeasuredBy.NVML
    assert (part.memory_peak_mib, part.gpu_milli, part.energy_mj, part.power_mw) == (700, None, None, None)


@pytest.mark.skipif(bool(find_library("nvidia-ml")), reason="this machine has a driver")
def test_a_machine_without_a_driver_measures_the_processes_and_says_why(tmp_path):
    made = Played(tmp_path / "nothing-here", tmp_path)
    made.become(clock_ms=0)
    try:
        made.start("GPU-that-was-declared")
        made.ask("asked")
        seen = made.end()
    finally:
        made.close()
    assert (seen.source, seen.devices[0].samples) == (MeasuredBy.PROCESS, 0)
    assert "libnvidia-ml.so.1" in seen.note
