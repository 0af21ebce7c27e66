"""``ray start --block`` as a pod of the stand-in runs it: the same control store and raylet, without Ray's helpers, at
the pod's own address. A program of its own: ``ray`` on the pods' path runs this file.

``PARK_IP`` is the address, ``PARK_PORT`` the control store's port where this is a head (all pods share one machine, so
the usual ports are taken), ``PARK_READY`` a file to make when Ray knows the node. The command line says the rest.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from ray._private import ray_constants, services
from ray._private.parameter import RayParams

from workers import ray_node

LEAVE_S = 1.0


def asked(argv: list[str]) -> argparse.Namespace:
    """What the command line asks for. Unknown options are refused, as by Ray."""
    parser = argparse.ArgumentParser(prog="ray start")
    for flag in ("head", "block", "no-monitor"):
        parser.add_argument(f"--{flag}", action="store_true")
    for word in ("address", "labels", "memory", "include-dashboard", "dashboard-host", "node-manager-port"):
        parser.add_argument(f"--{word}", default="")
    for number in ("num-cpus", "num-gpus", "object-store-memory", "metrics-export-port", "dashboard-agent-listen-port"):
        parser.add_argument(f"--{number}", type=int)
    parser.add_argument("--resources", type=json.loads, default={})
    return parser.parse_args(argv)


def main() -> None:
    """Start one node and stay as long as it lives."""
    verb, *argv = sys.argv[1:]
    if verb != "start":
        raise SystemExit(f"ray {verb}: the stand-in's ray can only start")
    told = asked(argv)
    services.start_ray_process = ray_node._start
    params = RayParams(
        node_ip_address=os.environ["PARK_IP"],
        num_cpus=told.num_cpus,
        num_gpus=told.num_gpus,
        resources=told.resources,
        labels=dict(part.split("=", 1) for part in told.labels.split(",") if part),
        object_store_memory=told.object_store_memory or ray_node.OBJECT_STORE_BYTES,
        temp_dir=os.environ["TMPDIR"] + "/ray",
        include_dashboard=False,
        no_monitor=True,
    )
    params.include_log_monitor = False
    if told.head:
        params.gcs_server_port = int(os.environ["PARK_PORT"])
    else:
        params.gcs_address = told.address
    node = ray_node.BareNode(params, head=told.head, shutdown_at_exit=False, spawn_reaper=False)
    raylet = node.all_processes[ray_constants.PROCESS_TYPE_RAYLET][0].process
    signal.signal(signal.SIGTERM, lambda *_: leave(raylet))
    Path(os.environ["PARK_READY"]).touch()
    sys.exit(raylet.wait() or 1)


def leave(raylet) -> None:
    """Say goodbye to the control store: it need not find out."""
    raylet.terminate()
    until = time.monotonic() + LEAVE_S
    while raylet.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    os._exit(143)


if __name__ == "__main__":
    main()
