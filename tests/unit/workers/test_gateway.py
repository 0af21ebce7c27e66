"""The service's end of a dialled line, with clients that are no bridge: whom it lets in, what it tells and bears."""

import json
import logging
import socket
import ssl
import threading
from collections import defaultdict
from contextlib import suppress

import pytest

from scheduler.model.errors import ExecutorError, NotFound, StoreError
from scheduler.model.lease import AttemptState
from scheduler.model.order import LogChunk, Report, ReportKind
from tests.certificates import authority, issue
from tests.farm import lease
from tests.pods import wait_for
from workers.gateway import Gateway, server_tls
from workers.messages import (
    PROTOCOL,
    Beat,
    Begin,
    End,
    Hello,
    LogRead,
    ReadLog,
    Ready,
    Recorded,
    Refused,
    Told,
    Welcome,
    pack,
    unpack,
)

TOKEN = "the right token"
DEADLINE_S = 20


class Service:
    """A gateway and all that it told."""

    def __init__(self, **more) -> None:
        self.told = defaultdict(list)
        self.admitted = []
        self.answer = lambda hello: "" if hello.token == TOKEN else "the token is not the cluster's"
        self.gateway = Gateway(**{"epoch": 7, "host": "127.0.0.1"} | more, tell=self._tell, admit=self._admit)

    def _tell(self, cluster, reports):
        self.told[cluster].extend(reports)

    def _admit(self, hello):
        self.admitted.append(hello)
        return self.answer(hello)

    def kinds(self, cluster="c1"):
        return [report.kind for report in self.told[cluster]]

    def heard(self, kind, cluster="c1"):
        return wait_for(lambda: next((r for r in self.told[cluster] if r.kind is kind), None))


