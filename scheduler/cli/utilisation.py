"""``utilisation``: how busy each device was while it was held."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from scheduler.cli.app import CLUSTER, session, verb
from scheduler.cli.exits import CliError
from scheduler.cli.jobs import job_id
from scheduler.cli.session import Session, plain, table
from scheduler.model.units import MS_PER_HOUR
from scheduler.report import figures, utilisation, utilisation_chart

_MOST_JOBS = 500


@verb("utilisation", panel=CLUSTER, example="shisuan utilisation j17 --png busy.png")
def utilisation_of(
    ctx: typer.Context,
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="Only this job.", show_default=False)] = "",
    hours: Annotated[int, typer.Option(metavar="N", min=1, max=8_760, help="Without JOB: the last N hours.")] = 24,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it over time.", show_default=False)] = None,
) -> None:
    """Say how busy each card and each node was while it was held.

    Held comes from the leases, busy from what was measured: NVML on cards, the kernel's accounts of the processes.
    """
    here = session(ctx)
    found = _build(here, job_id(job) if job else "", hours)
    if png is not None:
        title = f"{job}: how busy its devices were" if job else f"How busy the devices were, last {hours} h"
        try:
            utilisation_chart.draw(found, png, title)
        except (ValueError, OSError) as error:
            raise CliError(f"cannot draw {png}: {error}") from None
        here.say(f"drawn: {png}")
    value = {"start_ms": found.start_ms, "end_ms": found.end_ms, "rows": [_json(row) for row in found.rows]}
    here.show(value, lambda out: show(out, found))


def _build(here: Session, job: str, hours: int) -> utilisation.Utilisation:
    client, now_ms = here.client(), here.now_ms()
    start_ms = 0 if job else now_ms - hours * MS_PER_HOUR
    leases = client.pages("/leases", "leases", **({"job": job} if job else {"start_ms": start_ms}))
    jobs = sorted({str(lease["job_id"]) for lease in leases}, key=lambda one: int(one[1:]))
    if len(jobs) > _MOST_JOBS:
        raise CliError(f"{len(jobs)} jobs ran in {hours} h: choose fewer --hours, or one job")
    attempts = [one for each in jobs for one in client.pages(f"/jobs/{each}/attempts", "attempts")]
    nodes = client.get("/nodes")["nodes"]
    cut = [{**lease, "granted_ms": max(start_ms, int(lease["granted_ms"]))} for lease in leases]
    return utilisation.build(cut, attempts, nodes, now_ms, everything=not job)


def show(out: Console, found: utilisation.Utilisation) -> None:
    """A line per device."""
    if not found.rows:
        out.print("Nothing was held in this time.")
        return
    rows = table(*utilisation.HEADER, right=("HELD", "BUSY WHILE HELD", "MEASURED", "ENERGY"))
    for row in found.rows:
        rows.add_row(*(plain(cell) for cell in row.cells))
    out.print(rows)
    out.print(f"over {figures.duration(found.span_ms)}, from {figures.instant(found.start_ms)}")


def _json(row: utilisation.Row) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name not in ("held", "busy")}
