"""A service that is one of several: it waits for the Lease, leads once, and ends when it leads no longer.

Crash-only: a leader never becomes a standby again. Its process ends, and the next one begins as a standby.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
from starlette.types import ASGIApp

from k8s.api import Api
from k8s.backoff import Backoff
from k8s.door import from_kubeconfig, in_cluster
from k8s.endpoint import Endpoint
from k8s.leader import Elector, Timing
from scheduler.api.standby import Front
from scheduler.control.settings import Settings
from scheduler.model.errors import ShisuanError, StaleEpoch

LOADING_S = 60.0
"""A leader that has not begun to serve by then leaves it to another: its way to the database may be cut."""
LOOK_S = 0.5
POD, POD_IP = "SHISUAN_POD", "SHISUAN_POD_IP"
"""Environment: the pod's own name and address."""

log = structlog.get_logger("shisuan.election")


class Running(Protocol):
    """A service that leads."""

    app: ASGIApp

    def still_ms(self) -> int:
        """How long ago its cycle came round."""
        ...

    def check(self) -> None:
        """Ask the database whether it is still the writer. Raises StaleEpoch, StoreError."""
        ...

    def end(self) -> None:
        """Let go of everything; what runs keeps running."""
        ...


class Candidate:
    """One process's part in the election. ``app`` is what it answers, at any time."""

    def __init__(
        self,
        settings: Settings,
        *,
        warm: Callable[[], object],
        begin: Callable[[], Running],
        die: Callable[[str, ShisuanError | None], object],
        ports: Mapping[str, int] | None = None,
    ) -> None:
        """``warm`` does what a leader should not have to wait for; ``begin`` takes the epoch and loads; ``die`` ends
        the process at once; ``ports`` are published beside the API's. Raises KubernetesError when there is no way to
        ask an API server.
        """
        connect = from_kubeconfig(settings.kubeconfig) if settings.kubeconfig else in_cluster()
        connect()  # a file that is not there is said at the start
        timing = Timing.of(settings.lease_s)
        namespace, _, name = settings.elect.partition("/")
        self._api = Api(connect, backoff=Backoff(tries=1), answer_s=timing.answer_s)
        identity = f"{os.environ.get(POD) or socket.gethostname()}_{uuid.uuid4()}"
        self._elector = Elector(self._api, namespace, name, identity, timing=timing, ails=self._ails)
        self._endpoint: Endpoint | None = None
        if settings.publish:
            address = os.environ.get(POD_IP) or settings.host
            self._endpoint = Endpoint(
                self._api, namespace, settings.publish, address, {"http": settings.port, **(ports or {})}
            )
        self._warm, self._begin, self._die = warm, begin, die
        self.app = Front()
        self._running: Running | None = None
        self._elected_s = 0.0
        self._checked_s = 0.0
        """When the database last said that this service is the writer."""
        self._ending = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._live, name="candidate", daemon=True)

    def start(self) -> None:
        """Warm up and stand for election, in threads."""
        self._thread.start()

    def end(self) -> None:
        """A clean stop: the last deed is done before another may lead, and then it need not wait."""
        self._ending = True
        with self._lock:
            if self._running is not None:
                self._running.end()
        self._elector.stop()
        self._thread.join(2 * self._elector.timing.answer_s)
        self._elector.release()
        self._api.close()

    # ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _live(self) -> None:
        try:
            self._warm()
            self.app.is_warm, self.app.says = True, f"a candidate for the Lease as {self._elector.identity}"
            log.info("standby", identity=self._elector.identity)
            self._elector.run(self._lead, self._lost)
        except BaseException:
            self._die("a standby failed", None)
            raise

    def _lead(self) -> None:
        self._elected_s = time.monotonic()
        self.app.says = "elected, loading"
        log.info("elected", identity=self._elector.identity)
        threading.Thread(target=self._elector.guard, args=(self._lost,), name="lease-guard", daemon=True).start()
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def _load(self) -> None:
        try:
            with self._lock:
                if self._ending:
                    return
                running = self._begin()
                self._checked_s = time.monotonic()
                self._running = running
                self.app.serve(running.app)
            threading.Thread(target=self._watch, args=(running,), name="epoch-watch", daemon=True).start()
            log.info("leading", loaded_s=round(time.monotonic() - self._elected_s, 3))
            if self._endpoint is not None:
                self._publish(self._endpoint)
        except ShisuanError as error:
            self._die("elected, but it cannot lead", error)
        except BaseException:
            self._die("elected, but loading failed", None)
            raise

    def _publish(self, endpoint: Endpoint) -> None:
        """The Service points here, from now until another leader's pod takes its place."""
        while not self._ending and not endpoint.publish(lambda: self._elector.left_s() > 0):
            time.sleep(LOOK_S)

    def _watch(self, running: Running) -> None:
        """A leader with nothing to record would not notice that it cannot, nor that another one does."""
        while not self._ending:
            time.sleep(self._elector.timing.retry_s)
            try:
                running.check()
                self._checked_s = time.monotonic()
            except StaleEpoch as error:
                self._lost(str(error))
            except ShisuanError as error:
                log.warning("database_silent", error=str(error))

    def _lost(self, why: str) -> None:
        if not self._ending:
            self._die(f"this service leads no longer: {why}", None)

    def _ails(self) -> str:
        running, elected_s = self._running, time.monotonic() - self._elected_s
        if self._ending:
            return ""
        if running is None:
            return f"it has not loaded within {LOADING_S:g} s" if elected_s > LOADING_S else ""
        most_s = max(self._elector.timing.renew_s, LOOK_S)
        still_s, unchecked_s = running.still_ms() / 1_000, time.monotonic() - self._checked_s
        if unchecked_s > most_s:
            return f"the database has not answered for {unchecked_s:.1f} s"
        return f"its cycle has not come round for {still_s:.1f} s" if still_s > most_s else ""
