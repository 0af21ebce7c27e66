"""A park whose test process was killed leaves nothing."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fakes.kuberay import reaper

PROGRAM = """
import subprocess, sys, time
from tests.fakes.kuberay.machines import Machines
machines = Machines()
pod = machines.folder / "a" / "1"
pod.mkdir(parents=True)
subprocess.Popen(["sleep", "1000"], env={"PARK_POD": str(pod)}, start_new_session=True)
print(machines.folder, flush=True)
time.sleep(1000)
"""


def test_nothing_outlives_a_killed_test_process():
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) as process:
        folder = Path(process.stdout.readline().strip())
        try:
            assert folder.parent == Path("/tmp")
            assert reaper.processes_below(folder / "a")
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            end = time.monotonic() + 30
            while folder.exists() or reaper.processes_below(folder):
                assert time.monotonic() < end
                time.sleep(0.05)
        finally:
            process.kill()
            reaper.clear(folder)


def test_a_folder_whose_name_goes_on_is_another():
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(["sleep", "1000"], env={"PARK_POD": folder + "1"}) as other,
    ):
        try:
            assert reaper.processes_below(Path(folder)) == set()
            assert reaper.processes_below(Path(folder + "1")) == {other.pid}
        finally:
            other.kill()
