"""The quickstarts run as they stand: every ``sh`` block of a guide, in order, in one shell that stops at an error."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.blender import ROOT, command

GUIDES = ROOT / "docs" / "quickstart"
NAMES = ("studio", "ai-team", "operator")
DEADLINE_S = 280

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.skipif(command() is None, reason="no Blender here: run make, or set SHISUAN_BLENDER"),
]


def blocks(name):
    return re.findall(r"^```sh\n(.*?)^```$", (GUIDES / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def smaller(text):
    """The same examples with less to compute: the guide's words stay as they are."""
    for was, now in (
        ("frames: 24", "frames: 4"),
        ("1-24", "1-4"),
        ("320x180", "64x36"),
        ("samples: 16", "samples: 1"),
        ("--steps, 1000, --save, 100", "--steps, 120, --save, 20, --pause, '0.1'"),
    ):
        text = text.replace(was, now)
    return text


@pytest.fixture
def checkout(tmp_path):
    """A folder that looks like the checkout from inside, with small examples."""
    for source in sorted((ROOT / "examples").rglob("*")):
        if source.is_file():
            target = tmp_path / "examples" / source.relative_to(ROOT / "examples")
            target.parent.mkdir(parents=True, exist_ok=True)
            data = source.read_bytes()
            target.write_bytes(smaller(data.decode()).encode() if source.suffix == ".yaml" else data)
    (tmp_path / "build").mkdir()
    return tmp_path


def run(script, checkout):
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("SHISUAN_", "RAY_"))}
    environ |= {
        "SHISUAN_HOME": str(checkout / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NO_COLOR": "1",
    }
    try:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-x", "-c", script],
            cwd=checkout, env=environ, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
    finally:
        subprocess.run(["shisuan", "down"], env=environ, cwd="/", capture_output=True, check=False, timeout=120)


@pytest.mark.parametrize("name", NAMES)
def test_a_guide_runs_as_it_stands(checkout, name):
    script = "\n".join(blocks(f"{name}.md"))
    assert script.count("shisuan") > 5
    done = run(script, checkout)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    seen = {path.name for path in (checkout / "build").rglob("*.png")}
    expected = {
        "studio": {"j1-render-contact-sheet.png", "gantt.png"},
        "ai-team": {"j1-train-loss.png"},
        "operator": {"utilisation.png"},
    }
    assert expected[name] <= seen
    told = {
        "studio": ["EXAMPLE", "to pay", "succeeded"],
        "ai-team": [".a2", "preempted", "v-lab-example"],
        "operator": ["SIMULATED", "transactions: each comes from the journal"],
    }
    assert [words for words in told[name] if words not in done.stdout + done.stderr] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_chinese_guide_types_the_same(name):
    def typed(file):
        return [re.sub(r"\s+#.*$", "", line) for block in blocks(file) for line in block.splitlines()]

    assert typed(f"{name}.zh-CN.md") == typed(f"{name}.md")


@pytest.mark.parametrize("file", sorted(path.name for path in GUIDES.glob("*.md")))
def test_pictures_and_links_of_a_guide_exist(file):
    text = (GUIDES / file).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert [link for link in links if not (GUIDES / link).exists()] == []