class Caller:
    """Somebody at the port."""

    def __init__(self, service, *, tls=None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", service.gateway.port), timeout=DEADLINE_S)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.lines = self.socket.makefile("rb")

    def say(self, *messages):
        for message in messages:
            self.socket.sendall(message if isinstance(message, bytes) else pack(message))

    def hear(self, kind=None):
        """The next message but beats, or None at the end of the line."""
        while line := self._line():
            message = unpack(line)
            if not isinstance(message, Beat) or kind is Beat:
                return message
        return None

    def _line(self):
        try:
            return self.lines.readline()
        except ConnectionError:
            return b""

    def close(self):
        self.lines.close()
        self.socket.close()


@pytest.fixture
def service(request):
    service = Service(**getattr(request, "param", {}))
    yield service
    service.gateway.close()


@pytest.fixture
def call(service):
    callers = []

    def make(**more):
        callers.append(Caller(service, **more))
        return callers[-1]

    yield make
    for caller in callers:
        caller.close()


def hello(**changed):
    return Hello(**{"cluster": "c1", "token": TOKEN} | changed)


def bridge(call, service, cluster="c1"):
    """A line that is up."""
    caller = call()
    caller.say(hello(cluster=cluster))
    assert isinstance(caller.hear(), Welcome)
    before = len(service.told[cluster])
    caller.say(Ready())
    wait_for(lambda: any(r.kind is ReportKind.RUNTIME_UP for r in service.told[cluster][before:]))
    return caller


def test_a_bridge_is_welcomed_and_its_reports_are_told_in_order(service, call):
    caller = call()
    caller.say(hello(epoch_seen=7))
    welcome = caller.hear()
    assert (welcome.epoch, welcome.silent_ms > welcome.beat_ms > 0) == (7, True)
    started = Report(kind=ReportKind.STARTED, cursor="a/t1/1", lease_id="l1", attempt_id="j1.run.0.a1")
    ended = Report(kind=ReportKind.FINISHED, cursor="a/t1/2", lease_id="l1", state=AttemptState.SUCCEEDED)
    caller.say(Ready(), Told(reports=(started,)), Told(reports=(ended,)))
    assert service.heard(ReportKind.FINISHED) == ended
    assert service.kinds() == [ReportKind.RUNTIME_UP, ReportKind.STARTED, ReportKind.FINISHED]


def test_orders_go_to_the_cluster_they_name_in_the_order_in_which_they_were_given(service, call):
    one, two = bridge(call, service, "c1"), bridge(call, service, "c2")
    order = lease(1, "/bin/true")
    assert service.gateway.start("c2", [order])
    assert service.gateway.stop("c2", ["l1"], "enough")
    assert service.gateway.acknowledge("c2", ["a/t1/1"])
    assert service.gateway.start("c1", [])
    assert [two.hear() for _ in range(3)] == [
        Begin(orders=(order,)),
        End(lease_ids=("l1",), reason="enough"),
        Recorded(cursors=("a/t1/1",)),
    ]
    assert one.hear() == Begin(orders=())
    assert service.gateway.clusters() == ("c1", "c2")


def test_nothing_is_sent_to_a_cluster_that_is_not_up(service, call):
    assert not service.gateway.start("c1", [lease(1, "/bin/true")])
    caller = call()
    caller.say(hello())
    caller.hear()
    assert not service.gateway.start("c1", [lease(1, "/bin/true")]), "it has no Ray yet"
    assert service.gateway.clusters() == ()
    caller.say(Ready())
    service.heard(ReportKind.RUNTIME_UP)
    assert service.gateway.start("c1", [lease(1, "/bin/true")])


def test_a_lost_line_is_told_once_and_the_next_one_begins_anew(service, call):
    bridge(call, service).close()
    service.heard(ReportKind.RUNTIME_DOWN)
    assert not service.gateway.start("c1", [])
    bridge(call, service)
    assert service.kinds() == [ReportKind.RUNTIME_UP, ReportKind.RUNTIME_DOWN, ReportKind.RUNTIME_UP]


def test_a_bridge_that_dials_again_replaces_its_own_line(service, call):
    first = bridge(call, service)
    second = bridge(call, service)
    assert first.hear() is None
    assert service.kinds() == [ReportKind.RUNTIME_UP, ReportKind.RUNTIME_DOWN, ReportKind.RUNTIME_UP]
    assert service.gateway.start("c1", [])
    assert second.hear() == Begin(orders=())


def test_a_line_without_runtime_ends_without_a_word(service, call):
    caller = call()
    caller.say(hello())
    caller.hear()
    caller.close()
    bridge(call, service)
    assert service.kinds() == [ReportKind.RUNTIME_UP]


def test_a_wrong_token_is_refused_and_named_without_the_token(service, call, caplog):
    caplog.set_level(logging.INFO)
    caller = call()
    caller.say(hello(token="a wrong secret"))
    assert caller.hear() == Refused(reason="the token is not the cluster's")
    assert caller.hear() is None
    assert "'c1'" in caplog.text
    assert "the token is not the cluster's" in caplog.text
    assert "a wrong secret" not in caplog.text + repr(service.admitted)
    assert not service.told


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (hello(epoch_seen=8), "epoch 7 of this service is over: the bridge obeyed 8"),
        (hello(version=PROTOCOL + 1), f"this service speaks protocol {PROTOCOL}, the bridge {PROTOCOL + 1}"),
    ],
)
def test_an_old_service_and_another_protocol_are_said_before_anybody_is_asked(service, call, said, reason):
    caller = call()
    caller.say(said)
    assert caller.hear().reason.startswith(reason)
    assert service.admitted == []


