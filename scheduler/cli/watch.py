"""``watch`` and ``submit --watch``: a job's progress while it runs, and its result as the exit code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from scheduler.cli.app import session, verb
from scheduler.cli.client import ApiError
from scheduler.cli.exits import Exit, Unreachable, of_state
from scheduler.cli.progress import Pace, StepView, is_final
from scheduler.cli.session import Session, coloured, plain, table
from scheduler.report import figures

AWAY_LIMIT_S = 120
_LINE_EVERY_MS = 5_000
_LOOK_EVERY_S = 0.5
_SHOWN_OUTPUTS = 6


@verb("watch", example="shisuan watch j17")
def watch(ctx: typer.Context, job: Annotated[str, typer.Argument(metavar="JOB", help="Job id, such as j17.")]) -> None:
    """Follow a job until it ends.

    The exit code is its result: 0 succeeded, 1 failed, 3 cancelled. Ctrl-C leaves it running.
    """
    here = session(ctx)
    here.client()  # without a service from the start there is nothing to wait for
    raise typer.Exit(finish(here, follow(here, job)))


def follow(here: Session, job_id: str) -> dict[str, Any]:
    """The final job, after showing its way there. Ctrl-C raises KeyboardInterrupt after saying that the job goes on."""
    view = _Live(here) if here.err.is_terminal and not here.is_json else _Lines(here)
    last: dict[str, Any] = {}
    try:
        with view:
            for last in snapshots(here, job_id):
                view.update(last)
    except KeyboardInterrupt:
        here.say(
            f"\nYou left; {job_id} goes on. Back to it: {here.command(f'watch {job_id}')}   "
            f"Stop it: {here.command(f'cancel {job_id}')}"
        )
        raise
    return last


def follow_all(here: Session, job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Several jobs side by side until all have ended; the final ones by id."""
    views = [_Lines(here) for _ in job_ids]
    live = _Together(here) if here.err.is_terminal and not here.is_json else None
    final: dict[str, dict[str, Any]] = {}
    with live or nullcontext():
        while len(final) < len(job_ids):
            for job_id, view in zip(job_ids, views, strict=True):
                if job_id in final:
                    continue
                job = _look(here, job_id)
                if live is not None:
                    live.update(job)
                else:
                    view.update(job)
                if is_final(job):
                    final[job_id] = job
            here.sleep(_LOOK_EVERY_S)
    return final


def _look(here: Session, job_id: str) -> dict[str, Any]:
    """The job now; a service that goes away is waited for. Raises Unreachable after :data:`AWAY_LIMIT_S`."""
    away_s = 0
    while True:
        try:
            job: dict[str, Any] = here.client().get(f"/jobs/{job_id}")
            return job
        except (Unreachable, ApiError) as error:
            if away_s >= AWAY_LIMIT_S or (isinstance(error, ApiError) and error.status != 503):
                raise
        here.sleep(1.0)
        away_s += 1
        _reconnect(here)


def snapshots(here: Session, job_id: str) -> Iterator[dict[str, Any]]:
    """The job each time it changes, the final one last; a service that goes away is waited for."""
    away_s = 0.0
    while True:
        try:
            job: dict[str, Any] = here.client().get(f"/jobs/{job_id}")
            away_s = 0.0
            yield job
            while not is_final(job):
                for job in here.client().snapshots(job_id):
                    yield job
            # Once more in full: the stream's snapshots need not carry attempts and outputs.
            yield here.client().get(f"/jobs/{job_id}")
            return
        except Unreachable as error:
            if away_s == 0.0:
                here.say(f"The service is away ({error}); waiting for it to come back. {job_id} goes on.")
            if away_s >= AWAY_LIMIT_S:
                raise
        except ApiError as error:
            if error.status != 503 or away_s >= AWAY_LIMIT_S:
                raise
        here.sleep(1.0)
        away_s += 1.0
        _reconnect(here)


def _reconnect(here: Session) -> None:
    try:
        here.reconnect()
    except Unreachable:
        # Still down; the caller counts the seconds and tries again.
        return


def finish(here: Session, job: dict[str, Any]) -> Exit:
    """Say how the job ended and where its results are; the exit code."""
    here.show(job, lambda out: _result(here, out, job))
    return of_state(job["state"])


