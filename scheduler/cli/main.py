"""Entry point of the ``shisuan`` command."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from scheduler.cli import (
    cluster,
    cycle,
    defrag,
    demo,
    doctor,
    jobs,
    keys,
    lifecycle,
    logs,
    money,
    prune,
    report,
    reserve,
    submit,
    utilisation,
    watch,
    whatif,
)
from scheduler.cli.app import app
from scheduler.cli.exits import CliError, Exit
from scheduler.cli.session import Session

# Importing these registers their verbs; help lists them in this order.
MODULES = (
    *(lifecycle, doctor, demo, submit, watch, jobs, logs, report, cluster, utilisation),
    *(defrag, reserve, whatif, cycle, money, prune, keys),
)
ORDER = (
    *("up", "down", "status", "doctor", "demo"),
    *("submit", "watch", "plan", "get", "describe", "logs", "report", "explain"),
    *("cancel", "retry", "hold", "release", "preempt", "schema"),
    *("nodes", "queues", "usage", "utilisation", "whatif", "cordon", "uncordon", "drain", "defrag", "prune"),
    *("statement", "rates"),
)
app.registered_commands.sort(key=lambda command: ORDER.index(str(command.name)))


def run(argv: Sequence[str], session: Session | None = None) -> int:
    """Run one command line; the exit code. Errors a user can cause are one message on standard error."""
    session = session or Session()
    words = list(argv)
    if "--" in words and "submit" in words[: words.index("--")]:
        # What follows is a program with options of its own.
        at = words.index("--")
        words, session.program = words[:at], tuple(words[at + 1 :])
    try:
        app(args=words, prog_name="shisuan", obj=session)
    except CliError as error:
        _complain(str(error))
        return int(error.code)
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        # `shisuan logs … | head` closed the pipe; silence the flush at exit as well.
        sys.stdout = None
        return int(Exit.SUCCEEDED)
    except Exception as error:  # a bug of ours: the user gets a line, whoever mends it asks for more
        if os.environ.get("SHISUAN_TRACE"):
            raise
        _complain(f"internal error, please report it: {type(error).__name__}: {error} (more with SHISUAN_TRACE=1)")
        return int(Exit.FAILED)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(Exit.REFUSED)
    return int(Exit.SUCCEEDED)


def _complain(message: str) -> None:
    lines = message.splitlines() or ["unknown error"]
    if len(lines) == 1:
        sys.stderr.write(f"error: {lines[0]}\n")
        return
    sys.stderr.write("error:\n" + "".join(f"  {line}\n" for line in lines))


def typed(argv0: str) -> str:
    """How the user can call this program again: its name where that finds it, else its path."""
    found, here = shutil.which("shisuan"), Path(argv0)
    if here.name != "shisuan" or not here.exists():
        return "shisuan"
    return "shisuan" if found and Path(found).samefile(here) else argv0


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:], Session(name=typed(sys.argv[0]))))


if __name__ == "__main__":
    main()
