"""Mistakes of somebody's first hour: one sentence that says what to do."""

import os
import sys
from pathlib import Path

import pytest

from scheduler import wiring
from scheduler.cli import lifecycle
from scheduler.cli.home import Instance
from scheduler.cli.main import typed
from tests.unit.cli.conftest import error, job

STARTED = {"roots": ["/films"], "cpu_milli": 2000, "cards": "", "config": "", "nodes_file": "/nodes.yaml"}


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ([], []),
        (["--root", "/films"], []),
        (["--root", "/films", "--root", "/plates"], ["--root", "/plates"]),
        (["--cpus", "2", "--nodes", "/nodes.yaml", "--port", "4040"], []),
        (
            ["--cards", "8xH100", "--cpus", "4", "--port", "4041"],
            ["--cards", "8xH100", "--cpus", "4", "--port", "4041"],
        ),
    ],
)
def test_up_tells_options_that_the_running_service_does_not_have(options, missing):
    found = Instance(pid=1, url="http://127.0.0.1:4040", settings=STARTED)
    assert lifecycle.unlike(found, options) == missing


def test_up_with_other_options_does_not_pretend_they_were_taken(shisuan, monkeypatch):
    monkeypatch.setattr(lifecycle, "running", lambda home: Instance(pid=1, url="http://127.0.0.1:1", settings=STARTED))
    result = shisuan("up", "--cards", "8xH100")
    assert result.code == 2
    assert "without --cards 8xH100. To start it so: shisuan down, then this command again." in result.err


def test_a_command_without_the_dashes_is_told_where_they_go(shisuan):
    result = shisuan("submit", "echo", "hello world")
    assert result.code == 2
    assert "before a command goes --, as in: shisuan submit -- echo 'hello world'" in result.err


def test_watch_without_any_service_does_not_wait_for_one(shisuan, monkeypatch):
    monkeypatch.delenv("SHISUAN_URL")
    result = shisuan("watch", "j17")
    assert result.code == 4
    assert result.err.startswith("error: no service runs in ")


def test_no_key_at_all_names_the_variable(shisuan, api, monkeypatch):
    monkeypatch.delenv("SHISUAN_KEY")
    api.answers["GET /jobs"] = error("Unauthorized", "no API key: send the header", 401)
    result = shisuan("get")
    assert result.code == 2
    assert "set SHISUAN_KEY" in result.err


def test_version(shisuan):
    result = shisuan("--version")
    assert (result.code, result.out) == (0, f"shisuan {wiring.version()}\n")


def test_hints_can_be_typed_where_the_command_is_not_on_the_path(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "shisuan"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", "")
    assert typed(str(program)) == str(program)
    monkeypatch.setenv("PATH", os.fspath(program.parent))
    assert typed(str(program)) == "shisuan"
    assert typed(str(Path(sys.argv[0]).with_name("main.py"))) == "shisuan"


def test_a_narrow_terminal_keeps_ids_and_states_whole(shisuan, api, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    api.answers["GET /jobs"] = {"jobs": [job("succeeded", name="a name that is longer than the room there is")]}
    lines = shisuan("get").out.splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert "j17" in lines[1]
    assert "succeeded" in lines[1]


def test_verify_of_a_folder_without_an_installation_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("SHISUAN_DATABASE_URL", raising=False)
    assert wiring.main(["--home", str(tmp_path / "typo"), "--verify"]) == wiring.EXIT_REFUSED
    assert "holds no database" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_a_blender_that_lacks_a_library_says_which_and_what_to_install(monkeypatch):
    from scheduler.cli import doctor
    from workers import tools

    words = "ImportError: libXrender.so.1: cannot open shared object file: No such file or directory"
    found = tools.Tools(python="python", blender="/opt/bpy/bin/python", blender_runner="r", encode_runner="e")
    monkeypatch.setattr(tools, "find_tools", lambda: found)
    monkeypatch.setattr(tools, "blender_version", lambda _: "")
    monkeypatch.setattr(tools, "why_no_blender", lambda _: words)
    finding = doctor.check_blender(None)
    assert (finding.verdict, words in finding.found) == (doctor.Verdict.MISSING, True)
    assert "libxrender1" in finding.advice


def test_why_a_blender_does_not_start_is_its_own_last_word(tmp_path):
    from workers import tools

    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'Traceback'\necho 'ImportError: libX11.so.6: cannot open' >&2\nexit 1\n")
    program.chmod(0o755)
    broken = tools.Tools(python="python", blender=str(program), blender_runner="r", encode_runner="e")
    assert tools.why_no_blender(broken) == "ImportError: libX11.so.6: cannot open"
    program.write_text("not a program")
    assert "Exec format error" in tools.why_no_blender(broken)


def test_doctor_says_which_package_transcodes_lack(monkeypatch):
    from scheduler.cli import doctor

    monkeypatch.setitem(sys.modules, "ffmpeg", None)  # as where the extra 'media' is not installed
    for name in ("workers.ffmpeg", "workers.ffmpeg_binary"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr("workers.ffmpeg_binary", raising=False)
    finding = doctor.check_ffmpeg(None)
    assert (finding.verdict, "package ffmpeg is not installed" in finding.found) == (doctor.Verdict.MISSING, True)
