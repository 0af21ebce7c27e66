"""``cycle``: one decision of the engine as a file that can be looked at, planned again, and kept as a test."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from scheduler.cli.app import CLUSTER, app, session, verb
from scheduler.cli.exits import CliError, Exit
from scheduler.cli.session import plain
from scheduler.model.errors import InvalidInput

cycle = typer.Typer(help="One decision of the engine as a file (operators only).", no_args_is_help=True)
app.add_typer(cycle, name="cycle", rich_help_panel=CLUSTER, epilog="Example:  shisuan cycle dump --out now.json")
File = Annotated[Path, typer.Argument(metavar="FILE", help="What `cycle dump` wrote.")]


@verb("dump", to=cycle, example="shisuan cycle dump --out now.json")
def dump(
    ctx: typer.Context,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: standard output.")] = None,
) -> None:
    """Write down everything the engine knows now, by which policy it plans, and the plan.

    Left out is what it does not read: job files, arguments of programs, outputs.
    """
    from scheduler.control.dump import text_of

    here = session(ctx)
    text = text_of(here.client().get("/cycle"))
    if out is None:
        here.out.out(text, end="", highlight=False)
        return
    _write(out, text)
    here.say(f"written: {out}")


@verb("replay", to=cycle, example="shisuan cycle replay now.json")
def replay(ctx: typer.Context, file: File) -> None:
    """Plan a dump again, with the engine of this command, and compare.

    Exit code 0: the plan is the same; 1: the answer says what differs first.
    """
    from scheduler.control import dump as dumps
    from scheduler.engine import VERSION

    here = session(ctx)
    try:
        found = dumps.replay(_read(file))
    except InvalidInput as error:
        raise CliError(f"{file}: {error}") from None
    value = {**asdict(found), "engine_now": VERSION, "identical": not found.difference}
    here.show(value, lambda console: _verdict(console, value))
    if found.difference:
        raise typer.Exit(Exit.FAILED)


def _verdict(out: Console, value: dict[str, Any]) -> None:
    if value["identical"]:
        out.print(f"identical: {value['actions']} actions and {value['waits']} waits, planned again.")
        return
    out.print(plain(value["difference"]), soft_wrap=True)
    if value["engine"] != value["engine_now"]:
        out.print(f"The dump was made by engine {value['engine']}; this is engine {value['engine_now']}.")


@verb("test", to=cycle, example="shisuan cycle test now.json --out tests/scenario/test_that_morning.py")
def test(
    ctx: typer.Context,
    file: File,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The test; the dump is written beside it as .json.")],
) -> None:
    """Write a dump out as a pytest file with its data beside it, to be committed."""
    from scheduler.control import dump as dumps

    here = session(ctx)
    if out.suffix != ".py" or not out.name.startswith("test_"):
        raise CliError(f"--out {out}: pytest looks for files named test_….py")
    text = _read(file)
    try:
        _write(out, dumps.test_of(text))
    except InvalidInput as error:
        raise CliError(f"{file}: {error}") from None
    _write(out.with_suffix(".json"), text)
    here.say(f"written: {out} and {out.with_suffix('.json').name}")


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"cannot read {file}: {error}") from None


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    except OSError as error:
        raise CliError(f"cannot write {file}: {error.strerror}") from None
