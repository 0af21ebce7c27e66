"""What editors and readers get is made from the models, and may not drift from them."""

import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from scheduler.jobfile import jobfields, kinds, schema
from scheduler.jobfile.reference import tables
from scheduler.jobfile.text import parse

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def errors(tree):
    return sorted(error.message for error in Draft202012Validator(schema()).iter_errors(tree))


def test_it_is_a_json_schema():
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_validate(path):
    assert not errors(parse(path.read_bytes()))


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "Job"},
        {"run": None},
        {"sample": 1},
        {"retries": "2"},
        {"priority": 101},
        {"resources": {"gpus": 1}},
        {"run": []},
    ],
    ids=str,
)
def test_wrong_files_do_not_validate(changed):
    good = {"apiVersion": "shisuan/v1", "kind": "CommandJob", "name": "a", "run": "a"}
    assert not errors(good)
    assert errors(good | changed)


def test_every_field_tells_editors_what_it_means():
    silent = []
    for name, model in schema()["$defs"].items():
        for field, facts in model["properties"].items():
            if not facts.get("description") or not facts.get("examples"):
                silent.append(f"{name}.{field}")
    assert not silent


def test_enumerations_reach_editors():
    transcode = schema()["$defs"]["TranscodeJob"]["properties"]
    assert transcode["codec"]["enum"] == ["h264", "hevc"]
    assert transcode["kind"]["const"] == "TranscodeJob"


def test_the_guide_carries_the_tables_as_the_models_have_them():
    guide = (ROOT / "docs" / "job-files.md").read_text(encoding="utf-8")
    written = guide.partition("<!-- fields -->\n")[2].partition("<!-- /fields -->")[0]
    assert written.strip() == tables().strip(), "run: python -m scheduler.jobfile.reference docs/job-files.md"


def test_every_field_of_every_model_is_in_the_tables():
    named = set(re.findall(r"^\| `(\w+)` \|", tables(), re.MULTILINE))
    models = (*kinds.JOB_KINDS.values(), *kinds.STEP_KINDS.values(), jobfields.Resources, kinds.SceneScript)
    assert {field for model in models for field in model.model_fields} == named


def test_yaml_blocks_of_the_guide_are_good_files(studio):
    guide = (ROOT / "docs" / "job-files.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    studio.file("shots/010.blend")
    studio.file("scenes/heads.py")
    studio.file("train.py")
    studio.frames("plates/take.{:04d}.png", range(1, 25))
    assert len(blocks) >= 3
    for block in blocks:
        assert not errors(parse(block))
        assert studio.read(block).steps
