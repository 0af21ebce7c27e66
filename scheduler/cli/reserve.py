"""``reserve``: nodes kept for an event or for maintenance. Making and cancelling is for operators."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from scheduler.cli.app import CLUSTER, app, session, verb
from scheduler.cli.session import plain, table
from scheduler.report import figures

EXAMPLE = "shisuan reserve add gala --node n1 --node n2 --queue live --start 2026-12-31T19:00 --for 6h"
reserve = typer.Typer(help="Keep nodes for an event or for maintenance.", no_args_is_help=True)
app.add_typer(reserve, name="reserve", rich_help_panel=CLUSTER, epilog=f"Example:  {EXAMPLE}")


@verb(
    "add",
    to=reserve,
    example=f"{EXAMPLE}\nshisuan reserve add patches --kind maintenance --node n3 --start 2026-12-06 --for 4h",
)
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    node: Annotated[list[str], typer.Option(metavar="NODE", help="Which node; may be given several times.")],
    start: Annotated[str, typer.Option(metavar="WHEN", help="A date, an instant (China time), +2h, or now.")],
    *,
    kind: Annotated[
        str, typer.Option(metavar="event|maintenance", help="For jobs of the queues, or for nobody.")
    ] = "event",
    end: Annotated[str, typer.Option(metavar="WHEN", help="A date: the end of that day.", show_default=False)] = "",
    length: Annotated[
        str, typer.Option("--for", metavar="TIME", help="Instead of --end, such as 3h.", show_default=False)
    ] = "",
    every: Annotated[
        str, typer.Option(metavar="TIME", help="Again so much later, such as 7d.", show_default=False)
    ] = "",
    repeats: Annotated[int, typer.Option(metavar="N", help="How often; 0: until it is cancelled.")] = 0,
    queue: Annotated[
        list[str] | None, typer.Option(metavar="QUEUE", help="Whose jobs an event is for; several times.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Shown to whoever waits for it.", show_default=False)] = "",
) -> None:
    """Keep nodes for a window of time (operators only).

    What cannot end before the window opens does not start there, so nothing has to be stopped.
    """
    here = session(ctx)
    body = {
        "kind": kind,
        "nodes": node,
        "start": start,
        "end": end,
        "length": length,
        "every": every,
        "repeats": repeats,
        "queues": queue or [],
        "reason": reason,
    }
    value = here.client().put(f"/reservations/{name}", body)

    def lines(out: Console) -> None:
        out.print(f"{plain(value['name'])}: {', '.join(plain(n) for n in value['nodes'])} from {_window(value)}.")

    here.show(value, lines)


@verb("list", to=reserve, example="shisuan reserve list")
def list_reservations(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", metavar="", help="Past and cancelled ones, too.")] = False,
) -> None:
    """List what is kept for whom, now and later."""
    here = session(ctx)
    value = here.client().get("/reservations")
    shown = [r for r in value["reservations"] if everything or r["state"] in ("now", "coming")]
    here.show(value, lambda out: out.print(_table(shown) if shown else "No node is kept for anyone."))


def _table(listed: list[dict[str, Any]]) -> Any:
    rows = table("NAME", "KIND", "STATE", "WINDOW", "AGAIN", "NODES", "QUEUES", "REASON")
    for one in listed:
        rows.add_row(
            plain(one["name"]),
            plain(one["kind"]),
            plain(one["state"]),
            _window(one),
            _again(one),
            plain(" ".join(one["nodes"])),
            plain(" ".join(one["queues"])),
            plain(one["reason"]),
        )
    return rows


def _window(one: dict[str, Any]) -> str:
    start, end = (one["next_start_ms"], one["next_end_ms"]) if one["next_end_ms"] else (one["start_ms"], one["end_ms"])
    return f"{figures.instant(start)} to {figures.instant(end)}"


def _again(one: dict[str, Any]) -> str:
    if not one["every_ms"]:
        return ""
    times = f", {one['repeats']} times" if one["repeats"] else ""
    return f"every {figures.duration(one['every_ms'])}{times}"


@verb("cancel", to=reserve, example="shisuan reserve cancel gala")
def cancel(
    ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="From `reserve list`.")]
) -> None:
    """Open the nodes to everybody again (operators only)."""
    here = session(ctx)
    value = here.client().delete(f"/reservations/{name}")
    here.show(value, lambda out: out.print(f"{plain(value['name'])} cancelled."))
