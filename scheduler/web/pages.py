"""The status page: server-rendered, read-only, works offline. Data passes the same checks as the API's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

import jinja2
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from scheduler.control.access import Caller
from scheduler.control.identity import People, Refused
from scheduler.model.errors import NotFound, ShisuanError, Unauthorized
from scheduler.report import figures
from scheduler.web.reader import Doors, Reader, deadline_line
from scheduler.web.words import LANGUAGES, choose, translator

KEY_COOKIE, SESSION_COOKIE, LEAVING_COOKIE = "shisuan_key", "shisuan_session", "shisuan_leaving"
BACK = "/sign-in/oidc/back"
LANGUAGE_COOKIE = "shisuan_language"
At = Annotated[int, Query(ge=0, le=2**53)]
_MONTH_S = 30 * 86_400
_HERE = Path(__file__).parent
_STATIC = {path.name: path for path in sorted((_HERE / "static").iterdir())}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def templates() -> jinja2.Environment:
    """The page's templates: everything escaped, undefined names are errors."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["instant"] = figures.instant
    found.filters["size_memory"] = figures.memory
    found.filters["duration"] = figures.duration
    return found


class Pages:
    """One reader's view: language, key, templates. ``doors`` are the services of this process; ``people`` those whom an
    OpenID issuer knows.
    """

    def __init__(self, doors: Doors, people: People) -> None:
        self._doors, self._sessions, self._sign_in = doors, people.sessions, people.sign_in
        self._reader = Reader(doors)
        self._templates = templates()

    def caller(self, request: Request) -> Caller:
        """Whoever holds the key or the sign-in in the cookie. Raises Unauthorized, Forbidden."""
        key, session = request.cookies.get(KEY_COOKIE, ""), request.cookies.get(SESSION_COOKIE, "")
        if session and self._sign_in is not None:
            return self._doors.operations.admit(self._sessions.person(session, self._doors.cycle.now_ms()))
        if not key:
            raise Unauthorized("no key")
        return self._doors.operations.authenticate(key)

    def show(self, request: Request, name: str, code: int = 200, **values: Any) -> HTMLResponse:
        """A whole page."""
        html = self._render(request, name, **values)
        return HTMLResponse(html, code, headers=HEADERS)

    def part(self, request: Request, name: str, seen: str, **values: Any) -> Response:
        """A page's live part; 204 when it still looks as the reader has ``seen`` it."""
        version = _version(self._render(request, name, version="", **values))
        if version == seen:
            return Response(status_code=204, headers=HEADERS)
        return HTMLResponse(self._render(request, name, version=version, **values), headers=HEADERS)

    def _render(self, request: Request, name: str, **values: Any) -> str:
        language = language_of(request)
        t = translator(language)
        values["deadline"] = deadline_line(values["detail"], t) if "detail" in values else ""
        return self._templates.get_template(name).render(
            t=t,
            language=language,
            other=next(one for one in LANGUAGES if one != language),
            path=request.url.path,
            **values,
        )

    def guarded(self, request: Request, answer: Callable[[Caller], Response]) -> Response:
        """``answer`` for whoever is signed in; the sign-in page or a plain word otherwise."""
        is_part = "hx-request" in request.headers
        try:
            return answer(self.caller(request))
        except Unauthorized as error:
            if is_part:
                return Response(status_code=401, headers={**HEADERS, "HX-Refresh": "true"})
            return self.login(request, error if isinstance(error, Refused) else None, request.url.path)
        except NotFound as error:
            return self.show(request, "problem.html", 404, title="not_found", message=str(error))
        except ShisuanError as error:
            return self.show(request, "problem.html", 400, title="refused", message=str(error))

    def overview(self, request: Request) -> Response:
        """Cluster and jobs."""
        return self.guarded(
            request,
            lambda who: self.show(request, "overview.html", version="", **self._reader.overview(who)),
        )

    def overview_part(self, request: Request, seen: str) -> Response:
        """The overview's live part."""
        return self.guarded(
            request, lambda who: self.part(request, "overview_part.html", seen, **self._reader.overview(who))
        )

    def job(self, request: Request, job_id: str) -> Response:
        """One job."""
        return self.guarded(
            request,
            lambda who: self.show(request, "job.html", version="", **self._reader.job(who, job_id)),
        )

    def job_part(self, request: Request, job_id: str, seen: str) -> Response:
        """The job page's live part."""
        return self.guarded(
            request, lambda who: self.part(request, "job_part.html", seen, **self._reader.job(who, job_id))
        )

    def explain(self, request: Request, job_id: str) -> Response:
        """Why a job's steps wait, when they are expected to start, and what would start them."""
        return self.guarded(
            request,
            lambda who: self.show(request, "explain.html", **self._reader.explain(who, job_id)),
        )

    def log(self, request: Request, job_id: str, **asked: Any) -> Response:
        """What an attempt printed."""
        return self.guarded(
            request,
            lambda who: self.show(request, "log.html", version="", **self._reader.log(who, job_id, **asked)),
        )

    def log_part(self, request: Request, job_id: str, seen: str, **asked: Any) -> Response:
        """The log page's live part."""
        return self.guarded(
            request, lambda who: self.part(request, "log_part.html", seen, **self._reader.log(who, job_id, **asked))
        )

    def statement(self, request: Request, month: str) -> Response:
        """A month's statement."""
        return self.guarded(
            request, lambda who: self.show(request, "statement.html", **self._reader.statement(who, month))
        )

    def sign_in(self, request: Request, key: str, back: str) -> Response:
        """Check the key, keep it in a cookie that scripts cannot read."""
        try:
            self._doors.operations.authenticate(key.strip())
        except ShisuanError as error:
            return self.login(request, error, _local(back))
        answer = RedirectResponse(_local(back), 303, headers=HEADERS)
        _keep(answer, request, KEY_COOKIE, key.strip())
        answer.delete_cookie(SESSION_COOKIE, path="/")
        return answer

    def login(self, request: Request, error: ShisuanError | None, back: str) -> HTMLResponse:
        """The sign-in page, with what went wrong."""
        problem = error.said(language_of(request)) if isinstance(error, Refused) else str(error or "")
        label = self._sign_in.label if self._sign_in is not None else ""
        return self.show(request, "login.html", 401, problem=problem, back=back, issuer=label)

    def leave(self, request: Request, back: str) -> Response:
        """To the issuer."""
        if self._sign_in is None:
            return self.show(request, "problem.html", 404, title="not_found", message="no OpenID issuer")
        try:
            where, cookie = self._sign_in.begin(_local(back), self._doors.cycle.now_ms())
        except ShisuanError as error:
            return self.login(request, error, _local(back))
        answer = RedirectResponse(where, 303, headers=HEADERS)
        _keep(answer, request, LEAVING_COOKIE, cookie, path=BACK, is_https=self._sign_in.is_https)
        return answer

    def come_back(self, request: Request) -> Response:
        """From the issuer."""
        if self._sign_in is None:
            return self.show(request, "problem.html", 404, title="not_found", message="no OpenID issuer")
        cookie, query = request.cookies.get(LEAVING_COOKIE, ""), dict(request.query_params)
        answer: Response
        try:
            person, until_ms, back = self._sign_in.end(cookie, query, self._doors.cycle.now_ms())
            self._doors.operations.admit(person)
        except ShisuanError as error:
            answer = self.login(request, error, "/")
        else:
            answer = RedirectResponse(_local(back), 303, headers=HEADERS)
            session = self._sessions.of(person, until_ms)
            _keep(answer, request, SESSION_COOKIE, session, is_https=self._sign_in.is_https)
            answer.delete_cookie(KEY_COOKIE, path="/")
        answer.delete_cookie(LEAVING_COOKIE, path=BACK)
        return answer


