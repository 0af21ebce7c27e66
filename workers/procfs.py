"""What /proc says about processes: start times, families, and who carries our mark in the environment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

MARK = "SHISUAN_WORK"
"""Every runner has its work folder's absolute path under this name: unique among all agents of a machine."""

_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


def start_ticks(pid: int) -> int:
    """Start of the process in clock ticks after boot; 0 when it is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def is_running(pid: int, ticks: int) -> bool:
    """The process of that pid is the one that started then, and is not a zombie."""
    fields = _stat(pid)
    return bool(fields) and int(fields[19]) == ticks and fields[0] not in "ZX"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One process as /proc/pid/stat tells of it."""

    parent: int
    group: int
    cpu_ticks: int
    """User and system time in clock ticks, its own and that of the children it has reaped."""
    rss_pages: int


def account(pid: int) -> Account | None:
    """None when it is gone."""
    fields = _stat(pid)
    if not fields:
        return None
    cpu_ticks = sum(map(int, fields[11:15]))
    return Account(parent=int(fields[1]), group=int(fields[2]), cpu_ticks=cpu_ticks, rss_pages=int(fields[21]))


class Accounts:
    """All processes at one instant, near enough."""

    def __init__(self, by_pid: dict[int, Account]) -> None:
        self.by_pid = by_pid
        self._children: dict[int, list[int]] = {}
        self._groups: dict[int, list[int]] = {}
        for pid, known in by_pid.items():
            self._children.setdefault(known.parent, []).append(pid)
            self._groups.setdefault(known.group, []).append(pid)

    @classmethod
    def now(cls) -> Accounts:
        """One pass over /proc."""
        return cls({pid: known for pid in pids() if (known := account(pid)) is not None})

    def family(self, leader: int) -> list[int]:
        """The leader, its process group and everything that descends from them, sorted."""
        found: set[int] = set()
        left = [*self._groups.get(leader, ()), *([leader] if leader in self.by_pid else ())]
        while left:
            pid = left.pop()
            if pid not in found:
                found.add(pid)
                left += self._children.get(pid, ())
        return sorted(found)


def children(pid: int) -> tuple[int, ...]:
    """The process's living children as of now, whichever of its threads made them; none when it is gone."""
    found: list[int] = []
    with suppress(*_GONE):
        for thread in os.listdir(f"/proc/{pid}/task"):
            # One thread that ends meanwhile hides nothing of what the others made.
            with suppress(*_GONE), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return tuple(child for child in found if (fields := _stat(child)) and fields[0] not in "ZX")


def sandbox_members(outer: int) -> tuple[int, ...]:
    """Host pids of what runs inside bubblewrap's pid namespace, in its process group, without bubblewrap's own init.

    ``outer`` is bubblewrap; its one child is the namespace's init; orphans inside are adopted by that init.
    """
    parents: dict[int, int] = {}
    groups: dict[int, int] = {}
    for pid in pids():
        fields = _stat(pid)
        if fields:
            parents[pid], groups[pid] = int(fields[1]), int(fields[2])
    inits = {pid for pid, parent in parents.items() if parent == outer}

    def inside(pid: int) -> bool:
        seen = parents.get(pid, 0)
        while seen > 1:
            if seen in inits:
                return True
            seen = parents.get(seen, 0)
        return False

    return tuple(sorted(pid for pid in parents if groups[pid] == outer and inside(pid)))


def pids() -> Iterator[int]:
    """All processes this one can see."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def marked(folder: str) -> dict[int, str]:
    """Processes whose environment names a work folder below ``folder``: pid to that work folder."""
    prefix = f"{MARK}={folder.rstrip('/')}/".encode()
    found: dict[int, str] = {}
    for pid in pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environ = file.read()
        except (*_GONE, OSError):
            continue
        for entry in environ.split(b"\0"):
            if entry.startswith(prefix):
                found[pid] = os.fsdecode(entry.partition(b"=")[2])
    return found


def owned_by(uid: int) -> set[int]:
    """Processes that run as ``uid``."""
    found: set[int] = set()
    for pid in pids():
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid:
                found.add(pid)
        except _GONE:
            continue
    return found


def kill_all(find: Callable[[], set[int]], *, deadline_s: float = 10.0) -> int:
    """SIGKILL whatever ``find`` names until it names nothing; returns how many were named at most. Itself is spared."""
    most, until = 0, time.monotonic() + deadline_s
    while True:
        found = {pid for pid in find() if pid != os.getpid() and _stat(pid)[:1] not in ([], ["Z"], ["X"])}
        most = max(most, len(found))
        if not found or time.monotonic() > until:
            return most
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except _GONE:
                continue
        time.sleep(0.01)


def group_members(leader: int) -> set[int]:
    """Processes of the group that ``leader`` leads or led."""
    return {pid for pid in pids() if (fields := _stat(pid)) and int(fields[2]) == leader}


def rss_mib(members: Iterable[int]) -> int:
    """Resident memory of these processes together, in MiB."""
    pages = 0
    for pid in members:
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:
                pages += int(file.read().split()[1])
        except _GONE:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") // (1 << 20)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/pid/stat from the third (state) on; empty when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except _GONE:
        return []
    return text[text.rfind(b")") + 2 :].decode().split()