def _result(here: Session, out: Console, job: dict[str, Any]) -> None:
    took = figures.duration(job.get("finished_ms", 0) - job.get("submitted_ms", 0))
    out.print(f"{job['id']} {plain(job['name'])} {coloured(job['state'])} after {took}")
    if job.get("reason"):
        out.print(f"reason: {plain(job['reason'])}", soft_wrap=True)
    if job["state"] == "failed" and (task := first_failure(job)):
        out.print(f"log:    {here.command(f'logs {task}')}", soft_wrap=True)
    outputs = job.get("outputs", [])
    for path in outputs[:_SHOWN_OUTPUTS]:
        out.print(f"output: {plain(path)}", soft_wrap=True)
    if len(outputs) > _SHOWN_OUTPUTS:
        out.print(f"        and {len(outputs) - _SHOWN_OUTPUTS} more: {here.command('describe ' + job['id'])}")


def first_failure(job: dict[str, Any]) -> str:
    """Id of the first attempt that failed, for pointing at its log; empty when there is none."""
    bad = [a for a in job.get("attempts", ()) if a.get("state") in ("failed", "timed_out")]
    return str(min(bad, key=lambda a: (a.get("finished_ms", 0), a["id"]))["id"]) if bad else ""


class _Live:
    """For terminals: redrawn in place."""

    def __init__(self, here: Session) -> None:
        self._here = here
        self._pace = Pace()
        self._job: dict[str, Any] = {}
        self._live = Live(console=here.err, get_renderable=self._draw, refresh_per_second=4, transient=True)

    def __enter__(self) -> _Live:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if self._job:
            # The last state of the bars stays on the screen; the headline is said again with the result.
            self._here.err.print(bars(self._pace.see(self._job, self._here.now_ms())))

    def update(self, job: dict[str, Any]) -> None:
        self._job = job

    def _draw(self) -> Any:
        if not self._job:
            return ""
        now_ms = self._here.now_ms()
        return Group(_headline(self._job, now_ms), bars(self._pace.see(self._job, now_ms)))


class _Together:
    """For terminals: several jobs redrawn in place; their last state stays on the screen."""

    def __init__(self, here: Session) -> None:
        self._here = here
        self._paces: dict[str, Pace] = {}
        self._jobs: dict[str, dict[str, Any]] = {}
        self._live = Live(console=here.err, get_renderable=self._draw, refresh_per_second=4)

    def __enter__(self) -> _Together:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, job: dict[str, Any]) -> None:
        self._jobs[str(job["id"])] = job
        self._paces.setdefault(str(job["id"]), Pace())

    def _draw(self) -> Any:
        now_ms = self._here.now_ms()
        shown: list[Any] = []
        for job_id, job in self._jobs.items():
            shown += [_headline(job, now_ms), bars(self._paces[job_id].see(job, now_ms))]
        return Group(*shown)


def _headline(job: dict[str, Any], now_ms: int) -> str:
    since_ms = job.get("started_ms") or job.get("submitted_ms", now_ms)
    until_ms = job.get("finished_ms") or now_ms
    line = (
        f"[bold]{job['id']}[/] {plain(job['name'])}  {coloured(job['state'])}  {figures.duration(until_ms - since_ms)}"
    )
    return f"{line}  {plain(job['reason'])}" if job.get("reason") else line


def bars(steps: tuple[StepView, ...]) -> Table:
    """A bar per step, with its tasks and the time left."""
    rows = table("", "", "", "", "")
    rows.show_header = False
    for step in steps:
        rows.add_row(
            f"  {plain(step.name)}",
            ProgressBar(total=1000, completed=step.progress_milli, width=32, finished_style="green"),
            f"{step.done:,}/{step.count:,}",
            coloured(step.state) if step.state != "running" else f"[cyan]{step.running} running[/]",
            _aside(step),
        )
    return rows


def _aside(step: StepView) -> str:
    words = []
    if step.eta_ms is not None:
        words.append(f"about {figures.coarse(max(step.eta_ms, 1000))} left")
    if step.failed:
        words.append(f"[red]{step.failed} failed[/]")
    return "  ".join(words)


class _Lines:
    """For pipes and logs: a line when a step's state changes, and every few seconds when it moves."""

    def __init__(self, here: Session) -> None:
        self._here = here
        self._pace = Pace()
        self._said: dict[str, tuple[str, int, int]] = {}

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, job: dict[str, Any]) -> None:
        now_ms = self._here.now_ms()
        for step in self._pace.see(job, now_ms):
            state, done, at_ms = self._said.get(step.name, ("waiting", 0, 0))
            moved = step.done != done and now_ms - at_ms >= _LINE_EVERY_MS
            if step.state != state or moved:
                self._said[step.name] = (step.state, step.done, now_ms)
                left = f", {_aside(step)}" if _aside(step) else ""
                self._here.say(f"{job['id']} {plain(step.name)}: {step.done}/{step.count} {step.state}{left}")