def router(doors: Doors, people: People) -> APIRouter:
    """The page's addresses: ``/``, ``/jobs/ID``, ``/jobs/ID/explain``, ``/jobs/ID/log``, ``/statement``, ``/sign-in``,
    ``/sign-in/oidc``, ``/sign-out``, ``/zh``, ``/en``, ``/static``.
    """
    pages = Pages(doors, people)
    made = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    @made.get("/")
    def overview(request: Request) -> Response:
        return pages.overview(request)

    @made.get("/parts/overview")
    def overview_part(request: Request, seen: str = "") -> Response:
        return pages.overview_part(request, seen)

    @made.get("/jobs/{job_id}")
    def job(request: Request, job_id: str) -> Response:
        return pages.job(request, job_id)

    @made.get("/jobs/{job_id}/explain")
    def explain(request: Request, job_id: str) -> Response:
        return pages.explain(request, job_id)

    @made.get("/parts/jobs/{job_id}")
    def job_part(request: Request, job_id: str, seen: str = "") -> Response:
        return pages.job_part(request, job_id, seen)

    @made.get("/jobs/{job_id}/log")
    def log(  # noqa: PLR0917 (each is a named query parameter)
        request: Request, job_id: str, task: str = "", attempt: At = 0, rank: At = 0, offset: At = 0
    ) -> Response:
        return pages.log(request, job_id, task=task, attempt=attempt, rank=rank, offset=offset)

    @made.get("/parts/jobs/{job_id}/log")
    def log_part(  # noqa: PLR0917 (each is a named query parameter)
        request: Request, job_id: str, task: str = "", attempt: At = 0, rank: At = 0, offset: At = 0, seen: str = ""
    ) -> Response:
        return pages.log_part(request, job_id, seen, task=task, attempt=attempt, rank=rank, offset=offset)

    @made.get("/statement")
    def statement(request: Request, month: str = "") -> Response:
        return pages.statement(request, month)

    @made.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        # A form of two short fields, decoded here: FastAPI's own way needs one more dependency.
        fields = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
        return await run_in_threadpool(pages.sign_in, request, fields.get("key", ""), fields.get("back", "/"))

    @made.get("/sign-in/oidc")
    def leave(request: Request, back: str = "/") -> Response:
        return pages.leave(request, back)

    @made.get(BACK)
    def come_back(request: Request) -> Response:
        return pages.come_back(request)

    _add_small(made)
    return made