def test_a_database_that_does_not_answer_is_a_refusal(service, call):
    def fail(_hello):
        raise StoreError("the database is away")

    service.answer = fail
    caller = call()
    caller.say(hello())
    assert "the database is away" in caller.hear().reason


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: shisuan\r\n\r\n",
    "bytes": bytes(range(256)) * 4 + b"\n",
    "number": b"1\n",
    "list": b"[]\n",
    "no kind": b"{}\n",
    "kind of no text": b'{"is":[]}\n',
    "unknown kind": b'{"is":"Shutdown"}\n',
    "deep": b"[" * 7_000 + b"\n",
    "surrogate": b'{"is":"Hello","cluster":"c\\ud800","token":"x"}\n',
    "types": b'{"is":"Hello","cluster":"c1","token":{"a":1}}\n',
    "bool for a number": b'{"is":"Hello","cluster":"c1","token":"x","epoch_seen":true}\n',
    "huge number": b'{"is":"Hello","cluster":"c1","token":"x","epoch_seen":1' + b"0" * 30 + b"}\n",
    "no name": pack(Hello(cluster="", token=TOKEN)),
    "no hello": pack(Ready()),
    "long line": b"x" * 200_000,
    "long hello": pack(Hello(cluster="c1", token=TOKEN + " " * 10_000)),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_at_the_port_ends_that_line_and_no_other(service, call, garbage):
    good = bridge(call, service)
    caller = call()
    try:
        caller.say(garbage)
    except ConnectionError:
        """The gateway hung up before all of it was said."""
    assert caller.hear() is None
    assert service.gateway.start("c1", [])
    assert good.hear() == Begin(orders=())
    assert len(service.admitted) == 1


