"""Reference receiver of shisuan's feed: checks signatures, stores each entry once and in order, says how far it is.

    python receiver.py --db ledger.db --key whpk_… --port 9000            receive
    python receiver.py --db ledger.db --key whpk_… --fetch URL --api-key FILE   fetch instead, and end
    python receiver.py --db ledger.db --key whpk_… --verify               check everything that was stored

Standard library and `cryptography` only. docs/feed.md is the contract; this file is one way to keep it.
"""

from __future__ import annotations

import argparse
import base64
import json
import sqlite3
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TOLERANCE_S = 300
MOST_BYTES = 64 * 1024 * 1024
SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL, timestamp INTEGER NOT NULL, signature TEXT NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS entries (
  seq INTEGER PRIMARY KEY, prev INTEGER NOT NULL UNIQUE, id TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
  batch INTEGER NOT NULL REFERENCES batches (number)
) STRICT;
"""


class Refused(Exception):
    """An answer other than 200: ``status``, and with 409 where to go on."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Receiver:
    """The store, and the one rule by which it grows. ``step`` is called between any two steps: tests die there."""

    def __init__(
        self,
        db: str,
        key: str,
        now_s: Callable[[], float] = time.time,
        step: Callable[[str], object] = lambda name: None,
    ) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_"), validate=True))
        self._now_s = now_s
        self._step = step
        self._db = sqlite3.connect(db, isolation_level=None, timeout=30)
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + SCHEMA)

    def close(self) -> None:
        self._db.close()

    def cursor(self) -> int:
        """``seq`` of the last entry that is stored for good; 0 before the first."""
        return self._db.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchone()[0]

    def take(self, headers: Mapping[str, str], body: bytes) -> int:
        """Store what is new in this batch; the cursor afterwards. Raises Refused; then nothing was stored."""
        batch_id, timestamp, signature = self.check(headers, body)
        self._step("checked")
        batch = json.loads(body)
        if batch["feed"] != 1:
            raise Refused(422, f"this receiver reads version 1 of the feed, not {batch['feed']}")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            at = self.cursor()
            new = [item for item in batch["items"] if item["seq"] > at]
            for item in batch["items"][: len(batch["items"]) - len(new)]:
                self._must_know(item)
            self._step("compared")
            if new:
                values = (batch_id, timestamp, signature, body)
                number = self._db.execute(
                    "INSERT INTO batches (id, timestamp, signature, body) VALUES (?, ?, ?, ?)", values
                ).lastrowid
            for item in new:
                if item["prev"] != at:
                    raise Refused(409, f"entry {item['seq']} follows {item['prev']}, and {at} is the last one here")
                self._db.execute(
                    "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)",
                    (item["seq"], at, item["id"], item["kind"], json.dumps(item["body"]), number),
                )
                at = item["seq"]
                self._step("inserted")
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._step("committed")
        return at

    def check(self, headers: Mapping[str, str], body: bytes, *, is_old: bool = False) -> tuple[str, int, str]:
        """Id, timestamp and signature of a batch that is the sender's. Raises Refused."""
        batch_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not (timestamp.isascii() and timestamp.isdigit()):
            raise Refused(400, "webhook-timestamp is missing")
        if not is_old and abs(self._now_s() - int(timestamp)) > TOLERANCE_S:
            raise Refused(401, f"webhook-timestamp is more than {TOLERANCE_S} s away from this machine's clock")
        signed = b"%s.%s.%s" % (batch_id.encode(), timestamp.encode(), body)
        for one in headers.get("webhook-signature", "").split():  # several while the sender changes its key
            scheme, _, text = one.partition(",")
            try:
                if scheme == "v1a":
                    self._key.verify(base64.b64decode(text, validate=True), signed)
                    return batch_id, int(timestamp), one
            except (InvalidSignature, ValueError):
                continue
        raise Refused(401, "no signature of the expected key")

    def _must_know(self, item: Mapping[str, object]) -> None:
        known = self._db.execute("SELECT id FROM entries WHERE seq = ?", (item["seq"],)).fetchone()
        if known is None or known[0] != item["id"]:
            raise Refused(422, f"entry {item['seq']} is stored here with other content: {known and known[0]}")

    def verify(self) -> list[str]:
        """Everything that is wrong with what is stored; nothing when all is well."""
        wrong: list[str] = []
        sent: dict[int, tuple[str, str]] = {}
        for number, batch_id, timestamp, signature, body in self._db.execute("SELECT * FROM batches ORDER BY number"):
            headers = {"webhook-id": batch_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}
            try:
                self.check(headers, body, is_old=True)
            except Refused as error:
                wrong.append(f"batch {number}: {error}")
            for item in json.loads(body)["items"]:
                sent[item["seq"]] = (item["id"], json.dumps(item["body"]))
        at = 0
        spans: dict[str, list[tuple[int, int]]] = {}
        for seq, prev, entry_id, kind, text in self._db.execute(
            "SELECT seq, prev, id, kind, body FROM entries ORDER BY seq"
        ):
            if prev != at:
                wrong.append(f"entry {seq} follows {prev}, but {at} comes before it")
            if sent.get(seq) != (entry_id, text):
                wrong.append(f"entry {seq} is not what its batch says")
            at = seq
            if kind == "UsageSealed":
                record = json.loads(text)["record"]
                spans.setdefault(record["lease_id"], []).append((record["start_ms"], record["end_ms"]))
        missing = sorted(set(sent) - {seq for (seq,) in self._db.execute("SELECT seq FROM entries")})
        wrong += [f"entry {seq} was sent and is gone" for seq in missing]
        for lease, found in spans.items():
            for (_, end), (start, _) in pairwise(found):
                if start != end:
                    wrong.append(f"lease {lease}: {'gap' if start > end else 'overlap'} between {end} and {start}")
        return wrong


