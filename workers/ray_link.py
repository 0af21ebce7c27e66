"""The bridge's line to one agent: keeps it alive, hands over what is queued, brings back what it reports.

Two threads: one asks (a single outstanding long poll), one tells. An agent that dies is made again at once with the
same folder: it ends what its predecessor left running and reports it lost. Nothing is told to an agent before its
unacknowledged reports and its inventory were passed on, so an inventory never lacks a lease whose start was reported.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from scheduler.model.lease import AttemptState
from scheduler.model.order import LeaseOrder, LogChunk, Report, ReportKind
from workers.ray_agent import agent_actor

_log = logging.getLogger(__name__)

POLL_MS = 5_000
POLL_LIMIT = 1_000
CALL_S = 30.0
CREATE_S = 90.0
RETRY_S = 0.2
REFUSED_S = 2.0
"""Pause after an agent refused orders (its disk is full), before they are reported lost and may be tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """Something to tell the agent."""

    orders: tuple[LeaseOrder, ...] = ()
    stop: tuple[str, tuple[str, ...]] | None = None
    """Reason and lease ids."""
    cursors: tuple[str, ...] = ()


class AgentLink:
    """``push`` is called with reports in order, their cursors made unique among agents; ``node_id`` gives Ray's present
    id of the node, empty while it is gone.
    """

    def __init__(
        self,
        *,
        node: str,
        tenant: str,
        home: str,
        prefix: str,
        node_id: Callable[[str], str],
        push: Callable[[Sequence[Report]], None],
    ) -> None:
        self.node, self.tenant = node, tenant
        self._home = home
        self._name = f"agent/{prefix}/{node}/{tenant}"
        self._node_id, self._push = node_id, push
        self._news = threading.Condition()
        self._parcels: list[Parcel] = []
        self._handle: Any = None
        self._closed = False
        self.known: tuple[str, ...] = ()
        """Leases in the agent's last inventory."""
        for target in (self._ask, self._tell):
            threading.Thread(target=target, name=f"{target.__name__}-{node}-{tenant}", daemon=True).start()

    def tell(self, parcel: Parcel) -> None:
        """Queue it; it is told in order, again and again until the agent took it."""
        with self._news:
            self._parcels.append(parcel)
            self._news.notify_all()

    def forget(self) -> None:
        """The node is gone and its leases are closed: what was not told any more must not run when it returns."""
        with self._news:
            self._parcels = [Parcel(cursors=parcel.cursors) for parcel in self._parcels if parcel.cursors]

    def close(self) -> None:
        """The node does not come back: end both threads, and drop what was not told."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def wait_ready(self, timeout_s: float) -> bool:
        """The agent lives and has told what it knows."""
        with self._news:
            return self._news.wait_for(lambda: self._handle is not None, timeout_s)

    def read_log(self, attempt_id: str, offset: int, limit: int, rank: int) -> LogChunk:
        """Raises NotFound, or TimeoutError when the agent does not answer."""
        handle = self._handle
        if handle is None:
            raise TimeoutError(f"the agent on {self.node} is not up")
        try:
            chunk: LogChunk = ray.get(handle.read_log.remote(attempt_id, offset, limit, rank), timeout=CALL_S)
        except RayTaskError:
            raise
        except RayError as error:
            raise TimeoutError(f"the agent on {self.node} does not answer: {error!r}") from error
        return chunk

    def free_port(self, ip: str) -> int:
        """A port of that node on which nobody listens. Raises TimeoutError when the agent does not answer."""
        handle = self._handle
        try:
            port: int = ray.get(handle.free_port.remote(ip), timeout=CALL_S)
        except (AttributeError, RayError) as error:
            raise TimeoutError(f"the agent on {self.node} names no free port: {error!r}") from error
        return port

    # -- asking --------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        while not self._closed:
            node_id = self._node_id(self.node)
            if not node_id:
                time.sleep(RETRY_S)
                continue
            try:
                self._listen(node_id)
            except GetTimeoutError:
                _log.warning("%s does not answer and is made again", self._name)
                self._kill()
            except RayTaskError:
                _log.exception("%s failed", self._name)
            except (RayError, ValueError) as error:
                _log.warning("%s is gone and is made again: %s", self._name, _first_line(error))
            with self._news:
                self._handle = None
            time.sleep(RETRY_S)

    def _listen(self, node_id: str) -> None:
        handle = agent_actor(name=self._name, node_id=node_id, node=self.node, tenant=self.tenant, home=self._home)
        cursor, wait_ms, limit_s = "", 0, CREATE_S
        while True:
            reports = ray.get(handle.poll.remote(cursor, wait_ms, POLL_LIMIT), timeout=limit_s)
            self._pass_on(reports)
            cursor = next((r.cursor for r in reversed(reports) if r.cursor), cursor)
            if not wait_ms and len(reports) < POLL_LIMIT:
                inventory = ray.get(handle.inventory.remote(), timeout=CALL_S)
                self.known = inventory.leases
                self._pass_on([inventory])
                wait_ms, limit_s = POLL_MS, POLL_MS / 1_000 + CALL_S
                with self._news:
                    self._handle = handle
                    self._news.notify_all()

    def _pass_on(self, reports: Sequence[Report]) -> None:
        if reports:
            prefix = f"{self.node}/{self.tenant}/"
            self._push([replace(r, cursor=prefix + r.cursor) if r.cursor else r for r in reports])

    def _kill(self) -> None:
        try:
            ray.kill(ray.get_actor(self._name), no_restart=True)
        except (RayError, ValueError) as error:
            _log.info("%s was gone already: %s", self._name, _first_line(error))

    # -- telling -------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._closed or (self._parcels and self._handle is not None))
                if self._closed:
                    return
                parcels, handle = tuple(self._parcels), self._handle
            try:
                refusal = self._hand_over(handle, parcels)
            except RayTaskError:
                _log.exception("%s failed over %d parcels, which are dropped", self._name, len(parcels))
            except RayError as error:
                _log.warning("%s did not take %d parcels: %s", self._name, len(parcels), _first_line(error))
                time.sleep(RETRY_S)
                continue
            else:
                if refusal:
                    self._refused(parcels, refusal)
            with self._news:
                told = set(map(id, parcels))
                self._parcels = [parcel for parcel in self._parcels if id(parcel) not in told]

    @staticmethod
    def _hand_over(handle: Any, parcels: Sequence[Parcel]) -> str:
        orders = tuple(order for parcel in parcels for order in parcel.orders)
        stops = tuple(parcel.stop for parcel in parcels if parcel.stop)
        cursors = tuple(dict.fromkeys(cursor for parcel in parcels for cursor in parcel.cursors))
        refusal: str = ray.get(handle.exchange.remote(orders, stops, cursors), timeout=CALL_S)
        return refusal

    def _refused(self, parcels: Sequence[Parcel], refusal: str) -> None:
        _log.error("%s refused orders: %s", self._name, refusal)
        time.sleep(REFUSED_S)
        orders = [order for parcel in parcels for order in parcel.orders]
        reason = f"the worker refused the order: {refusal}"
        self._push([lost(order, task.attempt_id, reason) for order in orders for task in order.tasks])


def lost(order: LeaseOrder, attempt_id: str, reason: str) -> Report:
    """An attempt that never ran."""
    return Report(
        kind=ReportKind.FINISHED,
        at_ms=time.time_ns() // 1_000_000,
        node=order.node,
        tenant=order.tenant,
        lease_id=order.lease_id,
        attempt_id=attempt_id,
        rank=order.rank,
        state=AttemptState.LOST,
        message=reason,
    )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
