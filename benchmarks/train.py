"""Training through shisuan beside torchrun by hand: how soon both ranks train, and what a step costs.

``python -P -m benchmarks.train`` runs it alone; ``make bench-main`` calls :func:`measure`. Both sides run
``examples/train/gpt.py`` with the same arguments, interpreter and environment, as two nodes of one process each on this
machine, turn and turn about.

* ``gang_start_ratio``: from the recorded grant of the lease until the later of the two ranks has done its first step,
  divided by the same for two ``torchrun`` from their start. Medians. The tenant's agents are up, as after a first job.
* ``train_step_overhead_percent``: how much more CPU time rank 0's process takes for a step. Compared is the bound of
  the quickest tenth of a run's steps, run by run: CPU time leaves out the time that other programs of a shared machine
  take, the quickest tenth what they spoil (caches, clocks). The median of the pairs counts; their spread is the noise.
* ``train_step_wall_overhead_percent``: the same by the wall clock. Mostly noise on a shared machine, as
  ``train_step_wall_ms`` shows.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.installation import Installation
from benchmarks.results import Figure, show, write
from workers.site import free_port

RUNS = 6
STEPS = 240
QUIET_S = 5.0
"""How often we ask whether it is over: asking costs the CPU that is measured."""
SKIPPED_STEPS = 20
"""The first ones warm caches up."""
EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPT = EXAMPLES / "train" / "gpt.py"
ARGS = ("--steps", str(STEPS), "--save", "100", "--sample", "1")
LOOPBACK = "127.0.0.1"
JOB = """
apiVersion: shisuan/v1
kind: TrainJob
name: {name}
script: train/gpt.py
args: {args}
num_nodes: 2
retries: 0
outputs: {name}
resources: {{cpus: 1, memory: 1GiB}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training."""

    start_ms: float
    """Until both ranks had done a step."""
    wall_ms: tuple[float, ...]
    """Each step of rank 0, without the first ones."""
    cpu_ms: tuple[float, ...]


def _run(start_ms: float, file: Path) -> Run:
    with file.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))[SKIPPED_STEPS:]
    return Run(
        start_ms=start_ms,
        wall_ms=tuple(1_000 * float(row["wall_s"]) for row in rows),
        cpu_ms=tuple(1_000 * float(row["cpu_s"]) for row in rows),
    )


def by_hand(folder: Path) -> Run:
    """Two torchrun with a static rendezvous. Raises AssertionError when one fails."""
    folder.mkdir()
    (folder / "checkpoints").mkdir()
    env = {
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
        **dict.fromkeys(("HOME", "TMPDIR", "SHISUAN_OUTPUTS"), str(folder)),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "GLOO_SOCKET_IFNAME": "lo",
        "CUDA_VISIBLE_DEVICES": "",
        "SHISUAN_CHECKPOINT_DIR": str(folder / "checkpoints"),
    }
    began_ms = time.time_ns() / 1e6
    port = free_port(LOOPBACK)
    ranks = [
        subprocess.Popen(_torchrun(rank, port), env=env, cwd=folder, start_new_session=True, **_output(folder, rank))
        for rank in range(2)
    ]
    codes = [rank.wait(timeout=300) for rank in ranks]
    text = (folder / "0.log").read_text(encoding="utf-8")
    assert codes == [0, 0], text[-2_000:]
    facts = next(json.loads(line.partition(": ")[2]) for line in text.splitlines() if line.startswith("shisuan_done: "))
    return _run(max(facts["first_step_ms"]) - began_ms, folder / "steps.csv")


def _torchrun(rank: int, port: int) -> list[str]:
    where = ("--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1")
    meet = ("--master-addr", LOOPBACK, "--master-port", str(port), "--max-restarts", "0")
    return [sys.executable, "-m", "torch.distributed.run", *where, *meet, str(SCRIPT), *ARGS]


def _output(folder: Path, rank: int) -> dict[str, object]:
    return {"stdout": (folder / f"{rank}.log").open("wb"), "stderr": subprocess.STDOUT}


def through_us(installation: Installation, name: str) -> Run:
    """The same as a job. Raises AssertionError when it fails."""
    text = JOB.format(name=name, args=json.dumps(ARGS))
    job_id = installation.api("POST", "/jobs", json={"file": text, "base_dir": str(EXAMPLES)})["id"]
    installation.wait(job_id, deadline_s=300, every_s=QUIET_S)
    (attempt,) = installation.attempts(job_id)
    (lease,) = installation.api("GET", "/leases", params={"job": job_id})["leases"]
    first_ms = max(json.loads(attempt["facts"])["first_step_ms"])
    file = next(Path(path) for path in attempt["outputs"] if path.endswith("steps.csv"))
    return _run(first_ms - lease["granted_ms"], file)


def measure(folder: Path, *, runs: int = RUNS) -> tuple[Figure, ...]:
    """All figures, with an installation of its own below ``folder``; about half a minute per run on two quiet cores."""
    nodes = folder / "nodes.yaml"
    nodes.write_text("nodes:\n- {name: alpha, cpus: 1, memory: 4GiB}\n- {name: beta, cpus: 1, memory: 4GiB}\n")
    ours: list[Run] = []
    theirs: list[Run] = []
    with Installation(folder / "home", "--nodes", str(nodes), "--root", str(EXAMPLES)) as installation:
        by_hand(folder / "warm")  # the disk's cache, and then the agents
        through_us(installation, "warm")
        for number in range(runs):
            theirs.append(by_hand(folder / f"hand-{number}"))
            ours.append(through_us(installation, f"ours-{number}"))
    return figures(ours, theirs)


def figures(ours: Sequence[Run], theirs: Sequence[Run]) -> tuple[Figure, ...]:
    """From the raw runs of both sides."""
    start_ms = statistics.median(run.start_ms for run in theirs)
    return (
        Figure(
            name="gang_start_ratio",
            runs=tuple(run.start_ms / start_ms for run in ours),
            bound=1.5,
            anchors={"torchrun_by_hand": tuple(run.start_ms / start_ms for run in theirs)},
        ),
        Figure(name="train_step_overhead_percent", runs=_more(ours, theirs, "cpu_ms"), bound=1.0),
        Figure(name="train_step_wall_overhead_percent", runs=_more(ours, theirs, "wall_ms")),
        *(
            Figure(
                name=f"train_step_{kind}",
                runs=tuple(quick(getattr(run, kind)) for run in ours),
                anchors={"torchrun_by_hand_ms": tuple(quick(getattr(run, kind)) for run in theirs)},
            )
            for kind in ("cpu_ms", "wall_ms")
        ),
    )


def quick(steps: Sequence[float]) -> float:
    """The quicker tenth's bound: what a step takes when nothing else spoils it."""
    return statistics.quantiles(steps, n=10)[0]


def _more(ours: Sequence[Run], theirs: Sequence[Run], kind: str) -> tuple[float, ...]:
    """Of each pair of neighbouring runs, in per cent."""
    pairs = zip(ours, theirs, strict=True)
    return tuple(100 * (quick(getattr(mine, kind)) / quick(getattr(other, kind)) - 1) for mine, other in pairs)


def main() -> None:
    """Measure, print, keep."""
    with tempfile.TemporaryDirectory(prefix="shisuan-bench-") as folder:
        found = measure(Path(folder))
    show(found)
    write("train", found, notes={"steps": STEPS, "runs": RUNS, "ranks": 2, "script": SCRIPT.name})
    missed = [f.name for f in found if f.bound is not None and f.value > f.bound]
    if missed:
        sys.exit(f"over the bound: {', '.join(missed)}")


if __name__ == "__main__":
    main()
