"""What shisuan asks of an API server: objects as raw JSON, by kind and name.

Nothing is ever replaced: writes are creations, server-side applies under our field manager, merge patches and
deletions. Each can carry a precondition, names are derived from what they are for, and so each may be repeated.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from k8s.backoff import Backoff
from k8s.door import JSON, Connect, Door, Request, body_of, lines_of, parsed
from k8s.errors import Absent, Busy, Unanswered, refusal
from k8s.resource import Resource

Object = dict[str, Any]
MANAGER = "shisuan"
"""Who owns the fields we apply."""
PAGE = 500
"""Objects per page of a list, as client-go."""
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Only:
    """A precondition: only this object, only in this version. Empty: do not mind."""

    uid: str = ""
    version: str = ""

    def within(self, body: Mapping[str, Any]) -> Object:
        """``body`` with the precondition in its metadata, where patches and applies carry it."""
        wanted = {"uid": self.uid, "resourceVersion": self.version}
        meta = {**body.get("metadata", {}), **{key: value for key, value in wanted.items() if value}}
        return {**body, "metadata": meta} if meta else dict(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Part of a list; ``version`` is the same for all pages of one list."""

    items: list[Object]
    version: str


class Api:
    """An API server. Safe from several threads. Raises KubernetesErrors only."""

    def __init__(
        self,
        connect: Connect,
        *,
        backoff: Backoff | None = None,
        draw: Callable[[], float] = random.random,
        answer_s: float = 30.0,
        manager: str = MANAGER,
    ) -> None:
        """``draw`` gives the jitter of the waits; ``answer_s``: how long the server may be silent."""
        self._manager = manager
        self.backoff = backoff or Backoff()
        self.draw = draw
        self._answer_s = answer_s
        self._closed = threading.Event()
        self._door = Door(connect)

    def close(self) -> None:
        """Let go of the connections and end waits. Harmless twice."""
        self._closed.set()
        self._door.close()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        """One object. Raises Absent."""
        return self._json("GET", resource.path(namespace=namespace, name=name))

    def serves(self, resource: Resource) -> bool:
        """Whether the server has this kind."""
        try:
            listed = self._json("GET", resource.group_path)
        except Absent:
            return False
        return any(entry.get("name") == resource.plural for entry in listed.get("resources", ()))

    def pages(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "", limit: int = PAGE
    ) -> Iterator[Page]:
        """Every object, page by page, as of one moment. Raises HistoryGone when reading took too long."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(limit or "")}
        while True:
            told = self._json("GET", resource.path(namespace=namespace), query)
            meta = told.get("metadata", {})
            yield Page(items=told.get("items") or [], version=meta.get("resourceVersion", ""))
            query["continue"] = meta.get("continue", "")
            if not query["continue"]:
                return

    def watch(
        self,
        resource: Resource,
        version: str,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        lasts_s: int = 290,
        silence_s: float = 90.0,
    ) -> Watch:
        """What changes after ``version``, for about ``lasts_s``. A connection silent for ``silence_s`` is given up:
        servers send a bookmark a minute.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "labelSelector": labels,
            "fieldSelector": fields,
            "timeoutSeconds": str(lasts_s),
        }
        path = resource.path(namespace=namespace)
        return Watch(self._door.send(Request(method="GET", path=path, query=query, silence_s=silence_s)))

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def create(
        self, resource: Resource, body: Mapping[str, Any], namespace: str = "", *, dry_run: bool = False
    ) -> Object:
        """A new object. Raises AlreadyThere; after an answer that was lost it may mean our own first try."""
        query = {"fieldManager": self._manager, **_dry(dry_run)}
        return self._json("POST", resource.path(namespace=namespace), query, _typed(resource, body))

    def apply(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        namespace: str = "",
        *,
        only: Only | None = None,
        force: bool = False,
        dry_run: bool = False,
        subresource: str = "",
        part: str = "",
    ) -> Object:
        """Server-side apply: the fields of ``body`` are so and ours; those we applied before and are not in it go.

        ``part``: what of us wants them so; what others of us applied stays. ``force`` takes fields from other managers.
        With ``only`` it never creates. Raises Stale, Contested.
        """
        path = resource.path(namespace=namespace, name=body["metadata"]["name"], subresource=subresource)
        manager = f"{self._manager}/{part}" if part else self._manager
        query = {"fieldManager": manager, "force": "true" if force else "", **_dry(dry_run)}
        sent = (only or Only()).within(_typed(resource, body))
        return self._json("PATCH", path, query, json.dumps(sent), content=APPLY)

    def merge(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any],
        namespace: str = "",
        *,
        only: Only | None = None,
        dry_run: bool = False,
        subresource: str = "",
    ) -> Object:
        """JSON merge patch: null removes, lists are replaced. Raises Absent, Stale."""
        path = resource.path(namespace=namespace, name=name, subresource=subresource)
        query = {"fieldManager": self._manager, **_dry(dry_run)}
        return self._json("PATCH", path, query, (only or Only()).within(patch), content=MERGE)

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        only: Only | None = None,
        propagation: str = "Background",
        grace_s: int | None = None,
        dry_run: bool = False,
    ) -> bool:
        """Begin the deletion; whether there was anything to delete. Raises Stale."""
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        options |= _preconditions(only) | ({} if grace_s is None else {"gracePeriodSeconds": grace_s})
        options |= {"dryRun": ["All"]} if dry_run else {}  # beside a body a server does not read the query
        try:
            self._json("DELETE", resource.path(namespace=namespace, name=name), body=options)
        except Absent:
            return False
        return True

    def evict(
        self, pods: Resource, name: str, namespace: str, *, only: Only | None = None, dry_run: bool = False
    ) -> bool:
        """Ask a pod to go, budgets respected; whether there was one. Raises BudgetSpent, Stale."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", **_preconditions(only)}
        options |= {"dryRun": ["All"]} if dry_run else {}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
        path = pods.path(namespace=namespace, name=name, subresource="eviction")
        try:
            self._json("POST", path, _dry(dry_run), {**body, "deleteOptions": options})
        except Absent:
            return False
        return True

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _json(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None, *, content: str = JSON
    ) -> Object:
        """The answer, after as many tries as the back-off has. Every write of ours may be repeated."""
        request = Request(
            method=method, path=path, query=query or {}, body=body, content=content, silence_s=self._answer_s
        )
        failures = 0
        while True:
            try:
                return parsed(body_of(self._door.send(request)))
            except (Unanswered, Busy) as error:
                failures += 1
                wait_s = self.backoff.wait_s(failures, self.draw(), error.retry_after_s)
                if failures >= self.backoff.tries or self._closed.wait(wait_s):
                    raise
            except ValueError as error:
                raise Unanswered(f"{request}: the answer is no JSON: {error}") from None


class Watch:
    """A running watch: iterate it once for ``(type, object)``; :meth:`close` ends it from another thread."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        """ADDED, MODIFIED, DELETED and BOOKMARK, until the server ends it. Raises HistoryGone, Unanswered, Busy."""
        for line in lines_of(self._response):
            try:
                event = json.loads(line)
            except ValueError as error:
                raise Unanswered(f"watch: a line is no JSON: {error}") from None
            if event["type"] == "ERROR":
                raise refusal(int(event["object"].get("code") or 500), event["object"])
            yield event["type"], event["object"]

    def close(self) -> None:
        """Make the iteration end with Unanswered. Harmless twice."""
        try:
            self._response.shutdown()
        except (ValueError, OSError, RuntimeError):
            self._response.close()  # it has ended already


def _typed(resource: Resource, body: Mapping[str, Any]) -> Object:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **body}


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _preconditions(only: Only | None) -> Object:
    told = {"uid": only.uid, "resourceVersion": only.version} if only is not None else {}
    told = {key: value for key, value in told.items() if value}
    return {"preconditions": told} if told else {}
