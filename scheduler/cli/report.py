"""``report``: pictures and numbers of jobs in one folder, for people who would rather look than read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from scheduler.cli.app import session, verb
from scheduler.cli.artefacts import Artefact, make, read
from scheduler.cli.jobs import job_id
from scheduler.cli.session import plain


@verb("report", example="shisuan report j17 --folder report")
def report(
    ctx: typer.Context,
    jobs: Annotated[list[str], typer.Argument(metavar="JOB…", help="Job ids, such as j17 j18.")],
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where the pictures go.")] = Path("report"),
) -> None:
    """Draw what became of jobs: contact sheets, films' facts, loss curves, who held what when, usage."""
    here = session(ctx)
    books = read(here, [job_id(word) for word in jobs])
    made = make(books, folder.absolute(), here.now_ms())
    here.show({"artefacts": [one.json() for one in made]}, lambda out: show(out, made))


def show(out: Console, made: Iterable[Artefact]) -> None:
    """A line per thing to look at, with its facts below."""
    for one in made:
        out.print(f"{plain(one.name):<26}{plain(one.path)}", soft_wrap=True)
        for line in one.lines:
            out.print(f"{'':<26}[dim]{plain(line)}[/]", soft_wrap=True)
