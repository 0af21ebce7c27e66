"""Starting and stopping, with a program of our own in place of the service."""

import json
import socket
import subprocess
import sys

import pytest

from scheduler.cli import lifecycle
from scheduler.cli.exits import CliError
from scheduler.cli.home import is_service, read_instance, running
from scheduler.cli.session import Session

# Stands in for the service: the words on its command line make it recognisable.
SERVICE = """
import http.server, json, os, pathlib, sys
home = pathlib.Path(sys.argv[sys.argv.index("--home") + 1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"runtime": {"state": "up"}, "counts": {"nodes": {"ready": 1}}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
instance = {"pid": os.getpid(), "url": f"http://127.0.0.1:{server.server_port}", "started_ms": 1}
(home / "part").write_text(json.dumps(instance)); (home / "part").rename(home / "instance.json")
server.serve_forever()
"""


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """Let `start` spawn this source instead of the service."""
    children = []
    genuine = subprocess.Popen

    def choose(source):
        def spawn(argv, **more):
            script = tmp_path / "pretend.py"
            script.write_text(source)
            at = argv.index("-m")
            children.append(genuine([*argv[:at], str(script), argv[at + 1], *argv[at + 2 :]], **more))
            return children[-1]

        monkeypatch.setattr(lifecycle.subprocess, "Popen", spawn)

    yield choose
    for child in children:
        child.kill()
        child.wait()


def test_up_starts_waits_and_a_second_up_finds_it_running(pretend, tmp_path, capsys):
    pretend(SERVICE)
    here = Session(home=tmp_path / "home")
    first = lifecycle.start(here, [])
    assert first == read_instance(here.home) == running(here.home)
    assert lifecycle.start(here, []) == first
    assert "Already running" in capsys.readouterr().err


def test_the_services_last_words_become_the_error(pretend, tmp_path):
    pretend("import sys; sys.exit('error: --cards: unknown card model H1000; did you mean H100-SXM-80GB?')")
    with pytest.raises(CliError) as refused:
        lifecycle.start(Session(home=tmp_path), [])
    assert str(refused.value) == "--cards: unknown card model H1000; did you mean H100-SXM-80GB?"
    assert refused.value.code == 2


def test_a_crash_shows_its_last_line_and_where_the_rest_is(pretend, tmp_path):
    pretend("raise RuntimeError('boom')")
    with pytest.raises(CliError) as refused:
        lifecycle.start(Session(home=tmp_path), [])
    assert str(refused.value) == f"RuntimeError: boom (whole log: {tmp_path}/logs/service.err)"


def test_a_port_in_use_is_one_line(shisuan, monkeypatch):
    monkeypatch.delenv("SHISUAN_URL")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = shisuan("up", "--port", str(port))
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert f"port {port} on 127.0.0.1 is in use" in result.err


def test_another_program_with_the_old_number_is_not_the_service(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (tmp_path / "instance.json").write_text(json.dumps({"pid": other.pid, "url": "http://127.0.0.1:1"}))
        assert not is_service(other.pid)
        assert running(tmp_path) is None


def test_a_half_written_instance_file_means_nothing_runs(tmp_path):
    (tmp_path / "instance.json").write_text('{"pid": 1')
    assert running(tmp_path) is None


def test_down_without_a_service_says_so(shisuan, tmp_path):
    result = shisuan("down")
    assert (result.code, result.out) == (0, f"Nothing runs in {tmp_path}/home.\n")
