from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from scheduler.model.errors import ExecutorError
from workers.tools import Tools, find_tools, prefixes, version

TOOLS = Tools(
    python="/venv/bin/python",
    blender="/b/bin/python",
    blender_runner="/w/blender_runner.py",
    encode_runner="/w/encode_runner.py",
)
BLENDER = ("{blender}", "{blender_runner}")


def test_placeholders_are_replaced_and_other_braces_left():
    words = ("{python}", "{encode_runner}", "a{work}b", "{other}", "${work}x", "{}")
    assert TOOLS.argv(words, "/work/a1") == (
        "/venv/bin/python",
        "/w/encode_runner.py",
        "a/work/a1b",
        "{other}",
        "$/work/a1x",
        "{}",
    )


def test_a_python_with_bpy_and_the_blender_program_take_the_same_order():
    assert TOOLS.argv(BLENDER, "/x") == ("/b/bin/python", "-P", "/w/blender_runner.py")
    program = replace(TOOLS, blender="/opt/blender/blender", blender_is_python=False)
    assert program.argv((*BLENDER, "more"), "/x") == (
        "/opt/blender/blender",
        "-b",
        "--factory-startup",
        "--disable-autoexec",
        "-P",
        "/w/blender_runner.py",
        "--",
        "more",
    )


def test_a_node_without_blender_says_how_to_get_one():
    with pytest.raises(ExecutorError, match="SHISUAN_BLENDER"):
        replace(TOOLS, blender="").argv(BLENDER, "/x")


def test_paths_inside_json_stay_json():
    text = TOOLS.text('{"out":"{work}/outputs"}', '/odd "name"')
    assert json.loads(text) == {"out": '/odd "name"/outputs'}


def test_the_environment_names_blender(monkeypatch, tmp_path):
    program = tmp_path / "blender"
    program.write_text("#!/bin/sh\necho Blender 9.9\n")
    program.chmod(0o755)
    monkeypatch.setenv("SHISUAN_BLENDER", str(program))
    found = find_tools()
    assert (found.blender, found.blender_is_python) == (str(program), False)
    assert version([found.blender]) == "Blender 9.9"


def test_a_program_that_does_not_run_has_no_version():
    assert version(["/no/such/program"]) == ""
    assert version(["/bin/false"]) == ""


def test_an_interpreter_brings_its_environment_and_its_base(tmp_path):
    base = tmp_path / "base" / "bin"
    base.mkdir(parents=True)
    (base / "python3").touch()
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").symlink_to(base / "python3")
    (tmp_path / "venv" / "pyvenv.cfg").write_text(f"home = {base}\n")
    assert prefixes(str(venv / "python")) == (str(tmp_path / "base"), str(tmp_path / "venv"))
    assert all(os.path.isabs(path) for path in prefixes(str(venv / "python")))  # noqa: PTH117
    assert prefixes("/usr/bin/env") == ()
