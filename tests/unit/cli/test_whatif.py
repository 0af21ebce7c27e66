"""``whatif`` on a recorded database, and ``cycle`` against a service's answer."""

import json

import pytest

from scheduler.control import dump
from scheduler.model import catalogue
from scheduler.model.node import Device
from tests.builders import Park, a_job, a_node
from tests.unit.control.world import World, step


@pytest.fixture
def recorded(tmp_path, capsys):
    """A database in which one node of one core ran three jobs one after the other."""
    card = Device(id="GPU-0", model="H100-SXM-80GB", memory_mib=81_559)
    world = World(tmp_path, nodes=(a_node("n1", cpus=1, devices=(card,)),))
    jobs = [world.submit(step(), deadline_ms=world.clock.now + 15_000) for _ in range(3)]
    for job in jobs:
        world.run_to_end(job)
    world.close()
    capsys.readouterr()  # the service's log
    return world.url


def test_unchanged_all_starts_are_identical(shisuan, recorded):
    result = shisuan("whatif", "--database", recorded)
    assert (result.code, result.err) == (0, "")
    assert "3 of 3 starts identical" in result.out
    assert "changed: nothing" in result.out


def test_one_more_node_in_both_outputs_and_a_picture(shisuan, recorded, tmp_path):
    picture = tmp_path / "whatif.png"
    words = ("whatif", "--database", recorded, "--add-node", "copy-of=n1,count=2", "--png", str(picture))
    value = json.loads(shisuan(*words, "-o", "json").out)
    assert value["starts"] == {"recorded": 3, "identical": 3, "first_difference": ""}
    assert value["changes"] == ["2 more like n1"]
    assert value["after"]["wait_mean_ms"] == 0 < value["before"]["wait_mean_ms"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = shisuan(*words).out
    assert "CHANGED" in table
    assert "deadlines met" in table


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--add-node", "n1"), "not like copy-of=NODE"),
        (("--add-node", "copy-of=n9"), "unknown node 'n9'"),
        (("--without-node", "n9"), "unknown node 'n9'"),
        (("--policy", "sort=best"), "cannot be 'best'"),
        (("--policy", "missing.yaml"), "cannot read|No such file"),
    ],
)
def test_mistakes_are_one_line(shisuan, recorded, words, text):
    result = shisuan("whatif", "--database", recorded, *words)
    assert result.code == 2
    assert any(part in result.err for part in text.split("|"))


def test_a_policy_file_and_a_knob(shisuan, recorded, tmp_path):
    (tmp_path / "policy.yaml").write_text("sort: served\nbackfill: any\n")
    words = ("--policy", "policy.yaml", "--policy", "backfill=none")
    value = json.loads(shisuan("whatif", "--database", recorded, *words, "-o", "json").out)
    assert value["changes"] == ["sort = served", "backfill = none"]


def test_a_home_without_a_database(shisuan):
    result = shisuan("whatif")
    assert result.code == 2
    assert "holds no database" in result.err


@pytest.fixture
def cycle_file(shisuan, api, tmp_path):
    park = Park(a_node("n1", cpus=2))
    park.submit(a_job(1), a_job(2), a_job(3))
    api.answers["GET /cycle"] = dump.dump(park.engine.snapshot(), park.now_ms, park.policy, catalogue.FEATURES)
    file = tmp_path / "now.json"
    assert shisuan("cycle", "dump", "--out", str(file)).code == 0
    return file


def test_a_cycle_is_dumped_replayed_and_kept_as_a_test(shisuan, cycle_file, tmp_path):
    assert "identical: 2 actions and 1 waits" in shisuan("cycle", "replay", str(cycle_file)).out
    assert json.loads(shisuan("cycle", "dump").out) == json.loads(cycle_file.read_text())
    made = shisuan("cycle", "test", str(cycle_file), "--out", str(tmp_path / "test_then.py"))
    assert made.code == 0
    assert (tmp_path / "test_then.json").read_text() == cycle_file.read_text()
    assert "def test_" in (tmp_path / "test_then.py").read_text()


def test_another_plan_is_shown_with_exit_code_1(shisuan, cycle_file):
    found = json.loads(cycle_file.read_text())
    found["plan"]["actions"].pop()
    cycle_file.write_text(json.dumps(found))
    result = shisuan("cycle", "replay", str(cycle_file))
    assert result.code == 1
    assert "plan.actions: recorded 1 of them, now 2" in result.out


def test_a_test_needs_a_name_that_pytest_finds(shisuan, cycle_file):
    assert shisuan("cycle", "test", str(cycle_file), "--out", "then.py").code == 2
