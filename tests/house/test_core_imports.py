"""Importing the core loads the standard library, NumPy and Numba, and nothing else (contract 5 of the design)."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ("model", "placement", "queueing", "ledger", "engine", "simulation")
PURE = (*(f"scheduler/{room}" for room in CORE), "pipelines")
PROGRAM = """
import importlib, json, sys
import numpy, numba, numba.experimental.structref
before = set(sys.modules)  # what site-packages' .pth files loaded at start is not ours
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({m.partition(".")[0] for m in set(sys.modules) - before})))
"""


def test_core_loads_only_stdlib_numpy_numba():
    files = [p for folder in PURE for p in sorted((ROOT / folder).rglob("*.py"))]
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in files]
    modules = [m.removesuffix(".__init__") for m in modules]
    assert len(modules) > 20
    result = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, *modules], capture_output=True, text=True, check=True, cwd="/"
    )
    allowed = set(sys.stdlib_module_names) | {"scheduler", "pipelines", "numpy", "numba", "llvmlite"}
    assert set(json.loads(result.stdout)) <= allowed
