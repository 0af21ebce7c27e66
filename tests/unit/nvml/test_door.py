"""The door itself: what happens where there is no NVML, or another package under its name."""

import subprocess
import sys

import pytest

LOOK = (
    "from workers.nvml import NvmlTelemetry; t = NvmlTelemetry(); print(t.devices(), t.why_none); t.close(); t.close()"
)


def look(folder, **environment):
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {LOOK}"],
        capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", **environment},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("def nvmlInit(): raise SystemExit('used')", "is not NVIDIA's: pip uninstall pynvml"),
        ("raise ImportError('no')", "nvidia-ml-py is not installed"),
    ],
)
def test_another_pynvml_is_refused(tmp_path, module, why):
    (tmp_path / "pynvml.py").write_text(module)
    said = look(tmp_path)
    assert said.startswith("() ")
    assert why in said


def test_no_driver_is_no_error(tmp_path):
    """``libnvidia-ml.so.1`` is there but is no library: as good as none."""
    (tmp_path / "libnvidia-ml.so.1").write_text("")
    said = look(tmp_path, LD_LIBRARY_PATH=str(tmp_path))
    assert said == "() no NVIDIA driver: libnvidia-ml.so.1 is not installed"


def test_importing_the_door_loads_no_nvml():
    code = "import sys, workers.nvml, workers.facts, workers.sampler; print('pynvml' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_a_node_names_its_cards(library, tmp_path):
    from tests.nvml_stub.stub import dgx

    (tmp_path / "scenario.txt").write_text("\n".join(["driver 580", *dgx()]) + "\n")
    code = "from workers.facts import local_node; print([d.model for d in local_node('n').devices])"
    environment = {
        "LD_LIBRARY_PATH": str(library),
        "SHISUAN_NVML_SCENARIO": str(tmp_path / "scenario.txt"),
        "PATH": "/bin",
    }
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(["H100-SXM-80GB"] * 8)
