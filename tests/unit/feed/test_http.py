"""The real sender, the real receiver's process, and SIGKILL; and what odd servers answer."""

import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from scheduler.control.clock import SystemClock
from scheduler.control.delivery import Answer, Unreachable
from scheduler.feed.http import MOST_ANSWER_BYTES, HttpPost
from tests.unit.feed.park import PROGRAM, Park, stored
from tests.unit.workers.helpers import until


class Process:
    """The shipped receiver, as one starts it."""

    def __init__(self, park, port=0):
        words = ["--db", str(park.folder / "ledger.db"), "--key", park.key.public, "--port", str(port)]
        self._popen = subprocess.Popen([sys.executable, str(PROGRAM), *words], stdout=subprocess.PIPE, text=True)
        self.url = self._popen.stdout.readline().strip()
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def kill(self):
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()
        self._popen.stdout.close()


@pytest.fixture
def real(tmp_path):
    """Real time, a real key, a real database."""
    made = Park(tmp_path, clock=SystemClock())
    made.clock.now = 0  # unused: only the fake one is moved
    yield made
    made.close()


def check_kills(park, kills, seed):
    """A receiver's process killed ``kills`` times at random moments while it is sent to, over HTTP."""
    rng = random.Random(seed)
    process = Process(park)
    post = HttpPost(process.url)
    delivery = park.delivery(post, seed, batch_rows=2)
    stopping, halted = threading.Event(), 0

    def send():
        while not stopping.is_set():
            pause_ms = delivery.step()
            stopping.wait(min(pause_ms, 5) / 1_000)  # the pauses' lengths are tested on the fake clock

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(kills):
            park.seal(rng.randrange(20, 60), rng)
            before = delivery.delivered
            until(lambda before=before: delivery.delivered > before, "something arrives")
            time.sleep(rng.random() * 0.05)
            process.kill()
            halted += delivery.state != "current"
            process = Process(park, process.port)
        until(lambda: delivery.state == "current" and delivery.view()["lag"] == 0, "all arrives")
    finally:
        stopping.set()
        sender.join()
        post.close()
        process.kill()
    assert halted  # or no death hit a delivery under way
    with closing(park.receiver()) as receiver:
        assert stored(receiver) == park.sealed()
        assert receiver.verify() == []


def test_a_receivers_process_that_is_killed_has_everything_once(real):
    check_kills(real, 6, seed=7)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_receivers_process_killed_a_hundred_times_has_everything_once(real):
    check_kills(real, 100, seed=11)


class Odd(BaseHTTPRequestHandler):
    """Answers what the server is told to."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = HTTPServer(("127.0.0.1", 0), Odd)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.post = HttpPost(f"http://127.0.0.1:{made.server_port}/feed")
    yield made
    made.shutdown()
    thread.join()
    made.server_close()
    made.post.close()


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        ((200, {}, b'{"cursor": 7}'), Answer(status=200, cursor=7, message='{"cursor": 7}')),
        ((409, {}, b'{"cursor": 7, "error": "gap"}'), Answer(status=409, cursor=7, message="gap")),
        ((503, {"retry-after": "12"}, b""), Answer(status=503, retry_after_s=12)),
        ((503, {"retry-after": "Fri, 31 Dec 2027"}, b"busy"), Answer(status=503, message="busy")),
        ((307, {"location": "http://127.0.0.1:9/"}, b""), Answer(status=307)),
        ((200, {}, b"<html>"), Answer(status=200, message="<html>")),
        ((200, {}, b'{"cursor": -1}'), Answer(status=200, message='{"cursor": -1}')),
        ((200, {}, b'{"cursor": true}'), Answer(status=200, message='{"cursor": true}')),
        ((200, {}, b"[7]"), Answer(status=200, message="[7]")),
        ((500, {}, b"\xff" * 400), Answer(status=500, message="\ufffd" * 300)),
    ],
)
def test_what_a_server_answers_is_taken_for_what_it_is(park, server, answer, heard):
    server.answer = answer
    assert server.post(park.feed.batch(0, 0)) == heard


def test_an_endless_answer_is_cut(park, server):
    server.answer = (200, {}, b"x" * (MOST_ANSWER_BYTES + 1))
    with pytest.raises(Unreachable, match="longer than"):
        server.post(park.feed.batch(0, 0))


def test_nobody_there_is_unreachable(park):
    with closing(HttpPost("http://127.0.0.1:1/")) as post, pytest.raises(Unreachable, match="refused"):
        post(park.feed.batch(0, 0))


def test_the_key_is_made_once_and_for_its_owner_alone(park):
    assert park.key.public.startswith("whpk_")
    path = park.folder / "feed.key"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    assert Park(park.folder).key.public == park.key.public
    assert path.read_bytes() == before
