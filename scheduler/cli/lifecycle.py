"""``up``, ``down``, ``status``: starting, stopping and seeing one installation."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from scheduler.cli.app import SERVICE, session, verb
from scheduler.cli.client import Client
from scheduler.cli.exits import CliError, Exit
from scheduler.cli.home import Instance, read_instance, read_key, running
from scheduler.cli.session import Session, coloured, plain, table
from scheduler.model.errors import ShisuanError
from scheduler.report import figures

START_LIMIT_S = 180


@verb("up", panel=SERVICE, example="shisuan up --cards 8xH100")
def up(
    ctx: typer.Context,
    *,
    cards: Annotated[str, typer.Option(metavar="8xH100", help="Declare simulated cards, for trying out.")] = "",
    nodes: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML file that describes the nodes.")] = None,
    cpus: Annotated[float, typer.Option(metavar="N", help="CPUs to offer; default: all.", show_default=False)] = 0,
    root: Annotated[list[Path] | None, typer.Option(metavar="DIR", help="Folder jobs may use; repeatable.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML file with tenants and queues.")] = None,
    ray: Annotated[str, typer.Option(metavar="ADDRESS", help="Use this Ray cluster instead of an embedded one.")] = "",
    database: Annotated[str, typer.Option(metavar="URL", help="postgresql://…; default: SQLite in the home.")] = "",
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Listen address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="0: any free port.")] = 0,
) -> None:
    """Start the service, and with it an embedded Ray."""
    here = session(ctx)
    options = _options(
        cards=cards, nodes=nodes, config=config, cpus=cpus, roots=root or [], ray=ray, database=database, host=host
    )
    wanted = [*options, "--port", str(port)] if port else options
    if (old := running(here.home)) and (missing := unlike(old, wanted)):
        raise CliError(
            f"already running in {here.home}, without {' '.join(missing)}. "
            f"To start it so: {here.command('down')}, then this command again."
        )
    found = start(here, [*options, "--port", str(port)], port=port, host=host)
    status = here.client().get("/status")
    here.show({"url": found.url, "home": str(here.home), "status": status}, lambda _: _announce(here, found, status))


def _options(
    *,
    cards: str,
    nodes: Path | None,
    config: Path | None,
    cpus: float,
    roots: list[Path],
    ray: str,
    database: str,
    host: str,
) -> list[str]:
    """The service's own flags; relative paths are made absolute because it runs elsewhere."""
    options: list[str] = []
    for flag, value in (("--cards", cards), ("--ray", ray), ("--database", database)):
        options += [flag, value] if value else []
    for flag, file in (("--nodes", nodes), ("--config", config)):
        options += [flag, str(file.absolute())] if file else []
    if cpus:
        options += ["--cpus", f"{cpus:g}"]
    for folder in roots:
        options += ["--root", str(folder.absolute())]
    if host != "127.0.0.1":
        options += ["--host", host]
    return options


_SETTINGS = {"--ray": "ray_address", "--database": "database_url", "--nodes": "nodes_file"}


def unlike(found: Instance, options: list[str]) -> list[str]:
    """The options that the running service was not started with."""
    missing: list[str] = []
    for flag, value in zip(options[::2], options[1::2], strict=True):
        had = found.settings.get(_SETTINGS.get(flag, flag.removeprefix("--")))
        if flag == "--root":
            same = os.path.realpath(value) in map(os.path.realpath, found.settings.get("roots", ()))
        elif flag == "--cpus":
            same = found.settings.get("cpu_milli") == round(float(value) * 1000)
        elif flag == "--port":
            same = found.url.endswith(f":{value}")
        else:
            same = had == value
        missing += () if same else (flag, value)
    return missing


def start(here: Session, options: list[str], *, port: int = 0, host: str = "127.0.0.1") -> Instance:
    """A running service for this home: the one there, or a new one. Raises CliError with the service's words."""
    found = running(here.home)
    if found and Client(found.url, "").healthy():
        here.say(f"Already running in {here.home}.")
        return found
    if port and not _is_free(host, port):
        raise CliError(f"port {port} on {host} is in use; choose another with --port, or leave it out for any free one")
    here.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = here.home / "logs" / "service.err"
    log.parent.mkdir(exist_ok=True)
    child = _spawn(here.home, options, log)
    try:
        return _await_health(here, child, log)
    except KeyboardInterrupt:
        child.terminate()
        raise


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _spawn(home: Path, options: list[str], log: Path) -> subprocess.Popen[bytes]:
    """The service in a session of its own, so that closing the terminal does not end it."""
    argv = [sys.executable, "-P", "-m", "scheduler.wiring", "--home", str(home.absolute()), *options]
    with log.open("wb") as sink:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )


