"""``logs``: what an attempt printed, as it prints it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from scheduler.cli.app import session, verb
from scheduler.cli.exits import CliError
from scheduler.cli.jobs import job_id
from scheduler.cli.session import Session

_POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whose log: a job, a step of it, a task, or one attempt of a task."""

    job: str
    step: str = ""
    index: int | None = None
    attempt: int | None = None


def parse_target(text: str) -> Target:
    """``j17``, ``j17.render``, ``j17.render.3`` or ``j17.render.3.a2``. Raises CliError."""
    job, *rest = text.split(".")
    job_id(job)
    try:
        index = int(rest[1]) if len(rest) > 1 else None
        attempt = int(rest[2].removeprefix("a")) if len(rest) > 2 else None
    except ValueError:
        index = attempt = None
        rest = ["", "", "", ""]
    if len(rest) > 3:
        raise CliError(
            f"{text!r} names no task: write JOB, JOB.STEP, JOB.STEP.INDEX or JOB.STEP.INDEX.aN, such as j17.render.3"
        )
    return Target(job=job, step=rest[0] if rest else "", index=index, attempt=attempt)


@verb("logs", example="shisuan logs j17.render.3 -f")
def logs(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="JOB[.STEP[.INDEX[.aN]]]", show_default=False)],
    rank: Annotated[int, typer.Option(metavar="N", min=0, help="Of a gang: which rank's.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", metavar="", help="Go on until the attempt ends.")] = False,
) -> None:
    """Print a task's log.

    For a whole job or step: the log of its first failed task, else of the latest one. On Kubernetes it lies in the
    tenant's storage and stays readable after its pod; the newest lines of what runs come within seconds.
    """
    here = session(ctx)
    wanted = parse_target(target)
    step, index, number = one = choose(wanted, _attempts(here, wanted, wait=follow))
    if wanted.index is None:
        here.say(f"==> {wanted.job}.{step}.{index} (attempt {number}) <==")
    if here.is_json:
        here.show(_chunk(here, wanted.job, one, 0, rank), lambda _: None)
        return
    offset = 0
    while True:
        chunk = _chunk(here, wanted.job, one, offset, rank)
        sys.stdout.write(chunk["text"])
        sys.stdout.flush()
        moved, offset = chunk["next_offset"] != offset, chunk["next_offset"]
        if not moved and (chunk["end"] or not follow):
            _say_how_it_ended(here, chunk)
            return
        if not moved:
            here.sleep(_POLL_S)


def _say_how_it_ended(here: Session, chunk: dict[str, Any]) -> None:
    """Beside the log: what is missing in it, why the attempt ended, and whose logs there are besides."""
    if chunk.get("note"):
        here.say(str(chunk["note"]))
    if chunk.get("reason"):
        here.say(f"==> {chunk['attempt_id']} {chunk['state']}: {chunk['reason']} <==")
    if chunk.get("ranks", 1) > 1:
        here.say(f"==> rank {chunk['rank']} of 0 to {chunk['ranks'] - 1}: --rank N shows another's <==")


def _chunk(here: Session, job: str, one: tuple[str, int, int], offset: int, rank: int) -> dict[str, Any]:
    step, index, number = one
    chunk: dict[str, Any] = here.client().get(
        f"/jobs/{job}/logs", task=f"{step}.{index}", attempt=number, offset=offset, rank=rank
    )
    return chunk


def _attempts(here: Session, wanted: Target, *, wait: bool) -> list[dict[str, Any]]:
    """Attempts of the job or step; with ``wait``, not before there is one."""
    while True:
        found: list[dict[str, Any]] = here.client().pages(f"/jobs/{wanted.job}/attempts", "attempts", step=wanted.step)
        if wanted.index is not None:
            found = [a for a in found if a["index"] == wanted.index]
        if found:
            return found
        if not wait:
            what = ".".join(str(p) for p in (wanted.job, wanted.step, wanted.index) if p not in ("", None))
            raise CliError(f"{what} has no log yet: nothing of it has started. Why: shisuan explain {wanted.job}")
        here.sleep(_POLL_S)


def choose(wanted: Target, found: list[dict[str, Any]]) -> tuple[str, int, int]:
    """``(step, index, attempt number)`` to show. Raises CliError when the named attempt does not exist."""
    if wanted.attempt is not None:
        found = [a for a in found if a["number"] == wanted.attempt]
        if not found:
            raise CliError(f"{wanted.job}.{wanted.step}.{wanted.index} has no attempt {wanted.attempt}")
    bad = [a for a in found if a.get("state") in ("failed", "timed_out")]
    if bad and wanted.index is None:
        one = min(bad, key=lambda a: (a.get("finished_ms", 0), a["id"]))
    else:
        one = max(found, key=lambda a: (a.get("started_ms", 0), a["number"], a["id"]))
    return str(one["step"]), int(one["index"]), int(one["number"])
