"""The HTTP face: routers, errors and limits put together. Thin: every verb is one call into ``scheduler/control``."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse

from scheduler.api import errors, feed, jobs, metrics, money, park, streams
from scheduler.api.doors import Doors
from scheduler.api.limits import BodyLimit

DESCRIPTION = """Compute scheduler for a media park. Send `Authorization: Bearer KEY` with every request.

Every refusal has one shape:
`{"error": {"kind", "message", "problems": [{"pointer", "message", "choices", "nearest"}]}}`.
Units are in the names; instants are Unix milliseconds."""


def build(doors: Doors, *, version: str, body_bytes: int, more: Sequence[APIRouter] = ()) -> FastAPI:
    """The application. ``more``: other faces' routers, such as the status page."""
    # FastAPI's pages load scripts from the network; this service works without one.
    app = FastAPI(title="shisuan", version=version, description=DESCRIPTION, docs_url=None, redoc_url=None)
    app.state.doors = doors
    errors.install(app)
    metrics.register(doors)
    own = (jobs.router, streams.router, park.router, money.router, feed.router, metrics.router)
    for router in (*own, *more):
        app.include_router(router)
    app.add_middleware(BodyLimit, limit_bytes=body_bytes)

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:
        """Needs no key. Not ready: the cycle hangs, as it does in a transaction that the database does not end."""
        still_ms = doors.cycle.still_ms()
        if still_ms <= doors.cycle.limits.still_ms:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": f"the cycle has not come round for {still_ms // 1000} s"}, status_code=503)

    @app.get("/healthz", include_in_schema=False)
    @app.get("/v1/healthz", tags=["park"], summary="Is the service alive?")
    async def healthz() -> JSONResponse:
        """Needs no key."""
        return JSONResponse({"status": "ok"})

    return app