BROKEN = {
    "no message": b"{}\n",
    "told too early": pack(Hello(cluster="c1", token=TOKEN)),
    "number for a name": pack(Told(reports=(Report(kind=ReportKind.NODE),))).replace(b'"node"', b'"node","node":5'),
    "state that is none": b'{"is":"Told","reports":[{"kind":"finished","state":"won"}]}\n',
    "welcome": pack(Welcome(epoch=9, beat_ms=1, silent_ms=1)),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_bridge_that_breaks_the_rules_is_hung_up_on(service, call, broken):
    caller = bridge(call, service)
    caller.say(broken)
    assert caller.hear() is None
    service.heard(ReportKind.RUNTIME_DOWN)
    assert service.kinds() == [ReportKind.RUNTIME_UP, ReportKind.RUNTIME_DOWN]


def test_reports_before_the_runtime_is_up_break_the_rules(service, call):
    caller = call()
    caller.say(hello())
    caller.hear()
    caller.say(Told(reports=(Report(kind=ReportKind.NODE, node="a"),)))
    assert caller.hear() is None
    assert not service.told


@pytest.mark.parametrize("service", [{"hello_s": 0.2}], indirect=True)
def test_who_says_nothing_is_hung_up_on(call):
    assert call().hear() is None


def test_who_does_not_even_begin_a_handshake_is_hung_up_on(tmp_path):
    service = Service(tls=server_tls(*issue(tmp_path, *authority(tmp_path))), hello_s=0.2)
    silent = Caller(service)
    assert silent.hear() is None
    silent.close()
    service.gateway.close()


def test_a_bridge_that_takes_nothing_is_given_up(service, call, monkeypatch):
    monkeypatch.setattr("workers.wire.BACKLOG_BYTES", 1_000_000)
    deaf = bridge(call, service, "c1")
    good = bridge(call, service, "c2")
    order = lease(1, "x" * 100_000)
    while service.gateway.start("c1", [order]):
        with suppress(ConnectionError):
            deaf.say(Beat())
    assert service.heard(ReportKind.RUNTIME_DOWN).message.endswith("bytes wait")
    assert service.gateway.start("c2", [])
    assert good.hear() == Begin(orders=())


@pytest.mark.parametrize("service", [{"beat_ms": 50, "silent_ms": 500}], indirect=True)
def test_a_silent_bridge_is_lost_and_one_that_answers_beats_is_not(service, call):
    talking, silent = bridge(call, service, "c1"), bridge(call, service, "c2")
    for _ in range(20):
        assert talking.hear(Beat) == Beat()
        talking.say(Beat())
        if service.kinds("c2")[-1] is ReportKind.RUNTIME_DOWN:
            break
    while service.kinds("c2")[-1] is not ReportKind.RUNTIME_DOWN:
        assert talking.hear(Beat) == Beat()
        talking.say(Beat())
    assert "nothing came" in service.told["c2"][-1].message
    assert service.kinds("c1") == [ReportKind.RUNTIME_UP]
    silent.close()


@pytest.mark.parametrize("service", [{"waiting_limit": 3}], indirect=True)
def test_of_too_many_that_say_nothing_the_oldest_goes(service, call):
    good = bridge(call, service)
    waiting = [call() for _ in range(5)]
    assert [caller.hear() for caller in waiting[:2]] == [None, None]
    waiting[4].say(hello(cluster="c2"))
    assert isinstance(waiting[4].hear(), Welcome)
    assert service.gateway.start("c1", [])
    assert good.hear() == Begin(orders=())


@pytest.mark.parametrize("service", [{"lines_limit": 1}], indirect=True)
def test_more_clusters_than_the_limit_are_refused_and_a_known_one_may_dial_again(service, call):
    bridge(call, service, "c1")
    other = call()
    other.say(hello(cluster="c2"))
    assert "limit" in other.hear().reason
    bridge(call, service, "c1")


def test_a_log_is_read_over_the_line(service, call):
    caller = bridge(call, service)

    def answer():
        for _ in range(2):
            asked = caller.hear()
            assert isinstance(asked, ReadLog)
            found = LogChunk(text="hello", next_offset=5, end=True) if asked.node == "a" else None
            caller.say(LogRead(number=asked.number, chunk=found, error="" if found else "no such log"))

    thread = threading.Thread(target=answer)
    thread.start()
    assert service.gateway.read_log("c1", "a", "j1.run.0.a1", 0, 100).text == "hello"
    with pytest.raises(NotFound, match="no such log"):
        service.gateway.read_log("c1", "b", "j1.run.0.a1", 0, 100)
    thread.join()


def test_a_log_of_a_cluster_that_is_away_or_goes_away_is_an_error_at_once(service, call):
    with pytest.raises(ExecutorError, match="c1 is not connected"):
        service.gateway.read_log("c1", "a", "j1.run.0.a1", 0, 100)
    caller = bridge(call, service)
    threading.Thread(target=lambda: (caller.hear(), caller.close())).start()
    with pytest.raises(ExecutorError, match="closed the line"):
        service.gateway.read_log("c1", "a", "j1.run.0.a1", 0, 100)


def test_a_dropped_cluster_is_hung_up_on_and_spoken_of_no_more(service, call):
    caller = bridge(call, service)
    service.gateway.drop("c1")
    assert caller.hear() is None
    assert not service.gateway.start("c1", [])
    service.gateway.drop("c1")
    service.gateway.drop("never was")
    assert service.kinds() == [ReportKind.RUNTIME_UP]


def test_nothing_is_told_after_close(service, call):
    caller = bridge(call, service)
    service.gateway.close()
    assert caller.hear() is None
    assert service.kinds() == [ReportKind.RUNTIME_UP]
    assert not service.gateway.start("c1", [])
    service.gateway.close()


def test_the_port_is_free_again_after_close(service, call):
    bridge(call, service)
    service.gateway.close()
    second = Service(port=service.gateway.port, epoch=8)
    assert second.gateway.port == service.gateway.port
    second.gateway.close()


def test_a_taken_port_is_said_at_once(service):
    with pytest.raises(OSError, match="in use"):
        Service(port=service.gateway.port)


def test_a_line_is_encrypted_for_who_trusts_the_certificate(tmp_path, monkeypatch):
    ca, key = authority(tmp_path)
    certificate = issue(tmp_path, ca, key)
    service = Service(tls=server_tls(*certificate))
    try:
        trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        caller = Caller(service, tls=trusting)
        caller.say(hello())
        assert isinstance(caller.hear(), Welcome)
        caller.say(Ready())
        service.heard(ReportKind.RUNTIME_UP)
        with pytest.raises(ssl.SSLCertVerificationError):
            Caller(service, tls=ssl.create_default_context())
        plain = Caller(service)
        plain.say(hello())
        assert plain._line()[:1] != b"{", "a plain line is not answered in plain words"
        assert service.gateway.start("c1", [])
        assert caller.hear() == Begin(orders=())
        assert len(service.admitted) == 1
        caller.close()
        plain.close()
    finally:
        service.gateway.close()


def test_every_message_is_a_line_of_its_own_kind():
    line = pack(Told(reports=(Report(kind=ReportKind.NODE, message="two\nlines"),)))
    assert line.count(b"\n") == 1
    assert json.loads(line)["is"] == "Told"
