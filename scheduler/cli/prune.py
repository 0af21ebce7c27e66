"""``prune``: what the rule about old logs does, now or as a trial."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from scheduler.cli.app import CLUSTER, session, verb
from scheduler.cli.cluster import DryRun
from scheduler.cli.session import plain, table
from scheduler.report import figures

_KEEP_HELP = "Days that logs stay after their job's end; left out: as configured (`logs.keep_days`)."


@verb("prune", panel=CLUSTER, example="shisuan prune --keep-days 30 --dry-run (operators only)")
def prune(
    ctx: typer.Context,
    keep_days: Annotated[int | None, typer.Option(metavar="N", min=1, show_default=False, help=_KEEP_HELP)] = None,
    dry_run: DryRun = False,
) -> None:
    """Delete the logs of jobs that ended long ago.

    With `logs.keep_days` in the configuration file the service does this by itself; without, logs are kept for ever.
    Jobs, their outputs, their usage and their bills stay.
    """
    here = session(ctx)
    value = here.client().post("/logs/prune", {"keep_days": keep_days or 0, "dry_run": dry_run})
    here.show(value, lambda out: _lines(out, value))


def _lines(out: Console, value: dict[str, Any]) -> None:
    if value["jobs"]:
        rows = table("JOB", "TENANT", "ENDED", "FILES", "SIZE", right=("FILES", "SIZE"))
        for job in value["jobs"]:
            ended, size = figures.instant(job["finished_ms"]), figures.size(job["bytes"])
            rows.add_row(plain(job["job_id"]), plain(job["tenant"]), ended, f"{job['files']:,}", size)
        out.print(rows)
    for problem in value["problems"]:
        out.print(f"[yellow]not done:[/] {plain(problem)}")
    what = "would be deleted" if value["dry_run"] else "deleted"
    ended = figures.instant(value["before_ms"])
    out.print(
        f"{value['files']:,} files, {figures.size(value['bytes'])}, {what}: logs of jobs that ended before {ended}."
    )
