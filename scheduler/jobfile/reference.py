"""The fields of job files as Markdown tables: ``docs/job-files.md`` carries them, and a test compares.

``python -m scheduler.jobfile.reference docs/job-files.md`` writes them there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scheduler.jobfile import jobfields, kinds

START, END = "<!-- fields -->", "<!-- /fields -->"
_SECTIONS: tuple[tuple[str, str, type[BaseModel], type[BaseModel] | None], ...] = (
    ("Every job", "At the top of every file.", jobfields.JobFields, None),
    ("Every step", "In every step, and at the top of a file of one kind.", jobfields.TaskFields, None),
    ("Commands", "`kind: CommandJob`, or a step with `kind: command`.", kinds.CommandFields, jobfields.TaskFields),
    ("Renders", "`kind: RenderJob`, or a step with `kind: render`.", kinds.RenderFields, jobfields.TaskFields),
    ("Scene script", "Under `scene`, when a script makes the scene.", kinds.SceneScript, None),
    (
        "Transcodes",
        "`kind: TranscodeJob`, or a step with `kind: transcode`.",
        kinds.TranscodeFields,
        jobfields.TaskFields,
    ),
    ("Trainings", "`kind: TrainJob`, or a step with `kind: train`.", kinds.TrainFields, jobfields.TaskFields),
    ("Pipelines", "`kind: Pipeline`.", kinds.Pipeline, jobfields.JobFields),
    ("Steps of a pipeline", "Further fields of each entry under `steps`.", kinds.CommandStep, kinds.CommandFields),
    ("Resources", "Under `resources`.", jobfields.Resources, None),
)


def tables() -> str:
    """One section per group of fields, in the order the models have them."""
    return "\n".join(_section(*section) for section in _SECTIONS)


def _section(title: str, where: str, model: type[BaseModel], without: type[BaseModel] | None) -> str:
    inherited = without.model_fields if without else {}
    rows = [_row(name, info) for name, info in model.model_fields.items() if not _same(info, inherited.get(name))]
    head = "| field | meaning | example | default |\n|---|---|---|---|"
    return "\n".join((f"### {title}", "", where, "", head, *rows, ""))


def _same(info: FieldInfo, inherited: FieldInfo | None) -> bool:
    """Documented with the fields it comes from; one that means something else here is told here again."""
    return inherited is not None and inherited.description == info.description


def _row(name: str, info: FieldInfo) -> str:
    extra = info.json_schema_extra
    otherwise = extra["x-default"] if isinstance(extra, dict) else ""
    example = _shown((info.examples or [""])[0])
    cells = (f"`{name}`", info.description or "", f"`{example}`", str(otherwise))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _shown(example: Any) -> str:
    return example if isinstance(example, str) else json.dumps(example, ensure_ascii=False)


def main(file: str) -> None:
    """Put the tables between the guide's markers."""
    guide = Path(file)
    before, start, rest = guide.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    guide.write_text(f"{before}{start}\n{tables()}{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
