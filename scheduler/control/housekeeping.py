"""Takes away the logs of work that ended long ago, as the configuration's ``logs.keep_days`` says.

A pass lists a job's files first, then looks whether the job is (still) over, and takes away just these: an attempt that
begins meanwhile has files of its own. What is gone already is not missed, so that a pass may break off and be repeated.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict

import structlog
from typing_extensions import TypedDict  # pydantic reads these for OpenAPI, and typing's own only from Python 3.12

from scheduler.control.access import Caller, require_operator
from scheduler.control.cycle import Cycle
from scheduler.control.log_rule import MOST_DAYS, LogRule
from scheduler.control.ports import LogFiles
from scheduler.model.errors import InvalidInput, Problem, StorageError
from scheduler.model.job import JobRecord
from scheduler.model.key import Role
from scheduler.model.order import KeptFile
from scheduler.model.units import MS_PER_DAY

log = structlog.get_logger("shisuan.housekeeping")
FIRST_S = 300.0
"""After a start there is other work."""
EVERY_S = 6 * 3_600.0
MOST_SHOWN = 1_000


class PrunedJob(TypedDict):
    """A job whose logs were (would be) deleted."""

    job_id: str
    tenant: str
    finished_ms: int
    files: int
    bytes: int


class PruneView(TypedDict):
    """What was deleted or (``dry_run``) would be. ``jobs`` are the first of them, the oldest first."""

    dry_run: bool
    before_ms: int
    files: int
    bytes: int
    jobs: list[PrunedJob]
    problems: list[str]
    """Of places that could not be read or changed: the next pass tries again."""


class Housekeeping:
    """``files``: where logs lie."""

    def __init__(self, cycle: Cycle, rule: LogRule, files: LogFiles) -> None:
        self._cycle, self._rule, self._files = cycle, rule, files
        self._clear: set[tuple[str, int]] = set()
        """Jobs (and when they ended) of which this process has seen nothing left: storage need not be asked again."""
        self._one_at_a_time = threading.Lock()

    def prune(self, caller: Caller, *, keep_days: int = 0, dry_run: bool = False) -> PruneView:
        """Delete the logs of jobs that ended more than ``keep_days`` ago (0: as configured).

        Raises Forbidden for all but operators, InvalidInput when there is no rule and none is given.
        """
        require_operator(caller)
        if keep_days < 0 or keep_days > MOST_DAYS:
            raise InvalidInput(
                [Problem("keep_days", f"must be from 1 to {MOST_DAYS} (0: as configured), got {keep_days}")]
            )
        if not keep_days and not self._rule.keep_days:
            said = "logs are kept for ever here (the configuration has no logs.keep_days): say how many days to keep"
            raise InvalidInput([Problem("keep_days", said)])
        before_ms = self._cycle.now_ms() - (keep_days or self._rule.keep_days) * MS_PER_DAY
        with self._one_at_a_time:
            return self._pass(before_ms, dry_run=dry_run)

    def run(self) -> None:
        """A pass now and then for as long as the process lives, when there is a rule."""
        rest_s = FIRST_S
        while self._rule.keep_days:
            time.sleep(rest_s)
            try:
                self.prune(Caller(tenant="", role=Role.OPERATOR))
            except Exception:
                log.exception("logs_not_pruned")
            rest_s = EVERY_S

    def _pass(self, before_ms: int, *, dry_run: bool) -> PruneView:
        view: PruneView = {
            "dry_run": dry_run, "before_ms": before_ms, "files": 0, "bytes": 0, "jobs": [], "problems": []
        }  # fmt: skip
        problems: defaultdict[str, int] = defaultdict(int)
        for record in self._over(before_ms):
            try:
                gone = self._job(record, before_ms, dry_run=dry_run)
            except (StorageError, OSError) as error:
                problems[str(error)] += 1
                continue
            if gone:
                _add(view, record, gone)
        view["problems"] = [f"{said} ({count} jobs)" if count > 1 else said for said, count in problems.items()]
        if not dry_run and (view["files"] or problems):
            log.info("logs_pruned", files=view["files"], bytes=view["bytes"], problems=view["problems"])
        return view

    def _over(self, before_ms: int) -> list[JobRecord]:
        with self._cycle.state() as engine:
            found = [r for r in engine.jobs() if r.state.is_final and 0 < r.finished_ms < before_ms]
        found = [r for r in found if (r.job.id, r.finished_ms) not in self._clear]
        return sorted(found, key=lambda r: (r.finished_ms, r.job.id))

    def _job(self, record: JobRecord, before_ms: int, *, dry_run: bool) -> tuple[KeptFile, ...]:
        job = record.job
        with self._cycle.state() as engine:
            tenant = engine.tenant(job.tenant)
        roots = tenant.storage_roots if tenant is not None else ()
        files = self._files.of_job(job, roots)
        with self._cycle.state() as engine:
            now = engine.job(job.id)
        if dry_run or now is None or not now.state.is_final or now.finished_ms >= before_ms:
            return files if dry_run else ()
        for file in files:
            self._files.remove(file, roots)
        if files:
            log.info("job_logs_deleted", job=job.id, files=len(files), bytes=sum(file.size for file in files))
        self._clear.add((job.id, record.finished_ms))
        return files


def _add(view: PruneView, record: JobRecord, gone: tuple[KeptFile, ...]) -> None:
    size = sum(file.size for file in gone)
    view["files"] += len(gone)
    view["bytes"] += size
    if len(view["jobs"]) < MOST_SHOWN:
        one: PrunedJob = {
            "job_id": record.job.id,
            "tenant": record.job.tenant,
            "finished_ms": record.finished_ms,
            "files": len(gone),
            "bytes": size,
        }
        view["jobs"].append(one)
