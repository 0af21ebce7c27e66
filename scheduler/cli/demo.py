"""``demo``: a film from nothing, on this machine, and pictures of how it was made. What ``make demo`` runs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import scheduler
from scheduler.cli.app import SERVICE, session, verb
from scheduler.cli.artefacts import Artefacts, make
from scheduler.cli.cluster import show_usage
from scheduler.cli.exits import CliError, Exit
from scheduler.cli.lifecycle import start
from scheduler.cli.session import Session, coloured
from scheduler.cli.submit import read_job_file, send
from scheduler.cli.watch import first_failure, follow
from scheduler.report import figures

_SHOWN_LOG_LINES = 15
_CHECKOUT = Path(scheduler.__file__).parents[1]


@verb("demo", panel=SERVICE, example="shisuan demo")
def demo(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes.")] = Path("build/demo"),
    file: Annotated[Path, typer.Option(metavar="FILE", help="A job file with a render and a transcode step.")] = (
        _CHECKOUT / "examples" / "film.yaml"
    ),
) -> None:
    """Render and encode a short film here.

    Leaves a contact sheet, the film, a chart of who held what when, and usage records. Again makes a new film.
    """
    here = session(ctx)
    folder = folder.absolute()
    here.home = folder / "home"
    began_ms = here.now_ms()
    with _stage(here, "Start the service"):
        url = start(here, ["--root", str(file.absolute().parent)]).url
    here.say(f"  page {url}   key {here.home}/key")
    with _stage(here, "Submit the film"):
        job = _submit(here, file)
    with _stage(here, "Render and encode"):
        job = follow(here, job["id"])
        _require_success(here, job)
    with _stage(here, "Draw what happened"):
        made = make(here, job, folder)
    took = figures.duration(here.now_ms() - began_ms)
    here.show(made.json(url), lambda _: _tell(here, job, made, url, took))


@contextmanager
def _stage(here: Session, name: str) -> Iterator[None]:
    """Says what begins, and on a failure which stage it was."""
    began_ms = here.now_ms()
    here.say(f"[bold]{name}[/]")
    try:
        yield
    except CliError as error:
        raise CliError(f"the demo stopped at: {name}\n{error}", Exit.FAILED) from error
    except (OSError, ValueError) as error:
        raise CliError(f"the demo stopped at: {name}\n{type(error).__name__}: {error}", Exit.FAILED) from error
    here.say(f"  done in {figures.duration(here.now_ms() - began_ms)}")


def _submit(here: Session, file: Path) -> dict[str, Any]:
    text, base_dir = read_job_file(str(file))
    return send(here, {"file": text, "base_dir": str(base_dir), "request_id": uuid.uuid4().hex})


def _require_success(here: Session, job: dict[str, Any]) -> None:
    if job["state"] == "succeeded":
        return
    lines = [f"{job['id']} {job['state']}" + (f": {job['reason']}" if job.get("reason") else "")]
    if attempt := first_failure(job):
        _, step, index, number = attempt.split(".")
        log = here.client().get(f"/jobs/{job['id']}/logs", task=f"{step}.{index}", attempt=number[1:])
        lines += [
            f"the last lines of {attempt}:",
            *(f"  {line}" for line in log["text"].splitlines()[-_SHOWN_LOG_LINES:]),
        ]
    raise CliError("\n".join(lines), Exit.FAILED)


def _tell(here: Session, job: dict[str, Any], made: Artefacts, url: str, took: str) -> None:
    out = here.out
    out.print()
    out.print(f"[bold]{job['id']} film {coloured('succeeded')}[/] {took} after the start")
    out.print()
    show_usage(out, made.usage, made.leases)
    out.print()
    for name, path, fact in made.listed():
        out.print(f"{name:<14}{path}", soft_wrap=True)
        for line in fact:
            out.print(f"{'':<14}[dim]{line}[/]", soft_wrap=True)
    out.print()
    out.print(f"{'page':<14}{url}   (sign in with the key in {here.home}/key)", soft_wrap=True)
    out.print(f"{'go on':<14}{here.command('get')}", soft_wrap=True)
    out.print(f"{'stop':<14}{here.command('down')}", soft_wrap=True)
    out.print("The service still runs; stop it with the last line.")
