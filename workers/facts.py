"""What this machine offers: processors, memory, scratch space, as the kernel and its control groups limit them.

Cards are found through the NVML door.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from scheduler.model.node import Device, Lane, Node
from scheduler.model.units import MILLI
from workers.nvml import devices_here

_KIB_PER_MIB = 1 << 10
_BYTES_PER_MIB = 1 << 20
_CGROUP = Path("/sys/fs/cgroup")


def local_node(
    name: str, *, home: Path | None = None, devices: Sequence[Device] | None = None, lane: Lane = Lane.ANY
) -> Node:
    """This machine under ``name``; ``home`` says on which file system work folders lie. Raises OSError.

    ``devices`` None: those that NVML shows.
    """
    return Node(
        name=name,
        cpu_milli=cpu_milli(),
        memory_mib=memory_mib(),
        scratch_mib=free_mib(home) if home else 0,
        devices=devices_here() if devices is None else tuple(devices),
        lane=lane,
        labels=(("arch", platform.machine()), ("os", platform.system().lower())),
    )


def cpu_milli(cgroup: Path = _CGROUP) -> int:
    """Thousandths of processors this process may use: its affinity, or less when a cgroup v2 quota says so."""
    usable = len(os.sched_getaffinity(0)) * MILLI
    words = _words(cgroup / "cpu.max")
    if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
        return max(1, min(usable, int(words[0]) * MILLI // int(words[1])))
    return usable


def memory_mib(cgroup: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int:
    """The machine's memory, or less when a cgroup v2 limit says so."""
    total = 0
    for line in meminfo.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "MemTotal":
            total = int(value.split()[0]) // _KIB_PER_MIB
    words = _words(cgroup / "memory.max")
    if words and words[0].isdigit():
        return min(total, int(words[0]) // _BYTES_PER_MIB)
    return total


def free_mib(folder: Path) -> int:
    """Free space on the folder's file system; a folder that is not made yet counts as its nearest parent."""
    while not folder.exists():
        folder = folder.parent
    info = os.statvfs(folder)
    return info.f_bavail * info.f_frsize // _BYTES_PER_MIB


def _words(path: Path) -> list[str]:
    """Content of a control file, nothing where there is none (no cgroup v2, or its root)."""
    try:
        return path.read_text().split()
    except (FileNotFoundError, PermissionError):
        return []
