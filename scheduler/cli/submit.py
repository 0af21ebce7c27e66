"""``submit``, ``plan``, ``schema``: handing in a job file, or a command line that becomes one."""

from __future__ import annotations

import json
import shlex
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from scheduler.cli.app import session, verb
from scheduler.cli.exits import CliError, Unreachable
from scheduler.cli.session import Session, plain, table
from scheduler.cli.watch import finish, follow
from scheduler.report import figures
from scheduler.report import money as told

_TRIES = 3


@verb(
    "submit",
    example="shisuan submit examples/shot.yaml --watch\n"
    "shisuan submit --cpus 2 --array 40 --watch -- sh -c 'echo frame $SHISUAN_TASK_INDEX'",
)
def submit(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE | -- COMMAND …]", help="Job file; - reads standard input.", show_default=False),
    ] = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", metavar="", help="Follow it; exit with its result.")] = False,
    hold: Annotated[
        bool, typer.Option("--hold", metavar="", help="Accept it, but start nothing until `release`.")
    ] = False,
    name: Annotated[str, typer.Option(help="With --: the job's name.")] = "",
    cpus: Annotated[str | None, typer.Option(metavar="N", help="With --: CPUs per task, such as 2 or 0.5.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="With --: per task, such as 4GiB.")] = None,
    accelerators: Annotated[
        str | None, typer.Option(metavar="MODEL:N", help="With --: cards per task, such as H100:1.")
    ] = None,
    num_nodes: Annotated[int | None, typer.Option(metavar="N", help="With --: start on N nodes together.")] = None,
    array: Annotated[
        str | None, typer.Option(metavar="N|RANGE", help="With --: N tasks, or a range such as 0-7%2 (two at a time).")
    ] = None,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="With --: per task, such as 90s or 2h.")] = None,
    retries: Annotated[int | None, typer.Option(metavar="N", help="With --: further tries after a failure.")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="With --: repeatable.")] = None,
    queue: Annotated[str | None, typer.Option(help="With --: queue.")] = None,
    priority: Annotated[int | None, typer.Option(metavar="0-100", help="With --: higher starts first.")] = None,
    request_id: Annotated[
        str, typer.Option(help="Submitting twice with one id gives one job.", show_default=False)
    ] = "",
) -> None:
    """Submit a job file, or a command after `--`.

    With --watch the exit code is the job's result: 0 succeeded, 1 failed, 3 cancelled. Ctrl-C leaves the job running.
    """
    here = session(ctx)
    file, argv = _one(words or []), here.program
    if argv:
        if file:
            raise CliError(f"give either a job file or a command after --, not both (got {file!r} and {argv[0]!r})")
        text = _command_file(
            argv,
            name=name,
            cpus=cpus,
            memory=memory,
            accelerators=accelerators,
            num_nodes=num_nodes,
            array=int(array) if array and array.isdecimal() else array,
            timeout=timeout,
            retries=retries,
            env=_pairs(env or []),
            queue=queue,
            priority=priority,
        )
        base_dir = Path.cwd()
    else:
        text, base_dir = read_job_file(file)
    body = {"file": text, "base_dir": str(base_dir), "hold": hold, "request_id": request_id or uuid.uuid4().hex}
    job = send(here, body)
    if not watch:
        here.show(job, lambda out: _accepted(here, out, job))
        return
    here.say(f"Submitted {job['id']}.")
    raise typer.Exit(finish(here, follow(here, job["id"])))


def _one(words: list[str]) -> str:
    """The job file's name; empty when none is named. Raises CliError."""
    if len(words) > 1:
        command = shlex.join(words)
        raise CliError(
            f"submit takes one job file, not {len(words)} words. A name with spaces needs quotes; "
            f"before a command goes --, as in: shisuan submit -- {command}"
        )
    return words[0] if words else ""


def _command_file(argv: Sequence[str], **flags: Any) -> str:
    """Commands go through the same door as files: they become one."""
    from scheduler import jobfile

    return jobfile.command(argv, **flags)


