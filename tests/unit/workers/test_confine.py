from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from scheduler.model.errors import ExecutorError
from scheduler.model.lease import AttemptState
from tests.unit.workers.helpers import NODE, TENANT, Reader, agent, lease, shell, task, until
from workers import confine
from workers.agent import Agent
from workers.devices import device_files
from workers.tools import Tools, find_tools

HOSTILE = Path(__file__).with_name("hostile_runner.py")
SECRET = "the-park-s-database-password"


@pytest.fixture
def listener():
    server = socket.create_server(("127.0.0.1", 0))
    yield server.getsockname()[1]
    server.close()


@pytest.fixture
def open_home():
    """A home other users may pass through, as an installation for the ``uid`` level needs."""
    home = Path(tempfile.mkdtemp(prefix="shisuan-test-"))
    home.chmod(0o711)
    yield home
    shutil.rmtree(home)


def started(run, level, **fields):
    try:
        return run(confinement=level, **fields)
    except ExecutorError as error:
        pytest.skip(str(error))


def targets(home, port):
    """Secrets of an installation, and where they lie."""
    places = {
        home / "shisuan.db": "db",
        home / "key": "key",
        home / "instance.json": "x",
        home / "nodes" / NODE / "rival" / "work" / "j1.s.0.a1" / "film.exr": "frames",
        home / "storage" / "rival" / "film.exr": "frames",
    }
    Agent(node=NODE, tenant="rival", home=home, confinement="none", tools=find_tools()).close()
    (home / "storage" / "rival").mkdir(parents=True, mode=0o700)
    for path, text in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
    own = home / "nodes" / NODE / TENANT
    return {
        "secret": SECRET,
        "port": port,
        "service_pid": os.getpid(),
        "read": [*map(str, places), str(own / "table.log"), "/etc/shadow", f"/proc/{os.getpid()}/environ"],
        "write": [str(own / "table.log"), str(own / "work" / "x"), str(home / "shisuan.db"), "/usr/x", "/etc/x"],
        "list": [str(home / "storage" / "rival"), str(own / "logs"), str(home / "nodes" / NODE / "rival" / "work")],
    }


def attack(one, reader, python, wanted):
    hostile = task(python, "-P", "{encode_runner}", json.dumps(wanted), literal=False)
    one.submit([lease(hostile)])
    done = reader.finished()
    text = one.read_log("j1.s.0.a1").text
    assert done.state is AttemptState.SUCCEEDED, text
    [line] = [line for line in text.splitlines() if line.startswith("GOT ")]
    return json.loads(line[4:])


def nothing_was_written(home):
    """What a runner writes into the sandbox's own memory is of no use to it."""
    own = home / "nodes" / NODE / TENANT
    return (
        (home / "shisuan.db").read_text() == "db"
        and (own / "table.log").read_bytes().count(b'"k":"finish"') == 1
        and not any(path.exists() for path in (own / "work" / "x", Path("/usr/x"), Path("/etc/x")))
    )


def test_a_hostile_runner_in_a_sandbox_gets_nothing(run, home, listener, monkeypatch):
    monkeypatch.setenv("SHISUAN_DATABASE_URL", SECRET)
    one, reader = started(run, "bubblewrap", runner=HOSTILE)
    got = attack(one, reader, "{python}", targets(home, listener))
    assert {name for name in got if not name.startswith("write ")} == set()
    assert nothing_was_written(home)


def test_a_hostile_runner_with_a_user_id_of_its_own_gets_no_file_and_no_process(open_home, listener, monkeypatch):
    """The network stays open at this level; ``doctor`` and the README say so."""
    python = "/usr/bin/python3"
    if not Path(python).exists():
        pytest.skip("no system Python")
    monkeypatch.setenv("SHISUAN_DATABASE_URL", SECRET)
    runner = open_home / "hostile.py"
    shutil.copy(HOSTILE, runner)
    runner.chmod(0o644)
    tools = Tools(python=python, blender_runner="", encode_runner=str(runner))
    try:
        one = Agent(node=NODE, tenant=TENANT, home=open_home, confinement="uid", tools=tools)
    except ExecutorError as error:
        pytest.skip(str(error))
    try:
        got = attack(one, Reader(one), "{python}", targets(open_home, listener))
    finally:
        one.close()
    assert set(got) <= {"connect", "http"}
    assert nothing_was_written(open_home)


def test_without_confinement_it_is_said(run):
    one, _ = run(confinement="none")
    assert one.level().startswith("none: runners run as this service's own user")


def test_the_level_is_said(run):
    one, _ = started(run, "bubblewrap")
    assert one.level().startswith("bubblewrap: ")


def test_an_unknown_level_lists_the_valid_ones(home):
    with pytest.raises(ExecutorError, match="valid: auto, bubblewrap, uid, none"):
        agent(home, confinement="docker")


def test_only_the_named_inputs_are_visible_and_none_is_writable(run, tmp_path):
    one, reader = started(run, "bubblewrap")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("A")
    (tmp_path / "other").write_text("B")
    text = f"cd {tmp_path}; cat in/a; cat other && exit 1; echo x >in/a && exit 2; exit 0"
    one.submit([lease(shell(text, reads=(str(tmp_path / "in"),)), roots=(str(tmp_path),))])
    done = reader.finished()
    assert done.state is AttemptState.SUCCEEDED, one.read_log("j1.s.0.a1").text
    assert one.read_log("j1.s.0.a1").text.splitlines()[0].startswith("A")
    assert (tmp_path / "in" / "a").read_text() == "A"


