"""What all attempts of one agent share: folders, the table, the outbox, tools, confinement, threads for slow disks."""

from __future__ import annotations

import os
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from scheduler.model.lease import parse_attempt_id
from workers.confine import Confinement
from workers.measure import Measuring
from workers.outbox import Outbox
from workers.staging import Inputs
from workers.table import Table
from workers.tools import Tools

MEETING_PORTS = range(20_000, 30_000)
"""Linux gives outgoing connections ports from 32768 on (ip_local_port_range), Ray's workers use 10002 to 19999."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One per agent."""

    node: str
    tenant: str
    home: Path
    """The installation's folder: runners never see it."""
    folder: Path
    """``home/nodes/<node>/<tenant>``"""
    table: Table
    outbox: Outbox
    tools: Tools
    confinement: Confinement
    disk: ThreadPoolExecutor
    """For storage, which may be slow or hang; the loop must not wait for it."""
    logs: ThreadPoolExecutor
    """For bringing logs to storage: one that hangs must not keep outputs from being published."""
    measuring: Measuring
    inputs: Inputs
    """Copies of inputs that lie in an S3-compatible store."""
    parent: int = field(default_factory=os.getppid)
    """Process id of who started the agent: on a Ray node its raylet."""
    ended: set[str] = field(default_factory=set)
    """Work folders of runners that ended since the last sweep for descendants that left their group."""

    @property
    def work(self) -> Path:
        """Parent of all work folders."""
        return self.folder / "work"

    @property
    def is_orphan(self) -> bool:
        """Who started the agent is gone, and the agent will be in a moment."""
        return os.getppid() != self.parent

    def log_path(self, attempt_id: str, rank: int) -> Path:
        """Where the attempt's output is kept."""
        return self.folder / "logs" / f"{attempt_name(attempt_id, rank)}.log"


def attempt_name(attempt_id: str, rank: int) -> str:
    """File name of an attempt on this node: ``j1.a.0.a1``, and ``j1.a.0.a1.r2`` for a gang's rank 2.

    Raises ValueError for an id that is none, or that would leave its folder.
    """
    if attempt_id.count(".") != 3 or "/" in attempt_id or "\0" in attempt_id:
        raise ValueError(f"not an attempt id: {attempt_id!r}")
    parse_attempt_id(attempt_id)
    return f"{attempt_id}.r{rank}" if rank else attempt_id


def free_port(ip: str) -> int:
    """A TCP port of ``ip`` on which nobody listens now, for a gang's ranks to meet at. Raises OSError: all are taken.

    It lies below the range from which the kernel gives ports to outgoing connections, so that none of them takes it
    before the gang does; two gangs of a node that draw the same number at the same moment fail and run again.
    """
    for port in random.sample(MEETING_PORTS, len(MEETING_PORTS)):
        with socket.socket() as trial:
            try:
                trial.bind((ip, port))
            except OSError:
                continue
            return port
    raise OSError(f"no port from {MEETING_PORTS.start} to {MEETING_PORTS.stop - 1} is free on {ip}")


def now_ms() -> int:
    """The node's wall clock."""
    return time.time_ns() // 1_000_000


def make_work(path: str, confinement: Confinement) -> None:
    """An attempt's empty work folder and its ``outputs``, which are the runner's."""
    for folder in (path, f"{path}/outputs"):
        os.mkdir(folder, 0o700)
        confinement.hand_over(folder)