def _pairs(words: list[str]) -> dict[str, str]:
    wrong = [word for word in words if not word.partition("=")[1] or word.startswith("=")]
    if wrong:
        raise CliError(f"--env wants NAME=VALUE, not {wrong[0]!r}")
    return dict(word.split("=", 1) for word in words)


def read_job_file(name: str) -> tuple[str, Path]:
    """The text of a job file and the folder its relative paths start from. Raises CliError."""
    if not name:
        raise CliError("give a job file, or a command after --. Try: shisuan submit -- echo hello")
    if name == "-":
        return sys.stdin.read(), Path.cwd()
    path = Path(name)
    try:
        return path.read_text("utf-8"), path.absolute().parent
    except FileNotFoundError:
        raise CliError(f"there is no file {name}{_hint(path)}") from None
    except IsADirectoryError:
        raise CliError(f"{name} is a folder; give the job file in it") from None
    except PermissionError:
        raise CliError(f"may not read {name}: permission denied") from None
    except UnicodeDecodeError as error:
        raise CliError(f"{name} is no text in UTF-8 (byte {error.start}); a job file is YAML text") from None


def _hint(path: Path) -> str:
    if "/" not in str(path) and not path.suffix:
        return f". To run a program, put -- before it: shisuan submit -- {path}"
    return ""


def send(here: Session, body: dict[str, Any]) -> dict[str, Any]:
    """POST the job. The request id makes it safe to ask again when an answer was lost. Raises CliError."""
    for left in reversed(range(_TRIES)):
        try:
            job: dict[str, Any] = here.client().post("/jobs", body)
            return job
        except Unreachable:
            if not left:
                raise
            here.sleep(1.0)
    raise AssertionError("unreachable")


def _accepted(here: Session, out: Console, job: dict[str, Any]) -> None:
    tasks = sum(int(step["count"]) for step in job.get("steps", ()))
    steps = figures.count(len(job.get("steps", ())), "step")
    out.print(f"{job['id']}  {plain(job['name'])}  {steps}, {figures.count(tasks, 'task')}, {job['state']}")
    if by_ms := job.get("deadline_ms"):
        out.print(plain(f"deadline {figures.instant(by_ms)}: {_answer(job)}"), soft_wrap=True)
    out.print(f"follow it: {here.command('watch ' + job['id'])}", soft_wrap=True)


def _answer(job: dict[str, Any]) -> str:
    """What became of the deadline of a job that was just submitted."""
    chance = f"with probability {job['deadline_permille'] / 10:g} %" if job.get("deadline_permille") else ""
    if job.get("slot") or job.get("kept"):
        return f"promised {chance}. {_kept(job)}."
    likely = f"; met {chance}" if chance else ""
    return f"not promised, it runs when it can{likely}. `plan` says what would make it a promise."


@verb("plan", example="shisuan plan examples/shot.yaml")
def plan(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Job file; - reads standard input.")],
) -> None:
    """Show what a job would start and wait for; nothing is submitted."""
    here = session(ctx)
    text, base_dir = read_job_file(file)
    value = here.client().post("/plan", {"file": text, "base_dir": str(base_dir)})
    here.show(value, lambda out: _plan(out, value))


def _plan(out: Console, value: dict[str, Any]) -> None:
    steps = value["steps"]
    out.print(f"{figures.count(value['tasks'], 'task')} in {figures.count(len(steps), 'step')}")
    if value["starts"]:
        rows = table("STARTS NOW", "TASKS", "NODES", "CARDS", right=("TASKS",))
        for start in value["starts"]:
            nodes, cards = ", ".join(start["nodes"]), ", ".join(start["devices"])
            rows.add_row(plain(start["step"]), f"{start['tasks']:,}", plain(nodes), plain(cards))
        out.print(rows)
    else:
        out.print("Nothing would start now.")
    if value["waits"]:
        out.print(waits(value["waits"]))
    if times := value.get("start_ms"):
        out.print(f"Expected to start {expected(times)}.")
    if deadline := value.get("deadline"):
        out.print(plain(_deadline(deadline)), soft_wrap=True)
    if prices := value.get("prices"):
        out.print(_prices(prices))
        example = " (EXAMPLE PRICES)" if value.get("example_prices") else ""
        out.print(f"List prices of what is held, before vouchers{example}. Time spent starting is free by default.")


