"""The embedded Ray: its processes on this machine, found again by what ``ray.json`` and /proc say. Imports no Ray.

All of them carry :data:`MARK` in their environment, so that a half-started or half-dead cluster can be cleared away to
the last process without touching anybody else's Ray.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scheduler.model.errors import ExecutorError
from scheduler.model.node import Node
from workers import procfs

_log = logging.getLogger(__name__)

MARK = "SHISUAN_RAY_DIR"
LOOPBACK = "127.0.0.2"
"""Only this machine can reach it, and Ray does not rewrite it into the outer address as it does 127.0.0.1."""
START_LIMIT_S = 120.0
LOGICAL_CPUS = 10_000
"""Ray's own count never decides: the database does. Placement groups of gangs always fit."""
NODE_LABEL = "shisuan/node"
POD_LABEL = "shisuan-node"
"""In a cluster that dials home: the pod's name. A Ray node without it (the head) gets no work."""
KEPT_ENV = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "USER",
    "LOGNAME",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "SHISUAN_BLENDER",
    "SHISUAN_FFMPEG",
    "SHISUAN_TRAIN_PYTHON",
)
KEPT_PREFIXES = ("CUDA_", "NVIDIA_", "PYTHONHASHSEED", "COVERAGE_")
_RAY_ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",  # runners inherit it
    # A killed raylet is noticed after 3 s, a starved one is given 9: everything is on one machine.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_enable_metrics_collection": "0",
    "RAY_prestart_worker_first_driver": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process and when it started, in clock ticks after boot: a later namesake is told apart."""

    pid: int
    ticks: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this pid now."""
        return cls(pid=pid, ticks=procfs.start_ticks(pid))

    def runs(self) -> bool:
        """It is still there, and no zombie."""
        return self.pid > 0 and procfs.is_running(self.pid, self.ticks)