def test_an_input_folder_above_the_home_does_not_show_the_home(run, home, tmp_path):
    one, reader = started(run, "bubblewrap")
    (home / "key").write_text("secret")
    (tmp_path / "plain").write_text("P")
    text = f"cat {tmp_path}/plain; test ! -e {home}/key && test ! -e {home}/nodes/{NODE}/{TENANT}/table.log"
    one.submit([lease(shell(text, reads=(str(tmp_path),)), roots=(str(tmp_path),))])
    assert reader.finished().state is AttemptState.SUCCEEDED


@pytest.mark.parametrize("where", ["/etc/hostname", "link"])
def test_an_input_outside_the_roots_fails_the_task(run, tmp_path, where):
    one, reader = run()
    (tmp_path / "link").symlink_to("/etc/hostname")
    path = str(tmp_path / where)
    one.submit([lease(shell("true", reads=(path,)), roots=(str(tmp_path),))])
    done = reader.finished()
    assert done.state is AttemptState.FAILED
    assert "outside the tenant's storage roots" in done.message


def test_a_missing_input_is_named(run, tmp_path):
    one, reader = run()
    one.submit([lease(shell("true", reads=(str(tmp_path / "gone.blend"),)), roots=(str(tmp_path),))])
    assert reader.finished().message == f"input {tmp_path / 'gone.blend'} does not exist"


def test_a_loader_variable_does_not_reach_the_confining_program(run, tmp_path):
    """Otherwise a tenant's library would run as the agent's user, outside."""
    one, reader = started(run, "bubblewrap")
    env = {"LD_PRELOAD": f"{tmp_path}/evil.so", "LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": f"{tmp_path}/trace"}
    one.submit([lease(task("/bin/true", env=tuple(env.items())))])
    reader.finished()
    assert list(tmp_path.glob("trace*")) == []


def test_a_token_is_on_no_command_line(run, tmp_path):
    one, reader = started(run, "bubblewrap")
    one.submit([lease(shell("echo here; sleep 600", token="tok-4711", grace_ms=0))])
    until(lambda: "here" in one.read_log("j1.s.0.a1").text, "it runs")
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:
            continue
    assert not [line for line in lines if b"tok-4711" in line]
    one.stop(["l1"], "enough")
    reader.finished()


def test_sigterm_reaches_the_runner_inside(run):
    one, reader = started(run, "bubblewrap")
    one.submit([lease(shell("trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.01; done"))])
    until(lambda: "ready" in one.read_log("j1.s.0.a1").text, "it runs")
    one.stop(["l1"], "cancelled by a user")
    assert reader.finished().state is AttemptState.CANCELLED
    assert "saved" in one.read_log("j1.s.0.a1").text


def test_a_program_the_runner_may_not_see_is_named(run, tmp_path):
    one, reader = started(run, "bubblewrap")
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho tool\n")
    tool.chmod(0o755)
    one.submit([lease(task(str(tool)))])
    assert "may not see the program" in reader.finished().message
    one.submit([lease(task(str(tool), index=1, reads=(str(tool),)), lease_id="l2", roots=(str(tmp_path),))])
    assert reader.finished("j1.s.1.a1").state is AttemptState.SUCCEEDED


def test_outputs_are_published_from_the_work_folder_only(run, tmp_path):
    one, reader = started(run, "bubblewrap")
    out = tmp_path / "out"
    text = "echo frame >outputs/f.exr; ln -s /etc/passwd outputs/link; echo no >loose"
    one.submit([lease(shell(text, output_dir=str(out), outputs=("*",)), roots=(str(tmp_path),))])
    done = reader.finished()
    assert done.outputs == (f"{out}/f.exr",)
    assert sorted(p.name for p in out.iterdir()) == [".shisuan", "f.exr"]


def test_our_interpreter_runs_inside(run):
    one, reader = started(run, "bubblewrap")
    own = {"pytest-of-" + getpass.getuser(), *Path(sys.prefix).parts}  # the work folder, and a checkout below /tmp
    code = f"import numpy, ssl, os; print([n for n in os.listdir('/tmp') if n not in {own}])"
    one.submit([lease(task("{python}", "-P", "-c", code, literal=False))])
    assert reader.finished().state is AttemptState.SUCCEEDED, one.read_log("j1.s.0.a1").text
    assert one.read_log("j1.s.0.a1").text == "[]\n"


def test_device_files_are_those_of_the_cards(tmp_path):
    for at, uuid in enumerate(("GPU-aa", "GPU-bb")):
        info = tmp_path / "proc" / f"0000:0{at}:00.0"
        info.mkdir(parents=True)
        (info / "information").write_text(f"Model: \t\t H100\nGPU UUID:   \t {uuid}\nDevice Minor: \t {at}\n")
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / "dev" / name).touch()
    own = device_files(("GPU-bb",), proc=tmp_path / "proc", dev=tmp_path / "dev")
    assert [name for name in own if name.startswith(str(tmp_path))] == [str(tmp_path / "dev" / "nvidia1")]
    assert "/dev/nvidiactl" in own
    every = device_files(("MIG-x",), proc=tmp_path / "proc", dev=tmp_path / "dev")
    assert len([name for name in every if name.startswith(str(tmp_path))]) == 2


def test_the_copy_of_etc_has_no_secret(tmp_path):
    confine.copy_etc(tmp_path / "etc")
    confine.copy_etc(tmp_path / "etc")
    names = {path.name for path in (tmp_path / "etc").rglob("*")}
    assert "passwd" in names
    assert not names & {"shadow", "gshadow", "sudoers", "ssh_host_rsa_key"}


def test_doctor_asks_for_the_level_without_an_agent(tmp_path):
    name, sentence = confine.level(find_tools(), beside=tmp_path)
    assert name in confine.LEVELS
    assert sentence.startswith(name)
    assert list(tmp_path.iterdir()) == []
