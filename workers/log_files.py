"""Where logs lie, for the control plane: in tenants' storage, or on the nodes that share its home folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from scheduler.model.job import Job
from scheduler.model.order import KeptFile, LogChunk, job_logs
from workers.kept_logs import open_shelf, read_kept


class StoredLogs:
    """In tenants' storage; the ports ``KeptLogs`` and ``LogFiles``. ``home`` as in :class:`workers.folders.Roots`."""

    def __init__(self, home: str) -> None:
        self._home = home

    def read(self, uri: str, roots: Sequence[str], offset: int, limit: int, *, is_over: bool) -> LogChunk | None:
        """See the port."""
        return read_kept(open_shelf(uri, roots, home=self._home), uri, offset, limit, is_over=is_over)

    def of_job(self, job: Job, roots: Sequence[str]) -> tuple[KeptFile, ...]:
        """See the port."""
        folders = [job_logs(root, job.id, job.submitted_ms) for root in roots]
        found = {f.uri: f for uri in folders for f in open_shelf(uri, roots, home=self._home).below(uri)}
        return tuple(found.values())

    def remove(self, file: KeptFile, roots: Sequence[str]) -> None:
        """See the port."""
        open_shelf(file.uri, roots, home=self._home).remove(file.uri)


class NodeLogs:
    """Below the home folder, where agents of nodes that share it write them. See the port ``LogFiles``."""

    def __init__(self, home: str) -> None:
        self._nodes = Path(home).resolve() / "nodes"

    def of_job(self, job: Job, roots: Sequence[str]) -> tuple[KeptFile, ...]:
        """See the port."""
        return tuple(self._files(job))

    def _files(self, job: Job) -> Iterator[KeptFile]:
        for path in sorted(self._nodes.glob(f"*/{job.tenant}/logs/{job.id}.*.log")):
            yield KeptFile(uri=str(path), size=path.lstat().st_size)

    def remove(self, file: KeptFile, roots: Sequence[str]) -> None:
        """See the port."""
        Path(file.uri).unlink(missing_ok=True)
