"""``whatif``: recorded history simulated again, with another node, without one, or by another policy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from scheduler.cli.app import CLUSTER, session, verb
from scheduler.cli.exits import CliError, Exit
from scheduler.cli.home import read_instance
from scheduler.cli.session import Session, plain, table
from scheduler.model.errors import InvalidInput, ShisuanError
from scheduler.model.event import Event
from scheduler.model.units import MS_PER_HOUR
from scheduler.report import figures


def _whole(number: int) -> str:
    return f"{number:,}"


_ROWS = (
    ("jobs that ended", "succeeded", _whole),
    ("wait, mean", "wait_mean_ms", figures.duration),
    ("wait, 90 %", "wait_p90_ms", figures.duration),
    ("wait, 99 %", "wait_p99_ms", figures.duration),
    ("completion, mean", "jct_mean_ms", figures.duration),
    ("everything ended after", "makespan_ms", figures.duration),
    ("deadlines met", "deadlines_met", _whole),
    ("preempted", "preempted", _whole),
    ("time lost to stops and failures", "lost_ms", figures.duration),
    ("cards busy", "cards_busy_permille", figures.percent),
    ("cards idle", "cards_idle_ms", figures.duration),
)


@verb(
    "whatif",
    panel=CLUSTER,
    example="shisuan whatif --hours 24 --add-node copy-of=n7,count=1\nshisuan whatif --policy sort=deadline",
)
def whatif(  # noqa: PLR0917 (Typer calls it by name)
    ctx: typer.Context,
    add_node: Annotated[
        list[str] | None, typer.Option(metavar="copy-of=NODE[,count=N]", help="Further nodes like this one.")
    ] = None,
    without_node: Annotated[list[str] | None, typer.Option(metavar="NODE", help="As if it were not there.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(metavar="FILE|KNOB=VALUE", help="Another policy: a YAML file, or single knobs.")
    ] = None,
    hours: Annotated[int, typer.Option(metavar="N", min=0, help="Only the last N hours; 0: all that is recorded.")] = 0,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw both.", show_default=False)] = None,
    database: Annotated[
        str, typer.Option(metavar="URL", help="Of a copy, say; default: the installation's.", show_default=False)
    ] = "",
) -> None:
    """Simulate what was recorded, unchanged and changed, with the engine that schedules.

    Reads the database and disturbs no service. Unchanged, the simulation gives the recorded starts: how many of them
    is shown, and says how far the rest can be trusted. Attempts that never happened take what their like took.
    """
    from scheduler.control import whatif as simulated
    from scheduler.model import catalogue
    from scheduler.report import simulated as pictures

    here = session(ctx)
    try:
        changes = simulated.Changes(
            add_nodes=tuple(_added(text) for text in add_node or ()),
            without_nodes=tuple(without_node or ()),
            policy=_knobs(policy or ()) or None,
        )
        events = _journal(here, database)
        since_ms = max((event.at_ms for event in events), default=0) - hours * MS_PER_HOUR if hours else 0
        answer = simulated.ask(events, changes, features=catalogue.FEATURES, since_ms=since_ms)
    except InvalidInput as error:
        raise CliError(str(error)) from None
    except ShisuanError as error:
        raise CliError(str(error), Exit.FAILED) from error
    if png is not None:
        title = "What if: " + (", ".join(changes.sentences) or "nothing had been different")
        try:
            pictures.draw({"as it was": answer.before, "changed": answer.after}, png, title)
        except (ValueError, OSError) as error:
            raise CliError(f"cannot draw {png}: {error}") from None
        here.say(f"drawn: {png}")
    value = simulated.view(answer)
    here.show(value, lambda out: show(out, value))


def _added(text: str) -> tuple[str, int]:
    """``copy-of=n1,count=2``"""
    parts = dict(part.partition("=")[::2] for part in text.split(","))
    count = parts.pop("count", "1")
    node = parts.pop("copy-of", "")
    if parts or not node or not count.isdigit():
        raise CliError(f"--add-node {text!r} is not like copy-of=NODE or copy-of=NODE,count=2")
    return node, int(count)


def _knobs(given: Sequence[str]) -> dict[str, Any]:
    """Fields of Policy from files and from ``knob=value``; later ones win."""
    import yaml

    knobs: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if equals and not Path(text).exists():
            knobs[name] = value
            continue
        try:
            read = yaml.safe_load(Path(text).read_text("utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise CliError(f"--policy {text}: {' '.join(str(error).split())}") from None
        if not isinstance(read, dict):
            raise CliError(f"--policy {text}: needs a mapping of knobs to values")
        knobs.update(read)
    return knobs


def _journal(here: Session, database: str) -> list[Event]:
    from scheduler.store import open_store

    store = open_store(database or _database(here))
    try:
        return [event for _, event in store.journal()]
    finally:
        store.close()


def _database(here: Session) -> str:
    """The database of this home: what its service was started with, else what one would be started with."""
    instance = read_instance(here.home)
    named = str(instance.settings.get("database_url", "")) if instance else ""
    own = here.home / "shisuan.db"
    url = named or os.environ.get("SHISUAN_DATABASE_URL") or f"sqlite:///{own}"
    if url == f"sqlite:///{own}" and not own.exists():
        raise CliError(f"{here.home} holds no database; name one with --database")
    return url


def show(out: Console, value: dict[str, Any]) -> None:
    """Both runs side by side, then by queue, then the jobs that change most."""
    starts = value["starts"]
    out.print(
        f"{figures.instant(value['from_ms'])} to {figures.instant(value['to_ms'])}: "
        f"{starts['identical']} of {starts['recorded']} starts identical when nothing is changed."
    )
    if starts["first_difference"]:
        out.print(f"[yellow]first difference:[/] {plain(starts['first_difference'])}")
    if value["engine"]["recorded"] not in (0, value["engine"]["simulated"]):
        was, now = value["engine"]["recorded"], value["engine"]["simulated"]
        out.print(f"[yellow]Recorded by engine {was}, simulated by engine {now}.[/]")
    out.print(f"\nchanged: {plain(', '.join(value['changes']) or 'nothing')}\n")
    rows = table("", "AS IT WAS", "CHANGED", right=("AS IT WAS", "CHANGED"))
    for label, name, render in _ROWS:
        rows.add_row(label, render(value["before"][name]), render(value["after"][name]))
    out.print(rows)
    _queues(out, value["queues"])
    _jobs(out, value["jobs"])
    for text in value["dropped"]:
        out.print(f"[yellow]left out:[/] {plain(text)}")


def _queues(out: Console, queues: dict[str, Any]) -> None:
    if len(queues) < 2:
        return
    rows = table("QUEUE", "WAIT", "WAIT CHANGED", "COMPLETION", "COMPLETION CHANGED")
    for name, both in queues.items():
        cells = [
            figures.duration(both[run][field])
            for field in ("wait_mean_ms", "jct_mean_ms")
            for run in ("before", "after")
        ]
        rows.add_row(plain(name), *cells)
    out.print()
    out.print(rows)


def _wait(length_ms: int | None) -> str:
    return "never started" if length_ms is None else figures.duration(length_ms)


def _jobs(out: Console, jobs: list[dict[str, Any]]) -> None:
    if not jobs:
        return
    rows = table("JOB", "NAME", "QUEUE", "WAIT", "WAIT CHANGED", "END", "END CHANGED", "DEADLINE")
    for job in jobs[:10]:
        due = f"{job['deadline_before']} → {job['deadline_after']}" if job["deadline_before"] else ""
        waits = (_wait(job[f"wait_{when}_ms"]) for when in ("before", "after"))
        ends = (figures.instant(job[f"end_{when}_ms"]) for when in ("before", "after"))
        rows.add_row(plain(job["job_id"]), plain(job["name"]), plain(job["queue"]), *waits, *ends, plain(due))
    out.print()
    out.print(rows)
