"""What a finished film leaves for people: contact sheet, video and its facts, Gantt chart, usage."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from scheduler.cli.exits import CliError, Exit
from scheduler.cli.session import Session
from scheduler.report import contact_sheet, figures, gantt, timeline, utilisation, utilisation_chart, video
from scheduler.report import usage as sums

_SEALING_LIMIT_S = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefacts:
    """Paths of what was made, and the records behind it."""

    sheet: Path
    chart: Path
    utilisation: Path
    film: Path
    facts: video.VideoFacts
    usage_file: Path
    usage: list[dict[str, Any]]
    leases: list[dict[str, Any]]
    frames: int

    def listed(self) -> tuple[tuple[str, Path, tuple[str, ...]], ...]:
        """``(name, path, lines about it)``."""
        return (
            ("contact sheet", self.sheet, (figures.count(self.frames, "frame"),)),
            ("film", self.film, self.facts.lines()),
            ("Gantt chart", self.chart, ("who held what when",)),
            ("utilisation", self.utilisation, ("how busy it was meanwhile",)),
            ("usage", self.usage_file, (f"{figures.count(len(self.usage), 'record')}; {self.check.sentence}",)),
        )

    @property
    def check(self) -> sums.Conservation:
        """Leased time against recorded time."""
        return sums.conserve(self.leases, self.usage)

    def json(self, url: str) -> dict[str, Any]:
        """For ``--output json``."""
        paths = {
            "contact_sheet": self.sheet,
            "gantt": self.chart,
            "utilisation": self.utilisation,
            "film": self.film,
            "usage": self.usage_file,
        }
        return {
            **{name: str(path) for name, path in paths.items()},
            "film_facts": self.facts.json(),
            "usage_error_ms": self.check.error_ms,
            "url": url,
        }


def make(here: Session, job: dict[str, Any], folder: Path) -> Artefacts:
    """Make them all in ``folder``. Raises CliError or ValueError when something is not as it should be."""
    folder.mkdir(parents=True, exist_ok=True)
    attempts = here.client().pages(f"/jobs/{job['id']}/attempts", "attempts")
    leases, records = sealed(here, job["id"])
    nodes = here.client().get("/nodes")["nodes"]
    frames = previews(attempts)
    if not frames:
        raise CliError("the job published no PNG previews", Exit.FAILED)
    film, facts = _film(attempts, folder)
    line = timeline.build(leases, attempts, nodes, here.now_ms())
    busy = utilisation.build(leases, attempts, nodes, here.now_ms())
    usage_file = folder / "usage.json"
    usage_file.write_text(json.dumps(_books(leases, records), indent=2, ensure_ascii=False) + "\n", "utf-8")
    title = f"{job['name']} ({job['id']})"
    size = f"{facts.width}×{facts.height}"
    return Artefacts(
        sheet=contact_sheet.draw(frames, folder / "contact-sheet.png", f"{title}: {len(frames)} frames, {size}"),
        chart=gantt.draw(line, folder / "gantt.png", f"{title}: who held what when"),
        utilisation=utilisation_chart.draw(busy, folder / "utilisation.png", f"{title}: how busy its devices were"),
        film=film,
        facts=facts,
        usage_file=usage_file,
        usage=records,
        leases=leases,
        frames=len(frames),
    )


def _books(leases: list[dict[str, Any]], records: list[dict[str, Any]]) -> dict[str, Any]:
    """The records, their sums, and the check of both against the leases."""
    check = sums.conserve(leases, records)
    return {
        "totals": [asdict(total) for total in sums.totals(records)],
        "conservation": {**asdict(check), "error_ms": check.error_ms},
        "records": records,
    }


def sealed(here: Session, job_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Leases and usage records once every lease is closed and recorded: a moment after the job's last word."""
    for _ in range(_SEALING_LIMIT_S * 5):
        leases = here.client().pages("/leases", "leases", job=job_id)
        records = here.client().pages("/usage", "records", job=job_id)
        check = sums.conserve(leases, records)
        if not check.open_leases and not check.error_ms:
            break
        here.sleep(0.2)
    return leases, records


def previews(attempts: list[dict[str, Any]]) -> list[tuple[str, Path]]:
    """``(number, PNG)`` of every frame in order of task."""
    done = sorted((a for a in attempts if a["state"] == "succeeded"), key=lambda a: (a["step"], a["index"]))
    paths = [local_path(uri) for a in done for uri in a["outputs"] if uri.lower().endswith(".png")]
    return [(frame_number(path), path) for path in paths]


def frame_number(path: Path) -> str:
    """``0012`` for ``film.0012.png``; the whole name where it ends in no number."""
    found = re.search(r"\d+$", path.stem)
    return found[0] if found else path.stem


def _film(attempts: list[dict[str, Any]], folder: Path) -> tuple[Path, video.VideoFacts]:
    done = [uri for a in attempts if a["state"] == "succeeded" for uri in a["outputs"]]
    films = [local_path(uri) for uri in done if uri.lower().endswith((".mp4", ".mov", ".mkv"))]
    if not films:
        raise CliError("the job published no video", Exit.FAILED)
    target = folder / f"film{films[-1].suffix}"
    shutil.copyfile(films[-1], target)
    return target, video.read(target)


def local_path(uri: str) -> Path:
    """The file behind an output's URI on this machine. Raises CliError for another kind of storage."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return Path(unquote(parts.path))
    raise CliError(f"{uri} does not lie on this machine")
