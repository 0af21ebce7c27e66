"""What finished jobs leave for people: contact sheets, films and their facts, loss curves, a Gantt chart, usage."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from scheduler.cli.exits import CliError, Exit
from scheduler.cli.session import Session
from scheduler.report import contact_sheet, figures, gantt, loss_curve, timeline, utilisation, utilisation_chart, video
from scheduler.report import usage as sums

Json = dict[str, Any]

_SEALING_LIMIT_S = 15
_SHEET_FROM = 2
"""A contact sheet of fewer frames shows nothing that the frame does not."""
_DEVICES_TOLD = 8
SMALL = ".small.jpg"
"""Ending of the picture that a large still is looked at by."""
_FILMS = (".mp4", ".mov", ".mkv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """One thing to look at."""

    kind: str
    """``contact_sheet``, ``still``, ``film``, ``model``, ``loss``, ``gantt``, ``usage``, …"""
    name: str
    """For people: ``contact sheet of frames``."""
    path: Path
    lines: tuple[str, ...] = ()
    """Facts about it."""
    facts: Json | None = None
    """The same for ``--output json``, where there is more to say."""

    def json(self) -> Json:
        """For ``--output json``."""
        return {"kind": self.kind, "name": self.name, "path": str(self.path), "facts": self.facts or {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The records of some jobs, and what is drawn from them."""

    jobs: tuple[Json, ...]
    attempts: tuple[Json, ...]
    leases: tuple[Json, ...]
    records: tuple[Json, ...]
    nodes: tuple[Json, ...]

    @property
    def check(self) -> sums.Conservation:
        """Leased time against recorded time."""
        return sums.conserve(self.leases, self.records)

    @property
    def title(self) -> str:
        """The jobs' names and ids."""
        return ", ".join(f"{job['name']} ({job['id']})" for job in self.jobs)

    def of(self, job: Json, step: Json) -> list[Json]:
        """Successful attempts of one step, in order of task."""
        mine = (job["id"], step["name"], "succeeded")
        found = [a for a in self.attempts if (a["job_id"], a["step"], a["state"]) == mine]
        return sorted(found, key=lambda a: a["index"])


def read(here: Session, job_ids: Sequence[str]) -> Books:
    """Everything recorded about these jobs, once their last leases are sealed: a moment after the last word."""
    client = here.client()
    jobs = tuple(client.get(f"/jobs/{job_id}") for job_id in job_ids)
    leases: list[Json] = []
    records: list[Json] = []
    for _ in range(_SEALING_LIMIT_S * 5):
        leases = [lease for job in job_ids for lease in client.pages("/leases", "leases", job=job)]
        records = [record for job in job_ids for record in client.pages("/usage", "records", job=job)]
        check = sums.conserve(leases, records)
        if not check.open_leases and not check.error_ms:
            break
        here.sleep(0.2)
    attempts = tuple(a for job in job_ids for a in client.pages(f"/jobs/{job}/attempts", "attempts"))
    nodes = tuple(client.get("/nodes")["nodes"])
    return Books(jobs=jobs, attempts=attempts, leases=tuple(leases), records=tuple(records), nodes=nodes)


