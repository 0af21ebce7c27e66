"""Starts Ray's processes for the embedded cluster and ends: ``python -P -m workers.ray_node < plan.json``.

``ray start`` of 2.60 takes 6–10 s on two cores and leaves 450 MB of helpers that shisuan does not use: the API server
(2–5 s until it answers), an agent for metrics and one for ``runtime_env`` that the raylet waits for (2–3 s), a log
monitor and a spare worker per CPU. This file runs the same code of Ray without them: about 1 s. It leans on names
inside Ray, which is why Ray is pinned exactly; ``tests/contract`` notices when they move.

The plan on stdin: ``{"temp_dir", "address", "ip", "nodes": [{"name", "cpus", "gpus", "resources", "labels"}]}``. An
empty address makes the first node a head. A line per started node on stdout: ``{"name", "node_id", "address",
"gcs_pid", "raylet_pid"}``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from ray._private import ray_constants, services
from ray._private.node import Node
from ray._private.parameter import RayParams

STUB = "sh -c 'exec tail --pid=$PPID -f /dev/null'"
"""In place of the helpers a raylet insists on having: lives as long as its parent."""
HELPER_PORTS = ("metrics_agent", "metrics_export", "dashboard_agent_listen", "runtime_env_agent")
OBJECT_STORE_BYTES = 80_000_000
"""Close to the least Ray takes (75 MiB): shisuan sends no objects."""
RAYLET_SOCKET_S = 20.0


class BareNode(Node):
    """Ray's own node, without API server and helpers."""

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        """There is none."""
        del include_dashboard, raise_on_failure
        self._webui_url = ""

    def start_raylet(self, *args: Any, **kwargs: Any) -> None:
        """Start it with the helpers' ports already on disk, so that it does not wait for them."""
        for helper in HELPER_PORTS:
            (Path(self._session_dir) / f"{helper}_port_{self._node_id}").write_text("1", encoding="ascii")
        super().start_raylet(*args, **kwargs)
        until = time.monotonic() + RAYLET_SOCKET_S
        while not os.path.exists(self._raylet_socket_name or "") and time.monotonic() < until:
            time.sleep(0.01)  # Ray's own wait looks once a second

    def pid(self, kind: str) -> int:
        """Of a process started here; 0 when there is none."""
        found = self.all_processes.get(kind)
        return int(found[0].process.pid) if found else 0


def without_helpers(command: list[str]) -> list[str]:
    """The raylet's command line with stubs for its helpers and one spare worker."""
    replaced = {
        "--dashboard_agent_command": STUB,
        "--runtime_env_agent_command": STUB,
        "--num_prestart_python_workers": "1",
    }
    return [f"{name}={replaced[name]}" if (name := part.partition("=")[0]) in replaced else part for part in command]


_start_ray_process = services.start_ray_process


def _start(command: list[str], process_type: str, *args: Any, **kwargs: Any) -> Any:
    if process_type == ray_constants.PROCESS_TYPE_RAYLET:
        command = without_helpers(command)
    return _start_ray_process(command, process_type, *args, **kwargs)


def start_node(spec: dict[str, Any], *, temp_dir: str, address: str, ip: str) -> dict[str, Any]:
    """Start one node and wait until it is registered. Raises whatever Ray raises."""
    params = RayParams(
        node_ip_address=ip,
        node_name=spec["name"],
        num_cpus=spec["cpus"],
        num_gpus=spec["gpus"],
        resources=spec["resources"],
        labels=spec["labels"],
        object_store_memory=OBJECT_STORE_BYTES,
        temp_dir=temp_dir,
        include_dashboard=False,
        no_monitor=True,
    )
    params.include_log_monitor = False
    if address:
        params.gcs_address = address
    node = BareNode(params, head=not address, shutdown_at_exit=False, spawn_reaper=False)
    return {
        "name": spec["name"],
        "node_id": node.node_id,
        "address": node.gcs_address,
        "gcs_pid": node.pid(ray_constants.PROCESS_TYPE_GCS_SERVER),
        "raylet_pid": node.pid(ray_constants.PROCESS_TYPE_RAYLET),
    }


def main() -> None:
    """Start what the plan on stdin names, in order."""
    plan = json.load(sys.stdin)
    services.start_ray_process = _start
    address = plan["address"]
    for spec in plan["nodes"]:
        started = start_node(spec, temp_dir=plan["temp_dir"], address=address, ip=plan["ip"])
        address = started["address"]
        sys.stdout.write(json.dumps(started) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
