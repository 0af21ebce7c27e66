"""What a new agent does about its predecessor: kill what it left running, report those attempts as lost, clean up."""

from __future__ import annotations

import logging
import os
import signal
from functools import partial
from pathlib import Path

from scheduler.model.lease import AttemptState
from scheduler.model.order import Report, ReportKind
from workers import procfs
from workers.site import now_ms
from workers.table import Table, boot_id
from workers.tools import remove_tree

_log = logging.getLogger(__name__)

LOST_REASON = "the agent was restarted"


def recover(table: Table, folder: Path, *, node: str, tenant: str, uid: int) -> None:
    """Call with the folder's lock held, before anything starts. ``uid``: the runners' own user id, 0 if none."""
    if table.boot_id == boot_id():
        _kill_recorded_groups(table)
    work = folder / "work"
    left = procfs.kill_all(lambda: set(procfs.marked(str(work))) | (procfs.owned_by(uid) if uid else set()))
    if left:
        _log.warning("killed %d processes left by an earlier agent of %s", left, folder)
    for key, lease in list(table.leases.items()):
        for task in list(lease.unfinished()):
            table.finish(
                key,
                Report(
                    kind=ReportKind.FINISHED,
                    at_ms=now_ms(),
                    node=node,
                    tenant=tenant,
                    lease_id=key[0],
                    rank=key[1],
                    attempt_id=task.attempt_id,
                    state=AttemptState.LOST,
                    message=LOST_REASON,
                ),
            )
    table.sync()
    for entry in list(work.iterdir()):
        remove_tree(str(entry))


def sweep(work: str, ended: frozenset[str]) -> None:
    """Kill descendants of ended runners that left their process group.

    A sandbox takes its own along; elsewhere they are known by our mark.
    """

    def strays() -> set[int]:
        return {pid for pid, folder in procfs.marked(work).items() if folder in ended}

    if count := procfs.kill_all(strays):
        _log.warning("killed %d processes that outlived their attempt", count)


def _kill_recorded_groups(table: Table) -> None:
    """By pid and start time, so that a later process of the same number is spared.

    When the leader itself is gone its group may live on; members carry our mark, or lie in the dead sandbox.
    """
    for lease in table.leases.values():
        for attempt_id, started in lease.started.items():
            if attempt_id in lease.finished or procfs.start_ticks(started.pid) != started.start_ticks:
                continue
            try:
                os.killpg(started.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            procfs.kill_all(partial(procfs.group_members, started.pid))
