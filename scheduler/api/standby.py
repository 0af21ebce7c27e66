"""What a service answers before it leads: that it lives, and that another one is to be asked."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from scheduler.api.errors import body_of

WARM = "/warmz"
"""For an orchestrator: this process leads, or could at once. ``/readyz`` is true of the leader only."""
RETRY_AFTER_S = 1


class Front:
    """An ASGI application that is a standby's until :meth:`serve`, and then the one given."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self.is_warm = False
        self.says = "starting"
        """What it waits for, for people."""

    def serve(self, app: ASGIApp) -> None:
        """This process leads: from now on ``app`` answers. Any thread."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if self._app is not None:
            if scope.get("path") == WARM:
                scope = {**scope, "path": "/readyz", "raw_path": b"/readyz"}
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._refusal(scope["path"])(scope, receive, send)

    def _refusal(self, path: str) -> JSONResponse:
        if path in ("/healthz", "/v1/healthz"):
            return JSONResponse({"status": "ok"})
        text = f"this service is a standby ({self.says}); the leader answers in its place: try again"
        if path == WARM:
            return JSONResponse({"status": text}, 200 if self.is_warm else 503)
        if path == "/readyz":
            return JSONResponse({"status": text}, 503)
        return JSONResponse(body_of("Standby", text), 503, headers={"Retry-After": str(RETRY_AFTER_S)})