def _add_small(made: APIRouter) -> None:
    """Addresses that need no service."""

    @made.post("/sign-out")
    def sign_out() -> Response:
        answer = RedirectResponse("/", 303, headers=HEADERS)
        for name in (KEY_COOKIE, SESSION_COOKIE):
            answer.delete_cookie(name, path="/")
        return answer

    @made.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _STATIC:
            return Response("not found", 404, headers=HEADERS)
        # Names without a version may change with the next start; a day would show an old page.
        return FileResponse(_STATIC[name], headers={**HEADERS, "Cache-Control": "no-cache"})

    for language in LANGUAGES:
        made.add_api_route(f"/{language}", _speak(language), methods=["GET"])


def _speak(language: str) -> Callable[[Request, str], Response]:
    def speak(request: Request, back: str = "/") -> Response:
        answer = RedirectResponse(_local(back), 303, headers=HEADERS)
        _keep(answer, request, LANGUAGE_COOKIE, language)
        return answer

    return speak


def language_of(request: Request) -> str:
    """Of the reader."""
    return choose(request.cookies.get(LANGUAGE_COOKIE, ""), request.headers.get("accept-language", ""))


def _keep(
    answer: Response, request: Request, name: str, value: str, *, path: str = "/", is_https: bool = False
) -> None:
    is_https = is_https or request.url.scheme == "https"
    answer.set_cookie(name, value, max_age=_MONTH_S, path=path, httponly=True, samesite="lax", secure=is_https)


def _local(path: str) -> str:
    """``path`` when it leads back into this page, else ``/``: a sign-in link must not send readers elsewhere."""
    is_local = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_local else "/"


def _version(html: str) -> str:
    return hashlib.sha256(html.encode()).hexdigest()[:16]
