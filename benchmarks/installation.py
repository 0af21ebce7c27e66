"""A whole installation, started with the real command, measured, watched and killed from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import psutil

SHISUAN = Path(sys.executable).with_name("shisuan")


class Installation:
    """One home folder and everything that runs for it."""

    def __init__(self, home: Path, *flags: str) -> None:
        self.home = home
        self.flags = flags
        self.cwd = Path("/")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SHISUAN_", "RAY_"))}
        self.env |= {"SHISUAN_HOME": str(home), "NO_COLOR": "1"}

    # -- life

    def up(self) -> None:
        """Start it; what runs already is left alone."""
        self.run("up", *self.flags, timeout_s=180)

    def down(self) -> None:
        """Stop everything of it."""
        self.run("down", timeout_s=120)

    def __enter__(self) -> Installation:
        self.up()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.down()
        finally:
            kill(self.processes())

    def run(self, *args: str, timeout_s: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the ``shisuan`` command on this home. Raises AssertionError with its output when it fails."""
        result = subprocess.run(
            [SHISUAN, *args], env=self.env, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=self.cwd
        )
        if check and result.returncode != 0:
            said = f"{result.stdout}{result.stderr}\n{self.log_tail()}"
            raise AssertionError(f"shisuan {' '.join(args)}: exit code {result.returncode}\n{said}")
        return result

    def log_tail(self, lines: int = 40) -> str:
        """The end of the service's log."""
        log = self.home / "logs" / "service.log"
        return "\n".join(log.read_text(encoding="utf-8").splitlines()[-lines:]) if log.exists() else ""

    # -- API

    @property
    def instance(self) -> dict[str, Any]:
        """What the running service says of itself."""
        return json.loads((self.home / "instance.json").read_text(encoding="utf-8"))

    def api(self, method: str, path: str, **kwargs: Any) -> Any:
        """One call below ``/v1`` with the operator's key. Raises httpx.HTTPError."""
        key = (self.home / "key").read_text(encoding="utf-8").strip()
        response = httpx.request(
            method, f"{self.instance['url']}/v1{path}", headers={"Authorization": f"Bearer {key}"}, timeout=30, **kwargs
        )
        response.raise_for_status()
        return response.json()

    def submit(self, text: str, *, hold: bool = False) -> str:
        """Submit a job file's text; its job id."""
        body = {"file": text, "base_dir": str(self.home), "hold": hold}
        return str(self.api("POST", "/jobs", json=body)["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as the API shows it."""
        return self.api("GET", f"/jobs/{job_id}")

    def wait(self, job_id: str, *, deadline_s: float = 120, every_s: float = 0.05) -> dict[str, Any]:
        """Wait for a final state, asking every ``every_s``; raises AssertionError unless the job succeeded."""
        final = ("succeeded", "failed", "cancelled")
        job = wait_for(
            f"{job_id} final",
            lambda: (j := self.job(job_id))["state"] in final and j,
            deadline_s=deadline_s,
            every_s=every_s,
        )
        assert job["state"] == "succeeded", f"{job_id} {job['state']}: {job['reason']}\n{self.log_tail()}"
        return job

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        """Every attempt of the job."""
        return list(self.api("GET", f"/jobs/{job_id}/attempts", params={"limit": 1_000_000})["attempts"])

    # -- measures

    def database_bytes(self) -> int:
        """Bytes of the SQLite database and its log."""
        return sum(p.stat().st_size for p in self.home.glob("shisuan.db*"))

    def pss_bytes(self, role: str) -> int:
        """Proportional set size of all processes of a role."""
        return sum(p.memory_full_info().pss for p in self.role(role))

    # -- processes

    def processes(self) -> list[psutil.Process]:
        """Every live process that belongs to this installation, whoever its parent is now."""
        return [p for p in psutil.process_iter() if self._is_ours(p)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                return False
            text = "\0".join([*process.cmdline(), *process.environ().values()])
            return str(self.home) in text or self._ray_dir in text
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    @property
    def _ray_dir(self) -> str:
        facts = self.home / "ray.json"
        if not facts.exists():
            return str(self.home)
        return json.loads(facts.read_text(encoding="utf-8"))["temp_dir"]

    def role(self, role: str) -> list[psutil.Process]:
        """Processes of one role: service, bridge, agent, runner, head; ``ray`` is all of Ray but the bridge."""
        return [p for p in self.processes() if role in _roles(p)]


def _roles(process: psutil.Process) -> set[str]:
    try:
        command, environ = process.cmdline(), process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return set()
    text = " ".join(command)
    roles = set()
    if "SHISUAN_WORK" in environ or (command and Path(command[0]).name in ("bwrap", "setpriv")):
        roles.add("runner")
    elif "scheduler.wiring" in text:
        roles.add("service")
    elif "workers.ray_bridge" in text:
        roles.add("bridge")
    elif text.startswith("ray::") and "Agent" in text:
        roles |= {"agent", "ray"}
    elif "gcs_server" in text:
        roles |= {"head", "ray"}
    else:
        roles.add("ray")
    return roles


def kill(processes: Iterable[psutil.Process]) -> int:
    """SIGKILL each that is still there; how many were."""
    killed = 0
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
            killed += 1
        except psutil.NoSuchProcess:
            continue
    return killed


def wait_for(what: str, condition: Callable[[], Any], *, deadline_s: float, every_s: float = 0.05) -> Any:
    """The first true value of ``condition``; connection errors count as not yet. AssertionError at the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            value = condition()
        except (httpx.HTTPError, FileNotFoundError, json.JSONDecodeError) as error:
            value, last = None, repr(error)
        else:
            last = repr(value)
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline_s:.0f} s (last: {last[:500]})")
        time.sleep(every_s)
