"""``demo``: a film and a training run side by side on this machine, for two tenants. What ``make demo`` runs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import scheduler
from scheduler.cli import doctor
from scheduler.cli.app import SERVICE, session, verb
from scheduler.cli.artefacts import Artefact, Books, make, read
from scheduler.cli.cluster import show_usage
from scheduler.cli.exits import CliError, Exit
from scheduler.cli.lifecycle import start
from scheduler.cli.money import show_statements, show_verdict, show_voucher_list
from scheduler.cli.report import show
from scheduler.cli.session import Session, coloured
from scheduler.cli.submit import read_job_file
from scheduler.cli.watch import first_failure, follow_all
from scheduler.report import figures

_SHOWN_LOG_LINES = 15
_EXAMPLES = Path(scheduler.__file__).parents[1] / "examples"
_PARK = _EXAMPLES / "config" / "park.yaml"
STUDIO, LAB = "studio", "lab"
"""The tenants of ``examples/config/park.yaml``."""


@verb("demo", panel=SERVICE, example="shisuan demo")
def demo(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes.")] = Path("build/demo"),
    film: Annotated[Path, typer.Option(metavar="FILE", help="The studio's job file.")] = _EXAMPLES / "film.yaml",
    train: Annotated[Path, typer.Option(metavar="FILE", help="The lab's job file.")] = _EXAMPLES / "train.yaml",
    park: Annotated[Path, typer.Option(metavar="FILE", help="Tenants, shares, prices.")] = _PARK,
) -> None:
    """Render and encode a film and train a model here, side by side, for two tenants.

    Leaves pictures, the film, the model, charts, records and each tenant's bill. Again makes them anew.
    """
    here = session(ctx)
    folder = folder.absolute()
    here.home = folder / "home"
    began_ms = here.now_ms()
    with _stage(here, "Look at this machine"):
        _look_around(here)
    with _stage(here, "Start the service"):
        url = start(here, ["--config", str(park.absolute())]).url
    here.say(f"  page {url}   key {here.home}/key")
    with _stage(here, "Submit the film and the training run"):
        ids = [_submit(here, STUDIO, film), _submit(here, LAB, train)]
    with _stage(here, "Render, encode and train"):
        final = follow_all(here, ids)
        for job in final.values():
            _require_success(here, job)
    with _stage(here, "Draw what happened"):
        books = read(here, ids)
        made = make(books, folder, here.now_ms())
    with _stage(here, "Make the bills and verify the ledger"):
        bills = _bills(here, ids)
        made = (*made, _write(bills, folder))
    took = figures.duration(here.now_ms() - began_ms)

    def tell(out: Console) -> None:
        _tell(out, books, made, took)
        _tell_money(out, bills)
        _tell_where(here, out, url)

    here.show(_json(books, made, bills, url), tell)


@contextmanager
def _stage(here: Session, name: str) -> Iterator[None]:
    """Says what begins, and on a failure which stage it was."""
    began_ms = here.now_ms()
    here.say(f"[bold]{name}[/]")
    try:
        yield
    except CliError as error:
        raise CliError(f"the demo stopped at: {name}\n{error}", Exit.FAILED) from error
    except (OSError, ValueError) as error:
        raise CliError(f"the demo stopped at: {name}\n{type(error).__name__}: {error}", Exit.FAILED) from error
    here.say(f"  done in {figures.duration(here.now_ms() - began_ms)}")


def _look_around(here: Session) -> None:
    """What the demo needs, before minutes are spent. Raises CliError with what to do."""
    checks = (doctor.check_disk, doctor.check_cards, doctor.check_blender, doctor.check_ffmpeg, doctor.check_torch)
    findings = [check(here) for check in checks]
    for finding in findings:
        here.say(f"  {finding.what}: {finding.found.splitlines()[0]}")
    lacking = [f for f in findings if f.verdict in (doctor.Verdict.MISSING, doctor.Verdict.BROKEN)]
    if lacking:
        raise CliError("\n".join(f"{f.what}: {f.found}\n{f.advice}" for f in lacking))


def _submit(here: Session, tenant: str, file: Path) -> str:
    text, base_dir = read_job_file(str(file))
    body = {"file": text, "base_dir": str(base_dir), "request_id": uuid.uuid4().hex}
    return str(here.client_of(tenant).post("/jobs", body)["id"])


def _require_success(here: Session, job: dict[str, Any]) -> None:
    if job["state"] == "succeeded":
        return
    lines = [f"{job['id']} {job['state']}" + (f": {job['reason']}" if job.get("reason") else "")]
    if attempt := first_failure(job):
        _, step, index, number = attempt.split(".")
        log = here.client().get(f"/jobs/{job['id']}/logs", task=f"{step}.{index}", attempt=number[1:])
        lines += [
            f"the last lines of {attempt}:",
            *(f"  {line}" for line in log["text"].splitlines()[-_SHOWN_LOG_LINES:]),
        ]
    raise CliError("\n".join(lines), Exit.FAILED)


def _bills(here: Session, ids: Sequence[str]) -> dict[str, Any]:
    """Each job's statement, the vouchers, and the proof that the ledger is what the journal says. Raises CliError."""
    client = here.client()
    bills = {
        "statements": [client.get("/statement", job=job_id) for job_id in ids],
        "vouchers": client.get("/vouchers")["vouchers"],
        "policies": client.get("/policies")["policies"],
        "verification": client.get("/ledger/verify"),
    }
    if not bills["verification"]["ok"]:
        raise CliError(f"the ledger does not verify: {bills['verification']['difference']}")
    return bills


def _write(bills: dict[str, Any], folder: Path) -> Artefact:
    path = folder / "bills.json"
    path.write_text(json.dumps(bills, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return Artefact(kind="bills", name="bills", path=path, lines=("statements, vouchers, the ledger's verification",))


def _json(books: Books, made: Sequence[Artefact], bills: dict[str, Any], url: str) -> dict[str, Any]:
    return {
        "jobs": {job["tenant"]: job["id"] for job in books.jobs},
        "artefacts": [one.json() for one in made],
        "usage_error_ms": books.check.error_ms,
        "bills": bills,
        "url": url,
    }


def _tell(out: Console, books: Books, made: Sequence[Artefact], took: str) -> None:
    out.print()
    for job in books.jobs:
        out.print(f"[bold]{job['id']} {job['name']} of {job['tenant']} {coloured(job['state'])}[/]")
    out.print(f"all of it {took} after the start")
    out.print()
    show_usage(out, list(books.records), list(books.leases))
    out.print()
    show(out, made)


def _tell_money(out: Console, bills: dict[str, Any]) -> None:
    out.print()
    for value in bills["statements"]:
        show_statements(out, value)
        out.print()
    show_voucher_list(out, bills["vouchers"], bills["policies"])
    out.print()
    show_verdict(out, bills["verification"])


def _tell_where(here: Session, out: Console, url: str) -> None:
    out.print()
    out.print(f"{'page':<14}{url}   (sign in with the key in {here.home}/key)", soft_wrap=True)
    out.print(f"{'go on':<14}{here.command('get')}", soft_wrap=True)
    out.print(f"{'stop':<14}{here.command('down')}", soft_wrap=True)
    out.print("The service still runs; stop it with the last line.")