def make(books: Books, folder: Path, now_ms: int) -> tuple[Artefact, ...]:
    """Draw all there is to see of these jobs into ``folder``. Raises CliError or ValueError for outputs that are not
    what they should be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Artefact] = []
    for job in books.jobs:
        for step in job["steps"]:
            maker = _MAKERS.get(step["kind"])
            found += maker(books, job, step, folder) if maker else ()
    line = timeline.build(books.leases, books.attempts, books.nodes, now_ms)
    chart = gantt.draw(line, folder / "gantt.png", f"{books.title}: who held what when")
    found.append(Artefact(kind="gantt", name="Gantt chart", path=chart, lines=("who held what when",)))
    busy = utilisation.build(books.leases, books.attempts, books.nodes, now_ms)
    if busy.rows:
        chart = utilisation_chart.draw(busy, folder / "utilisation.png", f"{books.title}: how busy the devices were")
        lines = tuple(row.sentence for row in busy.rows[:_DEVICES_TOLD])
        found.append(Artefact(kind="utilisation", name="utilisation", path=chart, lines=lines))
    found.append(_usage(books, folder))
    return tuple(found)


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _pictures(books: Books, job: Json, step: Json, folder: Path) -> Iterator[Artefact]:
    frames = previews(books.of(job, step))
    if len(frames) >= _SHEET_FROM:
        title = f"{job['name']} ({job['id']}) {step['name']}: {figures.count(len(frames), 'frame')}"
        path = contact_sheet.draw(frames, folder / f"{_file(job, step)}-contact-sheet.png", title)
        lines = (figures.count(len(frames), "frame"),)
        yield Artefact(kind="contact_sheet", name=f"contact sheet of {step['name']}", path=path, lines=lines)
    elif frames:
        exr = next((p for p in _outputs(books.of(job, step)) if p.suffix == ".exr"), None)
        lines = (f"OpenEXR: {exr}",) if exr else ()
        yield Artefact(kind="still", name=f"picture {step['name']}", path=frames[0][1], lines=lines)


def previews(attempts: Iterable[Json]) -> list[tuple[str, Path]]:
    """``(number, picture)`` of every frame in order of task; the small picture of a large frame stands for it."""
    found: dict[str, Path] = {}
    for path in _outputs(attempts):
        is_small = path.name.endswith(SMALL)
        if is_small or (path.suffix.lower() == ".png" and frame_number(path) not in found):
            found[frame_number(path)] = path
    return list(found.items())


def frame_number(path: Path) -> str:
    """``0012`` for ``film.0012.png`` and ``film.0012.small.jpg``; the whole name where it ends in no number."""
    stem = path.name.removesuffix(SMALL).removesuffix(path.suffix)
    found = re.search(r"\d+$", stem)
    return found[0] if found else stem


# ── films ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _film(books: Books, job: Json, step: Json, folder: Path) -> Iterator[Artefact]:
    del folder
    for path in _outputs(books.of(job, step)):
        if path.suffix.lower() in _FILMS:
            facts = video.read(path)
            yield Artefact(kind="film", name=f"film {step['name']}", path=path, lines=facts.lines(), facts=facts.json())


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _training(books: Books, job: Json, step: Json, folder: Path) -> Iterator[Artefact]:
    tries = [a for a in books.attempts if (a["job_id"], a["step"]) == (job["id"], step["name"])]
    curves = curves_of(tries)
    if curves:
        path = loss_curve.draw(curves, folder / f"{_file(job, step)}-loss.png", f"{job['name']} ({job['id']}): loss")
        last = curves[-1].points[-1]
        yield Artefact(kind="loss", name="loss curve", path=path, lines=(f"loss {last.loss:.3f} at step {last.step}",))
    for path in _outputs(books.of(job, step)):
        yield Artefact(kind="model", name="trained", path=path, lines=(figures.size(path.stat().st_size),))


def curves_of(attempts: Iterable[Json]) -> list[loss_curve.Curve]:
    """What each attempt of a training step said of its steps, in order of attempt."""
    curves = []
    for attempt in sorted(attempts, key=lambda a: a["number"]):
        metrics = json.loads(attempt["facts"] or "{}").get("metrics", [])
        points = tuple(
            loss_curve.Point(step=int(m["step"]), loss=float(m["loss"]), tokens_per_s=float(m.get("tokens_per_s", 0)))
            for m in metrics
            if "loss" in m and "step" in m
        )
        if points:
            curves.append(loss_curve.Curve(label=f"attempt {attempt['number']}", points=points))
    return curves


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _usage(books: Books, folder: Path) -> Artefact:
    """The records, their sums, and the check of both against the leases."""
    check = books.check
    body = {
        "totals": [asdict(total) for total in sums.totals(books.records)],
        "conservation": {**asdict(check), "error_ms": check.error_ms},
        "records": list(books.records),
    }
    path = folder / "usage.json"
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", "utf-8")
    lines = (f"{figures.count(len(books.records), 'record')}; {check.sentence}",)
    return Artefact(kind="usage", name="usage", path=path, lines=lines, facts={"error_ms": check.error_ms})


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _file(job: Json, step: Json) -> str:
    return f"{job['id']}-{step['name']}"


def _outputs(attempts: Iterable[Json]) -> list[Path]:
    return [local_path(uri) for attempt in attempts for uri in attempt["outputs"]]


def local_path(uri: str) -> Path:
    """The file behind an output's URI on this machine. Raises CliError for another kind of storage."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return Path(unquote(parts.path))
    raise CliError(f"outputs: {uri} does not lie on this machine; fetch it (aws s3 cp), then look at it", Exit.FAILED)


_MAKERS = {"render": _pictures, "merge": _pictures, "transcode": _film, "join": _film, "train": _training}
"""What there is to see of a step, by its kind."""
