"""Which of several services leads: a Lease, held as client-go holds one.

Nobody's clock is trusted but one's own: a Lease is free when *this* process has seen it unchanged, by its monotonic
clock, for as long as its holder asked for; and a holder stops by its own clock, earlier than others may take it. It
only makes a failover quick. What keeps two leaders from harm is the database's epoch, which each transaction checks.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from k8s.api import Api, Object, Only
from k8s.errors import Absent, AlreadyThere, KubernetesError, Stale
from k8s.resource import LEASES

_log = logging.getLogger(__name__)
JITTER = 0.2
"""Candidates wait up to so much longer than agreed, so that they do not all ask at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things may take. A failover is complete about ``lease_s + 2 * retry_s`` after the leader's last sign."""

    lease_s: int = 8
    """Others may take a Lease that has not changed for so long; the object holds whole seconds."""
    renew_s: float = 5.0
    """A leader that could not renew for so long is none any more; below ``lease_s``."""
    retry_s: float = 1.0
    """Between two attempts."""

    @classmethod
    def of(cls, lease_s: int) -> Timing:
        """The usual proportions for this length."""
        return cls(lease_s=lease_s, renew_s=lease_s * 5 / 8, retry_s=lease_s / 8)

    @property
    def answer_s(self) -> float:
        """How long one request may take: two fit before a leader has to stop."""
        return self.renew_s / 2


def wall_time() -> datetime:
    """For people who look at the Lease; nothing is decided by it."""
    return datetime.now(UTC)


class Elector:
    """A candidate for one Lease, and its holder once it has it. Give it an :class:`Api` that tries only once.

    One thread is in :meth:`run`, another in :meth:`guard`; anything else may be called from any thread.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        *,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = wall_time,
        wait: Callable[[float], bool] | None = None,
        draw: Callable[[], float] = random.random,
        ails: Callable[[], str] = str,
    ) -> None:
        """``identity`` is never used twice. ``ails``: why this process should lead no longer; empty: it may.

        ``wait`` sleeps so many seconds and says whether :meth:`stop` was called.
        """
        self.timing = timing or Timing()
        self.identity = identity
        self.ails = ails
        self.problem = ""
        """Why the last attempt failed; empty: it did not."""
        self._api, self._namespace, self._name = api, namespace, name
        self._clock, self._wall, self._draw = clock, wall, draw
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._only = Only()
        """The version in which we last saw it."""
        self._spec: Object = {}
        self._changed_s = 0.0
        """When we first saw it so."""
        self._until_s: float | None = None
        """A leader may lead until then; None: not the leader."""

    # ── other threads ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def holder(self) -> str:
        """Who held it when it was last looked at; empty: nobody."""
        return str(self._spec.get("holderIdentity") or "")

    def left_s(self) -> float:
        """How long this process may still lead if it cannot renew; 0 or less: it does not lead."""
        until_s = self._until_s
        return 0.0 if until_s is None else until_s - self._clock()

    def stop(self) -> None:
        """Make :meth:`run` and :meth:`guard` return; the Lease stays as it is."""
        self._stopped.set()

    def release(self) -> None:
        """Give up a Lease that is held, so that a successor need not wait. Only after the last deed of a leader."""
        if self._until_s is None:
            return
        self._until_s = None
        now = self._now()
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now, "acquireTime": now}
        try:
            self._api.merge(LEASES, self._name, {"spec": spec}, self._namespace, only=self._only)
        except KubernetesError as error:
            _log.warning("the Lease could not be released, a successor waits for its end: %s", error)

    # ── the two threads ──────────────────────────────────────────────────────────────────────────────────────────

    def run(self, lead: Callable[[], object], lost: Callable[[str], object]) -> None:
        """Wait for the Lease, call ``lead`` once (it must not block), renew until it is lost, call ``lost`` with why.

        Returns then, or after :meth:`stop`.
        """
        while not self.attempt():
            if self._wait(self._pause_s()):
                return
        lead()
        ailed = ""
        while not self._wait(self.timing.retry_s):
            ails = self.ails()
            if ails and ailed:  # twice in a row: a clock that was set would be believed once
                self.release()
                lost(ails)
                return
            ailed = ails
            if not self.attempt() and self._until_s is None:
                lost(f"{self.holder or 'nobody'} holds the Lease now")
                return

    def guard(self, lost: Callable[[str], object]) -> None:
        """Call ``lost`` when the time to renew is over, even while a request hangs. Start it when leading."""
        while (left_s := self.left_s()) > 0:
            if self._wait(left_s):
                return
        if not self._stopped.is_set() and self._until_s is not None:
            lost(f"the Lease could not be renewed for {self.timing.renew_s:g} s: {self.problem or 'no answer'}")

    # ── one attempt ──────────────────────────────────────────────────────────────────────────────────────────────

    def attempt(self) -> bool:
        """Try once to get or to keep the Lease; whether it is ours now. ``problem``: what the server has against it."""
        began_s = self._clock()
        try:
            holds = self._renewed() if self._until_s is not None else self._taken()
        except KubernetesError as error:
            if str(error) != self.problem:
                _log.warning("the Lease %s/%s: %s", self._namespace, self._name, error)
            self.problem = str(error)
            return False
        self.problem = ""
        # From before the request: others count from when it was done.
        self._until_s = began_s + self.timing.renew_s if holds else None
        return holds

    def _renewed(self) -> bool:
        """Without reading first: nobody else writes it while it is held."""
        try:
            self._write()
        except (Stale, Absent):  # or an answer was lost, and our own write was the last
            return self._taken()
        return True

    def _taken(self) -> bool:
        try:
            self._see(self._api.get(LEASES, self._name, self._namespace))
        except Absent:
            return self._created()
        if self.holder not in ("", self.identity) and self._free_in_s() > 0:
            return False
        try:
            self._write()
        except (Stale, Absent):
            return False  # somebody was faster
        return True

    def _created(self) -> bool:
        body = {"metadata": {"name": self._name}, "spec": {**self._claim(), "leaseTransitions": 0}}
        try:
            self._see(self._api.create(LEASES, body, self._namespace))
        except AlreadyThere:
            return False  # perhaps by us, if an answer was lost: the next look says so
        return True

    def _write(self) -> None:
        spec = self._claim()
        if self.holder == self.identity:
            del spec["acquireTime"]
        else:
            spec["leaseTransitions"] = int(self._spec.get("leaseTransitions") or 0) + 1
        self._see(self._api.merge(LEASES, self._name, {"spec": spec}, self._namespace, only=self._only))

    def _claim(self) -> Object:
        now = self._now()
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.timing.lease_s,
            "acquireTime": now,
            "renewTime": now,
        }

    def _now(self) -> str:
        return self._wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _see(self, lease: Object) -> None:
        meta = lease["metadata"]
        self._only = Only(uid=meta["uid"], version=meta["resourceVersion"])
        spec = lease.get("spec") or {}
        if spec != self._spec:
            self._spec, self._changed_s = spec, self._clock()

    def _free_in_s(self) -> float:
        """When others may take it, by what we have seen. A holder that does not say for how long gets what we do."""
        lease_s = int(self._spec.get("leaseDurationSeconds") or self.timing.lease_s)
        return self._changed_s + lease_s - self._clock()

    def _pause_s(self) -> float:
        """Until the next look: at the end of a Lease somebody holds, if that comes sooner."""
        retry_s = self.timing.retry_s * (1 + JITTER * self._draw())
        left_s = self._free_in_s() if self.holder else 0.0
        return min(retry_s, left_s) if left_s > 0 else retry_s
