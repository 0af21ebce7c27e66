"""Looking at jobs (``get``, ``describe``, ``explain``) and steering them (``cancel``, ``hold``, ``release``,
``preempt``, ``retry``).
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from scheduler.cli.app import session, verb
from scheduler.cli.exits import CliError
from scheduler.cli.progress import Pace
from scheduler.cli.session import Session, coloured, plain, table
from scheduler.cli.submit import waits
from scheduler.cli.watch import bars
from scheduler.report import figures
from scheduler.report import money as told

_SHOWN_ATTEMPTS = 12
_SHOWN_OUTPUTS = 30

Job = Annotated[str, typer.Argument(metavar="JOB", help="Job id, such as j17.", show_default=False)]
Jobs = Annotated[list[str], typer.Argument(metavar="JOB…", help="Job ids, such as j17.", show_default=False)]


@verb("get", example="shisuan get   ·   shisuan get j17 --output json")
def get(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(metavar="[jobs|JOB]", show_default=False)] = "jobs",
    state: Annotated[str, typer.Option(help="Only jobs in this state.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(metavar="N", help="At most N jobs, newest first.")] = 50,
) -> None:
    """List jobs, or show one as a line."""
    here = session(ctx)
    if what == "jobs":
        value = here.client().get("/jobs", state=state, limit=limit)
        listed = value["jobs"]
    else:
        value = here.client().get(f"/jobs/{job_id(what)}")
        listed = [value]
    here.show(value, lambda out: _list(here, out, listed))


def _list(here: Session, out: Console, listed: list[dict[str, Any]]) -> None:
    if not listed:
        out.print(f"No jobs. Submit one: {here.command('submit examples/hello.yaml --watch')}")
        return
    out.print(job_table(listed, here.now_ms()))


def job_table(listed: list[dict[str, Any]], now_ms: int) -> Table:
    """One line per job."""
    rows = table("JOB", "NAME", "STATE", "DONE", "TASKS", "QUEUE", "AGE", "TOOK", right=("DONE", "TASKS"))
    for job in listed:
        steps = job.get("steps", ())
        done, tasks = (sum(int(s.get(key, 0)) for s in steps) for key in ("succeeded", "count"))
        began = job.get("started_ms", 0)
        took = figures.duration((job.get("finished_ms") or now_ms) - began) if began else "–"
        rows.add_row(
            job["id"],
            plain(job["name"]),
            coloured(job["state"]),
            figures.percent(int(job.get("progress_milli", 0))),
            f"{done:,}/{tasks:,}",
            plain(job.get("queue", "")),
            figures.duration(now_ms - job["submitted_ms"]),
            took,
        )
    return rows


def job_id(text: str) -> str:
    """A job id as typed; ``j17.render.3`` names its job too. Raises CliError on what cannot be one."""
    head = text.split(".", 1)[0]
    if head[:1] == "j" and head[1:].isdigit():
        return head
    raise CliError(f"{text!r} is no job id: job ids look like j17. `shisuan get` lists yours.")


@verb("describe", example="shisuan describe j17")
def describe(ctx: typer.Context, job: Job) -> None:
    """Show everything about one job.

    Its steps, what they wait for, the latest attempts, the outputs.
    """
    here = session(ctx)
    key = job_id(job)
    value = here.client().get(f"/jobs/{key}")
    waiting = [] if here.is_json else here.client().get(f"/jobs/{key}/explain").get("waits", [])
    here.show(value, lambda out: _describe(here, out, value, waiting))


def _describe(here: Session, out: Console, job: dict[str, Any], waiting: list[dict[str, Any]]) -> None:
    out.print(_facts(job))
    out.print()
    out.print(bars(Pace().see(job, here.now_ms())))
    if waiting:
        out.print()
        out.print(waits(waiting))
    if tries := job.get("attempts", []):
        out.print()
        out.print(_attempts(tries[-_SHOWN_ATTEMPTS:]))
    if outputs := job.get("outputs", []):
        out.print()
        out.print(f"[bold]OUTPUTS[/] ({len(outputs)})")
        for path in outputs[:_SHOWN_OUTPUTS]:
            out.print(f"  {plain(path)}", soft_wrap=True)
        if len(outputs) > _SHOWN_OUTPUTS:
            out.print(f"  and {len(outputs) - _SHOWN_OUTPUTS} more (--output json lists all)")


def _facts(job: dict[str, Any]) -> Table:
    rows = table("", "")
    rows.show_header = False
    rows.add_row("job", f"[bold]{job['id']}[/] {plain(job['name'])}")
    rows.add_row("state", coloured(job["state"]) + (f"  {plain(job['reason'])}" if job.get("reason") else ""))
    rows.add_row("kind", plain(job.get("kind", "")))
    rows.add_row("tenant", plain(job.get("tenant", "")))
    rows.add_row("queue", f"{plain(job.get('queue', ''))}, priority {job.get('priority', 50)}")
    for name in ("submitted", "started", "finished", "deadline"):
        if at_ms := job.get(f"{name}_ms"):
            rows.add_row(name, figures.instant(at_ms))
    if cost := job.get("cost"):
        rows.add_row("cost", plain(told.cost(cost)))
    return rows


def _attempts(tries: list[dict[str, Any]]) -> Table:
    rows = table("ATTEMPT", "STATE", "NODE", "STARTED", "TOOK", "USED", "WHY")
    for one in tries:
        began, ended = one.get("started_ms", 0), one.get("finished_ms", 0)
        took = figures.duration(ended - began) if began and ended else "–"
        node = one.get("node", "")
        rows.add_row(
            one["id"],
            coloured(one.get("state", "leased")),
            plain(node),
            figures.instant(began),
            took,
            figures.used(one.get("measured"), ended - began),
            plain(one.get("reason", "")),
        )
    return rows


@verb("explain", example="shisuan explain j17")
def explain(ctx: typer.Context, job: Job) -> None:
    """Say why a job's tasks are not starting."""
    here = session(ctx)
    key = job_id(job)
    value = here.client().get(f"/jobs/{key}/explain")
    here.show(value, lambda out: out.print(waits(value["waits"]) if value["waits"] else f"Nothing of {key} waits."))


