"""Real trainings: two ranks of torchrun under real Ray, stopped, killed, gone wrong, and finished all the same."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.installation import Installation, kill, wait_for
from workers.site import free_port

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "train" / "gpt.py"
SMALL = [
    "--steps",
    "36",
    "--save",
    "7",
    "--tell",
    "1",
    "--width",
    "16",
    "--layers",
    "1",
    "--batch",
    "4",
    "--sample",
    "9",
]
JOB = """
apiVersion: shisuan/v1
kind: TrainJob
name: {name}
script: train/gpt.py
args: {args}
num_nodes: 2
retries: {retries}
outputs: {name}
resources: {{cpus: 1, memory: 1GiB}}
"""


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    nodes = folder / "nodes.yaml"
    nodes.write_text("nodes:\n  - {name: alpha, cpus: 1, memory: 4GiB}\n  - {name: beta, cpus: 1, memory: 4GiB}\n")
    with Installation(folder / "home", "--nodes", str(nodes), "--root", str(EXAMPLES)) as running:
        yield running
    assert running.processes() == []


def submit(installation, name, *more, retries=0):
    text = JOB.format(name=name, args=json.dumps([*SMALL, *more]), retries=retries)
    return installation.api("POST", "/jobs", json={"file": text, "base_dir": str(EXAMPLES)})["id"]


def facts_of(attempt):
    return json.loads(attempt["facts"] or "{}")


def reach(installation, job_id, number, step):
    """Wait until attempt ``number`` runs and says that it has done ``step``."""

    def there():
        running = [a for a in installation.attempts(job_id) if a["state"] == "running" and a["number"] == number]
        words = running[0]["message"].split(",")[0].split() if running else []
        return words[:1] == ["step"] and int(words[1]) >= step

    wait_for(f"step {step} of attempt {number}", there, deadline_s=120, every_s=0.05)


def by_hand(folder):
    """The same training without shisuan, never interrupted."""
    port = str(free_port("127.0.0.1"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    env = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "SHISUAN_OUTPUTS": str(folder), "HOME": str(folder)}
    return subprocess.Popen([*command, str(SCRIPT), *SMALL], env=env, cwd=folder, stdout=subprocess.DEVNULL)


def losses(file):
    with Path(file).open() as lines:
        return [row["loss"] for row in csv.DictReader(lines)]


def a_worker(installation, rank):
    """The process of that rank's own script."""
    mine = [
        p
        for p in installation.role("runner")
        if str(SCRIPT) in p.cmdline() and "torch.distributed.run" not in p.cmdline()
    ]
    return [p for p in mine if p.environ().get("RANK") == str(rank) and p.name().startswith("python")]


def test_preempted_and_killed_it_ends_with_the_same_bits(installation, tmp_path):
    undisturbed = by_hand(tmp_path)
    job_id = submit(installation, "broken", "--pause", "0.1", retries=1)
    reach(installation, job_id, 1, 10)
    installation.api("POST", f"/jobs/{job_id}/preempt")
    reach(installation, job_id, 2, 24)
    assert kill(wait_for("rank 1", lambda: a_worker(installation, 1), deadline_s=10)) == 1
    installation.wait(job_id)
    assert undisturbed.wait(120) == 0

    first, second, third = installation.attempts(job_id)
    assert [a["state"] for a in (first, second, third)] == ["preempted", "failed", "succeeded"]
    assert first["reason"] == "preempted by an operator"
    assert "SIGKILL" in second["reason"], second["reason"]
    saved, later = facts_of(first)["checkpoints"][-1], facts_of(second)["checkpoints"][-1]
    assert 10 <= saved < later <= 36
    assert facts_of(second)["resumed_from"].endswith(f"a1/step-{saved}")
    assert facts_of(third)["resumed_from"].endswith(f"a2/step-{later}")
    assert facts_of(second)["metrics"][0]["step"] == saved + 1

    home = installation.home / "storage" / "default" / "broken"
    assert losses(home / "loss.csv") == losses(tmp_path / "loss.csv")
    import torch

    ours, theirs = (torch.load(f / "model.pt", weights_only=True)["model"] for f in (home, tmp_path))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    usage = [
        r
        for r in installation.api("GET", "/usage", params={"job": job_id})["records"]
        if r["lease_id"] == first["lease_id"]
    ]
    assert {r["bucket"] for r in usage} <= {"starting", "held_charged", "held_free"}
    assert [r["free_reason"] for r in usage if r["bucket"] == "held_free"] in ([], ["preempted"])
    assert sum(r["end_ms"] - r["start_ms"] for r in usage if r["bucket"] == "held_charged") > 0


def test_a_loss_that_is_not_finite_fails_at_once_and_leaves_nothing(installation):
    job_id = submit(installation, "diverged", "--lr", "1e30", retries=0)
    job = wait_for("its end", lambda: (j := installation.job(job_id))["state"] == "failed" and j, deadline_s=120)
    (attempt,) = installation.attempts(job_id)
    assert "the loss is nan at step" in attempt["reason"] or "the loss is inf at step" in attempt["reason"]
    assert attempt["outputs"] == []
    there = {p.name for p in (installation.home / "storage" / "default" / "diverged").iterdir()}
    assert there == {".shisuan", "checkpoints"}
    assert job["reason"]
    wait_for(
        "nothing left", lambda: not [p for p in installation.role("runner") if psutil.pid_exists(p.pid)], deadline_s=20
    )
