"""Compiles the stub and runs our telemetry on it, one process per machine played."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.model import codec
from scheduler.model.node import Device
from scheduler.model.sample import Sample

SOURCE = Path(__file__).parent / "nvml.c"
FLAGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-Wl,-soname,libnvidia-ml.so.1")


def compile_stub(folder: Path, *, old_driver: bool = False) -> Path:
    """The library's folder. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the NVML stub with")
    folder.mkdir(parents=True, exist_ok=True)
    defines = ["-DOLD_DRIVER"] if old_driver else []
    subprocess.run([compiler, *FLAGS, *defines, "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    return folder


def line(thing, **words) -> str:
    """A line of a scenario; blanks in values become ``_``."""
    return " ".join([thing, *(f"{key}={str(value).replace(' ', '_')}" for key, value in words.items())])


def h100(index: int, **words) -> str:
    """A card of a DGX: idle, on the machine's NVLink switches."""
    usual = {
        "uuid": f"GPU-{index:08d}", "name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "reserved_mib": 557,
        "power_mw": 70_000 + index, "temperature": 30 + index, "bus": f"00000000:{index + 1:02X}:00.0", "links": 18,
        "remote": "switch",
    }  # fmt: skip
    return line("card", **usual | words)


def dgx(**of_card_0) -> list[str]:
    """Eight H100 in one island."""
    return [h100(index, **(of_card_0 if index == 0 else {})) for index in range(8)]


class Machine:
    """A machine with the cards of a scenario, read by a real NvmlTelemetry in a child process. Fits the port."""

    def __init__(self, library: Path, folder: Path, cards, *, driver: str = "580.65.06") -> None:
        self._scenario = folder / "scenario.txt"
        self._driver = driver
        self.become(cards)
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(library), "SHISUAN_NVML_SCENARIO": str(self._scenario),
            "NVML_MPS_DEVICE_ENUMERATION": "1",
        }  # fmt: skip
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.nvml_stub.reader"], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def become(self, cards, *, clock_ms: int = 0, down: int = 0) -> None:
        """From now on the machine is so."""
        head = [f"driver {self._driver}", f"clock_ms {clock_ms}", *([f"down {down}"] if down else [])]
        fresh = self._scenario.with_suffix(".new")
        fresh.write_text("\n".join([*head, *cards]) + "\n")
        fresh.replace(self._scenario)

    def ask(self, verb: str, *arguments):
        """What ``verb`` of the telemetry answers, as JSON."""
        self._child.stdin.write(json.dumps([verb, *arguments]) + "\n")
        self._child.stdin.flush()
        return json.loads(self._child.stdout.readline())

    def devices(self) -> tuple[Device, ...]:
        return tuple(codec.decode(Device, each) for each in self.ask("devices"))

    def sample(self) -> tuple[Sample, ...]:
        return tuple(codec.decode(Sample, each) for each in self.ask("sample"))

    def sample_of(self, device_id: str) -> Sample:
        return codec.decode(Sample, self.ask("sample_of", device_id))

    @property
    def why_none(self) -> str:
        return self.ask("why_none")

    def close(self) -> None:
        """Harmless twice."""
        if self._child.poll() is None:
            self._child.stdin.close()
            self._child.wait()
        self._child.stdout.close()
