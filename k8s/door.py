"""The only door to the ``kubernetes`` package: one HTTP request to an API server.

The package finds the server, checks its certificate and keeps the credentials. Its typed models are left aside: a typed
read-then-replace erases what a newer server has added, and they cost ten times as much as JSON.
"""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from k8s.errors import NotAllowed, Unanswered, refusal

if TYPE_CHECKING:
    from kubernetes.client import Configuration

Connect = Callable[[], "Configuration"]
AGENT = "shisuan"
CONNECTIONS = 16
CONNECT_S = 10.0
JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    """Empty values are not sent."""
    body: Any = None
    content: str = JSON
    silence_s: float = 30.0
    """How long the server may say nothing."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def from_kubeconfig(path: str = "", context: str = "") -> Connect:
    """How to connect as a kubeconfig says (empty: the usual places, the current context)."""

    def connect() -> Configuration:
        from kubernetes import config
        from kubernetes.client import Configuration

        made = Configuration()
        try:
            config.load_kube_config(
                config_file=path or None, context=context or None, client_configuration=made, persist_config=False
            )
        except (config.ConfigException, OSError) as error:
            raise NotAllowed(f"kubeconfig {path or 'of this user'}: {error}") from None
        return made

    return connect


def in_cluster() -> Connect:
    """How to connect from inside a pod, as its service account."""

    def connect() -> Configuration:
        from kubernetes import config
        from kubernetes.client import Configuration

        made = Configuration()
        try:
            config.load_incluster_config(client_configuration=made)
        except config.ConfigException as error:
            raise NotAllowed(f"not in a pod with a service account: {error}") from None
        return made

    return connect


class Door:
    """Sends requests. Safe from several threads. Raises KubernetesErrors only."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._link: Any = None
        self._is_closed = False

    def close(self) -> None:
        """Let go of the connections. Harmless twice."""
        with self._lock:
            self._is_closed = True
            if self._link is not None:
                self._link.close()

    def send(self, request: Request) -> Any:
        """The answer, its body not read yet; credentials that have expired are read anew, once."""
        try:
            return _sent(request, self._linked(fresh=False))
        except NotAllowed as error:
            if error.status != 401:
                raise
        return _sent(request, self._linked(fresh=True))

    def _linked(self, *, fresh: bool) -> Any:
        with self._lock:
            # Its parts import each other in a circle: two threads that begin at once would meet half of them.
            from kubernetes.client import rest

            if self._is_closed:
                raise Unanswered("the connection to Kubernetes is closed")
            if self._link is None or fresh:
                told = self._connect()
                told.retries = False  # trying again is decided by the caller
                told.connection_pool_maxsize = CONNECTIONS
                self._link = rest.RESTClientObject(told)
            return self._link


def _sent(request: Request, link: Any) -> Any:
    import urllib3
    from kubernetes.client.exceptions import ApiException

    told = link.configuration
    asked = urlencode({key: value for key, value in request.query.items() if value})
    headers = {"Accept": JSON, "User-Agent": AGENT}
    headers |= {"Content-Type": request.content} if request.body is not None else {}
    headers |= {auth["key"]: auth["value"] for auth in told.auth_settings().values() if auth["value"]}
    url = f"{told.host}{request.path}" + (f"?{asked}" if asked else "")
    limits = (min(CONNECT_S, request.silence_s), request.silence_s)
    try:
        answer = link.request(request.method, url, headers=headers, body=request.body, _request_timeout=limits)
    except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
        raise Unanswered(f"{request}: {error}") from None
    if answer.status >= 300:
        raise refusal(answer.status, body_of(answer.response), answer.response.headers.get("Retry-After", ""))
    return answer.response


def body_of(response: Any) -> bytes:
    """All of an answer. Raises Unanswered when it breaks off."""
    import urllib3

    try:
        return bytes(response.data)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unanswered(f"the answer broke off: {error}") from None


def parsed(data: bytes) -> Any:
    """JSON, with the garbage collector at rest: its passes over what is being built took half the time of a large list,
    and what is parsed holds no cycles. Raises ValueError.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        return json.loads(data)
    finally:
        if was_on:
            gc.enable()


def lines_of(response: Any) -> Iterator[bytes]:
    """An answer that goes on, line by line. Raises Unanswered when it breaks off."""
    import urllib3

    rest = b""
    try:
        for part in response.stream(2**16):
            *lines, rest = (rest + part).split(b"\n")
            yield from lines
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise Unanswered(f"the answer broke off: {error}") from None
    finally:
        response.close()
    if rest:
        raise Unanswered("the answer broke off in the middle of a line")
