"""What must hold after anything died: asked of the API, the files and the journal of a real installation."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from benchmarks.installation import Installation, wait_for


def check_attempts(installation: Installation, job: dict[str, Any], *, runner_killed: bool) -> None:
    """Every task has exactly one successful attempt, numbers count up from 1, nothing is left open.

    What the park lost is LOST; only a runner that was killed itself is the task's own failure.
    """
    by_task: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for attempt in installation.attempts(job["id"]):
        by_task[attempt["step"], attempt["index"]].append(attempt)
    assert len(by_task) == sum(step["count"] for step in job["steps"])
    for task, attempts in by_task.items():
        states = Counter(a["state"] for a in attempts)
        assert states["succeeded"] == 1, (task, states)
        allowed = {"succeeded", "lost", "failed"} if runner_killed else {"succeeded", "lost"}
        assert set(states) <= allowed, (task, [(a["state"], a["reason"]) for a in attempts])
        assert all("SIGKILL" in a["reason"] for a in attempts if a["state"] == "failed"), attempts
        assert [a["number"] for a in sorted(attempts, key=lambda a: a["number"])] == list(range(1, len(attempts) + 1))


def check_leases(installation: Installation, job: dict[str, Any]) -> None:
    """Every lease is closed, its usage covers it without gap or overlap, and no node was oversubscribed."""
    leases = installation.api("GET", "/leases", params={"job": job["id"]})["leases"]
    records = installation.api("GET", "/usage", params={"job": job["id"]})["records"]
    usage: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for record in records:
        usage[record["lease_id"]].append((record["start_ms"], record["end_ms"]))
    for lease in leases:
        assert lease["closed_ms"] >= lease["granted_ms"] > 0, lease
        edge = lease["granted_ms"]
        for start, end in sorted(usage.pop(lease["id"], [])):
            assert start == edge, f"{lease['id']}: usage jumps from {edge} to {start}"
            edge = end
        assert edge == lease["closed_ms"], f"{lease['id']}: usage ends at {edge}, the lease at {lease['closed_ms']}"
    assert not usage, f"usage of leases that do not exist: {sorted(usage)}"
    check_capacity(installation, leases)


def check_capacity(installation: Installation, leases: list[dict[str, Any]]) -> None:
    """At no instant do the leases hold more vCPU than a node has."""
    capacity = {node["name"]: node["cpu_milli"] for node in installation.api("GET", "/nodes")["nodes"]}
    edges: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for lease in leases:
        for allocation in lease["allocations"]:
            edges[allocation["node"]].append((lease["granted_ms"], allocation["cpu_milli"]))
            edges[allocation["node"]].append((lease["closed_ms"], -allocation["cpu_milli"]))
    for node, changes in edges.items():
        held = 0
        for _, change in sorted(changes):  # at equal instants the negative comes first: half-open intervals
            held += change
            assert held <= capacity[node], f"{node} oversubscribed: {held} of {capacity[node]} milli-vCPU"


def check_outputs(folder: Path) -> None:
    """Each declared output is there once, whole, and nothing half-made lies beside it."""
    tasks = {p.name: p.read_text(encoding="utf-8") for p in (folder / "tasks").glob("*.txt")}
    assert tasks == {f"{i}.txt": f"task {i}\n" for i in range(40)}
    gang = {p.name: p.read_text(encoding="utf-8") for p in (folder / "gang").glob("*.txt")}
    assert gang == {f"rank{r}.txt": f"rank {r} of 2\n" for r in range(2)}
    lines = (folder / "join" / "all.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(lines) == sorted([f"task {i}" for i in range(40)] + [f"rank {r} of 2" for r in range(2)])
    leftovers = [p for p in folder.rglob("*") if p.is_file() and ".tmp" in p.name]
    assert not leftovers


def check_journal(installation: Installation) -> None:
    """Replaying the journal gives the live tables, the chain is unbroken, and the cards' time adds up."""
    command = [sys.executable, "-P", "-m", "scheduler.wiring", "--home", str(installation.home), "--verify"]
    if "--database" in installation.flags:
        command += installation.flags[installation.flags.index("--database") :][:2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=installation.env, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr


def check_no_orphans(installation: Installation) -> None:
    """Nothing that ran for a task is left."""
    wait_for("no runner left", lambda: not installation.role("runner"), deadline_s=20)
    assert len(installation.role("service")) == 1
    assert len(installation.role("bridge")) == 1