def handler_of(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    """One POST at a time: the order is the feed's."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # a sender that dies while it speaks must not keep the next one out

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            if length > MOST_BYTES:
                self.close_connection = True
                self.answer(413, {"error": "the batch is too large"})
                return
            body = self.rfile.read(length)
            try:
                cursor = receiver.take({name.lower(): value for name, value in self.headers.items()}, body)
                self.answer(200, {"cursor": cursor})
            except Refused as error:
                self.answer(error.status, {"error": str(error), "cursor": receiver.cursor()})

        def answer(self, status: int, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, text: str, *values: object) -> None:
            """Only failures are worth a line."""

    return Handler


def fetch(receiver: Receiver, url: str, api_key: str) -> int:
    """Ask for what follows, until there is nothing new; the cursor then."""
    while True:
        before = receiver.cursor()
        asked = urllib.request.Request(f"{url}?after={before}", headers={"Authorization": f"Bearer {api_key}"})  # noqa: S310
        with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310 (the operator's own address)
            after = receiver.take({name.lower(): value for name, value in answer.headers.items()}, answer.read())
        if after == before:
            return after


def main() -> int:
    parser = argparse.ArgumentParser(description="Reference receiver of shisuan's feed.")
    parser.add_argument("--db", required=True, help="SQLite file")
    parser.add_argument(
        "--key", required=True, help="the feed's public key, whpk_…: GET /v1/feed/key, confirmed by phone"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0: any free port, printed")
    parser.add_argument("--fetch", default="", metavar="URL", help="https://SERVICE/v1/feed: fetch, store, end")
    parser.add_argument("--api-key", type=Path, metavar="FILE", help="with --fetch: file with an operator's API key")
    parser.add_argument("--verify", action="store_true", help="check everything that was stored, and end")
    asked = parser.parse_args()
    with closing(Receiver(asked.db, asked.key)) as receiver:
        if asked.verify:
            wrong = receiver.verify()
            print("\n".join(wrong) or f"all is well up to entry {receiver.cursor()}")
            return 1 if wrong else 0
        if asked.fetch:
            print(f"stored up to entry {fetch(receiver, asked.fetch, asked.api_key.read_text().strip())}")
            return 0
        server = HTTPServer((asked.host, asked.port), handler_of(receiver))
        print(f"http://{asked.host}:{server.server_port}/", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