def _await_health(here: Session, child: subprocess.Popen[bytes], log: Path) -> Instance:
    found: Instance | None = None
    with here.err.status("Starting the service …") as line:
        for _ in range(START_LIMIT_S * 5):
            if child.poll() is not None:
                raise CliError(_last_words(log), Exit.REFUSED)
            found = read_instance(here.home)
            if found and found.pid == child.pid and Client(found.url, "").healthy():
                doing = _phase(Client(found.url, read_key(here.home)))
                if not doing:
                    return found
                line.update(f"{doing} …")
            here.sleep(0.2)
    if found is None:
        child.terminate()
    raise CliError(f"the service did not come up within {START_LIMIT_S} s; its log is {log}", Exit.UNREACHABLE)


def _phase(client: Client) -> str:
    """What a starting service still waits for; empty when it can take work."""
    try:
        status = client.get("/status")
    except CliError:
        return "Starting the service"
    state = str(_runtime(status).get("state", "up"))
    if state in ("up", "ready", "running"):
        return "" if _count(status, "nodes") else "Ray runs; waiting for its first node"
    return f"Starting Ray ({state})"


def _runtime(status: dict[str, Any]) -> dict[str, Any]:
    runtime = status.get("runtime", {})
    return runtime if isinstance(runtime, dict) else {"state": runtime}


def _count(status: dict[str, Any], what: str) -> int:
    value = status.get("counts", {}).get(what, status.get(what, 0))
    return sum(value.values()) if isinstance(value, dict) else int(value)


def _last_words(log: Path) -> str:
    """The reason a service gave before it ended: its last line, without the stack above it."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    if not lines:
        return f"the service ended at once and said nothing; its log is {log}"
    last = lines[-1].removeprefix("error: ")
    return last if len(lines) == 1 else f"{last} (whole log: {log})"


def _announce(here: Session, found: Instance, status: dict[str, Any]) -> None:
    lines = [
        f"[bold]{found.url}[/]",
        f"key      {here.home}/key",
        f"home     {here.home}",
        f"stop     {here.command('down')}",
    ]
    if status.get("simulated"):
        lines.append("[yellow]simulated[/] cards are declared: they exist only on paper and are never billed")
    here.out.print("\n".join(lines), highlight=False, soft_wrap=True)


@verb("down", panel=SERVICE, example="shisuan down")
def down(ctx: typer.Context) -> None:
    """Stop the service and its embedded Ray.

    Running tasks are stopped; they start again after the next `up`.
    """
    here = session(ctx)
    with here.err.status("Stopping …"):
        stopped = stop(here.home)
    words = "Stopped." if stopped else f"Nothing runs in {here.home}."
    here.show({"stopped": stopped}, lambda out: out.print(words))


def stop(home: Path) -> bool:
    """End the service and the runtime it started; whether there was anything. Raises CliError."""
    from scheduler import wiring

    try:
        return wiring.stop(str(home))
    except ShisuanError as error:
        raise CliError(str(error), Exit.FAILED) from error


@verb("status", panel=SERVICE, example="shisuan status")
def status(ctx: typer.Context) -> None:
    """Show the service: where it is and how busy."""
    here = session(ctx)
    value = here.client().get("/status")
    here.show(value, lambda out: out.print(_status_table(here, value)))


def _feed_words(feed: dict[str, Any]) -> str:
    """Where sealed usage goes and how far behind the receiver is."""
    state, lag = str(feed["state"]), figures.count(int(feed["lag"]), "record")
    colour = {"current": "green", "sending": "green", "refused": "red"}.get(state, "yellow")
    words = f"[{colour}]{state}[/] {plain(feed['url'])}, up to entry {feed['cursor']}, {lag} behind"
    return f"{words}\n{plain(feed['message'])}" if feed["message"] else words


def _status_table(here: Session, value: dict[str, Any]) -> Any:
    rows = table("", "")
    rows.show_header = False
    rows.add_row("url", here.url())
    rows.add_row("version", str(value.get("version", "")))
    rows.add_row("runtime", _runtime_words(_runtime(value)))
    for what, number in sorted(value.get("counts", {}).items()):
        rows.add_row(what, _counts(number))
    if feed := value.get("feed"):
        rows.add_row("feed", _feed_words(feed))
    if value.get("started_ms"):
        rows.add_row("since", figures.instant(value["started_ms"]))
    if value.get("simulated"):
        rows.add_row("cards", "[yellow]simulated[/]: they exist only on paper and are never billed")
    return rows


def _runtime_words(runtime: dict[str, Any]) -> str:
    words = [coloured(str(runtime.get("state", "unknown"))), str(runtime.get("message", ""))]
    return "  ".join(word for word in words if word)


def _counts(number: Any) -> str:
    if isinstance(number, dict):
        return ", ".join(f"{count:,} {coloured(state)}" for state, count in sorted(number.items())) or "none"
    return f"{number:,}"
