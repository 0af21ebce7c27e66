"""The HTTP API, from the user's side. One method does the talking; server messages reach the user word for word."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

from scheduler.cli.exits import CliError, Exit, Unreachable

PAGE = 10_000
"""The service's longest list in one answer."""
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


class ApiError(CliError):
    """The service refused. ``kind`` is the class of the error in ``scheduler.model.errors``."""

    def __init__(self, message: str, *, kind: str, status: int) -> None:
        self.kind = kind
        self.status = status
        super().__init__(message, Exit.UNREACHABLE if status == 503 else Exit.REFUSED)


class Client:
    """Speaks to one service. ``transport`` is for tests."""

    def __init__(self, url: str, key: str, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # No proxy from the environment: the service is this machine's, or named by the user.
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=_TIMEOUT, transport=transport, trust_env=False
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """GET ``/v1`` + ``path``; empty values are left out. Raises ApiError, Unreachable."""
        return self.call("GET", path, params={k: v for k, v in query.items() if v not in (None, "")})

    def pages(self, path: str, name: str, **query: Any) -> list[dict[str, Any]]:
        """Everything of a list that the service gives page by page, each page coming ``after`` the last one's id."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.get(path, **query, after=found[-1]["id"] if found else "")[name]
            found += page
            if len(page) < PAGE:
                return found

    def post(self, path: str, body: Any = None) -> Any:
        """POST ``/v1`` + ``path``. Raises ApiError, Unreachable."""
        return self.call("POST", path, json=body if body is not None else {})

    def put(self, path: str, body: Any) -> Any:
        """PUT ``/v1`` + ``path``. Raises ApiError, Unreachable."""
        return self.call("PUT", path, json=body)

    def delete(self, path: str) -> Any:
        """DELETE ``/v1`` + ``path``. Raises ApiError, Unreachable."""
        return self.call("DELETE", path)

    def call(self, method: str, path: str, **more: Any) -> Any:
        """One request; the decoded JSON body. Raises ApiError, Unreachable."""
        try:
            answer = self._http.request(method, f"/v1{path}", **more)
        except httpx.TransportError as error:
            raise Unreachable(self._silence(error)) from error
        return self._decode(answer)

    def healthy(self) -> bool:
        """Whether the service answers its health check."""
        try:
            return self._http.get("/healthz", timeout=2.0).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def snapshots(self, job_id: str) -> Iterator[dict[str, Any]]:
        """The job each time it changes, until it is final. Raises Unreachable when the stream breaks off."""
        try:
            with self._http.stream("GET", f"/v1/jobs/{job_id}/events", timeout=httpx.Timeout(30.0)) as answer:
                if answer.status_code != httpx.codes.OK:
                    answer.read()
                    self._decode(answer)
                for event, data in parse_events(answer.iter_lines()):
                    if event == "job":
                        yield json.loads(data)
        except httpx.TransportError as error:
            raise Unreachable(self._silence(error)) from error

    def _silence(self, error: httpx.TransportError) -> str:
        if isinstance(error, httpx.TimeoutException):
            return f"the service at {self.url} did not answer in time"
        return f"nothing answers at {self.url}"

    def _decode(self, answer: httpx.Response) -> Any:
        if answer.is_success:
            return answer.json() if answer.content else {}
        try:
            error = answer.json()["error"]
            message = str(error["message"])
            if answer.status_code == httpx.codes.UNAUTHORIZED and "Authorization" not in self._http.headers:
                message = f"no key for {self.url}: set SHISUAN_KEY to yours; an operator makes one with keys create"
            raise ApiError(message, kind=str(error["kind"]), status=answer.status_code)
        except (ValueError, KeyError, TypeError):
            text = f"{self.url} answered {answer.status_code} {answer.reason_phrase}: is this a shisuan service?"
            raise ApiError(text, kind="", status=answer.status_code) from None


def parse_events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Server-sent events as ``(event, data)``; comments and unknown fields are skipped (WHATWG HTML, 9.2.6)."""
    event = "message"
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield event, "\n".join(data)
            event, data = "message", []
        elif line.startswith("event:"):
            event = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
