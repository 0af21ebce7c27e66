"""Which pod a process belongs to, from its control group. Needs the host's process ids, no rights and no Kubernetes."""

from __future__ import annotations

import re
from pathlib import Path

PROC = Path("/proc")
HOST = ""
"""The pod of a process that is in none."""

_POD = re.compile(
    r"/(?:[^/]*kubepods[^/]*-)?pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})\b"
)
"""``/kubepods/burstable/pod<uid>/<container>`` (cgroupfs), ``…/kubepods-burstable-pod<uid_>.slice/…`` (systemd, which
spells the uid with underscores); version 1 repeats it per controller. The innermost pod counts: kind and k3d nest."""


def pod_of(pid: int, proc: Path = PROC) -> str | None:
    """The uid of the process's pod, :data:`HOST` for one outside all pods, None when it is gone."""
    try:
        text = (proc / str(pid) / "cgroup").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    found = _POD.findall(text)
    return found[-1].replace("_", "-") if found else HOST
