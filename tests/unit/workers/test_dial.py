"""The dialling side against a real gateway, with a stub for the bridge to Ray."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from scheduler.model.lease import AttemptState
from scheduler.model.order import ReportKind
from tests.certificates import authority, issue
from tests.farm import Reader, lease
from tests.pods import OneCluster, wait_for
from workers.dial import Asked, Dialler, parse
from workers.errand import Errand
from workers.gateway import server_tls

STUB = (sys.executable, "-P", str(Path(__file__).parent / "stub_bridge.py"))


class Dialling:
    """A Dialler in a thread of its own."""

    def __init__(self, folder, port, *, host="127.0.0.1", errand=None, wait_s=0.0, ca=None) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text("a secret\n")
        asked = Asked(host=host, port=port, cluster="c1", token_file=folder / "token", home=folder, ca=ca)
        self.dialler = Dialler(asked, errand, wait_s=wait_s, bridge=STUB)
        self.code = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._drive)
        self._thread.start()

    def _drive(self):
        self._task = self._loop.create_task(self.dialler.run())
        with suppress(asyncio.CancelledError):
            self.code = self._loop.run_until_complete(self._task)
        self._loop.run_until_complete(asyncio.sleep(0.01))  # transports close in a turn of their own
        self._loop.close()

    def end(self):
        """Its exit code."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.code

    def close(self):
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()


@pytest.fixture
def open_service():
    services = []

    def make(**more):
        services.append(OneCluster(**more))
        return services[-1]

    yield make
    for service in services:
        service.close()


@pytest.fixture
def dial(tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_PODS", "p1")
    monkeypatch.setenv("STUB_KEEPS", "c")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setattr("workers.dial.LINGER_S", 0.5)
    dialling = []

    def make(port, **more):
        dialling.append(Dialling(tmp_path / "home", port, **more))
        return dialling[-1]

    yield make
    for one in dialling:
        one.close()


def test_it_says_who_it_is_and_passes_lines_both_ways(dial, open_service, tmp_path):
    service = open_service(epoch=4)
    dial(service.port)
    reader = Reader(service)
    reader.kind(ReportKind.RUNTIME_UP)
    reader.kind(ReportKind.NODE, "p1")
    (hello,) = service.hellos
    assert (hello.cluster, hello.token, hello.epoch_seen) == ("c1", "a secret", 0)
    service.start([lease(1, "x")])
    assert reader.end_of("l1").state is AttemptState.SUCCEEDED
    assert (tmp_path / "home" / "epoch_seen").read_text() == "4"


def test_it_dials_again_and_says_the_epoch_it_obeyed(dial, open_service):
    service = open_service(epoch=4)
    dial(service.port)
    Reader(service).kind(ReportKind.RUNTIME_UP)
    service.close()
    second = open_service(epoch=5, port=service.port)
    Reader(second).kind(ReportKind.RUNTIME_UP)
    assert [hello.epoch_seen for hello in second.hellos] == [4]


def test_a_service_that_does_not_mind_its_epoch_is_hung_up_on_all_the_same(dial, tmp_path, caplog):
    from workers.messages import Welcome, pack

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "epoch_seen").write_text("9")
    with socket.create_server(("127.0.0.1", 0)) as old:
        dial(old.getsockname()[1])
        for _ in range(2):
            end, _ = old.accept()
            with end, end.makefile("rb") as lines:
                assert b'"epoch_seen":9' in lines.readline()
                end.sendall(pack(Welcome(epoch=8, beat_ms=1_000, silent_ms=5_000)))
                assert lines.read() == b"", "it hangs up without a word"
    assert "its epoch 8 is over: epoch 9 was obeyed here" in caplog.text
    assert (tmp_path / "home" / "epoch_seen").read_text() == "9"


def test_with_a_damaged_memory_nobody_is_obeyed(dial, open_service, tmp_path, caplog):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "epoch_seen").write_text("")
    service = open_service(epoch=4)
    dial(service.port)
    wait_for(lambda: "epoch_seen is damaged" in caplog.text)
    assert service.hellos == []
    (tmp_path / "home" / "epoch_seen").write_text("3")
    Reader(service).kind(ReportKind.RUNTIME_UP)


def test_a_refusal_is_named_without_the_token_and_tried_again(dial, open_service, caplog):
    answers = iter(["not yet"])
    service = open_service(admit=lambda hello: next(answers, ""))
    dial(service.port)
    Reader(service).kind(ReportKind.RUNTIME_UP)
    assert "it refuses: not yet" in caplog.text
    assert "a secret" not in caplog.text


def test_a_service_that_falls_silent_is_left(dial):
    from workers.messages import Welcome, pack

    with socket.create_server(("127.0.0.1", 0)) as frozen:
        dial(frozen.getsockname()[1])
        for _ in range(2):
            end, _ = frozen.accept()
            with end, end.makefile("rb") as lines:
                lines.readline()
                end.sendall(pack(Welcome(epoch=1, beat_ms=50, silent_ms=300)))
                while lines.readline():
                    """It goes on talking until it notices that nobody answers."""


STRANGERS = [b"HTTP/1.1 400 Bad Request\r\n", b"\xff\n", b'{"is":"Ready"}\n', b"[" * 50_000 + b"\n"]


@pytest.mark.parametrize("said", STRANGERS)
def test_what_is_no_service_of_ours_is_left(dial, said):
    with socket.create_server(("127.0.0.1", 0)) as other:
        dial(other.getsockname()[1])
        for _ in range(2):
            end, _ = other.accept()
            with end, end.makefile("rb") as lines:
                lines.readline()
                end.sendall(said)
                assert lines.read() == b""


