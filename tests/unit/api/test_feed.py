"""The feed over HTTP, and an installation that is told to deliver it."""

import base64
from contextlib import closing
from http.server import HTTPServer
from threading import Thread

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from scheduler.control.bootstrap import read_config
from scheduler.model.errors import InvalidInput
from tests.unit.api.conftest import Installation
from tests.unit.feed.park import program, stored
from tests.unit.workers.helpers import until


def finish_one(service):
    return service.finish(service.submit().json()["id"])


def test_a_fetched_batch_is_signed_by_the_published_key(service):
    finish_one(service)
    answer = service.get("/feed")
    published = service.http.get("/v1/feed/key").json()
    assert published["algorithm"] == "ed25519"
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(published["key"].removeprefix("whpk_")))
    signed = b"%s.%s.%s" % (
        answer.headers["webhook-id"].encode(), answer.headers["webhook-timestamp"].encode(), answer.content,
    )  # fmt: skip
    key.verify(base64.b64decode(answer.headers["webhook-signature"].removeprefix("v1a,")), signed)
    batch = answer.json()
    assert batch["source"] == published["source"]
    assert {item["kind"] for item in batch["items"]} == {"UsageSealed"}
    assert [item["prev"] for item in batch["items"]] == [0, *(item["seq"] for item in batch["items"][:-1])]
    assert batch["items"][-1]["body"]["record"]["job_id"] == "j1"


def test_fetching_goes_on_from_the_last_seq(service):
    finish_one(service)
    first = service.get("/feed", limit=1).json()
    rest = service.get("/feed", after=first["through"]).json()
    everything = service.get("/feed").json()["items"]
    assert first["items"] + rest["items"] == everything
    assert service.get("/feed", after=rest["through"]).json()["items"] == []
    wrong = service.get("/feed", after=rest["through"] + 1)
    assert wrong.status_code == 400
    assert wrong.json()["error"]["problems"][0]["pointer"] == "after"


def test_the_feed_is_the_operators(service):
    assert service.get("/feed", key=service.key("studio")).status_code == 403
    assert service.http.get("/v1/feed").status_code == 401
    assert service.get("/status").json()["feed"] is None


class Late:
    """A receiver that is bound before its sender's key is known, and lives on its server's thread."""

    def __init__(self):
        self.server = HTTPServer(("127.0.0.1", 0), self.handle)
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.make = None
        self.receiver = None

    def handle(self, *request):
        self.receiver = self.receiver or self.make()
        return program.handler_of(self.receiver)(*request)

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def test_an_installation_delivers_to_its_receiver(tmp_path):
    late = Late()
    config = tmp_path / "park.yaml"
    config.write_text(f"feed: {{url: 'http://127.0.0.1:{late.server.server_port}/'}}\n")
    service = Installation(tmp_path, config=str(config))
    key = service.http.get("/v1/feed/key").json()["key"]
    late.make = lambda: program.Receiver(str(tmp_path / "l.db"), key, lambda: service.clock.now / 1_000)
    late.thread.start()
    try:
        finish_one(service)
        rows = service.store.outbox_rows(0, 100)

        def is_current():
            view = service.get("/status").json()["feed"]
            return view["state"] == "current" and (view["lag"], view["cursor"]) == (0, rows[-1].seq)

        until(is_current, "everything is delivered")
        metrics = service.http.get("/metrics").text
        assert "shisuan_feed_lag_rows 0.0" in metrics
        assert "shisuan_feed_up 1.0" in metrics
        assert service.get("/status", key=service.key("studio")).json()["feed"] is None
    finally:
        late.close()
        service.close()
    with closing(program.Receiver(str(tmp_path / "l.db"), key)) as receiver:
        assert stored(receiver) == [(row.seq, row.id) for row in rows]
        assert receiver.verify() == []


@pytest.mark.parametrize(
    ("text", "pointer", "words"),
    [
        ("feed: {url: 'http://ledger.park/in'}", "feed.url", "https://"),
        ("feed: {url: 'ftp://ledger.park/in'}", "feed.url", "https://"),
        ("feed: {url: ''}", "feed.url", "https://"),
        ("feed: {}", "feed.url", "required"),
        ("feed: {url: 'https://ledger.park/in', secret: x}", "feed.secret", "unknown field"),
    ],
)
def test_a_wrong_feed_is_pointed_at(tmp_path, text, pointer, words):
    (tmp_path / "park.yaml").write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read_config(str(tmp_path / "park.yaml"))
    (problem,) = refused.value.problems
    assert problem.pointer == pointer
    assert words in problem.message


def test_a_key_file_that_is_none_ends_the_start(tmp_path):
    config = tmp_path / "park.yaml"
    config.write_text("feed: {url: 'https://ledger.park/in', key_file: park.pem}\n")
    with pytest.raises(InvalidInput, match="cannot be read"):
        Installation(tmp_path / "a", config=str(config))
    (tmp_path / "park.pem").write_text("nonsense")
    with pytest.raises(InvalidInput, match="holds no PEM private key"):
        Installation(tmp_path / "b", config=str(config))
