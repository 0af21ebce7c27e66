"""A cycle as a file: planned again it is the same, and it can become a test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.control import dump
from scheduler.engine import VERSION
from scheduler.model.errors import InvalidInput
from tests.builders import FEATURES, a_job, a_node, a_step
from tests.unit.control.test_whatif import lived


def dumped(park):
    return dump.dump(park.engine.snapshot(), park.now_ms, park.policy, FEATURES)


@pytest.fixture
def park():
    park = lived(5, 60)
    park.submit(a_job(1_000, a_step(count=3, spec='{"argv":["secret"]}'), source="secret: file", request_id="secret"))
    park.see(a_node("late", cpus=64, cards=2))
    return park


def test_a_dump_is_planned_again_as_it_was(park):
    text = dump.text_of(dumped(park))
    found = dump.replay(text)
    assert (found.difference, found.engine) == ("", VERSION)
    assert found.actions > 0
    assert found.actions == len(park.plan().actions)
    assert found.waits == len(park.plan().waits)


def test_a_dump_is_the_same_however_the_engine_came_there(park):
    assert dump.text_of(dumped(park)) == dump.text_of(dumped(park))


def test_it_holds_nothing_the_engine_does_not_read(park):
    text = dump.text_of(dumped(park))
    assert "secret" not in text
    assert '"j1000"' in text


def test_another_decision_is_found_and_shown(park):
    found = dumped(park)
    (first, *_) = [at for at, action in enumerate(found["plan"]["actions"]) if action["is"] == "Start"]
    found["plan"]["actions"][first]["lease"]["allocations"][0]["node"] = "elsewhere"
    difference = dump.replay(dump.text_of(found)).difference
    assert difference.startswith(f'plan.actions[{first}].lease.allocations[0].node: recorded "elsewhere", now ')
    found["plan"]["actions"] = found["plan"]["actions"][:first]
    assert "recorded" in dump.replay(dump.text_of(found)).difference


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"engine": 1}', "not json"])
def test_what_is_no_dump_is_refused(text):
    with pytest.raises(InvalidInput, match="not the dump of a cycle"):
        dump.replay(text)


def test_fields_of_a_newer_model_are_refused(park):
    found = json.loads(dump.text_of(dumped(park)))
    found["policy"]["clairvoyance"] = True
    with pytest.raises(InvalidInput, match="clairvoyance"):
        dump.replay(json.dumps(found))


def test_it_becomes_a_test_that_passes_and_can_fail(park, tmp_path):
    text = dump.text_of(dumped(park))
    (tmp_path / "test_that_day.py").write_text(dump.test_of(text))
    (tmp_path / "test_that_day.json").write_text(text)
    assert _pytest(tmp_path) == 0
    found = json.loads(text)
    found["plan"]["actions"] = []
    (tmp_path / "test_that_day.json").write_text(json.dumps(found))
    assert _pytest(tmp_path) == 1


def _pytest(folder):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    return subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, check=False).returncode
