"""The double over HTTP: a thread per connection on loopback."""

import json
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from tests.fakes.kube.faults import Fault, Faults, Loss
from tests.fakes.kube.kinds import Kind
from tests.fakes.kube.refusal import Refusal
from tests.fakes.kube.selectors import Malformed, field_selector, label_selector
from tests.fakes.kube.storage import Expired, Key, Storage, Stored
from tests.fakes.kube.verbs import APPLY, Call, Verbs, text_now

PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]+))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?"
)
NAMESPACE_OWN = ("status", "finalize")
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
HEALTH = ("/healthz", "/readyz", "/livez")
MOST_WATCH_S = 1_800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request as an authorizer would judge it, and how it was answered."""

    verb: str
    group: str
    resource: str
    """With its subresource, as a role names it: ``pods/eviction``."""
    namespace: str = ""
    name: str = ""
    agent: str = ""
    query: str = ""
    status: int = 0


class FakeKubernetes:
    """A server that runs from construction to :meth:`close`; use it in a ``with``."""

    def __init__(self, *, seed: int = 0, bookmark_s: float = 60.0, tokens: Iterable[str] = ()) -> None:
        """``tokens``: the bearer tokens that are let in; empty lets everybody in."""
        self.storage = Storage()
        self.verbs = Verbs(self.storage, seed)
        self.faults = Faults()
        self.bookmark_s = bookmark_s
        self.tokens = set(tokens)
        self.seen: list[Seen] = []
        self.is_open = True
        self._watches: set[socket.socket] = set()
        for name in ("default", "kube-system"):
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.double = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="kube", daemon=True)
        self._thread.start()

    def __enter__(self) -> "FakeKubernetes":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.is_open = False
        self._http.shutdown()
        with self.storage.lock:
            self.storage.changed.notify_all()
        self.cut_watches()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    # ── what tests do behind the server's back ───────────────────────────────────────────────────────────────────

    def put(self, obj: Mapping[str, Any]) -> Mapping[str, Any]:
        """Create an object or replace all of it, its status too; no schema is asked. Quick: for thousands of them."""
        kind = self.kind_of(obj)
        meta = dict(obj["metadata"])
        if kind.namespaced:
            meta.setdefault("namespace", "default")
        key = (meta.get("namespace", ""), meta["name"])
        with self.storage.lock:
            before = self.storage.get(kind.table, key)
            now = (
                before.obj["metadata"]
                if before is not None
                else {"uid": self.verbs.new_uid(), "creationTimestamp": text_now()}
            )
            meta |= {k: now[k] for k in ("uid", "creationTimestamp")}
            return self.storage.write(kind.table, key, {**obj, "metadata": meta}).obj

    def get(self, kind: str, name: str, namespace: str = "") -> Mapping[str, Any] | None:
        """An object by its kind's plural, as it is stored."""
        found = self.storage.get(self._plural(kind).table, (namespace, name))
        return found.obj if found is not None else None

    def objects(self, kind: str) -> list[Mapping[str, Any]]:
        """Every object of a kind, by its plural."""
        with self.storage.lock:
            table = self.storage.table(self._plural(kind).table)
            return [table.objects[key].obj for key in table.ordered()]

    def remove(self, kind: str, name: str, namespace: str = "") -> None:
        """An object is gone, whatever its finalizers; its dependents go with it."""
        self.verbs.vanish(Call(kind=self._plural(kind), namespace=namespace, name=name))

    def compact(self, kind: str = "") -> None:
        """History is forgotten: running watches are told 410, and so is who resumes one or continues a list.

        ``kind``: only of this one, by its plural.
        """
        self.storage.compact(self._plural(kind).table if kind else None)
        with self.storage.lock:
            self.storage.changed.notify_all()

    def cut_watches(self) -> None:
        """Break every running watch, without a farewell."""
        for connection in list(self._watches):
            _break(connection)

    def kind_of(self, obj: Mapping[str, Any]) -> Kind:
        wanted = (obj["apiVersion"], obj["kind"])
        return next(k for k in self.verbs.kinds.values() if (k.api_version, k.name) == wanted)

    def _plural(self, plural: str) -> Kind:
        return next(k for k in self.verbs.kinds.values() if k.plural == plural)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    double: FakeKubernetes

    def handle_error(self, *_: Any) -> None:
        """Clients come and go; anything else is a mistake of ours."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


def _break(connection: socket.socket) -> None:
    with suppress(OSError):  # it went by itself
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        try:
            call, verb = self._routed(unquote(url.path), query)
            agent = self.headers.get("User-Agent", "")
            noted = Seen(verb=verb, group="", resource=url.path, query=url.query, agent=agent)
            if call is not None:
                resource = f"{call.kind.plural}/{call.subresource}" if call.subresource else call.kind.plural
                noted = replace(
                    noted, group=call.kind.group, resource=resource, namespace=call.namespace, name=call.name
                )
        except Refusal as refusal:
            self._answer(refusal.code, refusal.status())
            return
        fault = self._double.faults.draw(verb, noted.resource, noted.name)
        try:
            if fault is not None:
                time.sleep(fault.delay_s)
            if fault is not None and (fault.status or fault.loss is Loss.REQUEST):
                self._double.seen.append(replace(noted, status=fault.status))
                self._fail(fault)
                return
            self._authenticate()
            if verb == "watch" and call is not None:
                self._double.seen.append(replace(noted, status=200))
                self._watch(call, fault)
                return
            code, answer = 200, self._discover(url.path) if call is None else self._do(call, verb, body)
            if verb == "create" and call is not None:
                code = 201
        except (Malformed, Refusal, Expired) as error:
            refusal = _refusal(error)
            code, answer = refusal.code, refusal.status()
        self._double.seen.append(replace(noted, status=code))
        if fault is not None and fault.loss is Loss.ANSWER:
            self._hang_up()
        else:
            self._answer(code, answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server's names

    @property
    def _double(self) -> FakeKubernetes:
        return self.server.double

    # ── who, where ───────────────────────────────────────────────────────────────────────────────────────────────

    def _authenticate(self) -> None:
        tokens = self._double.tokens
        if tokens and self.headers.get("Authorization", "").partition(" ")[2] not in tokens:
            raise Refusal(401, "Unauthorized")

    def _routed(self, path: str, query: dict[str, str]) -> tuple[Call | None, str]:
        """What is asked for (None: something about the server itself), and the verb a role would name."""
        found = PATH.fullmatch(path)
        if found is None:
            return None, "get"
        group, version, namespace = found["group"] or "", found["version"], found["namespace"] or ""
        plural, name, sub = found["plural"], found["name"] or "", found["sub"] or ""
        if not group and namespace and plural in NAMESPACE_OWN and not name:
            namespace, plural, name, sub = "", "namespaces", namespace, plural
        kind = self._double.verbs.kinds.get((group, version, plural))
        if kind is None or (sub and sub not in kind.subresources):
            raise Refusal(404, "the server could not find the requested resource")
        verb = VERBS[self.command]
        if verb in ("get", "delete") and not name:
            verb = {"get": "list", "delete": "deletecollection"}[verb]
        if verb == "list" and query.get("watch") in ("1", "true"):
            verb = "watch"
        manager = query.get("fieldManager") or self.headers.get("User-Agent", "unknown").partition("/")[0]
        call = Call(kind=kind, namespace=namespace, name=name, subresource=sub, query=query, manager=manager)
        return call, verb

    def _discover(self, path: str) -> Any:
        if path in HEALTH:
            return "ok"
        if path == "/version":
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.0-double"}
        known = self._double.verbs.kinds.values()
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = sorted({(k.group, k.version) for k in known if k.group})
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(g, groups) for g in sorted({g for g, _ in groups})],
            }
        version = path.removeprefix("/apis/").removeprefix("/api/")
        listed = [entry for kind in known if kind.api_version == version for entry in _listed(kind)]
        if not listed:
            raise Refusal(404, "the server could not find the requested resource")
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": listed}

    # ── doing ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _do(self, call: Call, verb: str, body: bytes) -> Any:
        verbs = self._double.verbs
        if verb == "list":
            return self._list(call)
        if verb == "get":
            return verbs.scale_of(call) if call.subresource == "scale" else verbs.shown(verbs.get(call), call.kind)
        if verb == "deletecollection":
            raise Refusal(405, "the double deletes one object at a time")
        if verb == "delete":
            options = self._read(body) if body else {}
            if options:  # beside a body the query's options are not read
                call = replace(call, query={"dryRun": "".join(options.get("dryRun", ()))})
            gone, at_once = verbs.delete(call, options)
            if at_once and not call.is_dry:
                details = {**call.details, "uid": gone.obj["metadata"]["uid"]}
                return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
            return verbs.shown(gone, call.kind)
        content = self.headers.get("Content-Type", "").partition(";")[0]
        if verb == "patch":
            made = verbs.patch(call, content, self._read(body))
        else:
            made = (verbs.create if verb == "create" else verbs.replace)(call, self._read(body))
        if call.subresource == "scale":
            return verbs.scale_of(call)
        if call.subresource in ("eviction", "binding"):
            return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        return verbs.shown(made, call.kind)

    def _read(self, body: bytes) -> Any:
        try:
            is_yaml = self.headers.get("Content-Type", "").startswith(APPLY) and not body.lstrip().startswith(b"{")
            return yaml.safe_load(body) if is_yaml else json.loads(body)
        except (ValueError, yaml.YAMLError) as error:
            raise Refusal(400, f"the body cannot be read: {error}") from None

    def _list(self, call: Call) -> bytes:
        query, kind, storage = call.query, call.kind, self._double.storage
        version = query.get("resourceVersion", "")
        if version and (not version.isdecimal() or int(version) > storage.version):
            raise Refusal(504, f"Too large resource version: {version}, current: {storage.version}")
        limit = int(query.get("limit") or 0)
        matches = selected(call)
        reached, found, token, left = storage.page(kind.table, matches, limit, query.get("continue", ""))
        meta: dict[str, Any] = {"resourceVersion": str(reached)}
        if token:
            meta["continue"] = token
            if "labelSelector" not in query and "fieldSelector" not in query:
                meta["remainingItemCount"] = left
        head = json.dumps({"kind": f"{kind.name}List", "apiVersion": kind.api_version, "metadata": meta})
        items = b",".join(self._double.verbs.shown(stored, kind) for stored in found)
        return head[:-1].encode() + b',"items":[' + items + b"]}"

    def _watch(self, call: Call, fault: Fault | None) -> None:
        query, kind, double = call.query, call.kind, self._double
        matches, version = selected(call), query.get("resourceVersion", "")
        until = time.monotonic() + min(float(query.get("timeoutSeconds") or MOST_WATCH_S), MOST_WATCH_S)
        bookmark_s = double.bookmark_s if query.get("allowWatchBookmarks") == "true" else MOST_WATCH_S * 2
        self._head(200, {"Transfer-Encoding": "chunked"})
        double._watches.add(self.connection)
        left = fault.cut_after if fault is not None else -1
        try:
            start = int(version or 0)
            if not start:
                with double.storage.lock:
                    start, found, _, _ = double.storage.page(kind.table, matches, 0, "")
                for stored in found:
                    self._event("ADDED", double.verbs.shown(stored, kind))
            events = double.storage.watch(
                kind.table, start, matches, until=until, bookmark_s=bookmark_s, is_open=lambda: double.is_open
            )
            for event in events:
                if event is None:
                    continue
                what, value = event
                if isinstance(value, int):
                    meta = {"resourceVersion": str(value), "creationTimestamp": None}
                    value = {"kind": kind.name, "apiVersion": kind.api_version, "metadata": meta}
                    self._event(what, json.dumps(value).encode())
                    continue
                if left == 0:
                    self._chunk(b'{"type":"MODI')
                    self._hang_up()
                    return
                left -= 1
                self._event(what, double.verbs.shown(value, kind))
            self._chunk(b"")
        except Expired as error:
            self._event("ERROR", json.dumps(_refusal(error).status()).encode())
            self._chunk(b"")
        except OSError:
            self.close_connection = True  # the watcher left
        finally:
            double._watches.discard(self.connection)

    def _event(self, what: str, raw: bytes) -> None:
        self._chunk(b'{"type":"%s","object":%s}\n' % (what.encode(), raw))

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    # ── answering ────────────────────────────────────────────────────────────────────────────────────────────────

    def _fail(self, fault: Fault) -> None:
        if fault.loss is Loss.REQUEST:
            self._hang_up()
            return
        headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
        self._answer(fault.status, Refusal(fault.status, "a fault that was asked for").status(), headers)

    def _answer(self, code: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        try:
            self._head(code, {"Content-Length": str(len(raw)), **(headers or {})}, raw)
        except OSError:
            self.close_connection = True  # nobody waits for the answer any more

    def _head(self, code: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self._headers_buffer.append(b"\r\n")
        data, self._headers_buffer = b"".join(self._headers_buffer), []
        self.wfile.write(data + body)

    def _hang_up(self) -> None:
        self.close_connection = True
        _break(self.connection)


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    return Refusal(410, str(error)) if isinstance(error, Expired) else Refusal(400, str(error))


def selected(call: Call) -> Callable[[Key, Stored], bool]:
    """What a list or watch asks for. Raises Malformed."""
    labels = label_selector(call.query.get("labelSelector", ""))
    wanted = field_selector(call.query.get("fieldSelector", ""), call.kind.fields)
    namespace = call.namespace

    def matches(key: Key, stored: Stored) -> bool:
        return (not namespace or key[0] == namespace) and labels(stored.obj) and wanted(stored.obj)

    return matches


def _group(group: str, known: list[tuple[str, str]]) -> dict[str, Any]:
    versions = [{"groupVersion": f"{g}/{v}", "version": v} for g, v in known if g == group]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _listed(kind: Kind) -> list[dict[str, Any]]:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    entry = {"name": kind.plural, "singularName": kind.name.lower(), "namespaced": kind.namespaced, "kind": kind.name}
    below = [
        {**entry, "name": f"{kind.plural}/{sub}", "verbs": ["get", "patch", "update"]}
        for sub in sorted(kind.subresources)
    ]
    return [{**entry, "verbs": verbs}, *below]