@pytest.mark.parametrize(("argv", "code"), [("/bin/true", 0), ("/bin/false", 1)])
def test_until_over_ends_when_the_end_is_acknowledged(dial, open_service, argv, code):
    service = open_service()
    job = dial(service.port, errand=Errand())
    reader = Reader(service)
    reader.kind(ReportKind.NODE, "p1")
    service.start([lease(1, argv)])
    reader.end_of("l1")
    assert job.code is None
    reader.acknowledge_all()
    assert job.end() == code


def test_until_over_outlives_a_service_that_dies_before_it_acknowledged(dial, open_service):
    service = open_service()
    job = dial(service.port, errand=Errand())
    Reader(service).kind(ReportKind.NODE, "p1")
    service.start([lease(1, "/bin/true")])
    Reader(service).end_of("l1")
    service.close()
    second = open_service(epoch=2, port=service.port)
    Reader(second).kind(ReportKind.NODE, "p1")
    assert job.code is None
    second.acknowledge(["c"])
    assert job.end() == 0


def test_an_end_that_no_agent_keeps_still_arrives(dial, open_service, monkeypatch):
    monkeypatch.setenv("STUB_KEEPS", "")
    service = open_service()
    job = dial(service.port, errand=Errand())
    reader = Reader(service)
    reader.kind(ReportKind.NODE, "p1")
    service.start([lease(1, "/bin/false")])
    assert reader.end_of("l1").state is AttemptState.FAILED
    assert job.end() == 1


@pytest.mark.parametrize("ordered", [False, True])
def test_missing_pods_end_it_with_a_reason_that_is_reported(dial, open_service, ordered, caplog):
    service = open_service()
    job = dial(service.port, errand=Errand(pods=2, lease_id="l1", attempt_id="j1.run.0.a1"), wait_s=1.0)
    reader = Reader(service)
    reader.kind(ReportKind.NODE, "p1")
    if ordered:
        service.start([lease(1, "/bin/true", tenant="slow")])
    end = reader.end_of("l1")
    assert (end.state, end.attempt_id, end.cursor) == (AttemptState.LOST, "j1.run.0.a1", "")
    assert end.message == "gang_incomplete: 1 of 2 pods came within 1 s (p1)"
    assert job.end() == 1
    assert end.message in caplog.text


def test_the_line_is_encrypted_with_the_authority_it_is_given(dial, open_service, tmp_path):
    ca, key = authority(tmp_path)
    service = open_service(tls=server_tls(*issue(tmp_path, ca, key)))
    dial(service.port, host="localhost", ca=tmp_path / "ca.pem")
    Reader(service).kind(ReportKind.RUNTIME_UP)


def test_a_stranger_with_a_certificate_of_another_authority_gets_no_token(dial, open_service, tmp_path, caplog):
    (tmp_path / "theirs").mkdir()
    authority(tmp_path)
    service = open_service(tls=server_tls(*issue(tmp_path / "theirs", *authority(tmp_path / "theirs"))))
    dial(service.port, ca=tmp_path / "ca.pem")
    wait_for(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text)
    assert service.hellos == []


def test_the_next_address_of_a_name_is_tried_when_a_replica_says_nothing(dial, open_service, monkeypatch):
    service = open_service()
    resolve = socket.getaddrinfo

    def two(host, port, *args, **more):
        if host != "replicas":
            return resolve(host, port, *args, **more)
        return [found for ip in ("127.0.0.2", "127.0.0.1") for found in resolve(ip, port, *args, **more)]

    monkeypatch.setattr("socket.getaddrinfo", two)
    monkeypatch.setattr("workers.dial.DIAL_S", 0.5)
    with socket.create_server(("127.0.0.2", service.port)) as paused:
        dial(service.port, host="replicas")
        Reader(service).kind(ReportKind.RUNTIME_UP)
        paused.accept()[0].close()


@pytest.mark.parametrize("module", ["workers.dial", "workers.gateway"])
def test_neither_end_of_the_line_imports_ray(module):
    code = f"import sys, {module}; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0


def test_sigterm_ends_it_and_its_bridge(open_service, tmp_path):
    (tmp_path / "token").write_text("a secret")
    service = open_service(admit=lambda hello: "come back later")
    command = [sys.executable, "-P", "-m", "workers.dial", "--dial", f"127.0.0.1:{service.port}", "--cluster", "c1"]
    command += ["--token-file", str(tmp_path / "token"), "--home", str(tmp_path / "home")]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    wait_for(lambda: service.hellos)
    (bridge,) = psutil.Process(process.pid).children()
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not bridge.is_running()


@pytest.mark.parametrize("where", ["", "host", "host:", ":5", "host:0", "host:65536", "host:http"])
def test_a_place_that_is_none_is_said(where, capsys, tmp_path):
    with pytest.raises(SystemExit):
        parse(["--dial", where, "--cluster", "c", "--token-file", "t", "--home", str(tmp_path)])
    assert "is not HOST:PORT" in capsys.readouterr().err


def test_the_command_line_says_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SHISUAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    dialler = parse(["--dial", "[::1]:80", "--cluster", "c", "--token-file", "t", "--until-over", "--pods", "2"])
    asked = dialler._asked
    assert (asked.host, asked.port, asked.ray, asked.home) == ("::1", 80, "10.0.0.1:6379", tmp_path / "home")
    assert asked.home.is_dir()
    assert dialler._errand.missing(1)