@verb("cancel", example="shisuan cancel j17")
def cancel(ctx: typer.Context, jobs: Jobs) -> None:
    """Stop jobs.

    Waiting tasks never start; running ones get SIGTERM, and SIGKILL after their grace.
    """
    _each(session(ctx), jobs, "cancel", "cancelled")


@verb("hold", example="shisuan hold j17")
def hold(ctx: typer.Context, jobs: Jobs) -> None:
    """Start nothing more of these jobs until `release`."""
    _each(session(ctx), jobs, "hold", "held")


@verb("release", example="shisuan release j17")
def release(ctx: typer.Context, jobs: Jobs) -> None:
    """Let held jobs start again."""
    _each(session(ctx), jobs, "release", "released")


@verb("preempt", example="shisuan preempt j17\nshisuan preempt j17 --hold")
def preempt(
    ctx: typer.Context,
    jobs: Jobs,
    hold: Annotated[bool, typer.Option("--hold", help="Start nothing more until `release`.")] = False,
) -> None:
    """Make jobs give back what they hold.

    What runs gets SIGTERM, and SIGKILL after its grace; a training saves a checkpoint. It waits again and goes on from
    there, not counted against retries.
    """
    _each(session(ctx), jobs, "preempt", "is being preempted", {"hold": hold})


@verb("retry", example="shisuan retry j17 --step render --index 3 --index 7")
def retry(
    ctx: typer.Context,
    jobs: Jobs,
    step: Annotated[str, typer.Option(help="Only tasks of this step.", show_default=False)] = "",
    index: Annotated[list[int] | None, typer.Option(metavar="N", help="Only these tasks; repeatable.")] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Also tasks that succeeded, and the steps behind them.")] = False,
) -> None:
    """Run failed or cancelled tasks again, with a fresh retry budget. What failed and waits for its next try may start.

    With --redo, tasks that succeeded run again too: the new outputs replace the old ones, and the steps behind follow.
    """
    if redo and not step:
        raise CliError("--redo needs --step: say what is to be made again")
    if index and not step:
        raise CliError("--index needs --step: task numbers belong to a step")
    _each(
        session(ctx),
        jobs,
        "retry",
        "waits to run again",
        {"step": step, "indices": index or []} | ({"redo": True} if redo else {}),
    )


def _each(here: Session, jobs: list[str], action: str, done: str, body: dict[str, Any] | None = None) -> None:
    values = [here.client().post(f"/jobs/{key}/{action}", body) for key in map(job_id, jobs)]

    def lines(out: Console) -> None:
        for key, value in zip(jobs, values, strict=True):
            state = value.get("state", "")
            out.print(f"{key} {done}" + (f" (now {coloured(state)})" if state and state != done else ""))

    here.show(values[0] if len(values) == 1 else values, lines)
