"""Ends what is left of a park whose test process was killed: ``python -P reaper.py FOLDER``. It waits on its standard
input, which ends with that process.
"""

import os
import shutil
import sys
from pathlib import Path

from workers import procfs, ray_head

MARK = "PARK_POD"
"""Every process of a pod has the pod's folder under this name."""


def processes_below(folder: Path) -> set[int]:
    """Whose environment, work folder or command line names something in ``folder``."""
    mark, inside = f"{MARK}={folder}/".encode(), f"{folder}/".encode()
    found = set(procfs.marked(str(folder)))
    for pid in procfs.pids():
        variables = ray_head._read(pid, "environ").split(b"\0")
        is_marked = any(one.startswith(mark) or one + b"/" == mark for one in variables)
        if is_marked or inside in ray_head._read(pid, "cmdline"):
            found.add(pid)
    return found - {os.getpid()}


def clear(folder: Path) -> None:
    """Nothing of it runs and nothing of it is left on disk."""
    procfs.kill_all(lambda: processes_below(folder))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()
    clear(Path(sys.argv[1]))