class RayHead:
    """One embedded cluster per home. Not thread-safe: its supervisor owns it. ``nodes`` become one raylet each."""

    def __init__(self, home: Path, nodes: Sequence[Node] = ()) -> None:
        self.home = home
        self.temp_dir = Path(temp_dir(home))
        self._nodes = tuple(nodes)
        self._facts_path = home / "ray.json"
        self._gcs = Process(pid=0, ticks=0)
        self._raylets: dict[str, Process] = {}
        self.address = ""
        self.node_ids: dict[str, str] = {}
        """Ray's id of each node that was started here."""

    # -- state ---------------------------------------------------------------------------------------------------

    def adopt(self) -> bool:
        """Take over a cluster an earlier service left running, if it is whole and was started for the same nodes."""
        try:
            facts = json.loads(self._facts_path.read_text(encoding="utf-8"))
            if facts["shape"] != self._shape():
                return False
            self._gcs = Process(**facts["gcs"])
            self._raylets = {name: Process(**raylet) for name, raylet in facts["raylets"].items()}
            self.node_ids, self.address = dict(facts["node_ids"]), str(facts["address"])
        except FileNotFoundError:
            return False
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("%s is damaged and passed over: %r", self._facts_path, error)
            return False
        return self.alive() and not self.missing() and _answers(self.address)

    def alive(self) -> bool:
        """The control store and the head's raylet run: without either nothing of the cluster works."""
        names = [node.name for node in self._nodes[:1]]
        return self._gcs.runs() and all(name in self._raylets and self._raylets[name].runs() for name in names)

    def missing(self) -> tuple[str, ...]:
        """Nodes whose raylet died."""
        return tuple(n.name for n in self._nodes if n.name not in self._raylets or not self._raylets[n.name].runs())

    # -- verbs ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Clear away what is left of an earlier cluster and start a new one. Raises ExecutorError."""
        self.kill()
        self._prepare()
        self.address, self.node_ids, self._raylets = "", {}, {}
        self._launch(self._nodes)

    def revive(self, names: Sequence[str]) -> None:
        """Start raylets for these nodes again, in the running cluster. Raises ExecutorError."""
        for name in names:
            if name in self._raylets:
                procfs.kill_all(partial(self._of_raylet, name))
        self._launch([node for node in self._nodes if node.name in names])

    def kill(self) -> int:
        """SIGKILL every process of this cluster, its actors included; returns how many there were."""
        return procfs.kill_all(self.processes)

    def remove(self) -> bool:
        """Kill the cluster and the runners below it, and delete its files. Returns whether anything ran."""
        killed = self.kill()
        killed += procfs.kill_all(lambda: set(procfs.marked(str(self.home / "nodes"))))
        shutil.rmtree(self.temp_dir, ignore_errors=True)
        self._facts_path.unlink(missing_ok=True)
        return killed > 0

    def processes(self) -> set[int]:
        """Every process of this cluster, whoever its parent is now."""
        inside, mark = f"{self.temp_dir}/".encode(), f"{MARK}={self.temp_dir}".encode()
        found: set[int] = set()
        for pid in procfs.pids():
            if mark in _read(pid, "environ").split(b"\0") or inside in _read(pid, "cmdline"):
                found.add(pid)
        return found

    def environ(self) -> dict[str, str]:
        """What a process needs to talk to this cluster: no credentials of the service but the cluster's own token."""
        return clean_environ() | _RAY_ENV | {"RAY_AUTH_TOKEN_PATH": str(self._token()), "SHISUAN_HOME": str(self.home)}

    # -- inside --------------------------------------------------------------------------------------------------

    def _launch(self, nodes: Sequence[Node]) -> None:
        plan = {
            "temp_dir": str(self.temp_dir),
            "address": self.address,
            "ip": LOOPBACK,
            "nodes": [_node_plan(node) for node in nodes],
        }
        environ = self.environ() | {MARK: str(self.temp_dir)}
        launcher = subprocess.Popen(
            [sys.executable, "-P", "-m", "workers.ray_node"],
            cwd=self.temp_dir,
            env=environ,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            told, complaints = launcher.communicate(json.dumps(plan), timeout=START_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(launcher.pid, signal.SIGKILL)
            launcher.communicate()
            limit = f"{START_LIMIT_S:.0f} s"
            raise ExecutorError(f"Ray did not start within {limit}; its logs are in {self.temp_dir}") from None
        for line in told.splitlines():
            if line.startswith("{"):  # Ray may print words of its own
                self._learn(json.loads(line))
        if launcher.returncode != 0 or self.missing():
            raise ExecutorError(f"Ray did not start: {_last_words(complaints)} (logs: {self.temp_dir})")
        self._write_facts()

    def _learn(self, started: dict[str, Any]) -> None:
        self.address = started["address"]
        self.node_ids[started["name"]] = started["node_id"]
        self._raylets[started["name"]] = Process.of(started["raylet_pid"])
        if started["gcs_pid"]:
            self._gcs = Process.of(started["gcs_pid"])

    def _write_facts(self) -> None:
        facts = {
            "temp_dir": str(self.temp_dir),
            "address": self.address,
            "shape": self._shape(),
            "node_ids": self.node_ids,
            "gcs": {"pid": self._gcs.pid, "ticks": self._gcs.ticks},
            "raylets": {name: {"pid": p.pid, "ticks": p.ticks} for name, p in self._raylets.items()},
        }
        fresh = self._facts_path.with_suffix(".new")
        fresh.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        fresh.replace(self._facts_path)

    def _shape(self) -> list[Any]:
        """What Ray cannot change on a running node."""
        return [_node_plan(node) for node in self._nodes]

    def _prepare(self) -> None:
        """An empty folder nobody else can look into (Ray's sockets lie there)."""
        if self.temp_dir.is_symlink():
            self.temp_dir.unlink()
        shutil.rmtree(self.temp_dir, ignore_errors=True)
        self.temp_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = self.temp_dir.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            raise ExecutorError(f"{self.temp_dir} belongs to somebody else; remove it")

    def _of_raylet(self, name: str) -> set[int]:
        """A dead or dying raylet and what still names its node id (its workers are told by their parent's death)."""
        node_id = self.node_ids.get(name, "-").encode()
        return {pid for pid in self.processes() if node_id in _read(pid, "cmdline")}

    def _token(self) -> Path:
        path = self.home / "ray.token"
        if not path.exists():
            fresh = path.with_suffix(".new")
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(secrets.token_hex(32))
            fresh.replace(path)
        return path


def temp_dir(home: Path) -> str:
    """A short folder of this home's own: paths of Unix sockets end at 107 bytes."""
    base = tempfile.gettempdir()
    if len(base) > 20:
        base = "/tmp"  # noqa: S108
    return f"{base}/shisuan-{hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:10]}"


def clean_environ() -> dict[str, str]:
    """The part of our environment that workers may see: no keys, no database address."""
    kept = {k: v for k, v in os.environ.items() if k in KEPT_ENV or k.startswith(KEPT_PREFIXES)}
    return kept | {"PYTHONSAFEPATH": "1"}


def _node_plan(node: Node) -> dict[str, Any]:
    cards = sorted({device.index for device in node.devices})
    real = sum(not device.simulated for device in node.devices)
    return {
        "name": node.name,
        "cpus": LOGICAL_CPUS,
        "gpus": real,
        "labels": {NODE_LABEL: node.name},
        "resources": {f"gpu{index}": 1 for index in cards},
    }


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except OSError:
        return False


def _last_words(complaints: str) -> str:
    lines = [line for line in complaints.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""
