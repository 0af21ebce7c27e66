"""The command's frame: one Typer app, options that every verb understands, and help that ends with an example."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from scheduler.cli.exits import TABLE
from scheduler.cli.session import Session

OUTPUTS = ("table", "json")

_EXIT_CODES = " · ".join(f"{code.value} {meaning}" for code, meaning in TABLE)
_HELP = """shisuan (视算): renders, transcodes and other programs on one cluster, with exact usage records.

Start with `shisuan up`, then `shisuan submit FILE --watch`."""

app = typer.Typer(
    name="shisuan",
    help=_HELP,
    epilog=f"Exit codes:  {_EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SERVICE = "The service"
JOBS = "Jobs"
CLUSTER = "The cluster"
MONEY = "Money"


Home = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Folder of the installation; default: SHISUAN_HOME, else ~/.shisuan.",
        rich_help_panel="Everywhere",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="table|json", help="For people, or the API's JSON.", rich_help_panel="Everywhere"
    ),
]


def _apply(ctx: typer.Context, home: str | None, output: str | None) -> None:
    here = session(ctx)
    if home:
        here.home = Path(home).expanduser().absolute()
    if output is not None:
        if output not in OUTPUTS:
            raise typer.BadParameter(f"{output!r} is not one of: {', '.join(OUTPUTS)}", param_hint="--output")
        here.output = output


def verb(
    name: str,
    *,
    example: str,
    panel: str = JOBS,
    to: typer.Typer = app,
    options_metavar: str = "[OPTIONS]",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as ``shisuan NAME``; its docstring is the help, ``example`` the last lines of it.

    Every verb also takes ``--home`` and ``--output``, so that they may stand after it as well as before it.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        to.command(
            name,
            epilog="\n\n".join(f"Example:  {line}" for line in example.splitlines()),
            rich_help_panel=panel,
            options_metavar=options_metavar,
            context_settings={"help_option_names": ["-h", "--help"]},
        )(_with_common(function))
        return function

    return register


def _with_common(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with the two common options added to what Typer sees of it."""

    @wraps(function)
    def wrapped(ctx: typer.Context, home: str | None, output: str | None, **arguments: Any) -> Any:
        _apply(ctx, home, output)
        return function(ctx, **arguments)

    plain = inspect.signature(function, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in (("home", Home), ("output", Output))
    ]
    parameters = [*plain.parameters.values(), *more]
    wrapped.__signature__ = plain.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"shisuan {metadata.version('shisuan')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Print the version.")
]


@app.callback()
def frame(ctx: typer.Context, home: Home = None, output: Output = None, version: Version = False) -> None:
    """Options before the verb."""
    ctx.ensure_object(Session)
    _apply(ctx, home, output)


def session(ctx: typer.Context) -> Session:
    """The session of this run."""
    found = ctx.find_root().obj
    assert isinstance(found, Session)
    return found
