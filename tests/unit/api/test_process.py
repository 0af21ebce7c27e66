"""The service as a process: how it starts, says where it is, and ends."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from scheduler import wiring
from scheduler.store import schema

ROOT = Path(__file__).parents[3]
HELLO = "apiVersion: shisuan/v1\nkind: CommandJob\nname: hello\nrun: 'true'\n"
START_LIMIT_S = 180
"""As long as the command waits: a start is eight seconds of work, on a machine that may have other things to do."""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


class Process:
    """One service process over a home folder."""

    def __init__(self, home, *more, die=""):
        command = [sys.executable, "-m", "tests.unit.api.serve", "--home", str(home), *more]
        self.home = home
        self.child = subprocess.Popen(
            command, env={**ENVIRONMENT, "SHISUAN_TEST_DIE": die}, stderr=subprocess.PIPE, text=True
        )

    def client(self):
        deadline = time.monotonic() + START_LIMIT_S
        while not self._is_announced():
            assert self.child.poll() is None, self.child.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        key = (self.home / "key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=f"{self.instance['url']}/v1", headers=headers, timeout=60, trust_env=False)

    def _is_announced(self):
        file = self.home / "instance.json"
        self.instance = json.loads(file.read_text()) if file.exists() else {}
        return self.instance.get("pid") == self.child.pid

    def end(self, *, by_signal=True):
        if by_signal:
            self.child.terminate()
        error = self.child.communicate(timeout=60)[1]
        return self.child.returncode, error


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def events(client, job_id):
    with client.stream("GET", f"/jobs/{job_id}/events") as answer:
        return [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]


def test_it_serves_ends_at_sigterm_and_goes_on_where_it_was(home):
    first = Process(home)
    client = first.client()
    job = client.post("/jobs", json={"file": HELLO}).json()
    assert events(client, job["id"])[-1]["state"] == "succeeded"
    assert (home / "instance.json").stat().st_mode & 0o777 == 0o600
    assert first.end() == (0, "")
    assert not (home / "instance.json").exists()
    second = Process(home)
    assert second.client().get(f"/jobs/{job['id']}").json()["state"] == "succeeded"
    assert second.end()[0] == 0
    verify = [sys.executable, "-P", "-m", "scheduler.wiring", "--home", str(home), "--verify"]
    said = subprocess.run(verify, capture_output=True, text=True, check=True)
    assert said.stdout == f"{wiring.VERIFIED}\n"


def test_a_key_that_is_given_is_the_operators_and_nothing_is_made(home, tmp_path):
    (tmp_path / "key").write_text("sk-a-key-of-more-than-thirty-two-characters\n")
    (tmp_path / "park.yaml").write_text("tenants: [{name: studio}]\n")
    arguments = ["--operator-key", str(tmp_path / "key"), "--config", str(tmp_path / "park.yaml")]
    for _ in range(2):
        service = Process(home, *arguments)
        client = service.client()
        assert (home / "key").read_text() == (tmp_path / "key").read_text()
        assert [(key["tenant"], key["role"]) for key in client.get("/keys").json()["keys"]] == [("default", "operator")]
        assert service.end()[0] == 0
    assert list((home / "keys").iterdir()) == []
    (tmp_path / "key").write_text("too short")
    code, error = Process(home, *arguments).end(by_signal=False)
    assert (code, error) == (2, f"error: --operator-key: {tmp_path / 'key'}: must hold 32 characters or more\n")


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ("tenants: [{name: a, roots: [/films]}, {name: b}]", "tenants[1].roots: must name folders"),
        ("tenants: [{name: a, roots: [/films, own]}]", "tenants[0].roots: must name folders"),
        ("feed: {url: 'https://ledger.park.example/x'}", "feed.key_file: is needed with --elect"),
    ],
)
def test_what_one_of_several_services_would_keep_for_itself_is_refused(home, tmp_path, capsys, config, field):
    (tmp_path / "park.yaml").write_text(config)
    arguments = ["--home", str(home), "--config", str(tmp_path / "park.yaml"), "--database", "postgresql://none/none"]
    assert wiring.main([*arguments, "--elect", "park/shisuan", "--operator-key", "k"]) == wiring.EXIT_REFUSED
    assert capsys.readouterr().err.startswith(f"error: {field}")


def test_sigterm_ends_open_streams_too(home):
    service = Process(home)
    client = service.client()
    held = client.post("/jobs", json={"file": HELLO, "hold": True}).json()["id"]
    with client.stream("GET", f"/jobs/{held}/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: job"
        assert service.end()[0] == 0


def test_a_second_service_of_one_home_refuses_in_one_line(home):
    first = Process(home)
    first.client()
    assert Process(home).end(by_signal=False) == (2, f"error: another service already runs in {home}\n")
    first.end()


def test_a_taken_port_is_one_line(home, tmp_path):
    first = Process(home)
    first.client()
    port = first.instance["url"].rpartition(":")[2]
    code, said = Process(tmp_path / "other", "--port", port).end(by_signal=False)
    assert code == 2
    assert said.startswith(f"error: cannot listen on 127.0.0.1:{port}: Address already in use")
    first.end()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--root", "/no/such/folder"], "error: --root /no/such/folder: no such folder\n"),
        (["--cpus", "-1"], "error: --cpus: must be 0 or more\n"),
        (["--config", "/no/such/file"], "error: --config: cannot read /no/such/file: No such file or directory\n"),
        (["--database", "mysql://x"], "error: "),
        (["--elect", "park", "--operator-key", "k"], "error: --elect: must be NAMESPACE/NAME\n"),
        (["--elect", "park/shisuan"], "error: --operator-key: is needed with --elect"),
        (["--elect", "park/shisuan", "--operator-key", "k"], "error: --database: must be PostgreSQL with --elect"),
        (["--lease-seconds", "0"], "error: --lease-seconds: must be 1 or more\n"),
        (["--publish", "shisuan", "--port", "1"], "error: --publish: needs --elect\n"),
        (["--operator-key", "/no/such/file"], "error: --operator-key: cannot read /no/such/file: "),
    ],
)
def test_wrong_settings_are_one_line(home, arguments, said):
    command = [sys.executable, "-P", "-m", "scheduler.wiring", "--home", str(home), *arguments]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=START_LIMIT_S, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(said)
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("die", "code", "said"),
    [
        ("store", wiring.EXIT_STORE, "the database refused"),
        ("cycle", wiring.EXIT_CRASHED, "the scheduling cycle failed"),
    ],
)
def test_a_failed_cycle_ends_the_process_and_the_next_one_goes_on(home, die, code, said):
    service = Process(home, die=die)
    client = service.client()
    with pytest.raises(httpx.TransportError):
        client.post("/jobs", json={"file": HELLO, "request_id": "r1"})
    found, error = service.end(by_signal=False)
    assert (found, said in error) == (code, True)
    again = Process(home)
    client = again.client()
    job = client.post("/jobs", json={"file": HELLO, "request_id": "r1"}).json()
    assert job["id"] == "j1"
    assert events(client, "j1")[-1]["state"] == "succeeded"
    again.end()


def test_the_process_stays_small(home):
    psutil = pytest.importorskip("psutil")
    service = Process(home)
    client = service.client()
    client.post("/jobs", json={"file": HELLO + "array: 0-99999\n", "hold": True})
    maps = psutil.Process(service.child.pid).memory_maps()
    heavy = ("matplotlib", "/ray/", "torch", "kubernetes", "/av/")
    assert [m.path for m in maps if any(word in m.path for word in heavy)] == []
    service.end()


def test_migrate_brings_the_database_up_to_date_and_serves_nothing(store_url, home):
    migrate = [sys.executable, "-P", "-m", "scheduler.wiring", "--home", str(home), "--migrate"]
    environment = {**os.environ, "SHISUAN_DATABASE_URL": store_url}
    for _ in range(2):  # the second time there is nothing to do
        said = subprocess.run(migrate, env=environment, capture_output=True, text=True, check=True)
        assert said.stdout == f"the database is at revision {schema.HEAD}\n"
    assert not home.exists()
