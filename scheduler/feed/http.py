"""Delivers one batch over HTTP and reads what the receiver answers."""

from __future__ import annotations

import json
from typing import Any

import httpx

from scheduler.control.delivery import Answer, Unreachable
from scheduler.model.feed import SignedBatch

CONNECT_S = 5.0
ANSWER_S = 30.0
"""A receiver stores durably before it answers: a slow disk is not an outage."""
MOST_ANSWER_BYTES = 64 * 1024
MOST_WORDS = 300


class HttpPost:
    """POSTs to one URL; keeps the connection. Follows no redirect: the address is the contract's."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.Client(timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S), follow_redirects=False)

    def __call__(self, signed: SignedBatch) -> Answer:
        """What the receiver said. Raises Unreachable."""
        try:
            with self._client.stream("POST", self._url, content=signed.batch.body, headers=signed.headers) as answer:
                body = b""
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > MOST_ANSWER_BYTES:
                        raise Unreachable(f"its answer is longer than {MOST_ANSWER_BYTES} bytes")
                return _read(answer, body)
        except httpx.HTTPError as error:
            raise Unreachable(str(error) or type(error).__name__) from None

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def _read(answer: httpx.Response, body: bytes) -> Answer:
    try:
        said: Any = json.loads(body)
    except ValueError:
        said = None
    said = said if isinstance(said, dict) else {}
    cursor = said.get("cursor")
    after = answer.headers.get("retry-after", "")
    return Answer(
        status=answer.status_code,
        cursor=cursor if type(cursor) is int and cursor >= 0 else None,
        message=str(said.get("error") or body.decode("utf-8", "replace"))[:MOST_WORDS],
        retry_after_s=int(after) if after.isascii() and after.isdigit() and len(after) < 7 else 0,
    )