def _prices(listed: list[dict[str, Any]]) -> Any:
    rows = table(
        *("STEP", "YUAN/H PER TASK", "AT ONCE", "YUAN/H AT MOST", "ESTIMATE", "BASIS"),
        right=("YUAN/H PER TASK", "AT ONCE", "YUAN/H AT MOST", "ESTIMATE"),
    )
    for price in listed:
        low, high = price["hourly_low_micro_yuan"], price["hourly_high_micro_yuan"]
        known = told.span(price["estimate_low_micro_yuan"], price["estimate_high_micro_yuan"])
        rows.add_row(
            plain(price["step"]),
            told.span(low, high),
            f"{price['parallel']:,}",
            told.span(low * price["parallel"], high * price["parallel"]),
            known if price["run_ms_mean"] else "–",
            plain(told.basis(price)),
        )
    return rows


def expected(times: list[int]) -> str:
    """``at 14:20 (9 of 10: 14:05 to 15:10)``, or ``at once``, on this machine's clock."""
    low, middle, high = (figures.instant(at) for at in times)
    return f"at {middle}" if low == high else f"at {middle} (9 of 10: {low} to {high})"


def _deadline(found: dict[str, Any]) -> str:
    """Yes, by then, with what probability; or no, and what would make it yes."""
    by, chance = figures.instant(found["deadline_ms"]), found["permille"] / 10
    if found["promised"]:
        return f"Deadline {by}: yes, with probability {chance:g} %. {_kept(found)}."
    lines = [f"Deadline {by}: no, it cannot be promised" + (f": {found['reason']}" if found["reason"] else "")]
    if found["permille"] >= 0:
        lines.append(f"  submitted all the same, it will be met with probability {chance:g} %")
    lines += [f"  would make it yes: {change}" for change in found["changes"]]
    return "\n".join(lines)


def _kept(promised: dict[str, Any]) -> str:
    """Where and when time is kept for a job of one task, or for each step of a film."""
    if slot := promised["slot"]:
        return f"Kept for it: {', '.join(slot['nodes'])} {_span(slot)}"
    return "Kept for it: " + "; ".join(
        f"{kept['step']} on {figures.count(kept['places'], 'place')} of {', '.join(kept['nodes'])} {_span(kept)}"
        for kept in promised["kept"]
    )


def _span(kept: dict[str, Any]) -> str:
    return f"from {figures.instant(kept['start_ms'])} to {figures.instant(kept['end_ms'])}"


def waits(items: list[dict[str, Any]]) -> Any:
    """Waiting steps with their reasons, one reason a line."""
    rows = table("WAITS", "TASKS", "PLACE", "WHY", right=("TASKS", "PLACE"))
    for wait in items:
        reasons = wait.get("reasons", [])
        place = str(wait["position"]) if wait.get("position") else "–"
        lines = [reason_of(r) for r in reasons]
        lines += [f"expected to start {expected(wait['start_ms'])}"] if wait.get("start_ms") else []
        lines += [f"would start now: {change}" for change in wait.get("changes", ())]
        why = "\n".join(plain(line) for line in lines) or "–"
        rows.add_row(plain(wait.get("step", "")), f"{int(wait.get('tasks', 0)):,}", place, why)
    return rows


def reason_of(reason: dict[str, Any]) -> str:
    """A reason's sentence; its kind where it has none."""
    said = str(reason.get("message") or f"{reason.get('kind', '')} {reason.get('resource', '')}".strip())
    return f"{said} (at {figures.instant(reason['until_ms'])})" if reason.get("until_ms") else said


@verb("schema", example="shisuan schema > shisuan.schema.json")
def schema(ctx: typer.Context) -> None:
    """Print the JSON Schema of job files, for editors."""
    from scheduler import jobfile

    session(ctx).out.file.write(json.dumps(jobfile.schema(), indent=2, ensure_ascii=False) + "\n")
