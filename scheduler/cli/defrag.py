"""``defrag``: moves of running leases that would let a waiting job start, with their price. For operators."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from scheduler.cli.app import CLUSTER, session, verb
from scheduler.cli.jobs import job_id
from scheduler.cli.session import Session, plain, table
from scheduler.report import figures


@verb("defrag", panel=CLUSTER, example="shisuan defrag j17\nshisuan defrag j17 --apply 3f9c0a117be2")
def defrag(
    ctx: typer.Context,
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="Only for this job.", show_default=False)] = "",
    *,
    apply: Annotated[
        str, typer.Option(metavar="ID", help="Make the moves that were shown under this id.", show_default=False)
    ] = "",
) -> None:
    """Show which leases could move to make room for what waits, and what is lost and gained (operators only).

    Nothing moves without --apply, or a rule in the configuration (scheduling.defragment).
    """
    here = session(ctx)
    key = job_id(job) if job else ""
    if apply:
        if not key:
            raise typer.BadParameter("say for which job: shisuan defrag JOB --apply ID", param_hint="JOB")
        done = here.client().post("/rearrangements", {"job": key, "id": apply})
        here.show(done, lambda out: _done(out, here, done))
        return
    value = here.client().get("/rearrangements", job=key)
    here.show(value, lambda out: _shown(out, here, value["rearrangements"]))


def _shown(out: Console, here: Session, listed: list[dict[str, Any]]) -> None:
    if not listed:
        out.print("No moves would let a waiting job start sooner. `shisuan explain JOB` says what it waits for.")
        return
    for one in listed:
        out.print(_table(one))
        out.print(_price(one))
        out.print(f"make these moves: {here.command('defrag ' + one['job_id'] + ' --apply ' + one['id'])}\n")


def _table(one: dict[str, Any]) -> Any:
    rows = table("LEASE", "JOB", "STEP", "FROM", "TO", "LOSES", "NOTE")
    for move in one["moves"]:
        rows.add_row(
            plain(move["lease_id"]),
            plain(move["job_id"]),
            plain(move["step"]),
            plain(_nodes(move["nodes"])),
            plain(_nodes(move["to"])),
            f"{figures.duration(move['lost_ms'])} ({_cards(move['lost_card_milli_ms'])})",
            "stops first" if move["stops_first"] else "",
        )
    return rows


def _price(one: dict[str, Any]) -> str:
    lost, least = one["lost_card_milli_ms"], one["least_card_milli_ms"]
    bound = "" if lost == least else f" (any moves: at least {_cards(least)})"
    return (
        f"{plain(one['job_id'])}.{plain(one['step'])} would start on {plain(_nodes(one['nodes']))}, "
        f"{figures.duration(one['sooner_ms'])} sooner: {_cards(one['gained_card_milli_ms'])} gained, "
        f"{_cards(lost)} lost{bound}."
    )


def _done(out: Console, here: Session, one: dict[str, Any]) -> None:
    moved = figures.count(len(one["moves"]), "lease")
    out.print(f"{moved} stopped; the room on {plain(_nodes(one['nodes']))} is kept for {plain(one['job_id'])}.")
    out.print(f"follow it: {here.command('watch ' + one['job_id'])}")


def _nodes(names: list[str]) -> str:
    """``n1 x2, n3``"""
    counts = {name: names.count(name) for name in sorted(names)}
    return ", ".join(name if count == 1 else f"{name} x{count}" for name, count in counts.items())


def _cards(milli_ms: int) -> str:
    """Card time for people; the JSON is exact."""
    return figures.count((milli_ms + 500_000) // 1_000_000, "card-second")
