"""What processes have used so far, by the kernel's accounts: processor time, resident memory, bytes moved.

A process's account takes in its children's once it has reaped them, so the sum over a living family grows without gap
or double count. Left out is what the kernel itself forgets: a child whose parent died first and that was reaped
elsewhere.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass

from workers import procfs

_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20
_UNREADABLE = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Since the processes began. None: the kernel does not tell us (another user's process)."""

    cpu_us: int = 0
    rss_mib: int | None = None
    """Resident now or, of a process that ended, its peak."""
    read_bytes: int | None = 0
    written_bytes: int | None = 0


NOTHING = Spent()


def of_family(accounts: procfs.Accounts, leader: int) -> Spent | None:
    """The processes that ``leader`` started, in one look at /proc; None when none is there any more."""
    pids = accounts.family(leader)
    if not pids:
        return None
    known = [accounts.by_pid[pid] for pid in pids]
    read, written = moved_bytes(pids)
    return Spent(
        cpu_us=sum(one.cpu_ticks for one in known) * _TICK_US,
        rss_mib=sum(one.rss_pages for one in known) * _PAGE_BYTES // _MIB,
        read_bytes=read,
        written_bytes=written,
    )


def of(pids: Iterable[int], *, with_rss: bool = True) -> Spent | None:
    """These processes; those that are gone count nothing. None when all are. Without ``with_rss``: they are not the
    ones whose memory matters.
    """
    known = {pid: account for pid in pids if (account := procfs.account(pid)) is not None}
    if not known:
        return None
    read, written = moved_bytes(known)
    return Spent(
        cpu_us=sum(one.cpu_ticks for one in known.values()) * _TICK_US,
        rss_mib=sum(one.rss_pages for one in known.values()) * _PAGE_BYTES // _MIB if with_rss else None,
        read_bytes=read,
        written_bytes=written,
    )


def of_ended(usage: resource.struct_rusage, moved: tuple[int | None, int | None]) -> Spent:
    """A process that was reaped, with all that it had reaped itself.

    The kernel's peak of a process begins with the memory of whoever started it, so a peak counts only above our own.
    """
    own_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Spent(
        cpu_us=round((usage.ru_utime + usage.ru_stime) * 1_000_000),
        rss_mib=usage.ru_maxrss // 1024 if usage.ru_maxrss > own_kib else None,
        read_bytes=moved[0],
        written_bytes=moved[1],
    )


def moved_bytes(pids: Iterable[int]) -> tuple[int | None, int | None]:
    """Bytes read and written through system calls, over these processes; None where one does not tell."""
    read = written = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/io", "rb") as file:
                words = file.read(128).split()
        except PermissionError:
            return None, None
        except _UNREADABLE:
            continue
        read, written = read + int(words[1]), written + int(words[3])
    return read, written
