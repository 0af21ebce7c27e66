"""A request that is too large is refused before anything parses it."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler.api.errors import TooLarge, answer
from scheduler.model.errors import Problem

MIB = 2**20
DRAIN_BYTES = 64 * MIB
"""Read and thrown away of a body that is too large, so that the client gets to read the answer."""


class BodyLimit:
    """ASGI middleware: bodies above ``limit_bytes`` end as 413 in the API's own error shape."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._limit_bytes:
            await self._refuse(scope, receive, send, int(declared))
            return
        parts, seen, more = [], 0, True
        while more and seen <= self._limit_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            seen += len(parts[-1])
            more = message.get("more_body", False)
        if seen > self._limit_bytes:
            await self._refuse(scope, _replay(b"", receive) if not more else receive, send, 0 if more else seen)
            return
        await self._app(scope, _replay(b"".join(parts), receive), send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, size: int) -> None:
        left = DRAIN_BYTES
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                break
        has = f"holds {size / MIB:.1f} MiB" if size else "is too large"
        text = f"the request {has}; at most {self._limit_bytes / MIB:g} MiB are accepted"
        await answer(TooLarge([Problem("", text)]))(scope, receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body that was read, given once; then whatever the server says next (a disconnect)."""
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
