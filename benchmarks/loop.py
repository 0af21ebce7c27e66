"""The loop's own cost: overhead per task, speed of submission, bytes per waiting task, memory of the control plane.

Run by ``make bench-loop``. The peers run the same 1,000 ``/bin/true`` on the same machine in the same run:
``openjd run`` (one session, tasks one after the other) and plain Ray tasks that spawn the process (two slots).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.installation import Installation
from benchmarks.results import Figure, show, write

TASKS = 1_000
RUNS = 3
OPENJD = """
specificationVersion: jobtemplate-2023-09
name: overhead
steps:
  - name: noop
    parameterSpace:
      taskParameterDefinitions:
        - {name: Index, type: INT, range: "1-%d"}
    script:
      actions:
        onRun: {command: /bin/true}
"""
RAY = """
import json, subprocess, sys, time
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
@ray.remote(num_cpus=1)
def run(): return subprocess.run(["/bin/true"], start_new_session=True).returncode
ray.get([run.remote() for _ in range(20)])
begin = time.monotonic()
assert not any(ray.get([run.remote() for _ in range(int(sys.argv[1]))]))
print(json.dumps((time.monotonic() - begin) * 1000 / int(sys.argv[1])))
"""
ARRAY = """
apiVersion: shisuan/v1
kind: CommandJob
name: {name}
resources: {{cpus: 1, memory: 64MiB}}
array: 0-{last}
run: [/bin/true]
"""


def openjd_ms(folder: Path) -> float:
    """Milliseconds per task of ``openjd run``, by its own clock (template reading and imports excluded)."""
    template = folder / "template.yaml"
    template.write_text(OPENJD % TASKS, encoding="utf-8")
    cli = Path(sys.executable).with_name("openjd")
    done = subprocess.run([cli, "run", template, "--step", "noop"], capture_output=True, text=True, check=True)
    seconds = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("Duration:"))
    return float(seconds) * 1000 / TASKS


def ray_ms() -> float:
    """Milliseconds per plain Ray task, two slots."""
    done = subprocess.run([sys.executable, "-P", "-c", RAY, str(TASKS)], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def ours_ms(installation: Installation, run: int) -> float:
    """Wall time from the first recorded start to the last recorded finish, divided by the number of tasks."""
    job = installation.submit(ARRAY.format(name=f"true-{run}", last=TASKS - 1))
    installation.wait(job)
    attempts = installation.attempts(job)
    good = [a for a in attempts if a["state"] == "succeeded"]
    assert len(good) == TASKS, f"{len(good)} of {TASKS} tasks succeeded"
    return (max(a["finished_ms"] for a in good) - min(a["started_ms"] for a in good)) / TASKS


def bytes_in_small_jobs(installation: Installation, jobs: int, tasks: int) -> float:
    """The same growth per task when the tasks come in ``jobs`` jobs of ``tasks`` each."""
    before = installation.database_bytes() + installation.pss_bytes("service")
    for number in range(jobs):
        installation.submit(ARRAY.format(name=f"few-{number}", last=tasks - 1), hold=True)
    after = installation.database_bytes() + installation.pss_bytes("service")
    return max(0, after - before) / (jobs * tasks)


def submit_figures(installation: Installation, tasks: int) -> tuple[float, float]:
    """Seconds to submit one job of ``tasks`` tasks; bytes each adds to the database and the service's memory."""
    before = installation.database_bytes() + installation.pss_bytes("service")
    begin = time.monotonic()
    job = installation.submit(ARRAY.format(name="many", last=tasks - 1), hold=True)
    seconds = time.monotonic() - begin
    assert installation.job(job)["steps"][0]["waiting"] == tasks
    after = installation.database_bytes() + installation.pss_bytes("service")
    return seconds, max(0, after - before) / tasks


def main() -> None:
    """Measure, print, keep."""
    with tempfile.TemporaryDirectory(prefix="shisuan-bench-") as folder:
        base = Path(folder)
        with Installation(base / "home", "--cpus", "2") as installation:
            installation.wait(installation.submit(ARRAY.format(name="warm-up", last=19)))
            ours, openjd, ray = [], [], []
            for run in range(RUNS):
                ours.append(ours_ms(installation, run))
                openjd.append(openjd_ms(base))
                ray.append(ray_ms())
            submits = [submit_figures(installation, 100_000) for _ in range(RUNS)]
            small = bytes_in_small_jobs(installation, 200, 100)
            pss_mib = (installation.pss_bytes("service") + installation.pss_bytes("bridge")) / 2**20
            ray_pss_mib = installation.pss_bytes("ray") / 2**20
    figures = [
        Figure(name="task_overhead_ms", runs=tuple(ours), bound=5,
               anchors={"openjd_run_task_ms": tuple(openjd), "ray_task_ms": tuple(ray)}),
        Figure(name="submit_100k_tasks_seconds", runs=tuple(s for s, _ in submits), bound=2),
        Figure(name="bytes_per_waiting_task", runs=tuple(b for _, b in submits), bound=200),
        Figure(name="bytes_per_waiting_task_in_jobs_of_100", runs=(small,), bound=200),
        Figure(name="control_plane_pss_mib", runs=(pss_mib,), bound=400, anchors={"ray_pss_mib": (ray_pss_mib,)}),
    ]  # fmt: skip
    show(figures)
    write("loop", figures, notes={"tasks": TASKS, "slots": 2, "total_pss_mib": psutil.virtual_memory().used // 2**20})
    missed = [f.name for f in figures if f.bound is not None and f.value > f.bound]
    if missed:
        sys.exit(f"over the bound: {', '.join(missed)}")


if __name__ == "__main__":
    main()
