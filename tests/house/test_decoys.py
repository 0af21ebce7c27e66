"""Every entry point works from a folder that holds files named like our packages."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.installation import SHISUAN, Installation

DECOYS = ("scheduler.py", "workers.py", "k8s.py", "benchmarks.py", "pipelines/__init__.py", "ray.py", "queue.py")


@pytest.fixture
def decoys(tmp_path) -> Path:
    folder = tmp_path / "decoys"
    for name in DECOYS:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"raise SystemExit('the decoy {name} was imported')\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("arguments", [["--help"], ["schema"], ["doctor", "--help"]], ids=" ".join)
def test_command_ignores_decoys(decoys, arguments):
    done = subprocess.run([SHISUAN, *arguments], cwd=decoys, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_module_entry_points_ignore_decoys(decoys):
    for module in ("scheduler.wiring", "workers.ray_bridge"):
        command = [sys.executable, "-P", "-m", module, "--help"]
        done = subprocess.run(command, cwd=decoys, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.ray
def test_whole_loop_runs_from_a_folder_of_decoys(decoys, tmp_path):
    installation = Installation(tmp_path / "home", "--cpus", "1")
    installation.cwd = decoys
    with installation:
        done = installation.run("submit", "--watch", "--", "echo", "hello", timeout_s=120)
        assert done.returncode == 0, done.stdout + done.stderr
