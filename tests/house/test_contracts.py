"""Each import contract of pyproject.toml, broken on purpose in a copy of the tree, must fail — and only then."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("scheduler", "workers", "pipelines", "k8s", "benchmarks")
LINT = Path(sys.executable).with_name("lint-imports")

# contract id -> (file to break, line to add)
BREAKS = {
    "storeys": ("scheduler/model/units.py", "import scheduler.engine"),
    "every-room-has-a-storey": ("scheduler/attic/__init__.py", '"""A room nobody gave a place."""'),
    "pure-core": ("scheduler/ledger/__init__.py", "import time"),
    "one-door": ("scheduler/control/ports.py", "import ray"),
    "adapters-speak-the-model": ("workers/storage.py", "import scheduler.control.ports"),
    "importing-costs-nothing": ("scheduler/__init__.py", "import scheduler.model"),
    "gpl-runner-is-not-imported": ("workers/agent.py", "import workers.blender_runner"),
    "gpl-runner-imports-nothing": ("workers/blender_runner.py", "import scheduler.model.units"),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def lint(tree: Path, *contract: str) -> subprocess.CompletedProcess[str]:
    only = [f"--contract={c}" for c in contract]
    return subprocess.run([LINT, "--no-cache", *only], cwd=tree, capture_output=True, text=True, check=False)


def test_every_contract_has_a_break():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {c["id"] for c in config["tool"]["importlinter"]["contracts"]} == set(BREAKS)


def test_all_contracts_are_kept(tree):
    result = lint(tree)
    assert result.returncode == 0, result.stdout
    assert f"{len(BREAKS)} kept, 0 broken" in result.stdout


@pytest.mark.parametrize("contract", sorted(BREAKS))
def test_broken_contract_fails(tree, contract):
    file, line = BREAKS[contract]
    path = tree / file
    before = path.read_text(encoding="utf-8") if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_text((before or "") + f"\n{line}\n", encoding="utf-8")
    try:
        result = lint(tree, contract)
        assert result.returncode == 1, result.stdout
        assert "0 kept, 1 broken" in result.stdout or "not listed" in result.stdout.lower(), result.stdout
    finally:
        if before is None:
            shutil.rmtree(path.parent)
        else:
            path.write_text(before, encoding="utf-8")
