"""What every verb gets: which home, which service, how to print. One per run of the command."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scheduler.cli.client import Client
from scheduler.cli.exits import CliError, Unreachable
from scheduler.cli.home import default_home, read_key, running

if TYPE_CHECKING:
    import httpx
    from rich.console import Console
    from rich.table import Table

_PIPE_WIDTH = 200
_WHOLE = {"JOB", "STATE", "DONE", "TASKS", "ATTEMPT", "NODE", "QUEUE", "STEP", "LEASES", "MODEL", "KEY"}
"""Columns that are typed again or read at a glance: a narrow terminal folds the others first."""


@dataclass(slots=True, kw_only=True)
class Session:
    """Options common to all verbs, and the doors made from them on first use."""

    home: Path = field(default_factory=default_home)
    name: str = "shisuan"
    """How this command can be typed again."""
    output: str = "table"
    program: tuple[str, ...] = ()
    """What followed ``--`` on the command line of ``submit``."""
    transport: httpx.BaseTransport | None = None
    """For tests: stands in for the network."""
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    sleep: Callable[[float], None] = time.sleep
    _client: Client | None = None

    @property
    def is_json(self) -> bool:
        """The user asked for the API's JSON."""
        return self.output == "json"

    @property
    def out(self) -> Console:
        """Standard output: results."""
        return _console(stderr=False)

    @property
    def err(self) -> Console:
        """Standard error: progress and messages, so that results can be piped."""
        return _console(stderr=True)

    def client(self) -> Client:
        """The service, by ``SHISUAN_URL`` or by the home's instance file. Raises Unreachable."""
        if self._client is None:
            self._client = Client(self.url(), read_key(self.home), self.transport)
        return self._client

    def client_of(self, tenant: str) -> Client:
        """The service as one of its tenants sees it, by the tenant's first key in the home. Raises CliError."""
        file = self.home / "keys" / tenant
        try:
            return Client(self.url(), file.read_text("utf-8").strip(), self.transport)
        except OSError as error:
            raise CliError(f"no key of tenant {tenant} in {file}: {error.strerror}") from None

    def reconnect(self) -> Client:
        """A fresh client: a restarted service may have another address."""
        if self._client is not None:
            self._client.close()
            self._client = None
        return self.client()

    def url(self) -> str:
        """Where the service is. Raises Unreachable with what to do about it."""
        if url := os.environ.get("SHISUAN_URL"):
            return url
        found = running(self.home)
        if found is None:
            raise Unreachable(
                f"no service runs in {self.home}. Start one with `{self.command('up')}`, "
                "or name one with SHISUAN_URL and SHISUAN_KEY."
            )
        return found.url

    def show(self, value: Any, render: Callable[[Console], None]) -> None:
        """The answer of a verb: the API's JSON unchanged, or ``render`` for people."""
        if self.is_json:
            sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        else:
            render(self.out)

    def say(self, text: str) -> None:
        """A line for people that is no result: never in the way of JSON."""
        self.err.print(text, highlight=False, soft_wrap=True)

    def command(self, words: str) -> str:
        """How to type a verb for this home."""
        home = () if self.home == default_home() else ("--home", shlex.quote(str(self.home)))
        return " ".join((shlex.quote(self.name), *home, words))


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    # Pipes have no width: without one, tables would be cut at 80 columns.
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, emoji=False)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without frames, as every verb prints them."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in _WHOLE)
    return made


def plain(text: object) -> str:
    """Somebody's text as rich markup that shows it letter for letter; a dash when empty."""
    from rich.markup import escape

    return escape(str(text)) or "–"


COLOURS = {
    "held": "magenta",
    "waiting": "yellow",
    "leased": "cyan",
    "running": "cyan",
    "cancelling": "magenta",
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "cancelled": "magenta",
    "preempted": "yellow",
    "lost": "yellow",
    "ready": "green",
    "cordoned": "yellow",
    "unready": "yellow",
    "external": "yellow",
    "ok": "green",
    "quarantined": "red",
}


def coloured(state: str) -> str:
    """A state with its colour, as rich markup."""
    colour = COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else state
