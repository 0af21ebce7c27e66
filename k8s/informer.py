"""Keeps somebody informed of every object of a kind: list, then watch, and again from where it broke off.

Objects are handed over as raw JSON and not kept: of each only its version stays, so that a list that is read again
tells what has changed and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from k8s.api import PAGE, Api, Object, Page, Watch
from k8s.errors import HistoryGone, KubernetesError
from k8s.resource import Resource

_log = logging.getLogger(__name__)
PATIENCE = 5
"""After so many failures in a row everything is read and told anew: a server that was restored from a backup knows no
version of before, and may give one to something else.
"""
BRIEF_S = 1.0
"""A watch that ended so soon, without a word, is a failure: it must not be asked for again at once."""


class Listener(Protocol):
    """Who is told, on the informer's thread. Being told the same twice must be harmless."""

    def put(self, obj: Object) -> None:
        """There is this object, new or changed."""
        ...

    def drop(self, key: str) -> None:
        """``namespace/name``, or the name of what has no namespace, is gone."""
        ...

    def listed(self) -> None:
        """Everything there is has been told."""
        ...


def key_of(obj: Object) -> str:
    """``namespace/name``, or the name of what has no namespace."""
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


class Informer:
    """One thread that follows one kind until :meth:`close`."""

    def __init__(
        self,
        api: Api,
        resource: Resource,
        listener: Listener,
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        lasts_s: int = 290,
        silence_s: float = 90.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._resource = resource
        self._listener = listener
        self._where = {"namespace": namespace, "labels": labels, "fields": fields}
        self._lasts_s, self._silence_s = lasts_s, silence_s
        self._monotonic = monotonic
        self._versions: dict[str, str] = {}
        """Of every object there is, by key."""
        self._version = ""
        """To go on from; empty: list again."""
        self._failures = 0
        self._closed = threading.Event()
        self._watch: Watch | None = None
        self._lock = threading.Lock()
        self.lists = 0
        """How often everything was read."""
        self.list_s = 0.0
        """How long reading everything took the last time, the listener's time included."""
        self.watches = 0
        self.problem = ""
        """Why it is behind; empty while it follows."""
        self._thread = threading.Thread(target=self._run, name=f"informer-{resource.plural}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def version(self, key: str) -> str:
        """In which an object was told last; empty: it is not there, or not known well enough."""
        return self._versions.get(key, "")

    @property
    def is_alive(self) -> bool:
        """False after :meth:`close`, and when the listener failed."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End and wait until it has. Harmless twice."""
        self._closed.set()
        with self._lock:
            if self._watch is not None:
                self._watch.close()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                if not self._version:
                    self._list()
                self._follow()
            except HistoryGone as gone:
                self._version = ""
                self._failed(gone, patience=1)
            except KubernetesError as error:
                self._failed(error)

    def _failed(self, error: KubernetesError, patience: int = 0) -> None:
        """Wait before the next try; not after the first ``patience`` failures in a row."""
        self._failures += 1
        if self._failures % PATIENCE == 0:
            self._version = ""
            self._versions = dict.fromkeys(self._versions, "")
        if self._closed.is_set():
            return
        self.problem = str(error)
        _log.info("%s: %s (%d in a row)", self._resource.plural, error, self._failures)
        if self._failures > patience:
            wait_s = self._api.backoff.wait_s(self._failures - patience, self._api.draw(), error.retry_after_s)
            self._closed.wait(wait_s)

    # ── list ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _list(self) -> None:
        began = self._monotonic()
        try:
            seen, version = self._read(PAGE)
        except HistoryGone:  # the pages took longer than the server remembers: all at once
            seen, version = self._read(0)
        for key in [key for key in self._versions if key not in seen]:
            del self._versions[key]
            self._listener.drop(key)
        self._version = version
        self._listener.listed()
        self.list_s = self._monotonic() - began
        self.lists += 1

    def _read(self, limit: int) -> tuple[set[str], str]:
        seen: set[str] = set()
        page = Page(items=[], version="")
        for page in self._api.pages(self._resource, **self._where, limit=limit):
            for obj in page.items:
                seen.add(key_of(obj))
                self._put(obj)
        return seen, page.version

    def _put(self, obj: Object) -> None:
        key, version = key_of(obj), obj["metadata"]["resourceVersion"]
        if self._versions.get(key) != version:
            self._versions[key] = version
            self._listener.put(obj)

    # ── watch ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _follow(self) -> None:
        began, events = self._monotonic(), 0
        watch = self._api.watch(
            self._resource, self._version, **self._where, lasts_s=self._lasts_s, silence_s=self._silence_s
        )
        with self._lock:
            self._watch = watch
            if self._closed.is_set():
                watch.close()
        self.watches += 1
        self.problem = ""
        for kind, obj in watch:
            self._hear(kind, obj)
            events += 1
            self._failures = 0
        if not events and self._monotonic() < began + BRIEF_S:
            raise KubernetesError("the watch ended as soon as it had begun")
        self._failures = 0

    def _hear(self, kind: str, obj: Object) -> None:
        self._version = obj["metadata"]["resourceVersion"]
        if kind == "DELETED":
            key = key_of(obj)
            if self._versions.pop(key, None) is not None:
                self._listener.drop(key)
        elif kind != "BOOKMARK":
            self._put(obj)
