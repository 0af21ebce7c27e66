"""One table from our errors to HTTP. Every refusal has the same shape, so every face can show it word for word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from scheduler.control.strict import UNKNOWN_FIELD
from scheduler.model.errors import (
    Conflict,
    ExecutorError,
    Forbidden,
    InvalidInput,
    IssuerSilent,
    NotFound,
    OutsideRoots,
    Problem,
    ShisuanError,
    StaleEpoch,
    StorageError,
    StoreError,
    Unauthorized,
    unknown,
)

log = structlog.get_logger("shisuan.api")


class TooLarge(InvalidInput):
    """The request's body is larger than any honest one."""


STATUS: Mapping[type[ShisuanError], int] = {
    TooLarge: 413,
    InvalidInput: 400,
    OutsideRoots: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    StaleEpoch: 503,
    StoreError: 503,
    IssuerSilent: 503,
    ExecutorError: 503,
    StorageError: 503,
    ShisuanError: 500,
}
"""First match along the class's ancestors; ``tests/unit/api`` proves that every class of the tree is mapped."""


def status_of(error: ShisuanError) -> int:
    """The HTTP status of an error."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def body_of(kind: str, message: str, problems: Iterable[Problem] = ()) -> dict[str, Any]:
    """The one shape of a refusal."""
    shown = [
        {"pointer": p.pointer, "message": p.message, "choices": list(p.choices), "nearest": p.nearest} for p in problems
    ]
    return {"error": {"kind": kind, "message": message, "problems": shown}}


def answer(error: ShisuanError) -> JSONResponse:
    """An error as a response."""
    problems = error.problems if isinstance(error, InvalidInput) else ()
    kind = InvalidInput.__name__ if isinstance(error, InvalidInput) else type(error).__name__
    status = status_of(error)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse(body_of(kind, str(error), problems), status, headers=headers)


def install(app: FastAPI) -> None:
    """Every way a request can fail ends in :func:`body_of`."""

    @app.exception_handler(ShisuanError)
    def ours(_: Request, error: ShisuanError) -> JSONResponse:
        if status_of(error) >= 500:
            log.error("request_failed", error=str(error))
        return answer(error)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        return answer(InvalidInput(problems_of(error.errors())))

    @app.exception_handler(HTTPException)
    def framework(request: Request, error: HTTPException) -> JSONResponse:
        where = f"{request.method} {request.url.path}"
        kind, text = {
            404: ("NotFound", f"no such address: {where} (the API's addresses are listed in /openapi.json)"),
            405: ("InvalidInput", f"this address does not take {request.method}: {where}"),
        }.get(error.status_code, ("InvalidInput", str(error.detail)))
        return JSONResponse(body_of(kind, text), error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("request_crashed", path=request.url.path, exc_info=error)
        return JSONResponse(body_of("Internal", "the service made a mistake; its log has the details"), 500)


def problems_of(errors: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Pydantic's findings as pointers into the body or the query."""
    return [_problem(error) for error in errors]


def _problem(error: Mapping[str, Any]) -> Problem:
    place = [part for part in error["loc"] if part not in ("body", "query", "path")]
    if error["type"] == "json_invalid":
        return Problem("", f"the request's body is not JSON: {error['ctx']['error']}")
    if error["type"] == UNKNOWN_FIELD:
        name = str(error["ctx"]["name"])
        return unknown(_pointer([*place, name]), "field", name, error["ctx"]["valid"])
    return Problem(_pointer(place) or str(error["loc"][0]), error["msg"][:1].lower() + error["msg"][1:])


def _pointer(place: Sequence[int | str]) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
