"""The ``logs`` section of the configuration file: how long an attempt's log may be, and how long it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field

from scheduler.control.strict import Strict
from scheduler.jobfile.quantity import memory_mib
from scheduler.model.job import Job
from scheduler.model.order import job_logs
from scheduler.model.units import MS_PER_DAY

MOST_LIMIT_MIB = 4_096
MOST_DAYS = 36_500


class LogsConfig(Strict):
    """Left out: 64 MiB, kept for ever."""

    limit: Annotated[int, BeforeValidator(memory_mib), Field(le=MOST_LIMIT_MIB)] = 64
    """Of one attempt (each rank of a gang)."""
    keep_days: Annotated[int | None, Field(ge=1, le=MOST_DAYS)] = None
    """Logs of jobs that ended longer ago are deleted. Left out: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRule:
    """What an installation wants of its logs."""

    limit_mib: int = 64
    """Of one attempt (each rank of a gang): it is cut there, and says so."""
    keep_days: int = 0
    """Logs of jobs that ended longer ago are deleted; 0: never."""
    in_storage: bool = False
    """They are brought to the tenant's storage, because the machine goes with the attempt."""

    @classmethod
    def of(cls, config: LogsConfig, *, in_storage: bool) -> LogRule:
        """As the configuration file has it."""
        return cls(limit_mib=config.limit, keep_days=config.keep_days or 0, in_storage=in_storage)

    def before_ms(self, now_ms: int) -> int:
        """Logs of jobs that ended before are deleted; 0: none are."""
        return now_ms - self.keep_days * MS_PER_DAY if self.keep_days else 0

    def place(self, roots: Sequence[str], job: Job, output_dir: str, attempt: str) -> str:
        """An order's ``kept_log``: in the root that takes the outputs, else in the tenant's first. Empty: nowhere."""
        if not self.in_storage or not roots:
            return ""
        holding = [root for root in roots if _is_in(_bare(output_dir), _bare(root))]
        return kept_log(max(holding, key=lambda root: len(_bare(root)), default=roots[0]), job, attempt)


def kept_log(root: str, job: Job, attempt: str) -> str:
    """URI of an attempt's log in this root, without its end."""
    _, step, index, number = attempt.split(".")
    return f"{job_logs(root, job.id, job.submitted_ms)}/{step}/{index}.{number}"


def _bare(uri: str) -> str:
    return uri.removeprefix("file://").rstrip("/")


def _is_in(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")
